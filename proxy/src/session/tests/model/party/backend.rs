//! A backend by SPEC.md section 15 at level `none`, with any number of attachments, which processes frames as they
//! arrive. No ack of its passes a departure's client seq before that departure is acked.

use std::collections::VecDeque;

use holdfast_protocol::message::{
    Ack, Attach, AttachMode, Attached, AttachmentEntry, AttachmentPhase, Data, Fault, FaultScope, Join,
    Message, Refused, Rule, State, Subject, Thaw,
};
use holdfast_protocol::{Epoch, Seq, TraceContext};

use super::super::ghost::{Ghost, Wrong};
use super::super::queue::Queue;
use super::actor::{Actor, GROUP, Said};
use crate::session::message::{epoch_of, subject_of};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    Loading,
    Inert,
    Active,
    /// `started`: it goes on as active.
    Frozen {
        started: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachment {
    pub subject: Subject,
    pub epoch: u64,
    pub phase: Phase,
    pub actor: Actor,
    linked: bool,
    received: u64,
    told: u64,
    repeats_ack: bool,
    /// Not acked; the first `sent` have a seq.
    outbox: VecDeque<Said>,
    sent: usize,
    acked: u64,
    /// The proxy has given it up: what it still does touches nobody.
    pub disowned: bool,
}

/// One run of a backend's process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    pub instance: u8,
    pub attachments: Vec<Attachment>,
}

pub struct Desk<'a> {
    pub out: &'a mut Queue,
    pub ghost: &'a mut Ghost,
    pub refuses: Option<bool>,
    /// Planted: acks don't mind departures.
    pub ack_passes: bool,
}

impl Attachment {
    fn new(attach: &Attach<'_>) -> Self {
        let began = if attach.lost { attach.client_seq.0 + attach.server_seq.0 } else { 0 };
        Self {
            subject: attach.subject,
            epoch: attach.epoch.0,
            phase: Phase::Loading,
            actor: Actor::new(attach.subject, 1 + u8::try_from(began).unwrap(), attach.lost),
            linked: true,
            received: attach.client_seq.0,
            told: attach.client_seq.0,
            repeats_ack: false,
            outbox: VecDeque::new(),
            sent: 0,
            acked: attach.server_seq.0,
            disowned: false,
        }
    }

