//! The helper finds what it is for, and nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::context::Context;
use crate::game::{Opening, Refusal, Session};

const TICK: Tag = Tag(1);
const LOAD: Tag = Tag(2);

/// What a [`Bag`] takes from where it mustn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sin {
    None,
    Clock,
    Order,
    Epoch,
    Shared,
    ForgetsTicks,
    ForgetsInChange,
    AsksAtRandom,
}

struct Bags(Sin);

static SHARED: AtomicU64 = AtomicU64::new(0);
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Counts the words that the player has sent.
struct Bag {
    sin: Sin,
    words: HashMap<String, u64>,
    ticks: u64,
    loading: bool,
}

impl Game for Bags {
    type Session = Bag;

    fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Bag, Refusal> {
        let mut bag = Bag { sin: self.0, words: HashMap::new(), ticks: 0, loading: false };
        if let Opening::State(bytes) | Opening::Recovered(bytes) = opening {
            let text = std::str::from_utf8(bytes).map_err(|_| Refusal::for_good("text"))?;
            for line in text.lines() {
                let (word, count) = line.split_once(' ').ok_or(Refusal::for_good("line"))?;
                let count = count.parse().map_err(|_| Refusal::for_good("count"))?;
                match word {
                    "#ticks" => bag.ticks = count,
                    "#loading" => bag.loading = count > 0,
                    _ => drop(bag.words.insert(word.into(), count)),
                }
            }
        } else {
            context.send(b"welcome");
        }
        context.every(TICK, Duration::from_millis(100));
        if bag.loading {
            context.spawn(LOAD, async { Vec::new() });
        }
        Ok(bag)
    }
}

impl Bag {
    fn add(&mut self, word: &str) {
        *self.words.entry(word.into()).or_default() += 1;
    }

    fn tell(&self, context: &mut Context<'_>) {
        let mut words: Vec<_> = self.words.iter().map(|(word, count)| format!("{word}={count}")).collect();
        if self.sin != Sin::Order {
            words.sort();
        }
        context.send(words.join(",").as_bytes());
    }
}

impl Session for Bag {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        let word = std::str::from_utf8(frame).unwrap_or("?").to_owned();
        match word.as_str() {
            "now" => context.send(format!("{:?}", context.now()).as_bytes()),
            "random" => {
                let number = context.random();
                context.send(&number.to_le_bytes());
            }
            "load" => {
                self.loading = true;
                context.spawn(LOAD, async { Vec::new() });
                context.change(b"load");
            }
            "quit" => return context.close(),
            _ => {
                self.add(&word);
                if self.sin != Sin::ForgetsInChange || word != "b" {
                    context.change(word.as_bytes());
                }
            }
        }
        match self.sin {
            Sin::Clock => context.send(format!("{:?}", SystemTime::now()).as_bytes()),
            Sin::Epoch => context.send(context.epoch().to_string().as_bytes()),
            Sin::Shared => {
                let number = SHARED.fetch_add(1, Ordering::Relaxed);
                context.send(&number.to_le_bytes());
            }
            Sin::AsksAtRandom if ASKED.fetch_add(1, Ordering::Relaxed) % 3 == 1 => drop(context.now()),
            _ => self.tell(context),
        }
    }

    fn timer(&mut self, _: Tag, context: &mut Context<'_>) {
        self.ticks += 1;
        context.change(b"#tick");
        context.send(format!("tick {} {:?}", self.ticks, context.now()).as_bytes());
    }

    fn finished(&mut self, _: Tag, result: &[u8], context: &mut Context<'_>) {
        self.loading = false;
        context.change(b"#loaded");
        context.send(result);
    }

    fn apply(&mut self, change: &[u8], context: &mut Context<'_>) {
        match change {
            b"#tick" => self.ticks += 1,
            b"#loaded" => self.loading = false,
            b"load" => {
                self.loading = true;
                context.spawn(LOAD, async { Vec::new() });
            }
            word => self.add(std::str::from_utf8(word).unwrap_or("?")),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut lines: Vec<_> = self.words.iter().map(|(word, count)| format!("{word} {count}\n")).collect();
        lines.sort();
        let ticks = if self.sin == Sin::ForgetsTicks { 0 } else { self.ticks };
        format!("#ticks {ticks}\n#loading {}\n{}", u64::from(self.loading), lines.concat()).into_bytes()
    }

    fn closed(&mut self, context: &mut Context<'_>) {
        context.send(format!("bye at {:?}", context.now()).as_bytes());
    }
}

