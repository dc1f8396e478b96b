//! A worker on a thread of its own, players and backends on blocking sockets. Every wait has a deadline.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use holdfast_protocol::message::{
    Ack, Attached, AttachmentEntry, AttachmentPhase, AttachmentsBuf, Close, Data, Drain, Message, Ping,
    State, Subject, Welcome,
};
use holdfast_protocol::{Epoch, InstanceId, Seq, SessionId, TraceContext, codec};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::routing::document::RawService;
use crate::routing::table::{Prefer, Recovery, RouteMatch};
use crate::routing::{Backend, BackendAddress, BackendId, Route, Service, Table};
use crate::telemetry::counters::Counters;
use crate::telemetry::tracer::Tracer;
use crate::worker::command::{Command, LinkView};
use crate::worker::{WorkerConfig, accept};

/// No wait of a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A worker, told of its table and ended by the test.
pub struct Rig {
    pub counters: Arc<Counters>,
    table: Arc<ArcSwap<Table>>,
    commands: mpsc::Sender<Command>,
    listeners: Vec<(Arc<str>, SocketAddr)>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Rig {
    /// One listener and one service for each name; `adjust` sets bounds.
    pub fn start(services: &[&str], limits: &Value, adjust: impl FnOnce(&mut WorkerConfig)) -> Self {
        Self::start_at(Recovery::None, services, limits, adjust)
    }

    pub fn start_at(
        recovery: Recovery,
        services: &[&str],
        limits: &Value,
        adjust: impl FnOnce(&mut WorkerConfig),
    ) -> Self {
        let table = Arc::new(ArcSwap::from_pointee(table(recovery, services, limits)));
        let counters: Arc<Counters> = Arc::default();
        let (door, arrivals) = mpsc::unbounded_channel();
        let mut config = WorkerConfig {
            index: 0,
            proxy_id: "proxy".to_owned(),
            instance: InstanceId([9; 16]),
            zone: None,
            registers_local: false,
            local: None,
            table: Arc::clone(&table),
            rollouts: Arc::default(),
            counters: Arc::clone(&counters),
            notices: Default::default(),
            tracer: Tracer::disabled(),
            ratio: 0.0,
            forced_ratio: None,
            max_sessions: 1000,
            kept_bytes: 256 << 20,
            link_outbox_bytes: 8 << 20,
            transfer_pool_bytes: 1 << 20,
            close_deadline: Duration::from_secs(1),
            max_groups: 100,
            groups: Arc::default(),
            doors: vec![door],
        };
        adjust(&mut config);
        let bind = |name: &&str| {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            accept::Listener {
                name: (*name).into(),
                socket,
                tls: None,
                tls_handshake_timeout: Duration::from_secs(1),
            }
        };
        let bound: Vec<_> = services.iter().map(bind).collect();
        let listeners =
            bound.iter().map(|one| (Arc::clone(&one.name), one.socket.local_addr().unwrap())).collect();
        let (commands, receiver) = mpsc::channel(16);
        let thread = std::thread::spawn(move || crate::worker::run(config, bound, receiver, arrivals));
        Self { counters, table, commands, listeners, thread: Some(thread) }
    }

    pub fn tell(&self, command: Command) {
        self.commands.blocking_send(command).unwrap();
    }

    pub fn change(&self, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(&self.table.load());
        change(&mut table);
        self.table.store(Arc::new(table));
        self.tell(Command::TableChanged);
    }

    /// Puts a backend on the list.
    pub fn list(&self, backend: &FakeBackend) {
        let listed = Backend {
            id: backend.id.clone(),
            address: backend.address(),
            version: "1".into(),
            weight: 100,
            zone: None,
            capacity: None,
        };
        self.change(|table| {
            table.backends.insert(listed.id.clone(), Arc::new(listed));
        });
    }

    /// Gives a service these fields besides its framing and recovery.
    pub fn serve(&self, name: &str, more: &Value) {
        let mut document = json!({
            "protocol": "link",
            "framing": {"kind": "length", "width": 4, "order": "big"},
            "recovery": "none",
        });
        let fields = document.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("fields of a service").clone());
        let raw: RawService = serde_json::from_value(document).unwrap();
        let service = raw.check(name.into()).unwrap();
        self.change(|table| {
            table.services.insert(name.to_owned(), Arc::new(service));
        });
    }

    pub fn links(&self) -> Vec<LinkView> {
        let (answer, links) = oneshot::channel();
        self.tell(Command::Links { answer });
        links.blocking_recv().expect("the worker answers")
    }

