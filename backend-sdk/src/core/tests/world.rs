//! A peer, a clock, and a game that does what its frames say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use holdfast_protocol::message::{
    Ack, Attach, AttachMode, Close, Credit, Data, FaultScope, Freeze, Hello, Recovery, Release, Rule, Start,
    State, Subject, Thaw,
};
use holdfast_protocol::{Epoch, GroupId, InstanceId, Message, Seq, SessionId, TraceContext, decode, encode};

use super::groups::PuppetGroup;
use crate::context::Context;
use crate::core::{DrainOrder, JobId, JobOrder, Now, Peer};
use crate::game::{Game, Opening, Refusal, Session, Tag};
use crate::group::{Group, GroupContext};
use crate::population::Population;
use crate::settings::Settings;

pub const WINDOW: u32 = 1000;
pub const TICK: Tag = Tag(1);
pub const ONCE: Tag = Tag(2);

/// What a [`Puppet`] is told by its frames, one each.
#[derive(Default)]
pub struct Puppets {
    pub closed: Arc<AtomicUsize>,
    pub refuses: bool,
}

/// Its state is the text of all frames it had, and how each of its openings was.
pub struct Puppet {
    log: Vec<u8>,
    closed: Arc<AtomicUsize>,
}

impl Game for Puppets {
    type Session = Puppet;

    fn open(&self, opening: Opening<'_>, _: &mut Context<'_>) -> Result<Puppet, Refusal> {
        if self.refuses {
            return Err(Refusal::for_now("full"));
        }
        let log = match opening {
            Opening::Fresh => b"fresh".to_vec(),
            Opening::Lost => b"lost".to_vec(),
            Opening::State(state) => state.to_vec(),
            Opening::Recovered(state) => [state, b" recovered"].concat(),
        };
        Ok(Puppet { log, closed: Arc::clone(&self.closed) })
    }

    fn open_group(
        &self,
        opening: Opening<'_>,
        context: &mut GroupContext<'_>,
    ) -> Result<Box<dyn Group>, Refusal> {
        let group = Self::group(opening);
        // What the SDK says of the members is what the game knows of them.
        assert!(context.members().eq(group.states.keys().copied()));
        Ok(Box::new(group))
    }
}

impl Puppets {
    fn group(opening: Opening<'_>) -> PuppetGroup {
        match opening {
            Opening::Fresh => PuppetGroup::of(b"fresh\n"),
            Opening::Lost => PuppetGroup::of(b"lost\n"),
            Opening::State(state) | Opening::Recovered(state) => PuppetGroup::of(state),
        }
    }
}

impl Session for Puppet {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        let begin = self.log.len();
        self.log.push(b' ');
        self.log.extend_from_slice(frame);
        let text = std::str::from_utf8(frame).unwrap_or("");
        match text.split_once(' ').unwrap_or((text, "")) {
            ("panic", _) => panic!("told to"),
            ("quiet", _) => {}
            ("close", _) => {
                context.send(b"bye");
                context.close();
            }
            ("tick", period) => context.every(TICK, Duration::from_millis(period.parse().unwrap())),
            ("once", delay) => context.after(ONCE, Duration::from_millis(delay.parse().unwrap())),
            ("now", "quiet") => self.log.extend_from_slice(seconds(context).as_bytes()),
            ("now", _) => context.send(seconds(context).as_bytes()),
            ("random", _) => {
                let number = context.random().to_string();
                self.log.extend_from_slice(number.as_bytes());
                context.send(number.as_bytes());
            }
            ("cancel", _) => context.cancel(TICK),
            ("send", count_and_bytes) => {
                let (count, bytes) = count_and_bytes.split_once(' ').unwrap();
                let frame = vec![b'x'; bytes.parse().unwrap()];
                (0..count.parse().unwrap()).for_each(|_: u32| context.send(&frame));
            }
            ("join", number) => context.join(group(number.parse().unwrap())),
            ("work", _) => context.spawn(Tag(7), async { b"done".to_vec() }),
            ("state", _) => context.send(&self.log),
            ("input", _) => context.send(context.input().to_string().as_bytes()),
            _ => context.send(frame),
        }
        context.change(&self.log[begin..]);
    }

    fn timer(&mut self, tag: Tag, context: &mut Context<'_>) {
        if tag == ONCE {
            self.log.extend_from_slice(b" once");
            context.change(b" once");
        }
        context.send(b"tick");
    }

    fn finished(&mut self, work: Tag, result: &[u8], context: &mut Context<'_>) {
        let text = format!(" finished {work}");
        self.log.extend_from_slice(text.as_bytes());
        context.change(text.as_bytes());
        context.send(result);
    }

    fn join_refused(&mut self, group: GroupId, reason: &str, context: &mut Context<'_>) {
        let text = format!("no group {}: {reason}", group.0[0]);
        assert_ne!(context.wish(), Some(group));
        self.log.extend_from_slice(b" ");
        self.log.extend_from_slice(text.as_bytes());
        context.change(format!(" {text}").as_bytes());
        context.send(text.as_bytes());
    }

    fn apply(&mut self, change: &[u8], _: &mut Context<'_>) {
        self.log.extend_from_slice(change);
    }

    fn snapshot(&self) -> Vec<u8> {
        self.log.clone()
    }

    fn closed(&mut self, context: &mut Context<'_>) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        context.send(b"closed");
    }
}

