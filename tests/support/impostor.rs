//! A backend made of the protocol's codec alone: it can break every rule of the link, and tells what it heard.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use holdfast_protocol::message::{
    Ack, Attached, Attachments, Close, Data, FaultScope, Freeze, Message, Pong, Rule, State, Subject, Welcome,
};
use holdfast_protocol::{Epoch, InstanceId, Seq, SessionId, TraceContext, codec};
use serde_json::{Value, json};

use super::scene::SOON;

/// Frames that begin with this are no game: they are the sign to misbehave.
pub const MISBEHAVE: &[u8] = b"misbehave";
/// What it hands over: it keeps nothing of its players.
const STATE: &[u8] = b"all that there is";

pub struct Impostor {
    address: SocketAddr,
    heard: Receiver<Heard>,
    over: Arc<AtomicBool>,
}

/// What the proxy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// ATTACH: of a new session, or with a state.
    Attach {
        fresh: bool,
        lost: bool,
    },
    Frame(Vec<u8>),
    Close {
        half: bool,
    },
    Start,
    Freeze,
    Release,
    /// A rule that we broke, of the whole link or of one attachment.
    Fault {
        rule: Rule,
        of_link: bool,
    },
}

/// One session's attachment, as far as it has come.
#[derive(Debug, Clone, Copy)]
pub struct Talk {
    pub session: SessionId,
    pub epoch: Epoch,
    /// Last client frame taken.
    pub had: Seq,
    /// Last server frame sent.
    pub sent: Seq,
}

/// One connection of the proxy.
pub struct Peer {
    stream: TcpStream,
    inbox: Vec<u8>,
    heard: Sender<Heard>,
    instance: InstanceId,
    pub generation: u64,
    talks: HashMap<SessionId, Talk>,
    /// Sizes of the states that are on their way.
    loading: HashMap<SessionId, u64>,
    /// Frames that it still says after it has handed a session over.
    pub haunting: &'static [&'static [u8]],
    /// A frame that it says before it has taken a session, from its second one on.
    pub hasty: Option<&'static [u8]>,
}

