//! Groups: members who come, play and go; and all that a session's attachment promises, for a group.

mod crashes;
mod departures;
mod members;
mod moving;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Arrival, Departure, parts};
use holdfast_protocol::message::{
    Ack, Attach, AttachMode, Credit, Data, Freeze, Release, Start, State, Subject, Thaw,
};
use holdfast_protocol::{Message, SessionId};

use super::super::envelope::{self, Envelope, Keep};
use super::world::*;
use crate::core::Counts;
use crate::game::{Refusal, Tag};
use crate::group::{Group, GroupContext, Newcomer};
use crate::settings::Settings;

/// The shared log of all inputs, and of each member what they came with and have sent.
#[derive(Default)]
pub struct PuppetGroup {
    log: Vec<u8>,
    pub states: BTreeMap<SessionId, Vec<u8>>,
}

impl PuppetGroup {
    /// Reads what `bytes` writes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let mut group = Self { log: lines.next().unwrap().to_vec(), ..Self::default() };
        for line in lines.filter(|line| !line.is_empty()) {
            group.states.insert(session(line[0]), line[1..].to_vec());
        }
        group
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.log, b"\n".as_slice()].concat();
        for (member, state) in &self.states {
            bytes.push(member.0[0]);
            bytes.extend_from_slice(state);
            bytes.push(b'\n');
        }
        bytes
    }

    fn note(&mut self, who: u8, text: &str, context: &mut GroupContext<'_>) {
        self.log.extend_from_slice(format!(" {who}:{text}").as_bytes());
        context.change(&[b"\0", self.bytes().as_slice()].concat());
    }

    fn let_go(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        if let Some(state) = self.states.remove(&member) {
            context.leave(member, &state);
        }
    }

    fn obey(&mut self, member: SessionId, text: &str, context: &mut GroupContext<'_>) {
        match text.split_once(' ').unwrap_or((text, "")) {
            ("panic", _) => panic!("told to"),
            ("quiet", _) => {}
            ("all", text) => context.broadcast(text.as_bytes()),
            ("leave", "") => self.let_go(member, context),
            ("leave", other) => self.let_go(session(other.parse().unwrap()), context),
            ("close", _) => {
                self.states.remove(&member);
                context.send(member, b"bye");
                context.close(member);
                context.send(member, b"into the void");
            }
            ("tick", period) => context.every(TICK, Duration::from_millis(period.parse().unwrap())),
            ("once", delay) => context.after(ONCE, Duration::from_millis(delay.parse().unwrap())),
            ("now", _) => {
                let now = format!("{:?}", context.now());
                context.send(member, now.as_bytes());
            }
            ("random", _) => {
                let number = context.random().to_string();
                context.send(member, number.as_bytes());
            }
            ("work", _) => context.spawn(Tag(7), async { b"done".to_vec() }),
            ("send", count_and_bytes) => {
                let (count, bytes) = count_and_bytes.split_once(' ').unwrap();
                let frame = vec![b'x'; bytes.parse().unwrap()];
                (0..count.parse().unwrap()).for_each(|_: u32| context.send(member, &frame));
            }
            ("state", _) => context.send(member, &self.bytes()),
            _ => context.send(member, text.as_bytes()),
        }
    }
}

impl Group for PuppetGroup {
    fn joined(&mut self, newcomer: Newcomer<'_>, context: &mut GroupContext<'_>) -> Result<(), Refusal> {
        let who = newcomer.session.0[0];
        assert!(context.is_member(newcomer.session));
        if newcomer.state.starts_with(b"unwanted") {
            context.send(newcomer.session, b"never heard");
            self.note(who, "unwanted", context);
            return Err(Refusal::for_good("unwanted"));
        }
        self.states.insert(newcomer.session, newcomer.state.to_vec());
        self.note(who, "in", context);
        context.broadcast(format!("{who} in").as_bytes());
        Ok(())
    }

    fn frame(&mut self, member: SessionId, frame: &[u8], context: &mut GroupContext<'_>) {
        let text = std::str::from_utf8(frame).unwrap();
        let state = self.states.get_mut(&member).unwrap();
        state.push(b' ');
        state.extend_from_slice(frame);
        self.obey(member, text, context);
        self.note(member.0[0], text, context);
    }