    pub fn player(&self, listener: &str) -> TcpStream {
        let found = self.listeners.iter().find(|(name, _)| &**name == listener);
        let (_, address) = found.expect("a listener of the rig");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Ends the worker, which must end well.
    pub fn stop(self, deadline: Duration) {
        self.tell(Command::Shutdown { deadline });
        self.end();
    }

    /// The worker has been told to end, and does.
    pub fn end(mut self) {
        let thread = self.thread.take().expect("it runs until now");
        until("end of the worker", || thread.is_finished());
        thread.join().expect("the worker doesn't panic").expect("no task of it panics");
    }
}

fn table(recovery: Recovery, services: &[&str], limits: &Value) -> Table {
    let mut table = Table { applied_at: SystemTime::now(), ..Table::empty() };
    for name in services {
        let raw: RawService = serde_json::from_value(json!({
            "protocol": "link",
            "framing": {"kind": "length", "width": 4, "order": "big"},
            "limits": limits,
        }))
        .unwrap();
        let service = Service { recovery, ..raw.check((*name).into()).unwrap() };
        table.services.insert((*name).to_owned(), Arc::new(service));
        let route = Route {
            name: (*name).into(),
            listener: (*name).into(),
            service: (*name).into(),
            versions: Default::default(),
            prefer: Prefer::Local,
            matches: RouteMatch::default(),
        };
        table.routes.insert((*name).to_owned(), Arc::new(route));
    }
    table
}

/// A frame as a player sends it.
pub fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

/// A backend's address; each link to it is accepted by the test.
pub struct FakeBackend {
    pub id: BackendId,
    pub instance: InstanceId,
    /// What its WELCOME says that it can do.
    pub capabilities: u64,
    /// The longest frame that it says it takes.
    pub max_frame_bytes: u32,
    listener: TcpListener,
}

impl FakeBackend {
    pub fn new(service: &str, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let id = BackendId { service: service.into(), name: name.into() };
        Self {
            id,
            instance: InstanceId(fastrand::u128(..).to_be_bytes()),
            capabilities: 0,
            max_frame_bytes: 1 << 20,
            listener,
        }
    }

    pub fn address(&self) -> BackendAddress {
        BackendAddress::Tcp(self.listener.local_addr().unwrap().to_string().into())
    }

