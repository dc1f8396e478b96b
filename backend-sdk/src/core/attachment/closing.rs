//! The end of a session: by the player's CLOSE, or by the game's.

use holdfast_protocol::TraceContext;
use holdfast_protocol::message::{Close, Recovery};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::input::{Input, caught};
use super::moment::{Moment, Source};
use super::{Attachment, Next, Phase};
use crate::game::Session;

/// A session that has been asked to end: no input but the end itself comes any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// What the game is told of the time.
    pub moment: Moment,
    /// The game has been told of the end before: only CLOSE is left.
    pub told: bool,
}

impl<S: Session> Attachment<S> {
    /// The player has left (or, with `half`, will send no more).
    pub fn close(&mut self, desk: &mut Desk, close: &Close<'_>) -> Result<Next, Fault> {
        self.take_ack(desk, close.ack)?;
        let is_new = self.take_seq(desk, "CLOSE", close.seq, close.again, 0)?;
        if matches!(self.phase, Phase::Frozen(..)) {
            return Ok(Next::Stay);
        }
        // At `delta` the end is an input that needs a place for what it sends, as any other.
        if is_new && (close.half || self.recovery == Recovery::Delta) {
            self.inbox_cost += 1;
            let queue = self.inbox.get_or_insert_with(|| desk.pool.take());
            queue.push(Kind::Close { half: close.half }, TraceContext::NONE, &[]);
            return self.run_waiting(desk);
        }
        if is_new {
            self.run_out(desk)?;
            self.processed = self.received;
            self.activate(desk)?;
            self.end_by_client(desk)?;
        }
        if !is_new && !close.half && self.is_ending() {
            // Its end waits for START, and the proxy waits for no more than the ack: the game is told now.
            self.activate(desk)?;
        }
        self.is_gone |= !close.half && (is_new || self.is_ending());
        self.run_waiting(desk)
    }

    /// The player's CLOSE has its turn.
    pub(super) fn end_by_client(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        if self.ending.is_some() {
            return self.try_end(desk);
        }
        let mut moment = self.moment(desk);
        if matches!(self.phase, Phase::Inert(..)) && moment.source == Source::Fresh {
            // The game is told after START, and nobody knows yet whether it will ask.
            self.record_close(desk, moment)?;
            moment = Moment::clock(moment.time);
        }
        self.finish(desk, moment)
    }

    /// The session ends here: the game is told, and what it has sent still leaves, then CLOSE. Before START that has
    /// to wait.
    pub(super) fn finish(&mut self, desk: &mut Desk, moment: Moment) -> Result<(), Fault> {
        if matches!(self.phase, Phase::Active(_) | Phase::Inert(..)) {
            self.ending.get_or_insert(Ending { moment, told: false });
        }
        self.try_end(desk)
    }

    /// Ends it, if it is asked to and may.
    pub(super) fn try_end(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        match self.ending {
            Some(ending) if matches!(self.phase, Phase::Active(_)) && !self.lacks_window(desk) => {
                self.end(desk, ending)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the game has ended the session, or will at START.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Closing) || self.ending.is_some()
    }

    fn end(&mut self, desk: &mut Desk, ending: Ending) -> Result<(), Fault> {
        if !ending.told {
            self.run(desk, Input::Closed, ending.moment)?;
        }
        self.clear_inbox(desk);
        self.processed = self.received;
        self.results.clear();
        self.timers.clear(&mut desk.schedule);
        let session = std::mem::replace(&mut self.phase, Phase::Closing);
        caught("drop", || drop(session))?;
        self.outbox.push(&mut desk.pool, Kind::Close { half: false }, TraceContext::NONE, &[]);
        self.pump(desk);
        self.owe_ack(desk, 0);
        Ok(())
    }
}
