//! The end of a session: by the player's CLOSE, or by the game's.

use holdfast_protocol::TraceContext;
use holdfast_protocol::message::Close;

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::frames::Kind;
use super::input::{Input, caught};
use super::{Attachment, Next, Phase};
use crate::game::Session;

impl<S: Session> Attachment<S> {
    /// The player has left (or, with `half`, will send no more).
    pub fn close(&mut self, desk: &mut Desk, close: &Close<'_>) -> Result<Next, Fault> {
        self.outbox.ack(&mut desk.pool, close.ack)?;
        let is_new = self.take_seq(desk, "CLOSE", close.seq, close.again, 0)?;
        if close.half {
            if is_new {
                self.inbox_cost += 1;
                let queue = self.inbox.get_or_insert_with(|| desk.pool.take());
                queue.push(Kind::Close { half: true }, TraceContext::NONE, &[]);
            }
            return self.run_waiting(desk);
        }
        if is_new {
            self.run_out(desk)?;
        }
        match self.phase {
            // Dropped here: the player is gone, and nothing is left to be acked but this.
            Phase::Closing => {
                self.say_ack(desk);
                Ok(Next::Over)
            }
            Phase::Loading(_) | Phase::Inert(..) | Phase::Active(_) | Phase::Frozen(..) => Ok(Next::Stay),
        }
    }

    /// Processes all that the player sent before leaving, with no regard to the outbox: nobody reads it any more.
    fn run_out(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        while self.inbox.is_some() && self.runs() {
            self.run_next_frame(desk)?;
        }
        self.processed = self.received;
        self.activate(desk)?;
        self.finish(desk)
    }

    /// The session ends here: the game is told, and what it has sent still leaves, then CLOSE. Before START that has
    /// to wait.
    pub(super) fn finish(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        match &mut self.phase {
            Phase::Inert(_, held) => held.close = true,
            Phase::Active(_) => self.finish_active(desk)?,
            Phase::Loading(_) | Phase::Frozen(..) | Phase::Closing => {}
        }
        Ok(())
    }

    fn finish_active(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        self.run(desk, Input::Closed)?;
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