impl Impostor {
    /// `behave` is called with each connection, which ends with it.
    pub fn start(behave: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, behave) = (over.clone(), Arc::new(behave));
        let instance = InstanceId(fastrand::u128(..).to_be_bytes());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                let (behave, heard) = (behave.clone(), sender.clone());
                let (inbox, talks, loading) = (Vec::new(), HashMap::new(), HashMap::new());
                let mut peer = Peer {
                    stream,
                    inbox,
                    heard,
                    instance,
                    generation: 0,
                    talks,
                    loading,
                    haunting: &[],
                    hasty: None,
                };
                std::thread::spawn(move || behave(&mut peer));
            }
        });
        Self { address, heard, over }
    }

    /// Plays by the rules until a frame says [`MISBEHAVE`]; then does `misdeed` to that session.
    pub fn turning(misdeed: impl Fn(&mut Peer, Talk) + Send + Sync + 'static) -> Self {
        Self::start(move |peer| {
            if peer.hello() {
                peer.welcome();
                peer.play(&misdeed);
            }
        })
    }

    pub fn document(&self) -> Value {
        json!({"address": self.address.to_string(), "version": "0"})
    }

    /// Waits until the proxy has said something of that kind.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            match self.heard.recv_timeout(SOON) {
                Ok(heard) if wanted(&heard) => return heard,
                Ok(_) => {}
                Err(error) => panic!("the proxy never said {what}: {error}"),
            }
        }
    }

    /// Nobody listens any more: a proxy that dials is refused.
    pub fn leave(&self) {
        self.over.store(true, Ordering::Release);
        // Wakes the listener's thread; if it is gone, all is done.
        let _ = TcpStream::connect(self.address);
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Peer {
    pub fn raw(&mut self, bytes: &[u8]) {
        // The proxy may have ended the link: that is what many misdeeds are to bring about.
        let _ = self.stream.write_all(bytes);
    }

    pub fn send(&mut self, message: &Message<'_>) {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes);
        self.raw(&bytes);
    }

    /// Reads HELLO; `false`: there is none.
    pub fn hello(&mut self) -> bool {
        let mut generation = None;
        self.next(|_, message| {
            if let Message::Hello(hello) = message {
                generation = Some(hello.generation);
            }
        });
        self.generation = generation.unwrap_or_default();
        generation.is_some()
    }

    pub fn welcome(&mut self) {
        let welcome = self.welcome_message();
        self.send(&Message::Welcome(welcome));
    }

    pub fn welcome_message(&self) -> Welcome<'static> {
        Welcome {
            version: codec::PROTOCOL_VERSION,
            instance: self.instance,
            generation: self.generation,
            max_frame_bytes: 1 << 20,
            client_window_bytes: 1 << 20,
            state_credit_bytes: 1 << 20,
            orphan_deadline_ms: 60_000,
            capabilities: 0,
            draining: false,
            backend_version: "0",
            logic: "0",
            writes_format: "impostor-1",
            reads_formats: "impostor-1",
            attachments: Attachments::default(),
        }
    }

    /// A decent game that echoes, but for the one frame. Returns when the proxy ends the link.
    pub fn play(&mut self, misdeed: &impl Fn(&mut Self, Talk)) {
        let mut misled = Vec::new();
        while self.next(|peer, message| misled.extend(peer.take(message))) {
            for talk in misled.drain(..) {
                misdeed(self, talk);
            }
        }
    }

    pub fn hang_up(&mut self) {
        // The proxy may have been first.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Waits for the end of the link, without a word.
    pub fn sulk(&mut self) {
        while self.next(|_, _| ()) {}
    }

    /// Reads the next message; `false`: the link is over.
    fn next(&mut self, act: impl FnOnce(&mut Self, &Message<'_>)) -> bool {
        loop {
            let inbox = std::mem::take(&mut self.inbox);
            if let Some((message, length)) = codec::decode(&inbox, codec::MAX_MESSAGE_BYTES).unwrap() {
                act(self, &message);
                self.inbox = inbox[length..].to_vec();
                return true;
            }
            self.inbox = inbox;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
            }
        }
    }

    /// Does what a backend does; returns the session that is to be misled.
    fn take(&mut self, message: &Message<'_>) -> Option<Talk> {
        match message {
            Message::Attach(attach) => {
                let Subject::Session(session) = attach.subject else { return None };
                let (epoch, had, sent) = (attach.epoch, attach.client_seq, attach.server_seq);
                self.talks.insert(session, Talk { session, epoch, had, sent });
                let fresh = attach.state_total_bytes == 0;
                self.tell(Heard::Attach { fresh, lost: attach.lost });
                if !fresh {
                    // Its STATE follows.
                    self.loading.insert(session, attach.state_total_bytes);
                    return None;
                }
                if let Some(word) = self.hasty.filter(|_| self.talks.len() > 1) {
                    self.say(Talk { session, epoch, had, sent }, word);
                    return None;
                }
                let attached = Attached { subject: attach.subject, epoch, client_seq: had, server_seq: sent };
                self.send(&Message::Attached(attached));
            }
            Message::State(state) => self.load(state),
            Message::Data(data) => return self.frame(data),
            Message::Close(close) => {
                self.tell(Heard::Close { half: close.half });
                let subject = Subject::Session(close.session);
                self.send(&Message::Ack(Ack {
                    subject,
                    epoch: close.epoch,
                    data: close.seq,
                    record: Seq::NONE,
                }));
                if close.half {
                    self.close(close.session);
                }
            }
            Message::Ping(ping) => {
                let attachments = self.talks.len() as u32;
                self.send(&Message::Pong(Pong {
                    nonce: ping.nonce,
                    attachments,
                    capacity: None,
                    load_permille: None,
                }));
            }
            Message::Start(_) => self.tell(Heard::Start),
            Message::Freeze(freeze) => {
                self.tell(Heard::Freeze);
                self.freeze(freeze);
            }
            Message::Release(_) => self.tell(Heard::Release),
            Message::Fault(fault) => {
                self.tell(Heard::Fault { rule: fault.rule, of_link: fault.scope == FaultScope::Link });
            }
            _ => {}
        }
        None
    }

    fn load(&mut self, state: &State<'_>) {
        let Subject::Session(session) = state.subject else { return };
        let (Some(total), Some(talk)) = (self.loading.get(&session), self.talks.get(&session)) else {
            return;
        };
        if state.offset_bytes + state.chunk.len() as u64 == *total {
            let (subject, epoch) = (state.subject, state.epoch);
            let attached = Attached { subject, epoch, client_seq: talk.had, server_seq: talk.sent };
            self.send(&Message::Attached(attached));
            self.loading.remove(&session);
        }
    }

    fn frame(&mut self, data: &Data<'_>) -> Option<Talk> {
        self.tell(Heard::Frame(data.frame.to_vec()));
        let Subject::Session(session) = data.subject else { return None };
        let talk = self.talks.get_mut(&session)?;
        talk.had = data.seq;
        if data.frame.starts_with(MISBEHAVE) {
            return Some(*talk);
        }
        let talk = *talk;
        self.say(talk, data.frame);
        None
    }

    /// Sends a frame as it should be.
    pub fn say(&mut self, talk: Talk, frame: &[u8]) {
        let data = self.data(talk, frame);
        if let Some(talk) = self.talks.get_mut(&talk.session) {
            talk.sent = data.seq;
        }
        self.send(&Message::Data(data));
    }

    /// The next frame as it should be, for misdeeds to change.
    pub fn data<'a>(&self, talk: Talk, frame: &'a [u8]) -> Data<'a> {
        Data {
            subject: Subject::Session(talk.session),
            epoch: talk.epoch,
            seq: talk.sent.next(),
            ack: talk.had,
            record: Seq::NONE,
            again: false,
            trace: TraceContext::default(),
            frame,
        }
    }

    /// Hands over a state, and, haunting, goes on as if it hadn't.
    fn freeze(&mut self, freeze: &Freeze) {
        let Subject::Session(session) = freeze.subject else { return };
        let Some(talk) = self.talks.get(&session).copied() else { return };
        self.send(&Message::State(State {
            subject: freeze.subject,
            epoch: freeze.epoch,
            is_final: true,
            total_bytes: STATE.len() as u64,
            offset_bytes: 0,
            client_seq: talk.had,
            server_seq: talk.sent,
            record_seq: Seq::NONE,
            members: 0,
            chunk: STATE,
        }));
        for word in self.haunting {
            self.say(talk, word);
        }
    }

    fn close(&mut self, session: SessionId) {
        let Some(talk) = self.talks.remove(&session) else { return };
        let (epoch, seq, ack) = (talk.epoch, talk.sent.next(), talk.had.next());
        let record = Seq::NONE;
        self.send(&Message::Close(Close {
            session,
            epoch,
            seq,
            ack,
            record,
            half: false,
            again: false,
            reason: "",
        }));
    }

    fn tell(&self, heard: Heard) {
        // The test may have heard enough.
        let _ = self.heard.send(heard);
    }
}