fn script() -> Script {
    let wait = Duration::from_millis(130);
    let words = Script::new().frame("a").frame("now").wait(wait).frame("b").frame("load").frame("c");
    words.wait(wait).finish(LOAD, "loaded").frame("random").frame("d").frame("now").frame("a").wait(wait * 2)
}

fn replay(sin: Sin) -> Result<(), Difference> {
    check_replay(|| Bags(sin), &script())
}

fn deltas(sin: Sin) -> Result<(), Difference> {
    check_deltas(|| Bags(sin), &script())
}

#[test]
fn a_game_that_asks_only_its_context_is_the_same_each_time() {
    for end in [script(), script().frame("quit"), script().close()] {
        assert_eq!(check_replay(|| Bags(Sin::None), &end), Ok(()));
        assert_eq!(check_deltas(|| Bags(Sin::None), &end), Ok(()));
    }
}

#[test]
fn a_clock_of_its_own_is_found_at_the_frame_that_reads_it() {
    let difference = replay(Sin::Clock).unwrap_err();
    assert_eq!((difference.from, difference.input.as_str()), (None, "client frame 1"));
    assert!(matches!(difference.what, What::Frame { number: 2, .. }), "{difference}");
}

#[test]
fn the_order_of_a_hash_map_is_found() {
    let words = ["e", "f", "g", "h", "i", "j"].iter().fold(script(), |script, word| script.frame(*word));
    let difference = check_replay(|| Bags(Sin::Order), &words).unwrap_err();
    assert!(matches!(difference.what, What::Frame { .. }), "{difference}");
}

#[test]
fn what_comes_from_the_epoch_or_from_other_sessions_is_found() {
    for sin in [Sin::Epoch, Sin::Shared] {
        let difference = replay(sin).unwrap_err();
        assert!(matches!(difference.what, What::Frame { number: 2, .. }), "{difference}");
    }
}

#[test]
fn a_snapshot_that_forgets_something_is_found_at_the_first_input_that_shows_it() {
    let difference = replay(Sin::ForgetsTicks).unwrap_err();
    assert!(difference.from.is_some(), "{difference}");
    assert!(difference.input.starts_with("a timer"), "{difference}");
}

#[test]
fn a_time_asked_for_in_one_run_only_is_found() {
    let script = Script::new().frame("a").frame("b").frame("c").frame("d");
    let difference = check_replay(|| Bags(Sin::AsksAtRandom), &script).unwrap_err();
    assert!(matches!(&difference.what, What::Ended(text) if text.contains("Diverged")), "{difference}");
}

#[test]
fn a_change_that_tells_too_little_is_found() {
    assert_eq!(replay(Sin::ForgetsInChange), Ok(()));
    let difference = deltas(Sin::ForgetsInChange).unwrap_err();
    assert_eq!(difference.input, "the change after client frame 3");
    assert!(difference.to_string().contains("#ticks 1"), "{difference}");
}

#[test]
fn a_game_that_tells_changes_and_does_not_apply_them_is_told_so() {
    struct Mute;
    struct Nothing;
    impl Game for Mute {
        type Session = Nothing;
        fn open(&self, _: Opening<'_>, _: &mut Context<'_>) -> Result<Nothing, Refusal> {
            Ok(Nothing)
        }
    }
    impl Session for Nothing {
        fn frame(&mut self, _: &[u8], context: &mut Context<'_>) {
            context.change(b"something");
        }
        fn snapshot(&self) -> Vec<u8> {
            Vec::new()
        }
    }
    let difference = check_deltas(|| Mute, &Script::new().frame("a")).unwrap_err();
    assert!(difference.to_string().contains("Session::apply is not implemented"), "{difference}");
}