    fn left(&mut self, member: SessionId, context: &mut GroupContext<'_>) {
        self.states.remove(&member);
        self.note(member.0[0], "left", context);
        context.leave(member, b"must not leave as well");
        context.broadcast(format!("{} left", member.0[0]).as_bytes());
    }

    fn timer(&mut self, timer: Tag, context: &mut GroupContext<'_>) {
        let first = self.states.keys().next().copied();
        match first {
            Some(first) if timer == ONCE => self.let_go(first, context),
            _ => context.broadcast(b"tick"),
        }
        self.note(0, "timer", context);
    }

    fn finished(&mut self, _: Tag, result: &[u8], context: &mut GroupContext<'_>) {
        context.broadcast(result);
        self.note(0, "finished", context);
    }

    fn apply(&mut self, change: &[u8], context: &mut GroupContext<'_>) {
        // Each change is the whole state; the last one of an input counts, and all are joined.
        let last = change.rsplit(|&byte| byte == 0).next().unwrap();
        *self = Self::of(last);
        assert!(context.members().eq(self.states.keys().copied()));
    }

    fn snapshot(&self) -> Vec<u8> {
        self.bytes()
    }
}

/// The same message, about the group of that number.
pub fn of_group(message: Message<'_>) -> Message<'_> {
    let to_group = |subject: Subject| match subject {
        Subject::Session(session) => Subject::Group(group(session.0[0])),
        Subject::Group(_) => subject,
    };
    match message {
        Message::Attach(it) => Message::Attach(Attach { subject: to_group(it.subject), client: "", ..it }),
        Message::State(it) => Message::State(State { subject: to_group(it.subject), ..it }),
        Message::Start(it) => Message::Start(Start { subject: to_group(it.subject), ..it }),
        Message::Data(it) => Message::Data(Data { subject: to_group(it.subject), ..it }),
        Message::Ack(it) => Message::Ack(Ack { subject: to_group(it.subject), ..it }),
        Message::Freeze(it) => Message::Freeze(Freeze { subject: to_group(it.subject), ..it }),
        Message::Credit(it) => Message::Credit(Credit { subject: to_group(it.subject), ..it }),
        Message::Thaw(it) => Message::Thaw(Thaw { subject: to_group(it.subject), ..it }),
        Message::Release(it) => Message::Release(Release { subject: to_group(it.subject), ..it }),
        other => panic!("not about a session: {other:?}"),
    }
}

/// The group's frames for what a member does: `2 join TEXT` (with that state), `2 half`, `2 gone`, else a frame.
pub fn frames_of(text: &str) -> Vec<Vec<u8>> {
    let (who, what) = text.split_once(' ').unwrap();
    let member = session(who.parse().unwrap());
    let one = |kind, payload: &[u8]| vec![addressed(kind, member, payload)];
    match what.split_once(' ').unwrap_or((what, "")) {
        ("join", state) => arrival(member, &lone(state.as_bytes(), &[]), "1"),
        ("half", _) => one(AddressedKind::Half, b""),
        ("gone", _) => one(AddressedKind::Close, b"reset"),
        _ => one(AddressedKind::Frame, what.as_bytes()),
    }
}

pub fn addressed(kind: AddressedKind, member: SessionId, payload: &[u8]) -> Vec<u8> {
    [&Addressed::head(kind, member), payload].concat()
}

pub fn arrival(member: SessionId, state: &[u8], format: &str) -> Vec<Vec<u8>> {
    let bytes = Arrival { opened_us: 5_000_000, client: "127.0.0.1:5000", format, state }.to_bytes();
    parts(&bytes).map(|(kind, part)| addressed(kind, member, part)).collect()
}

/// The STATE of a session alone, that wants to be in group 1.
pub fn lone(snapshot: &[u8], unsent: &[&[u8]]) -> Vec<u8> {
    let time = std::time::SystemTime::UNIX_EPOCH;
    let keep = Keep { inputs: 40, random: 41, wish: Some(group(1)), ..Keep::at(time) };
    let unsent = unsent.iter().map(|frame| (holdfast_protocol::TraceContext::NONE, *frame));
    envelope::write(&keep, unsent, snapshot)
}

pub fn group_settings() -> Settings {
    Settings { groups: true, deltas: true, client_window_bytes: 1 << 20, ..settings() }
}

/// A world with group 1 in it, and the client frames that it was given.
pub struct GroupWorld {
    pub world: World,
    pub epoch: u64,
    pub client_seq: u64,
}

impl GroupWorld {
    /// Attached, but not started.
    pub fn inert() -> Self {
        let mut world = World::with(group_settings(), Puppets::default());
        let out = world.say(of_group(attach(1, 1, AttachMode::Fresh)));
        assert_eq!(brief(&out), ["attached epoch 1 0/0"]);
        Self { world, epoch: 1, client_seq: 0 }
    }

    pub fn new() -> Self {
        let mut world = Self::inert();
        assert_eq!(world.say(start(1, 1)), [""; 0]);
        world
    }

    /// With these members, whose arrivals have been acked.
    pub fn of(members: &[u8]) -> Self {
        let mut world = Self::new();
        for member in members {
            world.give(&format!("{member} join state"));
        }
        let sent: u64 = (1..=members.len() as u64).sum();
        world.say(ack(1, 1, sent));
        world.world.pass(Duration::from_millis(20));
        world
    }

    /// Gives the group a message about session 1, as about itself.
    pub fn say(&mut self, message: Message<'_>) -> Vec<String> {
        let out = self.world.say(of_group(message));
        told(&out)
    }

    pub fn give(&mut self, text: &str) -> Vec<String> {
        self.give_frames(&frames_of(text), false)
    }

    pub fn give_again(&mut self, text: &str) -> Vec<String> {
        self.give_frames(&frames_of(text), true)
    }

    pub fn give_frames(&mut self, frames: &[Vec<u8>], is_again: bool) -> Vec<String> {
        let mut out = Vec::new();
        for frame in frames {
            self.client_seq += 1;
            let Message::Data(base) = data(1, self.epoch, self.client_seq, "") else { unreachable!() };
            let message = Message::Data(Data { frame, again: is_again, ..base });
            out.extend(self.world.say(of_group(message)));
        }
        told(&out)
    }

    pub fn freeze(&mut self) -> Kept {
        Kept::of(&self.world.say(of_group(freeze(1, self.epoch, 1 << 30))))
    }

    pub fn counts(&self) -> Counts {
        self.world.peer.counts()
    }
}

/// As [`brief`], with addresses and departures read.
pub fn told(out: &[Message<'_>]) -> Vec<String> {
    out.iter().map(told_one).collect()
}

fn told_one(message: &Message<'_>) -> String {
    let Message::Data(data) = message else { return brief(std::slice::from_ref(message)).remove(0) };
    let again = if data.again { "again" } else { "data" };
    format!("{again} {}: {}", data.seq, frame_text(data.frame))
}

pub fn frame_text(frame: &[u8]) -> String {
    let Addressed { kind, member, payload } = Addressed::parse(frame).unwrap();
    let who = member.0[0];
    let text = String::from_utf8_lossy(payload);
    match kind {
        AddressedKind::Frame if text.starts_with("xx") => format!("{who} {} x", text.len()),
        AddressedKind::Frame => format!("{who} {text}"),
        AddressedKind::Passage => match Departure::parse(payload) {
            Some(departure) => {
                let state = envelope::parse(departure.state).map(|Envelope { snapshot, .. }| snapshot);
                let state = String::from_utf8_lossy(state.unwrap_or(departure.state));
                format!("{who} departs after {} with {state:?}", departure.client_seq)
            }
            None => format!("{who} departs"),
        },
        kind => format!("{who} {kind:?} {text}"),
    }
}

/// The state with which the member departs in that frame.
pub fn departed<'a>(message: &Message<'a>) -> Envelope<'a> {
    let Message::Data(data) = message else { panic!("{message:?}") };
    let payload = Addressed::parse(data.frame).unwrap().payload;
    envelope::parse(Departure::parse(payload).unwrap().state).unwrap()
}
