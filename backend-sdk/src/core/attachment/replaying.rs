//! Taking records of the journal: each is processed as the input that it stands for, at its place.

use holdfast_protocol::codec::delta::Delta;
use holdfast_protocol::message::{Record, RecordKind, Recovery, Rule};
use holdfast_protocol::{Seq, TraceContext};

use super::super::bytes::BytesError;
use super::super::change::{self, Cause, Change};
use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::super::jobs::{MAX_JOBS, Spawned};
use super::super::values::{self, Recorded};
use super::closing::Ending;
use super::input::{Input, too_much_work};
use super::moment::Moment;
use super::{Attachment, Next, Phase};
use crate::context::{Context, Work};
use crate::game::{Session, Tag};
use crate::random::Random;

/// A record, without its subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub kind: RecordKind,
    pub seq: Seq,
    pub after: Seq,
    pub bytes: &'a [u8],
}

impl<S: Session> Attachment<S> {
    /// A record of the journal comes.
    pub fn record(&mut self, desk: &mut Desk, record: &Record<'_>) -> Result<Next, Fault> {
        match self.phase {
            Phase::Loading(_) => return Err(Fault::unexpected("RECORD", "loading")),
            // It isn't begun any more: it comes again wherever the session goes on.
            Phase::Frozen(..) | Phase::Closing => return Ok(Next::Stay),
            Phase::Inert(..) | Phase::Active(_) => {}
        }
        let fits = match self.recovery {
            Recovery::None | Recovery::Checkpoint => false,
            Recovery::Replay => record.kind != RecordKind::Delta,
            Recovery::Delta => record.kind == RecordKind::Delta,
        };
        if !record.again || !fits {
            let text = format!("RECORD ({:?}) at level {}", record.kind, self.recovery.name());
            return Err(Fault::unexpected(&text, self.phase_name()));
        }
        if !self.records.take(record.seq)? {
            desk.repeated += 1;
            return self.run_waiting(desk);
        }
        let Record { kind, seq, after_client_seq: after, bytes, .. } = *record;
        if self.inbox.is_some() || self.must_wait(desk) {
            self.keep_waiting(desk, Given { kind, seq, after, bytes })?;
        } else {
            self.replay(desk, Given { kind, seq, after, bytes })?;
        }
        self.run_waiting(desk)
    }

    fn keep_waiting(&mut self, desk: &mut Desk, given: Given<'_>) -> Result<(), Fault> {
        self.waiting_record_bytes += given.bytes.len();
        let (waiting, max) = (self.waiting_record_bytes, desk.settings.max_state_bytes);
        if waiting as u64 > max {
            let text = format!("{waiting} bytes of records wait to be replayed, the limit is {max}");
            return Err(Fault::new(Rule::WindowExceeded, text));
        }
        let kind = Kind::Record { kind: given.kind, seq: given.seq, after: given.after };
        self.inbox.get_or_insert_with(|| desk.pool.take()).push(kind, TraceContext::NONE, given.bytes);
        Ok(())
    }

    /// Processes one, now that its turn has come.
    pub(super) fn replay(&mut self, desk: &mut Desk, given: Given<'_>) -> Result<(), Fault> {
        self.replayed = true;
        let unreadable = |error: BytesError| {
            Fault::new(Rule::Diverged, format!("record {} can't be read: {error}", given.seq))
        };
        if given.kind == RecordKind::Delta {
            let bytes = Delta::parse(given.bytes).map(|delta| delta.change);
            let bytes = bytes.ok_or(BytesError::Value { field: "frames", expected: 1, got: 0 });
            let change = bytes.and_then(change::parse).map_err(unreadable)?;
            return self.replay_change(desk, given, &change);
        }
        let (time, recorded) = values::parse(given.bytes).map_err(unreadable)?;
        let place = if given.kind == RecordKind::Values { self.processed.next() } else { self.processed };
        if given.after != place || self.values.is_some() {
            let text = format!(
                "record {} ({:?}) of client frame {} after client frame {}",
                given.seq, given.kind, given.after, self.processed
            );
            return Err(Fault::new(Rule::OutOfSequence, text));
        }
        match recorded {
            Recorded::Time if given.kind == RecordKind::Values => {
                self.values = Some((given.seq, time));
                return Ok(());
            }
            Recorded::Timer(_) | Recorded::Finished { .. } | Recorded::JoinRefused { .. }
                if given.kind == RecordKind::Input => {}
            Recorded::Time
            | Recorded::Timer(_)
            | Recorded::Finished { .. }
            | Recorded::JoinRefused { .. } => {
                return Err(Fault::new(Rule::Diverged, format!("record {} is of another kind", given.seq)));
            }
        }
        self.records.processed(given.seq);
        if self.is_ending() {
            return Ok(());
        }
        match recorded {
            Recorded::Time => Ok(()),
            Recorded::Timer(tag) => {
                self.timers.fired_before(tag);
                self.run(desk, Input::Timer(tag), Moment::given(time))
            }
            Recorded::Finished { tag, ordinal, result } => {
                self.forget_work(ordinal);
                self.run(desk, Input::Finished { ordinal, tag, result }, Moment::given(time))
            }
            Recorded::JoinRefused { group, reason } => {
                self.answer_wish(group);
                self.run(desk, Input::JoinRefused { group, reason }, Moment::given(time))
            }
        }
    }

