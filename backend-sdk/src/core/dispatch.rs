//! Messages from the proxy, each to what it is about.
//!
//! What names an epoch that isn't current is dropped and counted. A rule broken inside a session ends that attachment;
//! only what can't be said on this link at all ends the link.

use holdfast_protocol::codec::capability::CHECKPOINTS;
use holdfast_protocol::message::{
    AttachmentPhase, Checkpoint, FaultScope, Refused, Rule, State, Subject, Thaw,
};
use holdfast_protocol::{Epoch, Message};

use super::Peer;
use super::attachment::{Attachment, Next, Opened};
use super::desk::{Desk, Now};
use super::fault::{Fault, LinkEnd};
use crate::game::Game;

impl<G: Game> Peer<G> {
    /// Takes one message.
    ///
    /// # Errors
    /// The link is to be closed.
    pub fn receive(&mut self, message: &Message<'_>, now: Now) -> Result<(), LinkEnd> {
        self.desk.now = now;
        match message {
            Message::Data(data) => {
                self.about(data.subject, data.epoch, |attachment, desk| attachment.data(desk, data));
            }
            Message::Ack(ack) => {
                self.about(ack.subject, ack.epoch, |attachment, desk| attachment.ack(desk, ack))
            }
            Message::Attach(attach) => self.attach(attach),
            Message::Start(start) => {
                self.expect(start.subject, start.epoch, "START");
                self.about(start.subject, start.epoch, |attachment, desk| attachment.start(desk));
            }
            Message::Freeze(freeze) => {
                self.expect(freeze.subject, freeze.epoch, "FREEZE");
                self.about(freeze.subject, freeze.epoch, |attachment, desk| attachment.freeze(desk, freeze));
            }
            Message::Thaw(thaw) => self.thaw(thaw),
            Message::Release(release) => {
                self.about(release.subject, release.epoch, |_, _| Ok(Next::Forget));
            }
            Message::State(state) => self.state(state),
            Message::Checkpoint(checkpoint) => self.checkpoint(checkpoint),
            Message::Credit(credit) => self.about(credit.subject, credit.epoch, |attachment, desk| {
                attachment.credit(desk, credit.bytes);
                Ok(Next::Stay)
            }),
            Message::Close(close) => {
                self.about(Subject::Session(close.session), close.epoch, |attachment, desk| {
                    attachment.close(desk, close)
                });
            }
            Message::Ping(ping) => self.say_pong(ping.nonce),
            // Life, and nothing more.
            Message::Pong(_) => {}
            Message::Fault(fault) => return self.fault(fault),
            Message::Record(record) => {
                self.about(record.subject, record.epoch, |attachment, desk| attachment.record(desk, record));
            }
            Message::Hello(_) | Message::Welcome(_) => {
                return Err(LinkEnd::Fault(Fault::new(Rule::Handshake, "a second HELLO, or a WELCOME")));
            }
            Message::Refused(refused) => return self.refused(refused),
            Message::Attached(_) | Message::Join(_) | Message::Drain(_) | Message::Undrain => {
                let text = "a message that only a backend may send";
                return Err(LinkEnd::Fault(Fault::new(Rule::Unexpected, text)));
            }
        }
        Ok(())
    }

    /// A session that isn't here at all can't do what it is asked to, and the proxy waits for it: it is told.
    fn expect(&mut self, subject: Subject, epoch: Epoch, message: &str) {
        if !self.attachments.contains_key(&subject) {
            self.desk.say_fault(subject, epoch, &Fault::unexpected(message, "not attached"));
        }
    }

    /// Runs something on the attachment if `epoch` is the current one.
    fn about(
        &mut self,
        subject: Subject,
        epoch: Epoch,
        action: impl FnOnce(&mut Attachment<G::Session>, &mut Desk) -> Result<Next, Fault>,
    ) {
        if self.attachments.get(&subject).is_some_and(|attachment| attachment.epoch() == epoch) {
            self.with(subject, |attachment, desk| {
                attachment.relink(desk);
                action(attachment, desk)
            });
        } else {
            self.counts.stale += 1;
        }
    }

    /// A session's wish for a group can't be met.
    fn refused(&mut self, refused: &Refused<'_>) -> Result<(), LinkEnd> {
        if matches!(refused.subject, Subject::Group(_)) {
            let text = "REFUSED of a group: only a session asks for anything";
            return Err(LinkEnd::Fault(Fault::new(Rule::Unexpected, text)));
        }
        let mut is_asked = true;
        self.about(refused.subject, refused.epoch, |attachment, desk| {
            is_asked = attachment.wishes();
            attachment.wish_refused(desk, refused.reason)
        });
        self.counts.stale += u64::from(!is_asked);
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.expect(checkpoint.subject, checkpoint.epoch, "CHECKPOINT");
        let is_agreed = self.desk.link.as_ref().is_some_and(|link| link.capabilities & CHECKPOINTS != 0);
        self.about(checkpoint.subject, checkpoint.epoch, |attachment, desk| {
            if !is_agreed {
                return Err(Fault::unexpected("CHECKPOINT", "checkpoints weren't agreed on"));
            }
            attachment.checkpoint(desk, checkpoint)
        });
    }

    fn thaw(&mut self, thaw: &Thaw) {
        let subject = thaw.subject;
        let Some(epoch) = self.attachments.get(&subject).map(Attachment::epoch) else {
            return self.refuse(thaw.subject, thaw.epoch, false, "no such attachment");
        };
        if thaw.epoch < epoch {
            self.counts.stale += 1;
            return;
        }
        let is_loading =
            self.attachments.get(&subject).is_some_and(|had| had.link_phase() == AttachmentPhase::Loading);
        if is_loading && epoch == thaw.old_epoch {
            self.remove(subject, Next::Forget);
        }
        if is_loading || epoch != thaw.old_epoch && epoch != thaw.epoch {
            return self.refuse(thaw.subject, thaw.epoch, false, "no such attachment");
        }
        self.with(subject, |attachment, desk| attachment.thaw(desk, thaw));
    }

    fn state(&mut self, state: &State<'_>) {
        let mut is_whole = false;
        self.about(state.subject, state.epoch, |attachment, _| {
            is_whole = attachment.collect(state)?;
            Ok(Next::Stay)
        });
        if is_whole {
            self.open(state.subject);
        }
    }

    /// Lets the game open a session whose state is there, and answers.
    pub(super) fn open(&mut self, subject: Subject) {
        let Some(attachment) = self.attachments.get_mut(&subject) else { return };
        let epoch = attachment.epoch();
        self.loading_bytes = self.loading_bytes.saturating_sub(attachment.loading_bytes());
        match attachment.open(&*self.game, &mut self.desk) {
            Ok(Opened::Inert) => {
                let answer = attachment.attached();
                self.desk.say(&answer);
            }
            Ok(Opened::Refused(refusal)) => {
                self.remove(subject, Next::Forget);
                self.refuse(subject, epoch, refusal.retry, &refusal.reason);
            }
            Err(fault) => self.fail(subject, &fault),
        }
    }

    fn fault(&mut self, fault: &holdfast_protocol::message::Fault<'_>) -> Result<(), LinkEnd> {
        match fault.scope {
            FaultScope::Link => Err(LinkEnd::Told(Fault::new(fault.rule, fault.text))),
            FaultScope::Attachment(subject, epoch) => {
                tracing::warn!(?subject, %epoch, rule = ?fault.rule, reason = fault.text, "the proxy reports a fault");
                self.about(subject, epoch, |_, _| Ok(Next::Forget));
                Ok(())
            }
        }
    }
}