fn seconds(context: &Context<'_>) -> String {
    let since = context.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    format!("{since:?}")
}

/// A peer and its proxy, as one sees them in a test.
pub struct World {
    pub peer: Peer<Puppets>,
    pub now: Now,
    pub population: Population,
    pub closed: Arc<AtomicUsize>,
    pub jobs: Vec<JobId>,
    pub aborted: Vec<JobId>,
    pub works: Vec<crate::context::Work>,
}

pub fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub fn group(number: u8) -> GroupId {
    GroupId([number; 16])
}

pub fn settings() -> Settings {
    Settings { client_window_bytes: WINDOW, outbox_bytes: 4000, ..Settings::default() }
}

impl World {
    /// With a link that is up, whose WELCOME has been taken.
    pub fn new() -> Self {
        Self::with(settings(), Puppets::default())
    }

    pub fn with(settings: Settings, game: Puppets) -> Self {
        Self::of(settings, game, Population::default())
    }

    /// Another peer of the process that has this population.
    pub fn sharing(settings: Settings, population: Population) -> Self {
        Self::of(settings, Puppets::default(), population)
    }

    fn of(settings: Settings, game: Puppets, population: Population) -> Self {
        let now = Now { at: Instant::now(), wall: SystemTime::UNIX_EPOCH };
        let closed = Arc::clone(&game.closed);
        let peer = Peer::new(Arc::new(game), Arc::new(settings), population.clone(), now, 1);
        let (jobs, aborted, works) = (Vec::new(), Vec::new(), Vec::new());
        let mut world = Self { peer, now, population, closed, jobs, aborted, works };
        assert!(matches!(world.link_up(1)[..], [Message::Welcome(_)]));
        world
    }

    pub fn link_up(&mut self, generation: u64) -> Vec<Message<'static>> {
        self.peer.link_up(&hello(generation), self.now).unwrap();
        self.out()
    }

    pub fn cut(&mut self) {
        self.peer.link_lost(self.now);
    }

    /// Gives one message, and returns what the backend says by the end of the batch.
    pub fn say(&mut self, message: Message<'_>) -> Vec<Message<'static>> {
        self.say_all(&[message])
    }

    pub fn say_all(&mut self, messages: &[Message<'_>]) -> Vec<Message<'static>> {
        for message in messages {
            self.peer.receive(message, self.now).unwrap();
        }
        self.out()
    }

    pub fn pass(&mut self, time: Duration) -> Vec<Message<'static>> {
        let end = self.now.at + time;
        while let Some(due) = self.peer.next_due().filter(|&due| due <= end) {
            self.now.wall += due.saturating_duration_since(self.now.at);
            self.now.at = self.now.at.max(due);
            self.peer.tick(self.now);
        }
        self.now.wall += end - self.now.at;
        self.now.at = end;
        self.out()
    }

    pub fn out(&mut self) -> Vec<Message<'static>> {
        for order in self.peer.job_orders() {
            match order {
                JobOrder::Begin(job, work) => {
                    self.jobs.push(job);
                    self.works.push(work);
                }
                JobOrder::Abort(job) => self.aborted.push(job),
            }
        }
        self.peer.flush(true);
        let bytes: &'static [u8] = std::mem::take(self.peer.output()).leak();
        let mut messages = Vec::new();
        let mut rest = bytes;
        while let Some((message, length)) = decode(rest, usize::MAX).unwrap() {
            messages.push(message);
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "half a message in the output");
        messages
    }

    /// A fresh session, attached and started.
    pub fn begin(&mut self, number: u8) {
        let answer = self.say(attach(number, 1, AttachMode::Fresh));
        assert!(matches!(answer[..], [Message::Attached(_)]), "{answer:?}");
        assert_eq!(self.say(start(number, 1)), []);
    }

    /// Freezes it and puts the state's chunks together.
    pub fn freeze(&mut self, number: u8, epoch: u64) -> Kept {
        let chunks = self.say(freeze(number, epoch, 1 << 20));
        Kept::of(&chunks)
    }

    pub fn drain(&mut self, deadline: Duration) -> Vec<Message<'static>> {
        self.peer.drain(DrainOrder { deadline: self.now.at + deadline, returns: true }, self.now);
        self.out()
    }
}