    fn replay_change(&mut self, desk: &mut Desk, given: Given<'_>, change: &Change<'_>) -> Result<(), Fault> {
        if given.after < self.processed {
            let text =
                format!("record {} covers client frame {}, had {}", given.seq, given.after, self.processed);
            return Err(Fault::new(Rule::OutOfSequence, text));
        }
        self.processed = given.after;
        self.received = self.received.max(given.after);
        self.inputs = change.inputs;
        match change.cause {
            Cause::Other | Cause::Closed => {}
            Cause::Timer(tag) => self.timers.fired_before(tag),
            Cause::Finished(ordinal) => self.forget_work(ordinal),
            Cause::JoinRefused => (self.wish, self.refusal) = (None, None),
        }
        self.wish = change.wish.or(self.wish);
        for &timer in &change.timers {
            self.timers.change(timer, &mut desk.schedule)?;
        }
        if let Phase::Inert(_, held) = &mut self.phase {
            held.unclaimed.extend_from_slice(&change.work);
            self.ordinals.handlers += change.work.len() as u64;
        }
        if !change.game.is_empty() || !change.roster.is_empty() {
            self.apply_change(desk, change)?;
        }
        self.random = Random::with_state(change.random);
        if change.close {
            let told = change.cause == Cause::Closed;
            self.ending = Some(Ending { moment: Moment::clock(change.time), told });
        }
        self.records.processed(given.seq);
        Ok(())
    }

    /// Lets the game apply it; of what that asks for, only timers and work count.
    fn apply_change(&mut self, desk: &mut Desk, change: &Change<'_>) -> Result<(), Fault> {
        let (Phase::Active(session) | Phase::Inert(session, _)) = &mut self.phase else { return Ok(()) };
        let mut effects = std::mem::take(&mut desk.effects);
        let mut context = Context {
            place: &self.place,
            epoch: self.epoch,
            input: self.inputs,
            processed: self.processed,
            wish: self.wish,
            now: change.time,
            asked: std::cell::Cell::new(false),
            recovery: self.recovery,
            trace: TraceContext::NONE,
            state_format: "",
            random: &mut self.random,
            effects: &mut effects,
        };
        let outcome = session.apply(change.roster, change.game, &mut context);
        let outcome = outcome.and_then(|()| {
            for timer in effects.timers.drain(..) {
                self.timers.change(timer, &mut desk.schedule)?;
            }
            self.claim_work(effects.work.drain(..))
        });
        effects.clear();
        desk.effects = effects;
        outcome
    }

    /// The result of this work is in the journal.
    fn forget_work(&mut self, ordinal: u64) {
        if let Phase::Inert(_, held) = &mut self.phase {
            held.work.retain(|spawned| spawned.ordinal != ordinal);
            held.unclaimed.retain(|&(unclaimed, _)| unclaimed != ordinal);
        }
    }

    /// Numbers work that was begun again: as it was, if it was under way; else anew.
    pub(super) fn claim_work(&mut self, work: impl Iterator<Item = (Tag, Work)>) -> Result<(), Fault> {
        let Phase::Inert(_, held) = &mut self.phase else { return Ok(()) };
        for (tag, work) in work {
            let claimed = held.unclaimed.iter().position(|&(_, unclaimed)| unclaimed == tag);
            let ordinal = match claimed {
                Some(at) => held.unclaimed.remove(at).0,
                None => self.ordinals.next_of_open(),
            };
            held.work.push(Spawned { ordinal, tag, work });
            if held.work.len() > MAX_JOBS {
                return Err(too_much_work());
            }
        }
        Ok(())
    }
}