mod groups {
    use std::collections::BTreeMap;

    use holdfast_protocol::SessionId;

    use super::*;
    use crate::group::{Group, GroupContext, Newcomer};

    /// Counts what each member has sent.
    #[derive(Default)]
    struct Counts {
        by_member: BTreeMap<SessionId, u64>,
        asks_clock: bool,
        forgets: bool,
    }

    struct Counting {
        asks_clock: bool,
        forgets: bool,
    }

    impl Game for Counting {
        type Session = Bag;

        fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Bag, Refusal> {
            Bags(Sin::None).open(opening, context)
        }

        fn open_group(
            &self,
            opening: Opening<'_>,
            _: &mut GroupContext<'_>,
        ) -> Result<Box<dyn Group>, Refusal> {
            let mut counts =
                Counts { asks_clock: self.asks_clock, forgets: self.forgets, ..Counts::default() };
            if let Opening::State(bytes) = opening {
                counts.read(bytes);
            }
            Ok(Box::new(counts))
        }
    }

    impl Counts {
        fn read(&mut self, bytes: &[u8]) {
            self.by_member = bytes[1..]
                .chunks(17)
                .map(|it| (SessionId(it[..16].try_into().unwrap()), it[16].into()))
                .collect();
        }
    }

    impl Group for Counts {
        fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal> {
            self.by_member.insert(newcomer.session, newcomer.state.len() as u64);
            context.broadcast(b"welcome");
            context.every(TICK, Duration::from_millis(100));
            context.change(&self.snapshot());
            Ok(())
        }

        fn frame(&mut self, member: SessionId, frame: &[u8], context: &mut GroupContext<'_>) {
            *self.by_member.get_mut(&member).unwrap() += 1;
            if self.asks_clock {
                context.broadcast(format!("{:?}", SystemTime::now()).as_bytes());
            }
            if frame == b"leave" {
                let count = self.by_member.remove(&member).unwrap();
                context.leave(member, &[u8::try_from(count).unwrap()]);
            }
            let change = if self.forgets { Vec::new() } else { self.snapshot() };
            context.change(&change);
            context.broadcast(frame);
        }

        fn left(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
            self.by_member.remove(&member);
            context.change(&self.snapshot());
        }

        fn timer(&mut self, _: Tag, context: &mut GroupContext<'_>) {
            let number = context.random().to_string();
            context.broadcast(number.as_bytes());
        }

        fn apply(&mut self, change: &[u8], _: &mut GroupContext<'_>) {
            self.read(change);
        }

        fn snapshot(&self) -> Vec<u8> {
            let one = |(id, count): (&SessionId, &u64)| [id.0.as_slice(), &[*count as u8]].concat();
            // An empty change would be none.
            std::iter::once(0).chain(self.by_member.iter().flat_map(one)).collect()
        }
    }

    fn script() -> GroupScript {
        let (a, b) = (SessionId([1; 16]), SessionId([2; 16]));
        let script = GroupScript::new().join(a, b"abc").frame(a, "x").join(b, &[7; 30]);
        let script = script.wait(Duration::from_millis(250)).frame(b, "y").frame(a, "leave").frame(a, "z");
        script.frame(b, "y").left(b).join(a, b"again")
    }

    #[test]
    fn a_group_that_asks_only_its_context_is_the_same_each_time() {
        let game = || Counting { asks_clock: false, forgets: false };
        assert_eq!(check_group_replay(game, &script()), Ok(()));
        assert_eq!(check_group_deltas(game, &script()), Ok(()));
    }

    #[test]
    fn what_a_group_takes_from_a_clock_of_its_own_or_leaves_out_of_a_change_is_found() {
        let difference =
            check_group_replay(|| Counting { asks_clock: true, forgets: false }, &script()).unwrap_err();
        assert!(matches!(difference.what, What::Frame { .. }), "{difference}");
        let difference =
            check_group_deltas(|| Counting { asks_clock: false, forgets: true }, &script()).unwrap_err();
        assert!(matches!(difference.what, What::State { .. }), "{difference}");
    }
}