    /// The connection of the next dial.
    pub fn dialled(&self) -> TcpStream {
        let mut accepted = None;
        until("dial", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whether a dial waits.
    pub fn is_dialled(&self) -> bool {
        self.listener.accept().is_ok()
    }

    /// Answers the next dial.
    pub fn link(&self) -> FakeLink {
        self.link_with(&[])
    }

    pub fn link_with(&self, attachments: &[AttachmentEntry]) -> FakeLink {
        let mut link = FakeLink::over(self.dialled());
        (link.generation, link.told_frame_bytes) = link.hear(|message| match message {
            Message::Hello(hello) => Some((hello.generation, hello.max_frame_bytes)),
            _ => None,
        });
        let mut entries = AttachmentsBuf::new();
        attachments.iter().for_each(|entry| entries.push(*entry));
        link.say(&Message::Welcome(Welcome {
            version: codec::PROTOCOL_VERSION,
            instance: self.instance,
            generation: link.generation,
            max_frame_bytes: self.max_frame_bytes,
            client_window_bytes: u32::MAX,
            state_credit_bytes: 1 << 20,
            orphan_deadline_ms: 60_000,
            capabilities: self.capabilities,
            draining: false,
            backend_version: "1",
            logic: "1",
            writes_format: "one",
            reads_formats: "one",
            attachments: entries.as_attachments(),
        }));
        link
    }
}

/// The backend's end of a link.
pub struct FakeLink {
    pub stream: TcpStream,
    pub generation: u64,
    /// The longest frame that HELLO says may be sent to the proxy.
    pub told_frame_bytes: u32,
    bytes: Vec<u8>,
}

impl FakeLink {
    /// HELLO is still to be heard.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, bytes: Vec::new(), generation: 0, told_frame_bytes: 0 }
    }

    pub fn say(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads on until a message is the one that is waited for.
    pub fn hear<T>(&mut self, mut wanted: impl FnMut(&Message<'_>) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            let mut at = 0;
            let mut found = None;
            while let Some((message, length)) =
                codec::decode(&self.bytes[at..], codec::MAX_MESSAGE_BYTES).unwrap()
            {
                at += length;
                found = wanted(&message);
                if found.is_some() {
                    break;
                }
            }
            self.bytes.drain(..at);
            if let Some(found) = found {
                return found;
            }
            assert!(begun.elapsed() < PATIENCE, "the message that is waited for doesn't come");
            let mut piece = [0; 64 * 1024];
            let count = self.stream.read(&mut piece).expect("the link stays open");
            assert_ne!(count, 0, "the proxy closed the link");
            self.bytes.extend_from_slice(&piece[..count]);
        }
    }

    /// Takes the next session.
    pub fn attach(&mut self) -> (SessionId, Epoch) {
        let attached = self.asked_to_attach();
        let Subject::Session(session) = attached.subject else { panic!("a group") };
        let epoch = attached.epoch;
        self.say(&Message::Attached(attached));
        (session, epoch)
    }

    /// The next ATTACH, unanswered.
    pub fn asked_to_attach(&mut self) -> Attached {
        self.hear(|message| match message {
            Message::Attach(attach) => Some(Attached {
                subject: attach.subject,
                epoch: attach.epoch,
                client_seq: attach.client_seq,
                server_seq: attach.server_seq,
            }),
            _ => None,
        })
    }

    /// All that the proxy has to say now: every message that is of interest.
    pub fn hear_out<T>(&mut self, mut wanted: impl FnMut(&Message<'_>) -> Option<T>) -> Vec<T> {
        const NONCE: u64 = 0x0dd;
        let mut heard = Vec::new();
        self.say(&Message::Ping(Ping { nonce: NONCE }));
        self.hear(|message| {
            heard.extend(wanted(message));
            matches!(message, Message::Pong(pong) if pong.nonce == NONCE).then_some(())
        });
        heard
    }

    /// The next frame of any session: its seq and bytes.
    pub fn frame(&mut self) -> (Seq, Vec<u8>) {
        self.hear(|message| match message {
            Message::Data(data) => Some((data.seq, data.frame.to_vec())),
            _ => None,
        })
    }

    pub fn drain(&mut self, deadline_ms: u32) {
        self.say(&Message::Drain(Drain { deadline_ms, returns: false, reason: "test" }));
    }

    pub fn send(&mut self, session: SessionId, epoch: Epoch, seq: u64, ack: Seq, frame: &[u8]) {
        self.say(&Message::Data(Data {
            subject: Subject::Session(session),
            epoch,
            seq: Seq(seq),
            ack,
            record: Seq::NONE,
            again: false,
            trace: TraceContext::default(),
            frame,
        }));
    }

    pub fn ack(&mut self, session: SessionId, epoch: Epoch, data: Seq) {
        let subject = Subject::Session(session);
        self.say(&Message::Ack(Ack { subject, epoch, data, record: Seq::NONE }));
    }

    /// Answers the next FREEZE with a state that stands for all that was sent.
    pub fn freeze(&mut self, state: &[u8]) -> AttachmentEntry {
        let entry = self.asked_to_freeze();
        self.give_state(&entry, state);
        entry
    }

    /// The attachment that the next FREEZE is for, as it is to be.
    pub fn asked_to_freeze(&mut self) -> AttachmentEntry {
        self.hear(|message| match message {
            Message::Freeze(freeze) => Some(AttachmentEntry {
                subject: freeze.subject,
                epoch: freeze.epoch,
                phase: AttachmentPhase::Frozen,
                client_seq: freeze.client_seq,
                server_seq: Seq::NONE,
                record_seq: Seq::NONE,
            }),
            _ => None,
        })
    }

    pub fn give_state(&mut self, entry: &AttachmentEntry, state: &[u8]) {
        self.say(&Message::State(State {
            subject: entry.subject,
            epoch: entry.epoch,
            is_final: true,
            total_bytes: state.len() as u64,
            offset_bytes: 0,
            client_seq: entry.client_seq,
            server_seq: Seq::NONE,
            record_seq: Seq::NONE,
            members: 0,
            chunk: state,
        }));
    }

    pub fn close(&mut self, session: SessionId, epoch: Epoch, seq: u64) {
        self.say(&Message::Close(Close {
            session,
            epoch,
            seq: Seq(seq),
            ack: Seq::NONE,
            record: Seq::NONE,
            half: false,
            again: false,
            reason: "over",
        }));
    }

    /// Waits for the proxy to close the connection.
    pub fn closed(mut self) {
        let mut piece = [0; 4096];
        // A reset is an end, too.
        while self.stream.read(&mut piece).is_ok_and(|count| count > 0) {}
    }
}
