//! Running one input: the handler, in its span and behind `catch_unwind`, then what it asked for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_protocol::message::{Recovery, Rule};
use holdfast_protocol::{GroupId, Seq, TraceContext};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::super::jobs::{Job, JobId, MAX_JOBS, Spawned};
use super::super::schedule::Due;
use super::moment::{Moment, Source};
use super::recording::check_frame;
use super::{Attachment, Next, Phase};
use crate::context::{Context, Effects};
use crate::core::desk::ACK_DELAY;
use crate::game::{Session, Tag};
use crate::trace;

/// What a session's handlers are called for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Frame {
        seq: Seq,
        frame: &'a [u8],
        trace: TraceContext,
        again: bool,
    },
    Timer(Tag),
    Finished {
        ordinal: u64,
        tag: Tag,
        result: &'a [u8],
    },
    Closed,
    /// The group that it wanted to be in can't be had.
    JoinRefused {
        group: GroupId,
        reason: &'a str,
    },
}

/// Calls the handler that the input is for.
pub(crate) fn call<S: Session>(
    session: &mut S,
    input: Input<'_>,
    context: &mut Context<'_>,
) -> Result<(), Fault> {
    caught("handler", || match input {
        Input::Frame { frame, .. } => session.frame(frame, context),
        Input::Timer(tag) => session.timer(tag, context),
        Input::Finished { tag, result, .. } => session.finished(tag, result, context),
        Input::Closed => session.closed(context),
        Input::JoinRefused { group, reason } => session.join_refused(group, reason, context),
    })
}