/// A whole state, as the proxy keeps it.
#[derive(Debug)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub client_seq: Seq,
    pub server_seq: Seq,
}

impl Kept {
    pub fn of(chunks: &[Message<'_>]) -> Self {
        let mut kept = Self { bytes: Vec::new(), client_seq: Seq::NONE, server_seq: Seq::NONE };
        let mut total = None;
        for chunk in chunks {
            let Message::State(state) = chunk else { panic!("expected STATE, got {chunk:?}") };
            assert_eq!(state.offset_bytes, kept.bytes.len() as u64);
            assert!(*total.get_or_insert(state.total_bytes) == state.total_bytes && state.is_final);
            kept.bytes.extend_from_slice(state.chunk);
            (kept.client_seq, kept.server_seq) = (state.client_seq, state.server_seq);
        }
        assert_eq!(total, Some(kept.bytes.len() as u64), "the state isn't whole");
        kept
    }

    /// ATTACH and STATE for another process.
    pub fn attach(&self, number: u8, epoch: u64) -> [Message<'_>; 2] {
        let Message::Attach(attach) = attach(number, epoch, AttachMode::State) else { unreachable!() };
        let (client_seq, server_seq) = (self.client_seq, self.server_seq);
        let state_total_bytes = self.bytes.len() as u64;
        let attach = Attach { client_seq, server_seq, state_total_bytes, format: "1", ..attach };
        [Message::Attach(attach), chunk(number, epoch, state_total_bytes, 0, &self.bytes)]
    }
}

pub fn hello(generation: u64) -> Hello<'static> {
    Hello {
        min_version: 1,
        max_version: 1,
        instance: InstanceId([9; 16]),
        worker: 0,
        generation,
        max_frame_bytes: 100_000,
        liveness_ms: 1000,
        capabilities: u64::MAX,
        proxy: "host-a",
        service: "arena",
        proof: &[],
    }
}

pub fn subject(number: u8) -> Subject {
    Subject::Session(session(number))
}

pub fn attach(number: u8, epoch: u64, mode: AttachMode) -> Message<'static> {
    Message::Attach(Attach {
        subject: subject(number),
        epoch: Epoch(epoch),
        mode,
        lost: false,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
        state_total_bytes: 0,
        server_window_bytes: WINDOW,
        trace: TraceContext::NONE,
        group: None,
        recovery: Recovery::None,
        opened_us: 0,
        client: "127.0.0.1:5000",
        service: "arena",
        format: "",
    })
}

pub fn chunk(number: u8, epoch: u64, total_bytes: u64, offset_bytes: u64, chunk: &[u8]) -> Message<'_> {
    Message::State(State {
        subject: subject(number),
        epoch: Epoch(epoch),
        is_final: true,
        total_bytes,
        offset_bytes,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
        members: 0,
        chunk,
    })
}

pub fn start(number: u8, epoch: u64) -> Message<'static> {
    Message::Start(Start { subject: subject(number), epoch: Epoch(epoch) })
}

