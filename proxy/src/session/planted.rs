//! Bugs that tests put into the machine on purpose, to see that they are found. Outside tests there are none, and
//! asking for one costs nothing.

#[cfg(test)]
use holdfast_protocol::message::{Ack, Message, Record};

/// A rule that a session breaks, if it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Whatever comes from the backend counts, of whatever attachment it speaks.
    NoEpochCheck,
    /// The old attachment is released as soon as its state is here.
    EarlyRelease,
    /// Frames that wait when a session moves don't move with it.
    ForgottenQueue,
    /// What no attachment was given goes to a new one before its START.
    LiveBeforeStart,
    /// A record isn't kept when what depends on it is handed on, though it is acked.
    DeliverBeforeKept,
    /// A client frame is forgotten when it is acked, and not when a checkpoint covers it.
    TrimOnAck,
    /// Frames of a member behind its departure aren't given back to it.
    ForgottenFarewell,
    /// Who boards gives up its attachment before its state is here.
    EarlyBoarding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Planted {
    #[cfg(test)]
    bug: Option<Bug>,
}

impl Planted {
    #[cfg(test)]
    pub fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    #[cfg(not(test))]
    pub const fn is(self, _bug: Bug) -> bool {
        false
    }
}

#[cfg(test)]
impl super::Session {
    pub fn plant(&mut self, bug: Bug) {
        self.planted.bug = Some(bug);
    }

    /// Says that a record is kept which isn't.
    pub(super) fn forgets<E: super::Effects>(&mut self, record: &Record<'_>, env: &mut E) -> bool {
        let Some(link) = self.speaking_to().filter(|_| self.planted.is(Bug::DeliverBeforeKept)) else {
            return false;
        };
        let (subject, epoch, data) = (self.subject(), self.epoch, self.inbound.take_ack());
        env.send(link, &Message::Ack(Ack { subject, epoch, data, record: record.seq }));
        true
    }

    /// FREEZE is on its way, and nothing has come of it yet.
    pub(super) fn boards_too_early<E: super::Effects>(&mut self, link: super::LinkId, env: &mut E) {
        let boards = self.order.is_some_and(|order| order.otherwise == super::Otherwise::Board);
        if boards && self.planted.is(Bug::EarlyBoarding) {
            self.release(link, self.epoch, env);
        }
    }

    /// The state is here, and the session is about to move.
    pub(super) fn err_if_planted<E: super::Effects>(&mut self, env: &mut E) {
        match (self.planted.bug, self.old) {
            (Some(Bug::EarlyRelease), Some(old)) => self.release(old.link, old.epoch, env),
            (Some(Bug::ForgottenQueue), _) => self.outbound.forget_queue(),
            _ => {}
        }
    }
}