    pub fn speaks(&self) -> bool {
        self.phase == Phase::Active && !self.disowned
    }

    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Active && self.linked && self.outbox.is_empty() && !self.actor.wishes()
    }

    fn last_sent(&self) -> u64 {
        self.acked + self.sent as u64
    }

    /// What may be acked.
    fn done(&self, desk: &Desk<'_>) -> u64 {
        let departures = self.outbox.iter().filter_map(|said| said.leaves).min();
        departures.filter(|_| !desk.ack_passes).map_or(self.received, |leaves| leaves.min(self.received))
    }

    fn owes_ack(&self, desk: &Desk<'_>) -> bool {
        let frozen = matches!(self.phase, Phase::Frozen { .. });
        self.linked && !frozen && (self.repeats_ack || self.told < self.done(desk))
    }

    fn entry(&self) -> AttachmentEntry {
        AttachmentEntry {
            subject: self.subject,
            epoch: Epoch(self.epoch),
            phase: match self.phase {
                Phase::Loading => AttachmentPhase::Loading,
                Phase::Inert => AttachmentPhase::Inert,
                Phase::Active => AttachmentPhase::Active,
                Phase::Frozen { .. } => AttachmentPhase::Frozen,
            },
            client_seq: Seq(self.received),
            server_seq: Seq(self.last_sent()),
            record_seq: Seq::NONE,
        }
    }

    fn data(&mut self, data: &Data<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.take_ack(data.ack)?;
        match self.phase {
            Phase::Loading if data.again => return Err(Rule::Unexpected),
            Phase::Loading | Phase::Inert if !data.again => return Err(Rule::LiveBeforeStart),
            Phase::Frozen { .. } => return Ok(()),
            _ => {}
        }
        if data.seq.0 <= self.received {
            self.repeats_ack = true;
            return Ok(());
        }
        if data.seq.0 != self.received + 1 {
            return Err(Rule::OutOfSequence);
        }
        self.received = data.seq.0;
        match self.actor.process(data.seq.0, data.frame) {
            Ok(said) => self.outbox.extend(said),
            Err(wrong) if !self.disowned => desk.ghost.wrong(wrong),
            Err(_) => {}
        }
        self.pump(desk);
        self.say_wish(desk);
        Ok(())
    }

    fn say_wish(&self, desk: &mut Desk<'_>) {
        if let Subject::Session(session) = self.subject
            && self.actor.wishes()
            && self.phase == Phase::Active
        {
            desk.out.push(&Message::Join(Join { session, epoch: Epoch(self.epoch), group: GROUP }));
        }
    }

    fn take_ack(&mut self, seq: Seq) -> Result<(), Rule> {
        if self.phase == Phase::Loading {
            return Err(Rule::Unexpected);
        }
        if seq.0 > self.last_sent() {
            return Err(Rule::AckBeyondSent);
        }
        while self.acked < seq.0 {
            self.outbox.pop_front();
            self.sent -= 1;
            self.acked += 1;
        }
        Ok(())
    }

    fn start(&mut self, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match &mut self.phase {
            Phase::Loading => return Err(Rule::Unexpected),
            Phase::Frozen { started } => *started = true,
            Phase::Inert => {
                self.phase = Phase::Active;
                self.pump(desk);
                self.say_wish(desk);
            }
            Phase::Active => {}
        }
        Ok(())
    }

    fn freeze(&mut self, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.phase = match self.phase {
            Phase::Loading => return Err(Rule::Unexpected),
            Phase::Inert => Phase::Frozen { started: false },
            Phase::Active => Phase::Frozen { started: true },
            Phase::Frozen { started } => Phase::Frozen { started },
        };
        let bytes = self.actor.write(self.outbox.iter().skip(self.sent));
        desk.out.push(&Message::State(State {
            subject: self.subject,
            epoch: Epoch(self.epoch),
            is_final: true,
            total_bytes: bytes.len() as u64,
            offset_bytes: 0,
            client_seq: Seq(self.received),
            server_seq: Seq(self.last_sent()),
            record_seq: Seq::NONE,
            members: 0,
            chunk: &bytes,
        }));
        Ok(())
    }

    fn thaw(&mut self, thaw: &Thaw, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.epoch = thaw.epoch.0;
        if let Phase::Frozen { started } = self.phase {
            self.phase = if started { Phase::Active } else { Phase::Inert };
        }
        self.rejoin(thaw.server_seq.0, desk)
    }

    /// ATTACHED, then once more what the proxy lacks, and what else there is to say.
    fn rejoin(&mut self, had: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if self.phase == Phase::Loading {
            return Err(Rule::Unexpected);
        }
        if had > self.last_sent() {
            return Err(Rule::AckBeyondSent);
        }
        self.linked = true;
        self.say_attached(desk);
        for index in 0..self.sent {
            let seq = self.acked + 1 + index as u64;
            if seq > had {
                self.say(seq, index, true, desk);
            }
        }
        self.pump(desk);
        self.say_wish(desk);
        Ok(())
    }

    fn say_attached(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.done(desk), false);
        let (client_seq, server_seq) = (Seq(self.told), Seq(self.last_sent()));
        let (subject, epoch) = (self.subject, Epoch(self.epoch));
        desk.out.push(&Message::Attached(Attached { subject, epoch, client_seq, server_seq }));
    }

    fn say_ack(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.done(desk), false);
        let (subject, epoch, data) = (self.subject, Epoch(self.epoch), Seq(self.told));
        desk.out.push(&Message::Ack(Ack { subject, epoch, data, record: Seq::NONE }));
    }

    /// Gives a seq to what has none, if it may speak; before START, to who leaves and what is said before that.
    fn pump(&mut self, desk: &mut Desk<'_>) {
        let all = match self.phase {
            Phase::Active => self.outbox.len(),
            Phase::Inert => self.outbox.iter().rposition(|said| said.leaves.is_some()).map_or(0, |at| at + 1),
            Phase::Loading | Phase::Frozen { .. } => 0,
        };
        while self.linked && self.sent < all {
            self.sent += 1;
            self.say(self.last_sent(), self.sent - 1, false, desk);
        }
    }

    fn say(&mut self, seq: u64, index: usize, again: bool, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.done(desk), false);
        desk.out.push(&Message::Data(Data {
            subject: self.subject,
            epoch: Epoch(self.epoch),
            seq: Seq(seq),
            ack: Seq(self.told),
            record: Seq::NONE,
            again,
            trace: TraceContext::NONE,
            frame: &self.outbox[index].bytes,
        }));
    }
}

impl Backend {
    pub fn new(instance: u8) -> Self {
        Self { instance, attachments: Vec::new() }
    }

    pub fn find(&mut self, subject: Subject) -> Option<&mut Attachment> {
        self.attachments.iter_mut().find(|had| had.subject == subject)
    }

    fn forget(&mut self, subject: Subject) {
        self.attachments.retain(|had| had.subject != subject);
    }

