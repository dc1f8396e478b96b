//! Which players are in which match, and when one leaves and comes back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_backend::GroupId;

use crate::players::bot::Bot;
use crate::players::swarm::Swarm;
use crate::players::watch::Whereabouts;
use crate::wire::Ask;

/// How players are put in matches.
#[derive(Debug, Clone, Copy)]
pub struct MatchRules {
    /// Players of a match; the last one to be filled may have fewer.
    pub size: usize,
    /// How many of the players play in matches.
    pub share_percent: usize,
    /// Each player leaves its match after about so long, and then comes back to it or to another one.
    pub rematch: Option<Duration>,
    /// Stands in each match's id; players of two processes with the same one meet. None: they never do.
    pub id: Option<u64>,
}

/// The matches of this process.
pub(super) struct Matches {
    rules: Option<MatchRules>,
    /// Stands in each match's id.
    process: u64,
    filling: RefCell<Filling>,
}

#[derive(Default)]
struct Filling {
    /// Matches of all targets.
    count: u64,
    /// A match's members come through one proxy: each place to connect to has matches of its own.
    by_target: BTreeMap<String, Table>,
}

#[derive(Default)]
struct Table {
    players: usize,
    games: Vec<GroupId>,
}

impl Matches {
    pub fn new(rules: Option<MatchRules>) -> Self {
        let process = rules.and_then(|rules| rules.id).unwrap_or_else(|| fastrand::u64(1..));
        Self { rules, process, filling: RefCell::default() }
    }

    /// The match of a player who comes; None: that one plays alone.
    pub fn assign(&self, index: usize, target: &str) -> Option<GroupId> {
        let rules = self.rules?;
        // Spread evenly over those who come.
        let share = |players: usize| players * rules.share_percent / 100;
        if share(index + 1) == share(index) {
            return None;
        }
        let filling = &mut *self.filling.borrow_mut();
        let table = filling.by_target.entry(target.to_owned()).or_default();
        if table.players.is_multiple_of(rules.size) {
            filling.count += 1;
            let id = u128::from(self.process) << 64 | u128::from(filling.count);
            table.games.push(GroupId(id.to_be_bytes()));
        }
        table.players += 1;
        table.games.last().copied()
    }

    /// Some match of those who connect there.
    fn any(&self, target: &str) -> Option<GroupId> {
        let filling = self.filling.borrow();
        let games = &filling.by_target.get(target)?.games;
        fastrand::choice(games).copied()
    }
}

impl Swarm {
    /// A player who has just come asks to be in this match.
    pub(super) fn seek(&self, bot: &Bot, game: Option<GroupId>) {
        let Some(game) = game else { return };
        bot.look(|it| it.asks.push_back(Ask::Match(game)));
        self.plan_rematch(bot);
    }

    fn plan_rematch(&self, bot: &Bot) {
        if let Some(period) = self.matches.rules.and_then(|rules| rules.rematch) {
            let wait_us = period.mul_f64(0.5 + fastrand::f64()).as_micros() as u64;
            bot.rematch_us.set(self.now_us() + wait_us);
        }
    }

    /// When it is time, the player leaves its match, every other time for another one at once; or comes back to one.
    pub(super) fn rematch(&self, bot: &Bot) {
        if self.now_us() < bot.rematch_us.get() {
            return;
        }
        let game = || self.matches.any(&bot.target).map(Ask::Match);
        bot.look(|it| match it.checker.watch.whereabouts() {
            Whereabouts::Alone => it.asks.extend(game()),
            Whereabouts::InMatch => {
                it.asks.push_back(Ask::Leave);
                it.asks.extend(game().filter(|_| fastrand::bool()));
            }
            Whereabouts::Between => {}
        });
        self.plan_rematch(bot);
    }

    /// How many are told of each of this player's frames.
    pub(super) fn told_to(&self, bot: &Bot) -> u32 {
        let size = self.matches.rules.map_or(1, |rules| rules.size as u32);
        if bot.look(|it| it.checker.watch.is_in_match()) { size.max(1) } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(size: usize, share_percent: usize) -> Matches {
        Matches::new(Some(MatchRules { size, share_percent, rematch: None, id: None }))
    }

    fn sizes(assigned: impl Iterator<Item = Option<GroupId>>) -> Vec<usize> {
        let mut sizes = BTreeMap::<GroupId, usize>::new();
        assigned.flatten().for_each(|game| *sizes.entry(game).or_default() += 1);
        sizes.into_values().collect()
    }

    #[test]
    fn players_of_one_place_fill_one_match_after_the_other() {
        let matches = matches(4, 100);
        let assigned = (0..20).map(|index| matches.assign(index, if index % 2 == 0 { "a" } else { "b" }));
        let assigned: Vec<_> = assigned.collect();
        assert_eq!(sizes(assigned.iter().copied()), [4, 4, 4, 4, 2, 2]);
        assert!((0..19).all(|index| assigned[index] != assigned[index + 1]), "one through each place");
        let mine = |game: GroupId| assigned.iter().step_by(2).any(|other| *other == Some(game));
        assert!((0..50).all(|_| matches.any("a").is_some_and(mine)));
    }

    #[test]
    fn a_share_plays_in_matches_spread_over_those_who_come() {
        let matches = matches(5, 30);
        let assigned: Vec<_> = (0..100).map(|index| matches.assign(index, "a")).collect();
        assert_eq!(sizes(assigned.iter().copied()), [5; 6]);
        assert_eq!(assigned[..50].iter().flatten().count(), 15);
    }

    #[test]
    fn ids_of_two_processes_differ() {
        assert_ne!(matches(2, 100).assign(0, "a"), matches(2, 100).assign(0, "a"));
        let named =
            || Matches::new(Some(MatchRules { size: 2, share_percent: 100, rematch: None, id: Some(7) }));
        assert_eq!(named().assign(0, "a"), named().assign(0, "b"), "of the same name");
        assert_eq!(Matches::new(None).assign(0, "a"), None);
    }
}
