//! Whatever the inputs, wherever links are cut, whenever the backend is killed: brought back from any checkpoint, the
//! session says what it said, and its state is what it was. So for a group, whose departures hold acks back besides.

use std::time::Duration;

use holdfast_protocol::message::{Attach, AttachMode, Checkpoint, Recovery, Refused};
use holdfast_protocol::{Epoch, Message, Seq};
use proptest::prelude::*;

use super::world::*;
use crate::testing::keeper::{Keeper, Kept};

const WHO: u8 = 1;

#[derive(Debug, Clone)]
enum Step {
    Frame(&'static str),
    Pass(u64),
    Finish,
    /// The client takes so many server frames.
    Ack(u64),
    Checkpoint,
    Freeze,
    /// The wish for a group can't be met.
    Refuse,
    CutAndResume,
    /// Frames that arrive in one batch with what follows.
    Detached(u64),
}

/// A backend, and the proxy's memory of the session on it.
struct Pair {
    world: World,
    keeper: Keeper,
    epoch: u64,
    /// Server frames that the client has taken.
    taken: Seq,
    generation: u64,
    states: Vec<Kept>,
}

impl Pair {
    fn new(level: Recovery) -> Self {
        let mut pair = Self::around(Keeper::new(subject(WHO), level));
        pair.bring_back(None);
        pair
    }

    fn around(keeper: Keeper) -> Self {
        let world =
            World::with(crate::Settings { deltas: true, groups: true, ..settings() }, Puppets::default());
        Self { world, keeper, epoch: 1, taken: Seq::NONE, generation: 1, states: Vec::new() }
    }

    fn say(&mut self, message: &Message<'_>) {
        let out = self.world.say(message.clone());
        self.hear(&out);
    }

