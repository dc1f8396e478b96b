//! The power of two choices: two are drawn by weight, and the one with fewer sessions (or less load) for its weight is it. Workers
//! and proxies that don't know each other's counts so don't all run to the same backend.

use super::least_sessions::by_load;
use super::{Candidate, rendezvous};

pub fn pick<'a>(seed: u64, among: impl Iterator<Item = (usize, &'a Candidate<'a>)>) -> Option<usize> {
    let (first, second) = draw(seed, among)?;
    let better = second.filter(|second| by_load(second.1, first.1).is_lt());
    Some(better.unwrap_or(first).0)
}

type Drawn<'a> = (usize, &'a Candidate<'a>);

/// The two with the lowest scores are two draws by weight without putting back.
pub fn draw<'a>(seed: u64, among: impl Iterator<Item = Drawn<'a>>) -> Option<(Drawn<'a>, Option<Drawn<'a>>)> {
    let mut lowest: [Option<(f64, Drawn<'a>)>; 2] = [None, None];
    for drawn in among {
        let score = rendezvous(seed, &drawn.1.backend.id.name, drawn.1.weight);
        if lowest[0].is_none_or(|(least, _)| score < least) {
            lowest = [Some((score, drawn)), lowest[0]];
        } else if lowest[1].is_none_or(|(next, _)| score < next) {
            lowest[1] = Some((score, drawn));
        }
    }
    let [first, second] = lowest.map(|drawn| drawn.map(|(_, drawn)| drawn));
    Some((first?, second))
}
