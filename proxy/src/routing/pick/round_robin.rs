//! Smooth weighted round robin, as nginx has it: in a round each comes as often as its weight says, and never all of
//! its turns at once. (Commit 52327e0627f49dbda1e8db695e63a4b0af4448b1 of nginx, "Upstream: smooth weighted
//! round-robin balancing".)

use super::Candidate;

/// Each gains its weight, the one with most is next, and pays for all. `turns` is what each has, by its index; the
/// sum of those who take part stays as it is, so no turn grows without bound.
pub fn pick<'a>(turns: &mut [i64], among: impl Iterator<Item = (usize, &'a Candidate<'a>)>) -> Option<usize> {
    let mut total = 0i64;
    let mut next: Option<(usize, i64)> = None;
    for (index, candidate) in among {
        let gained = i64::try_from(candidate.weight).unwrap_or(i64::MAX);
        let Some(turn) = turns.get_mut(index) else { continue };
        *turn = turn.saturating_add(gained);
        total = total.saturating_add(gained);
        if next.is_none_or(|(_, most)| *turn > most) {
            next = Some((index, *turn));
        }
    }
    let (index, most) = next?;
    turns[index] = most.saturating_sub(total);
    Some(index)
}
