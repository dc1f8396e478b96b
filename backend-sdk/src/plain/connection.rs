//! One player on a plain connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use holdfast_protocol::message::{Recovery, Subject};
use holdfast_protocol::{Epoch, GroupId, Seq, SessionId, TraceContext};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Effects, Place};
use crate::core::{Fault, Input, Schedule, Timers, call, caught};
use crate::game::{Game, Opening, Session, Tag};
use crate::random::Random;
use crate::settings::Settings;

const LENGTH_BYTES: usize = 4;
/// Read at a time; a larger frame makes the buffer grow.
const READ_BYTES: usize = 8 * 1024;
/// With no timer set, the task looks around this often.
const IDLE: Duration = Duration::from_secs(3600);

/// How long the last frames of a session may take to leave.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Why a player's connection ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the player left")]
    Left,
    #[error("closed by the game")]
    Closed,
    #[error("the server ends")]
    Stopped,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Fault(#[from] Fault),
    #[error("frame of {length} bytes, the limit is {max}")]
    TooLarge { length: usize, max: usize },
}

pub(super) struct Connection<G: Game> {
    game: Arc<G>,
    settings: Arc<Settings>,
    stream: TcpStream,
    input: Vec<u8>,
    player: Player,
}

/// All of a player but the session and the socket.
struct Player {
    place: Place,
    inputs: u64,
    frames: Seq,
    random: Random,
    effects: Effects,
    schedule: Schedule,
    timers: Timers,
    work: JoinSet<(Tag, Vec<u8>)>,
    output: Vec<u8>,
    closes: bool,
    /// The group that it asked for: there is none without a proxy.
    wish: Option<GroupId>,
}

impl<G: Game> Connection<G> {
    pub fn new(game: Arc<G>, settings: Arc<Settings>, stream: TcpStream, address: SocketAddr) -> Self {
        let session = SessionId(fastrand::u128(..).to_be_bytes());
        let place = Place {
            subject: Subject::Session(session),
            client: address.to_string().into(),
            service: "".into(),
        };
        let player = Player {
            place,
            inputs: 0,
            frames: Seq::NONE,
            random: Random::of(session),
            effects: Effects::default(),
            schedule: Schedule::default(),
            timers: Timers::default(),
            work: JoinSet::new(),
            output: Vec::new(),
            closes: false,
            wish: None,
        };
        Self { game, settings, stream, input: Vec::new(), player }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let session = self.player.place.id();
        match self.open() {
            Ok(Ok(mut open)) => {
                let end = tokio::select! {
                    end = self.play(&mut open) => end,
                    () = stop.cancelled() => End::Stopped,
                };
                if !matches!(end, End::Fault(_)) {
                    self.finish(&mut open, &end).await;
                }
                tracing::debug!(%session, reason = %end, "plain session ended");
            }
            Ok(Err(refusal)) => tracing::warn!(%session, reason = %refusal, "plain session refused"),
            Err(fault) => tracing::warn!(%session, %fault, "plain session refused"),
        }
    }

    fn open(&mut self) -> Result<Result<G::Session, crate::game::Refusal>, Fault> {
        let (game, player) = (&self.game, &mut self.player);
        let mut context = player_context(&player.place, 0, &mut player.random, &mut player.effects);
        let opened = caught("open", || game.open(Opening::Fresh, &mut context))?;
        player.settle()?;
        Ok(opened)
    }

    /// Until the session ends. What all handlers of a batch sent leaves in one write.
    async fn play(&mut self, session: &mut G::Session) -> End {
        loop {
            if let Some(group) = self.player.wish.take() {
                let refused = Input::JoinRefused { group, reason: "no proxy" };
                if let Err(fault) = self.player.run(session, refused) {
                    return fault.into();
                }
            }
            if let Err(error) = self.write().await {
                return error.into();
            }
            if self.player.closes {
                return End::Closed;
            }
            if let Err(end) = self.next_batch(session).await {
                return end;
            }
        }
    }

