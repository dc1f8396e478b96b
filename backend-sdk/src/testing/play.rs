//! [`Play`]: a script played on the SDK's own core, in simulated time, and played again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use holdfast_protocol::message::{Checkpoint, Hello, RecordKind, Recovery, Subject};
use holdfast_protocol::{Epoch, InstanceId, MAX_MESSAGE_BYTES, Message, Seq, decode};

use super::keeper::{Given, Keeper, Kept};
use super::{Difference, Script, Step, What};
use crate::core::{JobId, JobOrder, Now, Peer, Roster, parse_envelope};
use crate::game::{Game, Tag};
use crate::population::Population;
use crate::settings::Settings;

const FIRST: Epoch = Epoch(1);
const AGAIN: Epoch = Epoch(2);
/// When the first run begins, in seconds of Unix time, and how much later the others do.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);
const LATER: Duration = Duration::from_secs(100_000);
/// Nothing waits for room here.
const ROOM_BYTES: u32 = 1 << 30;

/// The session between two inputs.
struct Moment {
    /// So much of what is given has been processed.
    given: usize,
    kept: Kept,
}

/// A run, and its memory.
pub(super) struct Play {
    keeper: Keeper,
    moments: Vec<Moment>,
}

/// A process with the session in it.
struct Stage<G: Game> {
    peer: Peer<G>,
    now: Now,
    epoch: Epoch,
    /// Work that has begun.
    jobs: Vec<JobId>,
}

impl Play {
    /// Plays it for the first time.
    pub fn first<G: Game>(game: G, script: &Script, level: Recovery) -> Result<Self, Difference> {
        let mut stage = Stage::new(game, level, FIRST, BEGIN);
        let mut play = Self { keeper: Keeper::new(script.subject, level), moments: Vec::new() };
        play.run(&mut stage, script).map_err(|(input, reason)| Difference {
            from: None,
            input: format!("step {input} of the first run"),
            what: What::Ended(reason),
        })?;
        Ok(play)
    }

    pub fn moments(&self) -> usize {
        self.moments.len()
    }

