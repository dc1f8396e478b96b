//! A backend by SPEC.md section 15, with one session at most: the table's cells and nothing else. It isn't the SDK,
//! whose core can't be cloned and hashed; the other tests of the session machine run against that.

use holdfast_protocol::message::{
    Attach, AttachMode, AttachmentEntry, Credit, Fault, FaultScope, Message, Refused, Rule, State, Subject,
    Thaw,
};
use holdfast_protocol::{Epoch, SessionId};

use super::attachment::{Attachment, Phase};
use super::ghost::{Ghost, Wrong};
use super::queue::Queue;

pub const SESSION: SessionId = SessionId(*b"session-........");
pub const SUBJECT: Subject = Subject::Session(SESSION);

/// One run of a backend's process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    pub instance: u8,
    pub attachment: Option<Attachment>,
}

/// What a backend works with while it takes a message.
pub struct Desk<'a> {
    pub out: &'a mut Queue,
    pub ghost: &'a mut Ghost,
    /// The next ATTACH is refused; `true`: asking again may help.
    pub refuses: Option<bool>,
    /// Frames wait to be processed, instead of being processed as they arrive.
    pub slow: bool,
    pub state_credit_bytes: u64,
    /// What this process answers to a question that a replay can't answer: no other process says the same.
    pub value: u8,
}

impl Backend {
    pub fn new(instance: u8) -> Self {
        Self { instance, attachment: None }
    }

    pub fn receive(&mut self, message: &Message<'_>, desk: &mut Desk<'_>) {
        match message {
            Message::Attach(attach) => return self.attach(attach, desk),
            Message::Thaw(thaw) => return self.thaw(thaw, desk),
            Message::Start(start) => self.expect(start.epoch, desk),
            Message::Freeze(freeze) => self.expect(freeze.epoch, desk),
            Message::Checkpoint(checkpoint) => self.expect(checkpoint.epoch, desk),
            _ => {}
        }
        let (epoch, over) = match message {
            Message::Release(release) => (release.epoch, true),
            Message::Fault(Fault { scope: FaultScope::Attachment(_, epoch), .. }) => (*epoch, true),
            Message::Start(start) => (start.epoch, false),
            Message::Data(data) => (data.epoch, false),
            Message::Close(close) => (close.epoch, false),
            Message::Ack(ack) => (ack.epoch, false),
            Message::Freeze(freeze) => (freeze.epoch, false),
            Message::State(state) => (state.epoch, false),
            Message::Credit(credit) => (credit.epoch, false),
            Message::Record(record) => (record.epoch, false),
            Message::Checkpoint(checkpoint) => (checkpoint.epoch, false),
            other => panic!("the proxy never says {other:?}"),
        };
        let Some(attachment) = self.attachment.as_mut().filter(|had| had.epoch == epoch.0) else { return };
        if over {
            self.attachment = None;
            return;
        }
        if !attachment.linked {
            return;
        }
        let outcome = match message {
            Message::Start(_) => attachment.start(desk),
            Message::Data(data) => attachment.data(data, desk),
            Message::Close(close) => attachment.close(close, desk),
            Message::Ack(ack) => attachment.take_ack(ack),
            Message::Record(record) => attachment.record(record, desk),
            Message::Checkpoint(checkpoint) => attachment.checkpoint(checkpoint.credit_bytes, desk),
            Message::Freeze(freeze) => attachment.freeze(freeze.credit_bytes, desk),
            Message::Credit(credit) => attachment.credit(credit.bytes, desk),
            Message::State(state) => return self.state(state, desk),
            _ => Ok(()),
        };
        self.after(outcome, desk);
    }

    /// A rule broken ends the attachment; so does the ack of the last that it had to say.
    fn after(&mut self, outcome: Result<(), Rule>, desk: &mut Desk<'_>) {
        let Some(attachment) = &self.attachment else { return };
        if let Err(rule) = outcome {
            desk.ghost.wrong(Wrong::ProxyBrokeARule);
            fault(attachment.epoch, rule, desk);
            self.attachment = None;
        } else if attachment.phase == Phase::Closing && attachment.outbox.is_empty() {
            self.attachment = None;
        }
    }

    fn expect(&self, epoch: Epoch, desk: &mut Desk<'_>) {
        if self.attachment.is_none() {
            fault(epoch.0, Rule::Unexpected, desk);
        }
    }

