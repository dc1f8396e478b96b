//! A backend by SPEC.md section 15, with one session at most: the table's cells and nothing else. It isn't the SDK: its
//! core can't be cloned and hashed; [`super::likeness`] runs the same messages through both.

use std::collections::VecDeque;

use holdfast_protocol::message::{
    Ack, Attach, AttachMode, Attached, AttachmentEntry, AttachmentPhase, Close, Credit, Data, Fault, FaultScope,
    Message, Refused, Rule, State, Subject, Thaw,
};
use holdfast_protocol::{Epoch, Seq, SessionId, TraceContext};

use super::game::{Game, REPLY_BYTES, Reply};
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
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    Loading { total: u64, bytes: Vec<u8> },
    Inert,
    Active,
    /// `started`: it goes on as active.
    Frozen { started: bool },
    Closing,
}

/// A server frame that isn't acked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Said {
    Reply(Reply),
    Close,
}

/// A client frame that isn't processed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Heard {
    Frame(Vec<u8>),
    Half,
}

/// A state on its way to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Sending {
    bytes: Vec<u8>,
    offset: usize,
    credit: u64,
    client_seq: u64,
    server_seq: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachment {
    epoch: u64,
    phase: Phase,
    game: Game,
    /// Its present link has spoken of it.
    linked: bool,
    received: u64,
    processed: u64,
    /// The last ack that was sent.
    told: u64,
    /// Frames came again: their sender waits for an ack that it has missed.
    repeats_ack: bool,
    /// The game ends the session at START.
    closes: bool,
    inbox: VecDeque<Heard>,
    /// Not acked; the first `sent` have a seq.
    outbox: VecDeque<Said>,
    sent: usize,
    acked: u64,
    sending: Option<Sending>,
    /// The proxy has given it up: what it still does touches nobody.
    pub disowned: bool,
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
            Message::Ack(ack) => attachment.ack(ack.data),
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
                let outcome = had.resume(attach.server_seq.0, desk);
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
        if let Some(more) = attach.state_total_bytes.checked_sub(desk.state_credit_bytes).filter(|more| *more > 0) {
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
            attachment.read_state();
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
                let outcome = had.thaw(epoch, thaw.server_seq.0, desk);
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
            Some(Attachment { phase: Phase::Loading { .. }, .. }) => self.attachment = None,
            Some(attachment) => (attachment.linked, attachment.sending) = (false, None),
            None => {}
        }
    }

    /// Processes the next frame that waits.
    pub fn work(&mut self, desk: &mut Desk<'_>) {
        if let Some(attachment) = &mut self.attachment {
            attachment.work(desk);
        }
        self.after(Ok(()), desk);
    }

    pub fn has_work(&self) -> bool {
        self.attachment.as_ref().is_some_and(|had| had.runs() && !had.inbox.is_empty())
    }

    pub fn owes_ack(&self) -> bool {
        self.attachment.as_ref().is_some_and(|had| {
            had.linked && !matches!(had.phase, Phase::Frozen { .. }) && (had.repeats_ack || had.told < had.processed)
        })
    }

    pub fn send_ack(&mut self, desk: &mut Desk<'_>) {
        if let Some(attachment) = &mut self.attachment {
            attachment.say_ack(desk);
        }
    }

    /// The game has something to say, or ends the session.
    pub fn act(&mut self, closes: bool, desk: &mut Desk<'_>) {
        let Some(attachment) = &mut self.attachment else { return };
        if closes {
            attachment.finish(desk);
        } else {
            let reply = attachment.game.say();
            attachment.outbox.push_back(Said::Reply(reply));
            attachment.pump(desk);
        }
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

impl Attachment {
    fn new(attach: &Attach<'_>) -> Self {
        Self {
            epoch: attach.epoch.0,
            phase: Phase::Loading { total: attach.state_total_bytes, bytes: Vec::new() },
            game: Game::new(attach.epoch.0, attach.lost),
            linked: true,
            received: attach.client_seq.0,
            processed: attach.client_seq.0,
            told: attach.client_seq.0,
            repeats_ack: false,
            closes: false,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            sent: 0,
            acked: attach.server_seq.0,
            sending: None,
            disowned: false,
        }
    }

    fn entry(&self) -> AttachmentEntry {
        AttachmentEntry {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            phase: match self.phase {
                Phase::Loading { .. } => AttachmentPhase::Loading,
                Phase::Inert => AttachmentPhase::Inert,
                Phase::Active | Phase::Closing => AttachmentPhase::Active,
                Phase::Frozen { .. } => AttachmentPhase::Frozen,
            },
            client_seq: Seq(self.received),
            server_seq: Seq(self.last_sent()),
            record_seq: Seq::NONE,
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It may do things that are seen outside.
    pub fn speaks(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Closing)
    }

    /// Nothing is under way here.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Active && self.linked && self.inbox.is_empty() && self.outbox.is_empty()
    }

    fn last_sent(&self) -> u64 {
        self.acked + self.sent as u64
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Inert) && !self.closes
    }

    fn is_ending(&self) -> bool {
        self.phase == Phase::Closing || self.closes
    }

    /// Takes the next seq. `false`: to be skipped.
    fn take(&mut self, seq: u64, again: bool) -> Result<bool, Rule> {
        match self.phase {
            Phase::Loading { .. } if again => return Err(Rule::Unexpected),
            Phase::Loading { .. } | Phase::Inert if !again => return Err(Rule::LiveBeforeStart),
            Phase::Frozen { .. } => return Ok(false),
            _ => {}
        }
        if seq <= self.received {
            self.repeats_ack = true;
            return Ok(false);
        }
        if seq != self.received + 1 {
            return Err(Rule::OutOfSequence);
        }
        self.received = seq;
        if self.is_ending() {
            self.processed = seq;
            return Ok(false);
        }
        Ok(true)
    }

    fn data(&mut self, data: &Data<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.ack(data.ack)?;
        if self.take(data.seq.0, data.again)? {
            self.inbox.push_back(Heard::Frame(data.frame.to_vec()));
            if !desk.slow {
                self.work(desk);
            }
        }
        Ok(())
    }

    fn close(&mut self, close: &Close<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.ack(close.ack)?;
        let is_new = self.take(close.seq.0, close.again)?;
        if is_new && close.half {
            self.inbox.push_back(Heard::Half);
            if !desk.slow {
                self.work(desk);
            }
        } else if is_new || (self.phase == Phase::Inert && self.closes && !close.half) {
            while !self.inbox.is_empty() && self.runs() {
                self.work(desk);
            }
            self.phase = Phase::Active;
            self.processed = self.received;
            self.finish(desk);
        }
        if self.phase == Phase::Closing && !close.half {
            // The player is gone: nothing is left to be acked but this.
            self.say_ack(desk);
            self.outbox.clear();
            self.sent = 0;
        }
        Ok(())
    }

    fn work(&mut self, desk: &mut Desk<'_>) {
        let Some(heard) = self.inbox.pop_front() else { return };
        self.processed += 1;
        match heard {
            Heard::Frame(frame) => match self.game.frame(&frame) {
                Ok(reply) => self.outbox.push_back(Said::Reply(reply)),
                Err(wrong) => desk.ghost.wrong(wrong),
            },
            Heard::Half if self.phase == Phase::Inert => self.closes = true,
            Heard::Half => self.finish(desk),
        }
        if !self.runs() {
            self.inbox.clear();
            self.processed = self.received;
        }
        self.pump(desk);
    }

    /// The game is told that it is over; CLOSE goes after all that it has said.
    fn finish(&mut self, desk: &mut Desk<'_>) {
        self.inbox.clear();
        self.processed = self.received;
        self.phase = Phase::Closing;
        desk.ghost.save(&self.game.frames);
        self.outbox.push_back(Said::Close);
        self.pump(desk);
    }

    fn start(&mut self, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match &mut self.phase {
            Phase::Loading { .. } => return Err(Rule::Unexpected),
            Phase::Frozen { started } => *started = true,
            Phase::Inert => self.go_live(desk),
            Phase::Active | Phase::Closing => {}
        }
        Ok(())
    }

    fn go_live(&mut self, desk: &mut Desk<'_>) {
        self.phase = Phase::Active;
        if self.closes { self.finish(desk) } else { self.pump(desk) }
    }

    fn ack(&mut self, seq: Seq) -> Result<(), Rule> {
        if matches!(self.phase, Phase::Loading { .. }) {
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

    fn freeze(&mut self, credit: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.phase = match self.phase {
            Phase::Loading { .. } => return Err(Rule::Unexpected),
            Phase::Closing => return Ok(()),
            Phase::Inert => Phase::Frozen { started: false },
            Phase::Active => Phase::Frozen { started: true },
            Phase::Frozen { .. } if self.sending.is_some() => return Ok(()),
            Phase::Frozen { started } => Phase::Frozen { started },
        };
        self.inbox.clear();
        self.received = self.processed;
        let (client_seq, server_seq) = (self.processed, self.last_sent());
        self.sending = Some(Sending { bytes: self.write_state(), offset: 0, credit: 0, client_seq, server_seq });
        self.credit(credit, desk)
    }

    /// So much more of the state may go out; its first chunk, even if it is empty, tells the total.
    fn credit(&mut self, bytes: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if matches!(self.phase, Phase::Loading { .. }) {
            return Err(Rule::Unexpected);
        }
        let Some(sending) = &mut self.sending else { return Ok(()) };
        sending.credit += bytes;
        let left = sending.bytes.len() - sending.offset;
        let end = sending.offset + left.min(usize::try_from(sending.credit).unwrap());
        desk.out.push(&Message::State(State {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            is_final: true,
            total_bytes: sending.bytes.len() as u64,
            offset_bytes: sending.offset as u64,
            client_seq: Seq(sending.client_seq),
            server_seq: Seq(sending.server_seq),
            record_seq: Seq::NONE,
            members: 0,
            chunk: &sending.bytes[sending.offset..end],
        }));
        sending.credit -= (end - sending.offset) as u64;
        sending.offset = end;
        if end == sending.bytes.len() {
            self.sending = None;
        }
        Ok(())
    }

    /// The game, and what has no seq yet.
    fn write_state(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.game.write(&mut bytes);
        bytes.push(u8::from(self.closes));
        for said in self.outbox.iter().skip(self.sent) {
            if let Said::Reply(reply) = said {
                bytes.extend_from_slice(&reply.bytes());
            }
        }
        bytes
    }

    fn read_state(&mut self) {
        let Phase::Loading { bytes, .. } = &self.phase else { return };
        let (game, rest) = Game::read(bytes);
        self.closes = rest[0] != 0;
        self.outbox = rest[1..].chunks(REPLY_BYTES).map(|reply| Said::Reply(Reply::parse(reply))).collect();
        self.game = game;
    }

    fn thaw(&mut self, epoch: u64, had: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.epoch = epoch;
        self.sending = None;
        self.inbox.clear();
        self.received = self.processed;
        self.rejoin(had, desk)?;
        match self.phase {
            Phase::Frozen { started: true } => self.go_live(desk),
            Phase::Frozen { started: false } => self.phase = Phase::Inert,
            _ => {}
        }
        Ok(())
    }

    fn resume(&mut self, had: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if matches!(self.phase, Phase::Loading { .. }) {
            return Err(Rule::Unexpected);
        }
        self.linked = true;
        self.rejoin(had, desk)?;
        self.pump(desk);
        Ok(())
    }

    /// ATTACHED, then once more what the proxy lacks.
    fn rejoin(&mut self, had: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if had > self.last_sent() {
            return Err(Rule::AckBeyondSent);
        }
        self.say_attached(desk);
        for index in 0..self.sent {
            let seq = self.acked + 1 + index as u64;
            if seq > had {
                self.say(seq, self.outbox[index], true, desk);
            }
        }
        Ok(())
    }

    fn say_attached(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.processed, false);
        desk.out.push(&Message::Attached(Attached {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            client_seq: Seq(self.processed),
            server_seq: Seq(self.last_sent()),
        }));
    }

    fn say_ack(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.processed, false);
        let (epoch, data) = (Epoch(self.epoch), Seq(self.processed));
        desk.out.push(&Message::Ack(Ack { subject: SUBJECT, epoch, data, record: Seq::NONE }));
    }

    /// Gives a seq to what has none, as long as it may speak.
    fn pump(&mut self, desk: &mut Desk<'_>) {
        while self.linked && self.speaks() && self.sent < self.outbox.len() {
            self.sent += 1;
            self.say(self.last_sent(), self.outbox[self.sent - 1], false, desk);
        }
    }

    fn say(&mut self, seq: u64, said: Said, again: bool, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.processed, false);
        let (session, epoch, seq) = (SESSION, Epoch(self.epoch), Seq(seq));
        let (ack, record) = (Seq(self.processed), Seq::NONE);
        desk.out.push(&match said {
            Said::Reply(reply) => {
                let (trace, frame) = (TraceContext::NONE, &reply.bytes());
                return desk.out.push(&Message::Data(Data { session, epoch, seq, ack, record, again, trace, frame }));
            }
            Said::Close => Message::Close(Close { session, epoch, seq, ack, record, half: false, again, reason: "" }),
        });
    }
}
