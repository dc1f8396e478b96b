//! Whatever its members do, wherever links are cut and messages lost with them, whenever the backend is killed: brought
//! back from any checkpoint, a group says what it said, and is what it was. And no ack ever passes a departure that the
//! proxy hasn't taken.

use std::collections::{BTreeSet, VecDeque};

use holdfast_protocol::message::{Attach, AttachMode, Checkpoint, Recovery};
use holdfast_protocol::{Epoch, Seq};
use proptest::prelude::*;

use super::*;
use crate::testing::keeper::{Keeper, Kept};

#[derive(Debug, Clone)]
enum Step {
    /// What a member does, as [`frames_of`] reads it.
    Give(u8, &'static str),
    /// A newcomer comes, if they aren't there; with so long a state, in parts.
    Join(u8, usize),
    /// One more part of those who are coming.
    Part,
    Pass(u64),
    Finish,
    /// The proxy takes so many server frames.
    Ack(u64),
    Checkpoint,
    Freeze,
    /// The link is lost with all that was said on it since these: a member's frame each.
    LoseAndResume(Vec<(u8, &'static str)>),
    Detached(u64),
}

/// A backend, and the proxy's memory of the group on it.
struct Pair {
    world: World,
    keeper: Keeper,
    epoch: u64,
    taken: Seq,
    generation: u64,
    states: Vec<Kept>,
    /// Who is in the group, or on the way.
    inside: BTreeSet<u8>,
    /// Whose connections are closed.
    gone: BTreeSet<u8>,
    /// Parts of arrivals, not given yet.
    parts: VecDeque<Vec<u8>>,
    /// The highest ack so far.
    acked: Seq,
    /// Departures that have come: where, and after which client frame.
    departures: Vec<(Seq, Seq)>,
    /// The client seq of the departure whose parts come.
    departing: Option<Seq>,
}

impl Pair {
    fn new(level: Recovery) -> Self {
        let mut pair = Self::around(Keeper::new(Subject::Group(group(1)), level));
        pair.bring_back(None);
        pair
    }

    fn around(keeper: Keeper) -> Self {
        Self {
            world: World::with(group_settings(), Puppets::default()),
            keeper,
            epoch: 1,
            taken: Seq::NONE,
            generation: 1,
            states: Vec::new(),
            inside: BTreeSet::new(),
            gone: BTreeSet::new(),
            parts: VecDeque::new(),
            acked: Seq::NONE,
            departures: Vec::new(),
            departing: None,
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        let out = self.world.say(message.clone());
        self.hear(&out);
    }

    fn hear(&mut self, out: &[Message<'_>]) {
        for message in out {
            let had = self.keeper.last_server_seq();
            self.keeper.take(message).unwrap();
            let new: Vec<_> =
                self.keeper.frames.range(had.next()..).map(|(seq, it)| (*seq, it.clone())).collect();
            self.check_ack(message);
            new.iter().for_each(|(seq, frame)| self.look_at(*seq, frame));
        }
        self.states.extend(self.keeper.state.take());
    }

    fn check_ack(&mut self, message: &Message<'_>) {
        let ack = match message {
            Message::Data(data) => data.ack,
            Message::Ack(ack) => ack.data,
            Message::Attached(attached) => attached.client_seq,
            _ => return,
        };
        self.acked = self.acked.max(ack);
        for &(departure, after) in &self.departures {
            assert!(departure <= self.taken || ack <= after, "{ack} acked, {departure} left after {after}");
        }
    }

    /// A server frame that is new.
    fn look_at(&mut self, seq: Seq, frame: &[u8]) {
        let Addressed { kind, member, payload } = Addressed::parse(frame).unwrap();
        if matches!(kind, AddressedKind::Part | AddressedKind::Passage) {
            let first = self.departing.take().or_else(|| Departure::parse(payload).map(|it| it.client_seq));
            let after = first.unwrap();
            assert!(self.acked <= after, "{} was acked before {seq}, who left after {after}", self.acked);
            if kind == AddressedKind::Part {
                self.departing = Some(after);
            } else {
                self.departures.push((seq, after));
            }
        }
        if matches!(kind, AddressedKind::Close | AddressedKind::Passage) {
            self.inside.remove(&member.0[0]);
        }
    }

    fn give(&mut self, frame: &[u8]) {
        let at = self.keeper.frame(frame);
        let message = self.keeper.message(Epoch(self.epoch), at, false);
        let out = self.world.say(message);
        self.hear(&out);
    }

    fn part(&mut self) {
        let part = self.parts.pop_front();
        part.iter().for_each(|part| self.give(part));
    }

    fn ack(&mut self, more: u64) {
        self.taken = Seq(self.taken.0 + more).min(self.keeper.last_server_seq());
        let ack = self.keeper.ack(Epoch(self.epoch), self.taken);
        self.say(&ack);
    }

    fn settle(&mut self) {
        loop {
            let (before, records) = (self.taken, self.keeper.records);
            self.ack(u64::MAX >> 1);
            let out = self.world.pass(Duration::from_millis(0));
            self.hear(&out);
            if (before, records) == (self.keeper.last_server_seq(), self.keeper.records) {
                return;
            }
        }
    }

    fn look(&mut self) -> Kept {
        let had = self.states.len();
        let (subject, epoch) = (self.keeper.subject, Epoch(self.epoch));
        self.say(&Message::Checkpoint(Checkpoint { subject, epoch, credit_bytes: 1 << 30 }));
        self.states[had].clone()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Give(who, text) => {
                let frame = frames_of(&format!("{who} {text}")).remove(0);
                if *text == "gone" && !(self.inside.contains(who) && self.gone.insert(*who)) {
                    return;
                }
                self.give(&frame);
            }
            Step::Join(who, length) => {
                if !self.gone.contains(who) && self.inside.insert(*who) {
                    // Two long ones: what an input makes has a limit.
                    let length = if *who > 2 { length.min(&5) } else { length };
                    let state = if *length == 0 { "unwanted".into() } else { "s".repeat(*length) };
                    self.parts.extend(frames_of(&format!("{who} join {state}")));
                    self.part();
                }
            }
            Step::Part => self.part(),
            Step::Pass(ms) => {
                let out = self.world.pass(Duration::from_millis(*ms));
                self.hear(&out);
            }
            Step::Finish => self.finish(),
            Step::Ack(more) => self.ack(*more),
            Step::Checkpoint => drop(self.look()),
            Step::Freeze => self.freeze_and_thaw(),
            Step::LoseAndResume(frames) => {
                for (who, text) in frames {
                    let frame = frames_of(&format!("{who} {text}")).remove(0);
                    let at = self.keeper.frame(&frame);
                    // Said, and lost.
                    self.world.say(self.keeper.message(Epoch(self.epoch), at, false));
                }
                self.world.cut();
                self.resume();
            }
            Step::Detached(ms) => {
                self.world.cut();
                assert_eq!(self.world.pass(Duration::from_millis(*ms)), []);
                self.resume();
            }
        }
    }

    fn finish(&mut self) {
        if let Some(job) = self.world.jobs.pop() {
            self.world.peer.finished(job, Some(b"result".to_vec()), self.world.now);
            let out = self.world.out();
            self.hear(&out);
        }
    }

    fn resume(&mut self) {
        self.generation += 1;
        let out = self.world.link_up(self.generation);
        let Message::Welcome(welcome) = &out[0] else { panic!("{out:?}") };
        let entry = welcome.attachments.iter().next().unwrap();
        let Message::Attach(base) = of_group(attach(1, self.epoch, AttachMode::Resume)) else {
            unreachable!()
        };
        let (server_seq, record_seq) = (self.keeper.last_server_seq(), self.keeper.records);
        let (recovery, client_seq) = (self.keeper.level, entry.client_seq);
        self.say(&Message::Attach(Attach { client_seq, server_seq, record_seq, recovery, ..base }));
    }

    /// A handoff that is called off.
    fn freeze_and_thaw(&mut self) {
        let had = self.states.len();
        self.say(&of_group(freeze(1, self.epoch, 1 << 30)));
        let state = self.states[had].clone();
        self.epoch += 1;
        let thaw = of_group(thaw(1, self.epoch - 1, self.epoch, state.client_seq.0, 0));
        let Message::Thaw(base) = thaw else { unreachable!() };
        let (server_seq, record_seq) = (self.keeper.last_server_seq(), self.keeper.records);
        self.say(&Message::Thaw(Thaw { server_seq, record_seq, ..base }));
        self.give_after(Some(&state), 0);
    }

    /// What the proxy has after that state, each once; what it is told meanwhile is none of it.
    fn give_after(&mut self, from: Option<&Kept>, acks: u64) {
        let given: Vec<_> =
            self.keeper.after(from).into_iter().map(|at| self.keeper.given[at].clone()).collect();
        for given in given {
            let Some(at) = self.keeper.given.iter().position(|it| *it == given) else { continue };
            let message = self.keeper.message(Epoch(self.epoch), at, true);
            let out = self.world.say(message);
            self.hear(&out);
            self.ack(acks);
        }
    }

    /// ATTACH, what is kept after that state, START.
    fn bring_back(&mut self, from: Option<&Kept>) {
        for message in self.keeper.attach(Epoch(self.epoch), WINDOW, from) {
            self.say(&message);
        }
        self.give_after(from, 1);
        self.say(&of_group(start(1, self.epoch)));
    }
}

fn frame() -> impl Strategy<Value = (u8, &'static str)> {
    let text = prop::sample::select(vec![
        "a",
        "all b",
        "quiet",
        "now",
        "random",
        "tick 7",
        "once 5",
        "send 3 400",
        "send 2 900",
        "work",
        "leave",
        "leave",
        "leave 1",
        "close",
        "half",
        "state",
    ]);
    (1_u8..6, text)
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop::sample::select(vec![0_usize, 5, 5, 17_000]);
    prop_oneof![
        14 => frame().prop_map(|(who, text)| Step::Give(who, text)),
        1 => (1_u8..6).prop_map(|who| Step::Give(who, "gone")),
        6 => Just(Step::Part),
        6 => (1_u8..6, length).prop_map(|(who, length)| Step::Join(who, length)),
        4 => (0_u64..30).prop_map(Step::Pass),
        2 => Just(Step::Finish),
        6 => (0_u64..6).prop_map(Step::Ack),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Freeze),
        2 => prop::collection::vec(frame(), 0..4).prop_map(Step::LoseAndResume),
        1 => (0_u64..30).prop_map(Step::Detached),
    ]
}

fn crash(level: Recovery, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut first = Pair::new(level);
    steps.iter().for_each(|step| first.step(step));
    first.settle();
    let end = first.look();
    let states = std::mem::take(&mut first.states);
    for from in std::iter::once(None).chain(states.iter().map(Some)) {
        let mut keeper = first.keeper.clone();
        let base = from.map_or(Seq::NONE, |state| state.server_seq);
        if level == Recovery::Replay {
            keeper.frames.retain(|seq, _| *seq <= base);
        }
        let mut again = Pair::around(keeper);
        (again.epoch, again.taken) = (first.epoch + 1, again.keeper.last_server_seq());
        again.world.now.wall += Duration::from_secs(1_000_000);
        again.bring_back(from);
        again.settle();
        let read = |(seq, frame): (&Seq, &Vec<u8>)| format!("{seq}: {}", frame_text(frame));
        let said: Vec<_> = again.keeper.frames.iter().map(read).collect();
        let before: Vec<_> = first.keeper.frames.iter().map(read).collect();
        prop_assert_eq!(said, before, "from {:?}", from.map(|state| state.client_seq));
        prop_assert_eq!(&again.keeper.frames, &first.keeper.frames);
        prop_assert_eq!(again.keeper.records, first.keeper.records, "no record is made twice");
        prop_assert_eq!(text(&again.look()), text(&end), "from {:?}", from.map(|state| state.client_seq));
    }
    Ok(())
}

/// The members, the game's part, and what follows from it.
fn text(kept: &Kept) -> String {
    let Envelope { keep, snapshot, .. } = envelope::parse(&kept.bytes).unwrap();
    let snapshot = String::from_utf8_lossy(snapshot);
    format!("{snapshot} | {} {} {:?}", keep.inputs, keep.random, keep.ordinals.handlers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_replayed_group_says_and_is_what_it_was(steps in prop::collection::vec(step(), 1..40)) {
        crash(Recovery::Replay, &steps)?;
    }

    #[test]
    fn a_group_of_applied_changes_is_what_it_was(steps in prop::collection::vec(step(), 1..40)) {
        crash(Recovery::Delta, &steps)?;
    }
}