    fn attach(&mut self, attach: &Attach<'_>, desk: &mut Desk<'_>) {
        let epoch = attach.epoch.0;
        if let Some(had) = &mut self.attachment {
            if had.epoch > epoch {
                return;
            }
            if had.epoch == epoch && attach.mode == AttachMode::Resume {
                let outcome = had.resume(attach, desk);
                return self.after(outcome, desk);
            }
            if had.epoch == epoch && !matches!(had.phase, Phase::Loading { .. } | Phase::Inert) {
                return self.after(Err(Rule::Unexpected), desk);
            }
            self.attachment = None;
        }
        let refusal = if attach.mode == AttachMode::Resume { Some(false) } else { desk.refuses };
        if let Some(retry) = refusal {
            return refuse(epoch, retry, desk);
        }
        self.attachment = Some(Attachment::new(attach));
        if attach.mode == AttachMode::Fresh {
            return self.loaded(desk);
        }
        if let Some(more) =
            attach.state_total_bytes.checked_sub(desk.state_credit_bytes).filter(|more| *more > 0)
        {
            desk.out.push(&Message::Credit(Credit { subject: SUBJECT, epoch: attach.epoch, bytes: more }));
        }
    }

    fn state(&mut self, state: &State<'_>, desk: &mut Desk<'_>) {
        let Some(attachment) = &mut self.attachment else { return };
        let Phase::Loading { total, bytes } = &mut attachment.phase else {
            return self.after(Err(Rule::Unexpected), desk);
        };
        let end = bytes.len() as u64 + state.chunk.len() as u64;
        if state.total_bytes != *total || state.offset_bytes != bytes.len() as u64 || end > *total {
            return self.after(Err(Rule::StateOverrun), desk);
        }
        bytes.extend_from_slice(state.chunk);
        if end == *total {
            attachment.read_state(state.record_seq.0);
            self.loaded(desk);
        }
    }

    fn loaded(&mut self, desk: &mut Desk<'_>) {
        if let Some(attachment) = &mut self.attachment {
            attachment.phase = Phase::Inert;
            attachment.say_attached(desk);
        }
    }

    fn thaw(&mut self, thaw: &Thaw, desk: &mut Desk<'_>) {
        let (old, epoch) = (thaw.old_epoch.0, thaw.epoch.0);
        match &mut self.attachment {
            Some(had) if had.epoch > epoch => {}
            Some(had) if had.epoch == old || had.epoch == epoch => {
                if matches!(had.phase, Phase::Loading { .. }) {
                    self.attachment = None;
                    return refuse(epoch, false, desk);
                }
                if !had.linked {
                    return;
                }
                let outcome = had.thaw(thaw, desk);
                self.after(outcome, desk);
            }
            _ => refuse(epoch, false, desk),
        }
    }

    /// As WELCOME lists it.
    pub fn entry(&self) -> Option<AttachmentEntry> {
        self.attachment.as_ref().map(Attachment::entry)
    }

    /// Half a state is of no use without its link; the rest waits for the next one.
    pub fn link_lost(&mut self) {
        match &mut self.attachment {
            Some(attachment) if attachment.is_loading() => self.attachment = None,
            Some(attachment) => attachment.unlink(),
            None => {}
        }
    }

    /// Processes the next input that waits.
    pub fn work(&mut self, desk: &mut Desk<'_>) {
        let outcome = self.attachment.as_mut().map_or(Ok(()), |had| had.work(desk));
        self.after(outcome, desk);
    }

    pub fn send_ack(&mut self, desk: &mut Desk<'_>) {
        if let Some(attachment) = &mut self.attachment {
            attachment.say_ack(desk);
        }
    }

    /// The game has something to say, or ends the session.
    pub fn act(&mut self, closes: bool, desk: &mut Desk<'_>) {
        match &mut self.attachment {
            Some(attachment) if closes => attachment.finish(desk),
            Some(attachment) => attachment.tick(desk),
            None => {}
        }
    }

    pub fn has_work(&self) -> bool {
        self.attachment.as_ref().is_some_and(Attachment::has_work)
    }

    pub fn owes_ack(&self) -> bool {
        self.attachment.as_ref().is_some_and(Attachment::owes_ack)
    }

    pub fn is_active(&self) -> bool {
        self.attachment.as_ref().is_some_and(|had| had.phase == Phase::Active)
    }
}

fn fault(epoch: u64, rule: Rule, desk: &mut Desk<'_>) {
    let scope = FaultScope::Attachment(SUBJECT, Epoch(epoch));
    desk.out.push(&Message::Fault(Fault { scope, rule, text: "" }));
}

fn refuse(epoch: u64, retry: bool, desk: &mut Desk<'_>) {
    desk.out.push(&Message::Refused(Refused { subject: SUBJECT, epoch: Epoch(epoch), retry, reason: "" }));
}