    pub fn receive(&mut self, message: &Message<'_>, desk: &mut Desk<'_>) {
        let (subject, epoch) = match message {
            Message::Attach(attach) => return self.attach(attach, desk),
            Message::Thaw(thaw) => return self.thaw(thaw, desk),
            Message::Start(start) => (start.subject, start.epoch),
            Message::Freeze(freeze) => (freeze.subject, freeze.epoch),
            Message::Release(release) => (release.subject, release.epoch),
            other => (subject_of(other).unwrap(), epoch_of(other).unwrap()),
        };
        let Some(had) = self.find(subject).filter(|had| had.epoch == epoch.0) else {
            if matches!(message, Message::Start(_) | Message::Freeze(_)) {
                fault(subject, epoch.0, Rule::Unexpected, desk);
            }
            return;
        };
        if matches!(message, Message::Release(_) | Message::Fault(_)) {
            return self.forget(subject);
        }
        if !had.linked {
            return;
        }
        let outcome = match message {
            Message::Start(_) => had.start(desk),
            Message::Data(data) => had.data(data, desk),
            Message::Ack(ack) => had.take_ack(ack.data),
            Message::Freeze(_) => had.freeze(desk),
            Message::State(state) => {
                let (actor, unsent) = Actor::read(subject, state.chunk);
                (had.actor, had.outbox, had.phase) = (actor, unsent.into(), Phase::Inert);
                had.say_attached(desk);
                Ok(())
            }
            Message::Refused(_) => {
                if let Actor::Alone { wish, .. } = &mut had.actor {
                    *wish = false;
                }
                Ok(())
            }
            // A state is small enough to be sent whole, whatever its credit.
            Message::Credit(_) => Ok(()),
            other => panic!("the proxy doesn't say {other:?} here"),
        };
        self.after(subject, outcome, desk);
    }

    fn after(&mut self, subject: Subject, outcome: Result<(), Rule>, desk: &mut Desk<'_>) {
        if let Err(rule) = outcome
            && let Some(had) = self.find(subject)
        {
            desk.ghost.wrong(Wrong::ProxyBrokeARule);
            fault(subject, had.epoch, rule, desk);
            self.forget(subject);
        }
    }

    fn attach(&mut self, attach: &Attach<'_>, desk: &mut Desk<'_>) {
        let (subject, epoch) = (attach.subject, attach.epoch.0);
        if let Some(had) = self.find(subject) {
            if had.epoch > epoch {
                return;
            }
            if had.epoch == epoch && attach.mode == AttachMode::Resume {
                let outcome = had.rejoin(attach.server_seq.0, desk);
                return self.after(subject, outcome, desk);
            }
            if had.epoch == epoch && !matches!(had.phase, Phase::Loading | Phase::Inert) {
                return self.after(subject, Err(Rule::Unexpected), desk);
            }
            self.forget(subject);
        }
        let refusal = if attach.mode == AttachMode::Resume { Some(false) } else { desk.refuses };
        if let Some(retry) = refusal {
            return refuse(subject, epoch, retry, desk);
        }
        let mut attachment = Attachment::new(attach);
        if attach.mode == AttachMode::Fresh {
            attachment.phase = Phase::Inert;
            attachment.say_attached(desk);
        }
        self.attachments.push(attachment);
        self.attachments.sort_by_key(|had| subject_key(had.subject));
    }

    fn thaw(&mut self, thaw: &Thaw, desk: &mut Desk<'_>) {
        let (old, epoch) = (thaw.old_epoch.0, thaw.epoch.0);
        match self.find(thaw.subject) {
            Some(had) if had.epoch > epoch || !had.linked => {}
            Some(had) if had.epoch == old || had.epoch == epoch => {
                let outcome = had.thaw(thaw, desk);
                self.after(thaw.subject, outcome, desk);
            }
            _ => refuse(thaw.subject, epoch, false, desk),
        }
    }

    pub fn entries(&self) -> Vec<AttachmentEntry> {
        self.attachments.iter().map(Attachment::entry).collect()
    }

    pub fn link_lost(&mut self) {
        self.attachments.retain(|had| had.phase != Phase::Loading);
        self.attachments.iter_mut().for_each(|had| had.linked = false);
    }

    pub fn send_acks(&mut self, desk: &mut Desk<'_>) {
        for had in &mut self.attachments {
            if had.owes_ack(desk) {
                had.say_ack(desk);
            }
        }
    }

    pub fn owes_ack(&self, desk: &Desk<'_>) -> bool {
        self.attachments.iter().any(|had| had.owes_ack(desk))
    }
}

fn subject_key(subject: Subject) -> [u8; 16] {
    match subject {
        Subject::Session(id) => id.0,
        Subject::Group(id) => id.0,
    }
}

fn fault(subject: Subject, epoch: u64, rule: Rule, desk: &mut Desk<'_>) {
    let scope = FaultScope::Attachment(subject, Epoch(epoch));
    desk.out.push(&Message::Fault(Fault { scope, rule, text: "" }));
}

fn refuse(subject: Subject, epoch: u64, retry: bool, desk: &mut Desk<'_>) {
    desk.out.push(&Message::Refused(Refused { subject, epoch: Epoch(epoch), retry, reason: "" }));
}