pub fn data(number: u8, epoch: u64, seq: u64, frame: &str) -> Message<'_> {
    Message::Data(Data {
        subject: Subject::Session(session(number)),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        ack: Seq::NONE,
        record: Seq::NONE,
        again: false,
        trace: TraceContext::NONE,
        frame: frame.as_bytes(),
    })
}

pub fn again(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Data(data) => Message::Data(Data { again: true, ..data }),
        Message::Close(close) => Message::Close(Close { again: true, ..close }),
        other => other,
    }
}

pub fn ack(number: u8, epoch: u64, seq: u64) -> Message<'static> {
    Message::Ack(Ack { subject: subject(number), epoch: Epoch(epoch), data: Seq(seq), record: Seq::NONE })
}

pub fn close(number: u8, epoch: u64, seq: u64, half: bool) -> Message<'static> {
    Message::Close(Close {
        session: session(number),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        ack: Seq::NONE,
        record: Seq::NONE,
        half,
        again: false,
        reason: "client closed",
    })
}

pub fn freeze(number: u8, epoch: u64, credit_bytes: u64) -> Message<'static> {
    Message::Freeze(Freeze {
        subject: subject(number),
        epoch: Epoch(epoch),
        client_seq: Seq::NONE,
        credit_bytes,
        trace: TraceContext::NONE,
    })
}

pub fn credit(number: u8, epoch: u64, bytes: u64) -> Message<'static> {
    Message::Credit(Credit { subject: subject(number), epoch: Epoch(epoch), bytes })
}

pub fn thaw(number: u8, old_epoch: u64, epoch: u64, client_seq: u64, server_seq: u64) -> Message<'static> {
    Message::Thaw(Thaw {
        subject: subject(number),
        old_epoch: Epoch(old_epoch),
        epoch: Epoch(epoch),
        client_seq: Seq(client_seq),
        server_seq: Seq(server_seq),
        record_seq: Seq::NONE,
        server_window_bytes: WINDOW,
        trace: TraceContext::NONE,
    })
}

pub fn release(number: u8, epoch: u64) -> Message<'static> {
    Message::Release(Release { subject: subject(number), epoch: Epoch(epoch) })
}

/// What a message says, short enough to compare: `data 3: text`, `again 3: text`, `ack 5`, `fault OutOfSequence`, ...
pub fn brief(messages: &[Message<'_>]) -> Vec<String> {
    messages.iter().map(brief_one).collect()
}

fn brief_one(message: &Message<'_>) -> String {
    match message {
        Message::Data(data) => {
            let frame = String::from_utf8_lossy(data.frame);
            let frame = if frame.starts_with("xx") { format!("{} x", frame.len()) } else { frame.into() };
            format!("{} {}: {frame}", if data.again { "again" } else { "data" }, data.seq)
        }
        Message::Record(record) => {
            let again = if record.again { " again" } else { "" };
            format!("record{again} {} {:?} {}", record.seq, record.kind, record.after_client_seq)
        }
        Message::Ack(ack) => format!("ack {}", ack.data),
        Message::Close(close) => {
            format!("{} {}", if close.again { "close again" } else { "close" }, close.seq)
        }
        Message::Attached(attached) => {
            format!("attached epoch {} {}/{}", attached.epoch, attached.client_seq, attached.server_seq)
        }
        Message::Refused(refused) => format!("refused {}", refused.reason),
        Message::Fault(fault) => format!("fault {:?}", fault.rule),
        Message::Credit(credit) => format!("credit {}", credit.bytes),
        Message::Join(join) => format!("join {} epoch {}", join.group.0[0], join.epoch),
        other => format!("{other:?}"),
    }
}

/// The rule of the only message, a fault of that session.
pub fn fault_of(messages: &[Message<'_>], number: u8) -> Rule {
    let [Message::Fault(fault)] = messages else { panic!("expected one FAULT, got {messages:?}") };
    let FaultScope::Attachment(subject_of, _) = fault.scope else { panic!("{fault:?}") };
    assert_eq!(subject_of, subject(number));
    fault.rule
}

/// A message through the codec: what the link would carry.
pub fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}
