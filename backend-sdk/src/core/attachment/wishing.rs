//! The wish of a session to be in a group: it is told to the proxy whenever the session becomes active, for as long as
//! it is neither met nor refused.
//!
//! A refusal is an input that no client sent. One that can't be given at once waits, in the state too; until then the
//! wish stands, so that a replay finds it as it was.

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{Join, Subject};
use holdfast_protocol::{GroupId, Message};

use super::super::desk::Desk;
use super::super::fault::Fault;
use super::input::Input;
use super::{Attachment, Next};
use crate::game::Session;

impl<S: Session> Attachment<S> {
    /// Whether an answer to a wish is awaited.
    pub fn wishes(&self) -> bool {
        self.wish.is_some() && self.wish != self.refused_group()
    }

    fn refused_group(&self) -> Option<GroupId> {
        self.refusal.as_deref().map(|&(group, _)| group)
    }

    /// Tells the proxy the wish, if there is one and it may be told now.
    pub(super) fn say_wish(&mut self, desk: &mut Desk) {
        let (Some(group), Subject::Session(session)) = (self.wish, self.place.subject) else { return };
        let may_say = self.linked && self.is_playing() && self.wishes();
        let Some(link) = desk.link.as_ref().filter(|_| may_say) else { return };
        if link.capabilities & capability::GROUPS != 0 {
            desk.say(&Message::Join(Join { session, epoch: self.epoch, group }));
        } else if desk.settings.groups {
            self.refuse_wish(group, "the proxy has no groups");
        } else {
            self.refuse_wish(group, "the game has no groups (Builder::groups)");
        }
    }

    fn refuse_wish(&mut self, group: GroupId, reason: &str) {
        self.refusal = Some(Box::new((group, reason.to_owned())));
    }

    /// The proxy says that the wish can't ever be met.
    pub fn wish_refused(&mut self, desk: &mut Desk, reason: &str) -> Result<Next, Fault> {
        if let Some(group) = self.wish.filter(|_| self.wishes()) {
            self.refuse_wish(group, reason);
        }
        self.run_waiting(desk)
    }

    /// The game is told that the group refuses: it is wished for no longer. Another one, that was named since, is.
    pub(super) fn answer_wish(&mut self, group: GroupId) {
        self.refusal = None;
        if self.wish == Some(group) {
            self.wish = None;
        }
    }

    /// Tells the game of a refusal, as soon as inputs run. One at a time: the answer may be another wish.
    pub(super) fn tell_refusal(&mut self, desk: &mut Desk) -> Result<(), Fault> {
        if self.refusal.is_none() || !self.is_playing() || self.must_pause(desk) {
            return Ok(());
        }
        let Some(refusal) = self.refusal.take() else { return Ok(()) };
        let (group, reason) = *refusal;
        self.answer_wish(group);
        let moment = self.moment_between(desk);
        self.run(desk, Input::JoinRefused { group, reason: &reason }, moment)
    }
}
