//! A proxy side that says what it is told, and a game that counts.

use std::time::Duration;

use holdfast_backend::{Context, Game, GroupId, Opening, Refusal, Session};
use holdfast_protocol::message::{
    Attach, AttachMode, Data, Freeze, Hello, Recovery, Release, Start, Subject,
};
use holdfast_protocol::{Epoch, InstanceId, Message, Seq, SessionId, TraceContext, decode, encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

const DEADLINE: Duration = Duration::from_secs(20);

/// Answers each frame with its number; takes its time over one that says "slow".
pub struct Counting;

/// What a slow frame costs its handler.
pub const SLOW: Duration = Duration::from_millis(10);

pub struct Count(u64);

impl Game for Counting {
    type Session = Count;

    fn open(&self, opening: Opening<'_>, _: &mut Context<'_>) -> Result<Count, Refusal> {
        match opening {
            Opening::State(state) | Opening::Recovered(state) => state
                .try_into()
                .map(|bytes| Count(u64::from_be_bytes(bytes)))
                .map_err(|_| Refusal::for_good("not a count")),
            Opening::Fresh | Opening::Lost => Ok(Count(0)),
        }
    }
}

impl Session for Count {
    fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
        self.0 += 1;
        if frame == b"slow" {
            std::thread::sleep(SLOW);
        }
        if frame == b"join" {
            context.join(GroupId([7; 16]));
        }
        let mut answer = format!("{} ", self.0).into_bytes();
        answer.extend_from_slice(frame);
        context.send(&answer);
    }

    fn join_refused(&mut self, _: GroupId, reason: &str, context: &mut Context<'_>) {
        context.send(reason.as_bytes());
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

pub struct Proxy {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
}

impl Proxy {
    pub async fn connect(address: &str) -> Self {
        let socket: Box<dyn Socket> = match address.strip_prefix("unix:") {
            Some(path) => Box::new(UnixStream::connect(path).await.unwrap()),
            None => Box::new(TcpStream::connect(address).await.unwrap()),
        };
        Self { socket, input: Vec::new() }
    }

    /// HELLO, and what is answered.
    pub async fn greet(&mut self, generation: u64) -> Message<'static> {
        self.say(&[Message::Hello(hello(generation, 0))]).await;
        self.next().await
    }

    pub async fn say(&mut self, messages: &[Message<'_>]) {
        let bytes: Vec<u8> = messages.iter().flat_map(bytes_of).collect();
        self.write(&bytes).await;
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next message. Its bytes live for the rest of the test.
    pub async fn next(&mut self) -> Message<'static> {
        loop {
            if let Some((_, length)) = decode(&self.input, usize::MAX).unwrap() {
                let bytes: &'static [u8] = self.input.drain(..length).collect::<Vec<_>>().leak();
                return decode(bytes, usize::MAX).unwrap().unwrap().0;
            }
            let read = tokio::time::timeout(DEADLINE, self.socket.read_buf(&mut self.input)).await;
            assert_ne!(read.expect("a message within the deadline").unwrap(), 0, "closed by the backend");
        }
    }

    pub async fn is_closed(&mut self) -> bool {
        let read = tokio::time::timeout(DEADLINE, self.socket.read_buf(&mut self.input)).await;
        read.expect("the end within the deadline").unwrap_or(0) == 0
    }
}

pub fn bytes_of(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(message, &mut bytes);
    bytes
}

pub fn hello(generation: u64, worker: u16) -> Hello<'static> {
    Hello {
        min_version: 1,
        max_version: 1,
        instance: InstanceId([9; 16]),
        worker,
        generation,
        max_frame_bytes: 100_000,
        liveness_ms: 10_000,
        capabilities: 0,
        proxy: "host-a",
        service: "arena",
        proof: &[],
    }
}

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

const EPOCH: Epoch = Epoch(1);

pub fn attach(number: u8, mode: AttachMode) -> Message<'static> {
    Message::Attach(Attach {
        subject: Subject::Session(session(number)),
        epoch: EPOCH,
        mode,
        lost: false,
        client_seq: Seq::NONE,
        server_seq: Seq::NONE,
        record_seq: Seq::NONE,
        state_total_bytes: 0,
        server_window_bytes: 64 * 1024,
        trace: TraceContext::NONE,
        group: None,
        recovery: Recovery::None,
        opened_us: 0,
        client: "127.0.0.1:5000",
        service: "arena",
        format: "",
    })
}

pub fn start(number: u8) -> Message<'static> {
    Message::Start(Start { subject: Subject::Session(session(number)), epoch: EPOCH })
}

pub fn release(number: u8) -> Message<'static> {
    Message::Release(Release { subject: Subject::Session(session(number)), epoch: EPOCH })
}

pub fn freeze(number: u8) -> Message<'static> {
    Message::Freeze(Freeze {
        subject: Subject::Session(session(number)),
        epoch: EPOCH,
        client_seq: Seq::NONE,
        credit_bytes: 1 << 20,
        trace: TraceContext::NONE,
    })
}

pub fn data(number: u8, seq: u64, frame: &[u8]) -> Message<'_> {
    Message::Data(Data {
        subject: Subject::Session(session(number)),
        epoch: EPOCH,
        seq: Seq(seq),
        ack: Seq::NONE,
        record: Seq::NONE,
        again: false,
        trace: TraceContext::NONE,
        frame,
    })
}