    fn run<G: Game>(&mut self, stage: &mut Stage<G>, script: &Script) -> Result<(), (usize, String)> {
        let Self { keeper, moments } = self;
        stage.attach(keeper, None).and_then(|()| stage.start(keeper)).map_err(|reason| (0, reason))?;
        for (number, step) in script.steps.iter().enumerate() {
            let mut look = |stage: &mut Stage<G>, keeper: &mut Keeper| {
                if keeper.ended.is_none() {
                    let kept = stage.look(keeper)?;
                    moments.push(Moment { given: keeper.given.len(), kept });
                }
                Ok(())
            };
            stage.step(keeper, step, &mut look).map_err(|reason| (number + 1, reason))?;
            if keeper.ended.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Brings the session back from a moment (`None`: from nothing), and compares all that follows.
    pub fn again<G: Game>(&self, game: G, from: Option<usize>) -> Result<(), Difference> {
        let base = from.map(|moment| &self.moments[moment].kept);
        let mut keeper = self.keeper.clone();
        keeper.ended = None;
        if keeper.level == Recovery::Replay {
            let had = base.map_or(Seq::NONE, |kept| kept.server_seq);
            keeper.frames.retain(|seq, _| *seq <= had);
        }
        let wrong = |input: &str, what| Difference { from: from.map(|at| at + 1), input: input.into(), what };
        let mut stage = Stage::new(game, keeper.level, AGAIN, BEGIN + LATER);
        stage.attach(&mut keeper, base).map_err(|reason| wrong("opening it", What::Ended(reason)))?;
        for at in self.keeper.after(base) {
            let input = name(&self.keeper.given[at]);
            self.give(&mut stage, &mut keeper, at).map_err(|what| wrong(&input, what))?;
        }
        // A player's leaving is its own end.
        let is_over = matches!(self.keeper.given.last(), Some(Given::Close { .. }));
        let start = if is_over { Ok(()) } else { stage.start(&mut keeper).map_err(What::Ended) };
        start.and_then(|()| self.compare_end(&keeper)).map_err(|what| wrong("START, after all of it", what))
    }

    fn give<G: Game>(&self, stage: &mut Stage<G>, keeper: &mut Keeper, at: usize) -> Result<(), What> {
        stage.say(&self.keeper.message(AGAIN, at, true)).map_err(What::Ended)?;
        stage.hear(keeper).map_err(What::Ended)?;
        self.compare_frames(keeper, keeper.last_server_seq())?;
        let Some(moment) = self.moments.iter().rev().find(|moment| moment.given == at + 1) else {
            return Ok(());
        };
        self.compare_frames(keeper, moment.kept.server_seq)?;
        let kept = stage.look(keeper).map_err(What::Ended)?;
        let subject = keeper.subject;
        let (first, again) = (snapshot(subject, &moment.kept), snapshot(subject, &kept));
        if first == again { Ok(()) } else { Err(What::State { first, again }) }
    }

    fn compare_end(&self, keeper: &Keeper) -> Result<(), What> {
        self.compare_frames(keeper, self.keeper.last_server_seq())?;
        if keeper.records > self.keeper.records {
            return Err(What::Ended("it asked for the time where it hadn't before".into()));
        }
        match (&self.keeper.ended, &keeper.ended) {
            (Some(_), None) => Err(What::Ended("it had ended, and goes on".into())),
            (None, Some(reason)) => Err(What::Ended(reason.clone())),
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    /// All server frames that both have, and up to `until` none that only one has.
    fn compare_frames(&self, keeper: &Keeper, until: Seq) -> Result<(), What> {
        for number in 1..=until.0.max(keeper.last_server_seq().0) {
            let (first, again) = (self.keeper.frames.get(&Seq(number)), keeper.frames.get(&Seq(number)));
            if first != again {
                return Err(What::Frame { number, first: first.cloned(), again: again.cloned() });
            }
        }
        Ok(())
    }
}

fn name(given: &Given) -> String {
    match given {
        Given::Frame { seq, .. } => format!("client frame {seq}"),
        Given::Close { .. } => "the player's leaving".into(),
        Given::Record { kind, after, .. } => match kind {
            RecordKind::Input => format!("a timer or result of work after client frame {after}"),
            RecordKind::Values => format!("the time for client frame {after}"),
            RecordKind::Delta => format!("the change after client frame {after}"),
        },
    }
}

/// The game's part of a state; of a group without its members, who are the SDK's.
fn snapshot(subject: Subject, kept: &Kept) -> Vec<u8> {
    let Ok(envelope) = parse_envelope(&kept.bytes) else { return kept.bytes.clone() };
    let bytes = match subject {
        Subject::Session(_) => envelope.snapshot,
        Subject::Group(_) => Roster::parse(envelope.snapshot).map_or(envelope.snapshot, |(_, bytes)| bytes),
    };
    bytes.to_vec()
}

impl<G: Game> Stage<G> {
    fn new(game: G, level: Recovery, epoch: Epoch, since_1970: Duration) -> Self {
        let now = Now { at: Instant::now(), wall: SystemTime::UNIX_EPOCH + since_1970 };
        let settings = Settings {
            deltas: level == Recovery::Delta,
            groups: true,
            client_window_bytes: ROOM_BYTES,
            outbox_bytes: ROOM_BYTES as usize,
            ..Settings::default()
        };
        let mut peer = Peer::new(Arc::new(game), Arc::new(settings), Population::default(), now, 1);
        let hello = Hello {
            min_version: 1,
            max_version: 1,
            instance: InstanceId([1; 16]),
            worker: 0,
            generation: 1,
            max_frame_bytes: MAX_MESSAGE_BYTES as u32 - (1 << 16),
            liveness_ms: 1000,
            capabilities: u64::MAX,
            proxy: "test",
            service: "test",
            proof: &[],
        };
        // The first link of a peer is never refused.
        let _ = peer.link_up(&hello, now);
        peer.output().clear();
        Self { peer, now, epoch, jobs: Vec::new() }
    }

    fn attach(&mut self, keeper: &mut Keeper, from: Option<&Kept>) -> Result<(), String> {
        for message in keeper.attach(self.epoch, ROOM_BYTES, from) {
            self.say(&message)?;
        }
        self.hear(keeper)
    }

    fn start(&mut self, keeper: &mut Keeper) -> Result<(), String> {
        self.say(&keeper.start(self.epoch))?;
        self.hear(keeper)
    }

    fn step(
        &mut self,
        keeper: &mut Keeper,
        step: &Step,
        look: &mut impl FnMut(&mut Self, &mut Keeper) -> Result<(), String>,
    ) -> Result<(), String> {
        match step {
            Step::Frame(bytes) => {
                let at = keeper.frame(bytes);
                self.say(&keeper.message(self.epoch, at, false))?;
            }
            Step::Close => {
                let at = keeper.close(false);
                self.say(&keeper.message(self.epoch, at, false))?;
                keeper.ended = Some("the player left".into());
            }
            Step::Finish(tag, result) => self.finish(*tag, result)?,
            Step::Wait(time) => return self.wait(keeper, *time, look),
        }
        self.hear(keeper)?;
        look(self, keeper)
    }

    fn wait(
        &mut self,
        keeper: &mut Keeper,
        time: Duration,
        look: &mut impl FnMut(&mut Self, &mut Keeper) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = self.now.at + time;
        while let Some(due) = self.peer.next_due().filter(|due| *due <= end && keeper.ended.is_none()) {
            self.pass(due.saturating_duration_since(self.now.at));
            let records = keeper.records;
            self.peer.tick(self.now);
            self.hear(keeper)?;
            if keeper.records > records {
                look(self, keeper)?;
            }
        }
        self.pass(end.saturating_duration_since(self.now.at));
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall += time;
    }

    fn finish(&mut self, tag: Tag, result: &[u8]) -> Result<(), String> {
        let found = self.jobs.iter().position(|&job| self.peer.job_tag(job) == Some(tag));
        let at = found.ok_or(format!("no spawned work {tag} is under way"))?;
        self.peer.finished(self.jobs.remove(at), Some(result.to_vec()), self.now);
        Ok(())
    }

    /// Its state between two inputs.
    fn look(&mut self, keeper: &mut Keeper) -> Result<Kept, String> {
        let (subject, credit_bytes) = (keeper.subject, u64::MAX);
        self.say(&Message::Checkpoint(Checkpoint { subject, epoch: self.epoch, credit_bytes }))?;
        keeper.state = None;
        self.hear(keeper)?;
        keeper.state.take().ok_or_else(|| "it gives no state".into())
    }

    fn say(&mut self, message: &Message<'_>) -> Result<(), String> {
        self.peer.receive(message, self.now).map_err(|end| end.to_string())
    }

    /// Takes all that it says, and acks it.
    fn hear(&mut self, keeper: &mut Keeper) -> Result<(), String> {
        loop {
            for order in self.peer.job_orders() {
                if let JobOrder::Begin(job, _) = order {
                    self.jobs.push(job);
                }
            }
            self.peer.flush(true);
            let bytes = std::mem::take(self.peer.output());
            let mut rest = bytes.as_slice();
            while let Some((message, length)) =
                decode(rest, MAX_MESSAGE_BYTES).map_err(|error| error.to_string())?
            {
                keeper.take(&message)?;
                rest = &rest[length..];
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.say(&keeper.ack(self.epoch, keeper.last_server_seq()))?;
        }
    }
}