/// Runs code of the game; a panic is the session's fault and nobody else's.
pub(crate) fn caught<R>(what: &str, code: impl FnOnce() -> R) -> Result<R, Fault> {
    // Nothing that the code touched is used after a panic: the session is dropped, its effects are thrown away.
    catch_unwind(AssertUnwindSafe(code))
        .map_err(|panic| Fault::new(Rule::Handler, format!("{what} panicked: {}", panic_text(&*panic))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

impl<S: Session> Attachment<S> {
    /// Runs one input to its end.
    pub(super) fn run(&mut self, desk: &mut Desk, input: Input<'_>, moment: Moment) -> Result<(), Fault> {
        let (Phase::Active(session) | Phase::Inert(session, _)) = &mut self.phase else { return Ok(()) };
        let (span, trace) = match input {
            // Given once more: its span was made then.
            Input::Frame { trace, again: true, .. } => (None, trace),
            Input::Frame { seq, trace, .. } => {
                let span = trace::handle(self.place.id(), seq.0, trace);
                let context = trace::context_of(span.as_ref(), trace);
                (span, context)
            }
            Input::Timer(_) | Input::Finished { .. } | Input::Closed | Input::JoinRefused { .. } => {
                (None, TraceContext::NONE)
            }
        };
        self.inputs += 1;
        let mut effects = std::mem::take(&mut desk.effects);
        let mut context = Context {
            place: &self.place,
            epoch: self.epoch,
            input: self.inputs,
            processed: self.processed,
            wish: self.wish,
            now: moment.time,
            asked: std::cell::Cell::new(false),
            recovery: self.recovery,
            trace,
            state_format: "",
            random: &mut self.random,
            effects: &mut effects,
        };
        let outcome = {
            let _entered = span.as_ref().map(tracing::Span::enter);
            session.handle(input, &mut context)
        };
        // What ends a session is told the time then, whether it asks or not.
        let asked = context.asked.get() || effects.close;
        let outcome = outcome.and_then(|()| self.settle(desk, &mut effects, input, (moment, asked), trace));
        let wants_end = effects.close && !matches!(input, Input::Closed);
        effects.clear();
        desk.effects = effects;
        outcome?;
        if wants_end { self.finish(desk, Moment::clock(moment.time)) } else { Ok(()) }
    }

    /// Makes what the handler asked for take effect.
    fn settle(
        &mut self,
        desk: &mut Desk,
        effects: &mut Effects,
        input: Input<'_>,
        (moment, asked): (Moment, bool),
        trace: TraceContext,
    ) -> Result<(), Fault> {
        let is_recorded = match input {
            Input::Frame { seq, .. } => {
                moment.check(seq, asked)?;
                asked
            }
            Input::Closed => {
                // How often it asked isn't known if it was told by another attachment.
                moment.check(self.processed, asked || moment.source == Source::Given)?;
                asked
            }
            Input::Timer(_) | Input::Finished { .. } | Input::JoinRefused { .. } => true,
        };
        let mut work = Vec::new();
        for (tag, piece) in effects.work.drain(..) {
            work.push(Spawned { ordinal: self.ordinals.next_of_handler(), tag, work: piece });
        }
        if is_recorded || self.recovery == Recovery::Delta {
            self.record_input(desk, effects, input, moment, trace, &work)?;
        }
        for change in effects.timers.drain(..) {
            self.timers.change(change, &mut desk.schedule)?;
        }
        if self.recovery != Recovery::Delta {
            self.post(desk, effects, trace)?;
        }
        self.place_work(desk, work)?;
        self.pump(desk);
        if effects.join.is_some() {
            self.wish = effects.join;
            self.say_wish(desk);
        }
        Ok(())
    }

    /// Work begins, or is held until START.
    fn place_work(&mut self, desk: &mut Desk, work: Vec<Spawned>) -> Result<(), Fault> {
        match &mut self.phase {
            Phase::Inert(_, held) => {
                held.work.extend(work);
                if held.work.len() > MAX_JOBS { Err(too_much_work()) } else { Ok(()) }
            }
            Phase::Active(_) => {
                self.timers.start(self.place.subject, desk.now.at, &mut desk.schedule);
                self.begin_work(desk, work)
            }
            Phase::Loading(_) | Phase::Frozen(..) | Phase::Closing => Ok(()),
        }
    }

    /// Puts the frames into the outbox.
    pub(super) fn post(
        &mut self,
        desk: &mut Desk,
        effects: &Effects,
        trace: TraceContext,
    ) -> Result<(), Fault> {
        let max = self.largest_frame(desk.max_frame_bytes());
        let mut rest = effects.bytes.as_slice();
        for &length in &effects.lengths {
            let (frame, after) = rest.split_at(length);
            rest = after;
            check_frame(length, max)?;
            self.push(desk, trace, frame);
        }
        Ok(())
    }

    /// Puts one frame into the outbox.
    pub(super) fn push(&mut self, desk: &mut Desk, trace: TraceContext, frame: &[u8]) {
        self.outbox.push(&mut desk.pool, Kind::NEW, trace, frame);
        if self.is_departure(frame) {
            self.outbox.mark_departure(self.processed);
        }
    }

    pub(super) fn begin_work(
        &mut self,
        desk: &mut Desk,
        work: impl IntoIterator<Item = Spawned>,
    ) -> Result<(), Fault> {
        for Spawned { ordinal, tag, work } in work {
            if self.jobs.len() >= MAX_JOBS {
                return Err(too_much_work());
            }
            let id = desk.jobs.begin(self.place.subject, tag, work);
            self.jobs.push(Job { id, ordinal, tag });
        }
        Ok(())
    }

    /// A timer of this session has been taken off the schedule.
    pub fn timer(&mut self, desk: &mut Desk, due: Due) -> Result<Next, Fault> {
        if self.must_pause(desk) {
            let later = desk.now.at + ACK_DELAY;
            self.timers.postpone(due, self.place.subject, later, &mut desk.schedule);
            return Ok(Next::Stay);
        }
        let fired = self.timers.fired(due, self.place.subject, desk.now.at, &mut desk.schedule);
        if let Some(tag) = fired.filter(|_| self.is_playing()) {
            let moment = self.moment_between(desk);
            self.run(desk, Input::Timer(tag), moment)?;
        }
        self.tell_refusal(desk)?;
        Ok(Next::Stay)
    }

    /// Work of this session has come back, or has panicked.
    pub fn finished(&mut self, desk: &mut Desk, job: JobId, result: Option<Vec<u8>>) -> Result<Next, Fault> {
        let Some(at) = self.jobs.iter().position(|own| own.id == job) else { return Ok(Next::Stay) };
        let job = self.jobs.swap_remove(at);
        let Some(result) = result else {
            return Err(Fault::new(Rule::Handler, format!("spawned work {} panicked", job.tag)));
        };
        if matches!(self.phase, Phase::Active(_) | Phase::Frozen(..)) {
            self.results.push_back((job, result));
        }
        self.run_waiting(desk)
    }
}

pub(super) fn too_much_work() -> Fault {
    Fault::new(Rule::Handler, format!("more than {MAX_JOBS} pieces of spawned work"))
}
