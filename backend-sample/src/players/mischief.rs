//! What players do to a server on order: stop reading, send all they can, ask for a burst, or leave.
//!
//! Who does it follows from the order's seed. Every frame is still checked, but for what those who left are owed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::players::bot::Bot;
use crate::players::swarm::Swarm;
use crate::wire::{Ask, MAX_BURST};

/// Frames that one flood sends at most, however fast they are taken; from within a match, a share of them, as each is
/// told to every member.
const FLOOD_FRAMES: u32 = 20_000;
/// A flood makes no new frames while more than this is unsent: it is held up, and that is the point.
const FLOOD_UNSENT_BYTES: usize = 64 * 1024;
/// Frames of one flood before the other players get their turn.
const FRAMES_A_TURN: u32 = 200;
/// How often a player who doesn't read looks whether it may again.
const DEAF_STEP: Duration = Duration::from_millis(5);
const MAX_DURATION_MS: u64 = 600_000;

/// One order about some of the players, picked by `seed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mischief {
    pub kind: Kind,
    pub players: usize,
    pub seed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Don't read for so long, and send all that is taken meanwhile: what comes back fills every buffer on the way.
    Slow(Duration),
    /// Send all that is taken for so long.
    Flood(Duration),
    /// Ask for so many ticks at once.
    Burst(u32),
    /// Close the connection.
    Leave,
}

impl Mischief {
    /// `slow N MS SEED`, `flood N MS SEED`, `burst N TICKS SEED`, `leave N SEED`.
    pub(super) fn parse(word: &str, rest: &str) -> Result<Self, String> {
        let numbers: Vec<u64> = rest.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let expected = || match word {
            "leave" => format!("leave {rest:?}: expected leave PLAYERS SEED"),
            "burst" => {
                format!("burst {rest:?}: expected burst PLAYERS TICKS SEED, of at most {MAX_BURST} ticks")
            }
            _ => format!("{word} {rest:?}: expected {word} PLAYERS MS SEED, of at most {MAX_DURATION_MS} ms"),
        };
        let duration = |ms: u64| (ms <= MAX_DURATION_MS).then(|| Duration::from_millis(ms));
        let (kind, players, seed) = match (word, &numbers[..]) {
            ("leave", &[players, seed]) => (Some(Kind::Leave), players, seed),
            ("slow", &[players, ms, seed]) => (duration(ms).map(Kind::Slow), players, seed),
            ("flood", &[players, ms, seed]) => (duration(ms).map(Kind::Flood), players, seed),
            ("burst", &[players, ticks, seed]) => {
                let ticks = u32::try_from(ticks).ok().filter(|ticks| *ticks <= MAX_BURST);
                (ticks.map(Kind::Burst), players, seed)
            }
            _ => return Err(expected()),
        };
        let players = usize::try_from(players).map_err(|_| expected())?;
        Ok(Self { kind: kind.ok_or_else(expected)?, players, seed })
    }
}

/// Who floods now.
#[derive(Default)]
pub(super) struct Floods(RefCell<Vec<Flood>>);

struct Flood {
    bot: Rc<Bot>,
    until_us: u64,
    frames_left: u32,
}

impl Swarm {
    /// Returns how many players it concerns: fewer than asked for if there aren't so many.
    pub fn misbehave(&self, mischief: &Mischief) -> u64 {
        let chosen = self.choose(mischief.players, mischief.seed);
        let now_us = self.now_us();
        let flood = |bot: &Rc<Bot>, until_us| {
            let frames_left = FLOOD_FRAMES / self.told_to(bot);
            let flood = Flood { bot: bot.clone(), until_us, frames_left };
            self.floods.0.borrow_mut().push(flood);
        };
        for bot in &chosen {
            match mischief.kind {
                Kind::Slow(time) => {
                    let until_us = now_us + time.as_micros() as u64;
                    bot.deaf_until_us.set(until_us);
                    flood(bot, until_us);
                }
                Kind::Flood(time) => flood(bot, now_us + time.as_micros() as u64),
                Kind::Burst(ticks) => drop(self.send_asking(bot, Some(Ask::Burst(ticks)))),
                Kind::Leave => {
                    bot.leave();
                    self.left.set(self.left.get() + 1);
                }
            }
        }
        chosen.len() as u64
    }

    fn choose(&self, players: usize, seed: u64) -> Vec<Rc<Bot>> {
        let alive: Vec<Rc<Bot>> = self.bots.borrow().iter().filter(|bot| bot.is_alive()).cloned().collect();
        let mut random = fastrand::Rng::with_seed(seed);
        random.choose_multiple(alive, players)
    }

    /// Sends what those who flood get rid of.
    pub(super) fn flood(&self) {
        let now_us = self.now_us();
        self.floods.0.borrow_mut().retain_mut(|flood| {
            for _ in 0..FRAMES_A_TURN.min(flood.frames_left) {
                if flood.bot.unsent_bytes() > FLOOD_UNSENT_BYTES || !self.send(&flood.bot) {
                    flood.bot.flush();
                    break;
                }
                flood.frames_left -= 1;
            }
            flood.frames_left > 0 && now_us < flood.until_us && flood.bot.is_alive() && !self.is_stopping()
        });
    }

    /// Waits while this player is told not to read.
    pub(super) async fn listens(&self, bot: &Bot) {
        while self.now_us() < bot.deaf_until_us.get() {
            tokio::time::sleep(DEAF_STEP).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_name_players_amounts_and_a_seed() {
        let parse = |line: &str| {
            let (word, rest) = line.split_once(' ').unwrap();
            Mischief::parse(word, rest)
        };
        let slow = Kind::Slow(Duration::from_millis(500));
        assert_eq!(parse("slow 3 500 9"), Ok(Mischief { kind: slow, players: 3, seed: 9 }));
        assert_eq!(parse("burst 1 200 9"), Ok(Mischief { kind: Kind::Burst(200), players: 1, seed: 9 }));
        assert_eq!(parse("leave 2 9"), Ok(Mischief { kind: Kind::Leave, players: 2, seed: 9 }));
        for wrong in ["slow 3 500", "flood a b c", "leave 2", "burst 1 9999999 3", "flood 1 99999999 3"] {
            assert!(parse(wrong).unwrap_err().contains("expected"), "{wrong}");
        }
    }
}
