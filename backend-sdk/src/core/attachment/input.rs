//! Running one input: the handler, in its span and behind `catch_unwind`, then what it asked for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_protocol::message::Rule;
use holdfast_protocol::{Seq, TraceContext};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::super::jobs::MAX_JOBS;
use super::super::schedule::Due;
use super::{Attachment, Next, Phase};
use crate::context::{Context, Effects, Work};
use crate::core::desk::ACK_DELAY;
use crate::core::jobs::JobId;
use crate::game::{Session, Tag};
use crate::trace;

/// What a session's handlers are called for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Frame { seq: Seq, frame: &'a [u8], trace: TraceContext },
    Timer(Tag),
    Finished { tag: Tag, result: &'a [u8] },
    Closed,
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
        Input::Finished { tag, result } => session.finished(tag, result, context),
        Input::Closed => session.closed(context),
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
    pub(super) fn run(&mut self, desk: &mut Desk, input: Input<'_>) -> Result<(), Fault> {
        let (Phase::Active(session) | Phase::Inert(session, _)) = &mut self.phase else { return Ok(()) };
        let (span, trace) = match input {
            Input::Frame { seq, trace, .. } => {
                let span = trace::handle(self.place.session, seq.0, trace);
                let context = trace::context_of(span.as_ref(), trace);
                (span, context)
            }
            Input::Timer(_) | Input::Finished { .. } | Input::Closed => (None, TraceContext::NONE),
        };
        self.inputs += 1;
        let mut context = Context {
            place: &self.place,
            epoch: self.epoch,
            input: self.inputs,
            now: desk.now.wall,
            trace,
            state_format: "",
            random: &mut desk.random,
            effects: &mut desk.effects,
        };
        let outcome = {
            let _entered = span.as_ref().map(tracing::Span::enter);
            call(session, input, &mut context)
        };
        if let Err(fault) = outcome {
            desk.effects.clear();
            return Err(fault);
        }
        let wants_end = self.settle(desk, trace)?;
        if wants_end && !matches!(input, Input::Closed) { self.finish(desk) } else { Ok(()) }
    }

    /// Makes what the handler asked for take effect; says whether it asked for the session's end.
    pub(super) fn settle(&mut self, desk: &mut Desk, trace: TraceContext) -> Result<bool, Fault> {
        let mut effects = std::mem::take(&mut desk.effects);
        let outcome = self.apply(desk, &mut effects, trace);
        effects.clear();
        desk.effects = effects;
        outcome
    }

    fn apply(&mut self, desk: &mut Desk, effects: &mut Effects, trace: TraceContext) -> Result<bool, Fault> {
        let session = self.place.session;
        for change in effects.timers.drain(..) {
            self.timers.change(change, &mut desk.schedule)?;
        }
        self.post(desk, effects, trace)?;
        match &mut self.phase {
            Phase::Inert(_, held) => {
                held.work.append(&mut effects.work);
                if held.work.len() > MAX_JOBS {
                    return Err(too_much_work());
                }
            }
            Phase::Active(_) => self.timers.start(session, desk.now.at, &mut desk.schedule),
            Phase::Loading(_) | Phase::Frozen(..) | Phase::Closing => {}
        }
        if !effects.work.is_empty() {
            self.begin_work(desk, effects.work.drain(..))?;
        }
        self.pump(desk);
        Ok(effects.close)
    }

    /// Puts the frames into the outbox.
    fn post(&mut self, desk: &mut Desk, effects: &Effects, trace: TraceContext) -> Result<(), Fault> {
        let max = desk.max_frame_bytes();
        let mut rest = effects.bytes.as_slice();
        for &length in &effects.lengths {
            let (frame, after) = rest.split_at(length);
            rest = after;
            if length > max {
                let text = format!("the game sent a frame of {length} bytes, the limit is {max}");
                return Err(Fault::new(Rule::FrameTooLarge, text));
            }
            self.outbox.push(&mut desk.pool, Kind::Data, trace, frame);
        }
        Ok(())
    }

    pub(super) fn begin_work(
        &mut self,
        desk: &mut Desk,
        work: impl IntoIterator<Item = (Tag, Work)>,
    ) -> Result<(), Fault> {
        for (tag, work) in work {
            if self.jobs.len() >= MAX_JOBS {
                return Err(too_much_work());
            }
            self.jobs.push(desk.jobs.begin(self.place.session, tag, work));
        }
        Ok(())
    }

    /// A timer of this session has been taken off the schedule.
    pub fn timer(&mut self, desk: &mut Desk, due: Due) -> Result<Next, Fault> {
        if self.is_overfull(desk) {
            let later = desk.now.at + ACK_DELAY;
            self.timers.postpone(due, self.place.session, later, &mut desk.schedule);
            return Ok(Next::Stay);
        }
        let fired = self.timers.fired(due, self.place.session, desk.now.at, &mut desk.schedule);
        if let Some(tag) = fired {
            self.run(desk, Input::Timer(tag))?;
        }
        Ok(Next::Stay)
    }

    /// Work of this session has come back, or has panicked.
    pub fn finished(
        &mut self,
        desk: &mut Desk,
        job: JobId,
        tag: Tag,
        result: Option<Vec<u8>>,
    ) -> Result<Next, Fault> {
        let Some(at) = self.jobs.iter().position(|&own| own == job) else { return Ok(Next::Stay) };
        self.jobs.swap_remove(at);
        let Some(result) = result else {
            return Err(Fault::new(Rule::Handler, format!("spawned work {tag} panicked")));
        };
        if matches!(self.phase, Phase::Active(_) | Phase::Frozen(..)) {
            self.results.push_back((tag, result));
        }
        self.run_waiting(desk)
    }
}

fn too_much_work() -> Fault {
    Fault::new(Rule::Handler, format!("more than {MAX_JOBS} pieces of spawned work"))
}