    fn hear(&mut self, out: &[Message<'_>]) {
        for message in out {
            self.keeper.take(message).unwrap();
        }
        self.states.extend(self.keeper.state.take());
    }

    fn ack(&mut self, more: u64) {
        self.taken = Seq(self.taken.0 + more).min(self.keeper.last_server_seq());
        let ack = self.keeper.ack(Epoch(self.epoch), self.taken);
        self.say(&ack);
    }

    /// Takes all that comes, until nothing more does.
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

    /// `None`: the session ends.
    fn look(&mut self) -> Option<Kept> {
        let had = self.states.len();
        let (subject, epoch) = (subject(WHO), Epoch(self.epoch));
        self.say(&Message::Checkpoint(Checkpoint { subject, epoch, credit_bytes: 1 << 30 }));
        self.states.get(had).cloned()
    }

    fn step(&mut self, step: &Step) {
        let epoch = Epoch(self.epoch);
        match *step {
            Step::Frame(text) => {
                let at = self.keeper.frame(text.as_bytes());
                let message = self.keeper.message(epoch, at, false);
                let out = self.world.say(message);
                self.hear(&out);
            }
            Step::Pass(ms) => {
                let out = self.world.pass(Duration::from_millis(ms));
                self.hear(&out);
            }
            Step::Finish => self.finish(),
            Step::Ack(more) => self.ack(more),
            Step::Checkpoint => drop(self.look()),
            Step::Freeze => self.freeze_and_thaw(),
            Step::Refuse => {
                let (subject, reason) = (subject(WHO), "full");
                self.say(&Message::Refused(Refused { subject, epoch, retry: false, reason }));
            }
            Step::CutAndResume => {
                self.world.cut();
                self.resume();
            }
            Step::Detached(ms) => {
                self.world.cut();
                assert_eq!(self.world.pass(Duration::from_millis(ms)), []);
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
        assert!(entry.record_seq >= self.keeper.records);
        let Message::Attach(base) = attach(WHO, self.epoch, AttachMode::Resume) else { unreachable!() };
        let (server_seq, record_seq) = (self.keeper.last_server_seq(), self.keeper.records);
        let recovery = self.keeper.level;
        let client_seq = entry.client_seq;
        self.say(&Message::Attach(Attach { client_seq, server_seq, record_seq, recovery, ..base }));
    }

    /// A handoff that is called off.
    fn freeze_and_thaw(&mut self) {
        let had = self.states.len();
        self.say(&freeze(WHO, self.epoch, 1 << 30));
        let Some(state) = self.states.get(had).cloned() else { return };
        assert!(state.is_final);
        self.epoch += 1;
        let Message::Thaw(base) = thaw(WHO, self.epoch - 1, self.epoch, state.client_seq.0, 0) else {
            unreachable!()
        };
        let (server_seq, record_seq) = (self.keeper.last_server_seq(), self.keeper.records);
        self.say(&Message::Thaw(holdfast_protocol::message::Thaw { server_seq, record_seq, ..base }));
        for at in self.keeper.after(Some(&state)) {
            let message = self.keeper.message(Epoch(self.epoch), at, true);
            let out = self.world.say(message);
            self.hear(&out);
        }
    }

    /// ATTACH, what is kept after that state, START.
    fn bring_back(&mut self, from: Option<&Kept>) {
        for message in self.keeper.attach(Epoch(self.epoch), WINDOW, from) {
            self.say(&message);
        }
        for at in self.keeper.after(from) {
            let message = self.keeper.message(Epoch(self.epoch), at, true);
            let out = self.world.say(message);
            self.hear(&out);
            self.ack(1);
        }
        self.say(&start(WHO, self.epoch));
    }
}

fn step() -> impl Strategy<Value = Step> {
    let text = prop::sample::select(vec![
        "a",
        "quiet",
        "now",
        "now quiet",
        "random",
        "input",
        "tick 7",
        "once 5",
        "cancel",
        "send 3 400",
        "send 2 900",
        "send 9 990",
        "work",
        "state",
        "join 5",
        "join 6",
        "close",
    ]);
    prop_oneof![
        12 => text.prop_map(Step::Frame),
        4 => (0_u64..30).prop_map(Step::Pass),
        2 => Just(Step::Finish),
        6 => (0_u64..6).prop_map(Step::Ack),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Freeze),
        2 => Just(Step::Refuse),
        1 => Just(Step::CutAndResume),
        1 => (0_u64..30).prop_map(Step::Detached),
    ]
}

fn crash(level: Recovery, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut first = Pair::new(level);
    for step in steps {
        if first.keeper.ended.is_some() || is_stuck(&first, step) {
            continue;
        }
        first.step(step);
    }
    let is_over = first.keeper.ended.is_some();
    let mut end = None;
    if !is_over {
        first.settle();
        if first.keeper.ended.is_none() {
            end = first.look();
        }
    }
    let states = std::mem::take(&mut first.states);
    for from in std::iter::once(None).chain(states.iter().map(Some)) {
        let mut keeper = first.keeper.clone();
        keeper.ended = None;
        let base = from.map_or(Seq::NONE, |state| state.server_seq);
        if level == Recovery::Replay {
            keeper.frames.retain(|seq, _| *seq <= base);
        }
        let mut again = Pair::around(keeper);
        (again.epoch, again.taken) = (first.epoch + 1, again.keeper.last_server_seq());
        again.world.now.wall += Duration::from_secs(1_000_000);
        again.bring_back(from);
        again.settle();
        let said: Vec<_> = again.keeper.frames.iter().zip(&first.keeper.frames).collect();
        for (again, first) in said {
            prop_assert_eq!(again, first);
        }
        if let Some(end) = &end {
            prop_assert_eq!(again.keeper.frames.len(), first.keeper.frames.len());
            prop_assert_eq!(again.keeper.records, first.keeper.records, "no record is made twice");
            let again = again.look().map(|again| text(&again));
            prop_assert_eq!(again, Some(text(end)), "from {:?}", from.map(|state| state.client_seq));
        }
    }
    Ok(())
}

/// The proxy sends no more than the client window.
fn is_stuck(pair: &Pair, step: &Step) -> bool {
    let Some(attachment) = pair.world.peer.attachments.get(&subject(WHO)) else { return true };
    let is_sent = matches!(step, Step::Frame(_) | Step::Freeze);
    is_sent && attachment.received().since(attachment.processed_seq()) > 20
}

/// The game's part and what follows from it, without the time of the snapshot.
fn text(kept: &Kept) -> String {
    let envelope = crate::core::parse_envelope(&kept.bytes).unwrap();
    let snapshot = String::from_utf8_lossy(envelope.snapshot);
    let keep = &envelope.keep;
    let numbers = (keep.inputs, keep.random, keep.ordinals.handlers);
    format!("{snapshot} | {numbers:?} {} {:?} {:?}", keep.close, keep.wish, keep.refused)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_replayed_session_says_and_is_what_it_was(steps in prop::collection::vec(step(), 1..40)) {
        crash(Recovery::Replay, &steps)?;
    }

    #[test]
    fn a_session_of_applied_changes_is_what_it_was(steps in prop::collection::vec(step(), 1..40)) {
        crash(Recovery::Delta, &steps)?;
    }
}