    async fn next_batch(&mut self, session: &mut G::Session) -> Result<(), End> {
        let due = self.player.schedule.next().map_or_else(|| Instant::now() + IDLE, Instant::from_std);
        self.input.reserve(READ_BYTES);
        tokio::select! {
            read = self.stream.read_buf(&mut self.input) => {
                if read? == 0 {
                    return Err(End::Left);
                }
                self.take_frames(session)
            }
            () = tokio::time::sleep_until(due) => Ok(self.player.tick(session)?),
            Some(joined) = self.player.work.join_next() => {
                let Ok((tag, result)) = joined else {
                    return Err(Fault::new(holdfast_protocol::message::Rule::Handler, "spawned work panicked").into());
                };
                Ok(self.player.run(session, Input::Finished { ordinal: 0, tag, result: &result })?)
            }
        }
    }

    fn take_frames(&mut self, session: &mut G::Session) -> Result<(), End> {
        let max = self.settings.max_frame_bytes as usize;
        let mut begin = 0;
        while let Some((head, rest)) = self.input[begin..].split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > max {
                return Err(End::TooLarge { length, max });
            }
            let Some(frame) = rest.get(..length) else { break };
            self.player.frames = self.player.frames.next();
            let input =
                Input::Frame { seq: self.player.frames, frame, trace: TraceContext::NONE, again: false };
            self.player.run(session, input)?;
            begin += LENGTH_BYTES + length;
            if self.player.closes {
                break;
            }
        }
        self.input.drain(..begin);
        if self.input.is_empty() {
            // An idle player holds no large buffer.
            self.input.shrink_to(READ_BYTES);
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        if !self.player.output.is_empty() {
            self.stream.write_all(&self.player.output).await?;
            self.player.output.clear();
            self.player.output.shrink_to(READ_BYTES);
        }
        Ok(())
    }

    /// The game is told; what it still says is sent if somebody may read it, and its last work runs to the end.
    async fn finish(&mut self, session: &mut G::Session, end: &End) {
        let outcome = self.player.run(session, Input::Closed);
        if outcome.is_ok() && matches!(end, End::Closed | End::Stopped) {
            // The player may have gone in the meantime.
            let last = async {
                self.write().await?;
                self.stream.shutdown().await
            };
            let _ = tokio::time::timeout(LAST_WRITE, last).await;
        }
        let left = self.settings.drain_deadline;
        let work = &mut self.player.work;
        let _ = tokio::time::timeout(left, async { while work.join_next().await.is_some() {} }).await;
    }
}

fn player_context<'a>(
    place: &'a Place,
    input: u64,
    random: &'a mut Random,
    effects: &'a mut Effects,
) -> Context<'a> {
    Context {
        place,
        epoch: Epoch(1),
        input,
        processed: Seq::NONE,
        wish: None,
        now: SystemTime::now(),
        asked: std::cell::Cell::new(false),
        recovery: Recovery::None,
        trace: TraceContext::NONE,
        state_format: "",
        random,
        effects,
    }
}

impl Player {
    fn run<S: Session>(&mut self, session: &mut S, input: Input<'_>) -> Result<(), Fault> {
        self.inputs += 1;
        let mut context = player_context(&self.place, self.inputs, &mut self.random, &mut self.effects);
        call(session, input, &mut context)?;
        self.settle()
    }

    fn tick<S: Session>(&mut self, session: &mut S) -> Result<(), Fault> {
        let now = std::time::Instant::now();
        while let Some((due, id)) = self.schedule.pop(now) {
            if let Some(tag) = self.timers.fired(due, id, now, &mut self.schedule) {
                self.run(session, Input::Timer(tag))?;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Fault> {
        for change in self.effects.timers.drain(..) {
            self.timers.change(change, &mut self.schedule)?;
        }
        self.timers.start(self.place.subject, std::time::Instant::now(), &mut self.schedule);
        let mut rest = self.effects.bytes.as_slice();
        for &length in &self.effects.lengths {
            let (frame, after) = rest.split_at(length);
            rest = after;
            self.output.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            self.output.extend_from_slice(frame);
        }
        for (tag, work) in self.effects.work.drain(..) {
            self.work.spawn(async move { (tag, work.await) });
        }
        self.closes |= self.effects.close;
        self.wish = self.effects.join.or(self.wish);
        self.effects.clear();
        Ok(())
    }
}
