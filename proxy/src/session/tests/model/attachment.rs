//! The session on a backend: its inputs, one at a time, and what they make. How it is given away, taken back and
//! protected is in [`super::handover`].

use std::collections::VecDeque;

use holdfast_protocol::codec::delta::{Delta, write_delta};
use holdfast_protocol::message::{
    Ack, Attach, Attached, AttachmentEntry, AttachmentPhase, Close, Data, Message, Record, RecordKind,
    Recovery, Rule, Subject,
};
use holdfast_protocol::{Epoch, Seq, TraceContext};

use super::backend::{Desk, SESSION, SUBJECT};
use super::game::{Game, Reply};
use super::handover::Sending;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    Loading {
        total: u64,
        bytes: Vec<u8>,
    },
    Inert,
    Active,
    /// `started`: it goes on as active.
    Frozen {
        started: bool,
    },
    Closing,
}

/// A server frame that isn't acked, and the last record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Said {
    Reply(Reply, u64),
    /// At `delta`: it went in that record.
    InRecord,
    Close,
}

/// An input that isn't processed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Heard {
    Frame(Vec<u8>),
    Half,
    /// What an earlier attachment recorded.
    Record(RecordKind, u64, Vec<u8>),
}

/// A record that was made here and isn't acked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Made {
    pub seq: u64,
    pub kind: RecordKind,
    pub after: u64,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attachment {
    pub(super) epoch: u64,
    pub(super) phase: Phase,
    pub(super) level: Recovery,
    /// An earlier state could not be kept, or not the last of it.
    pub(super) lost: bool,
    pub(super) game: Game,
    /// Its present link has spoken of it.
    pub(super) linked: bool,
    pub(super) received: u64,
    pub(super) processed: u64,
    /// The last ack that was sent.
    told: u64,
    /// Frames came again: their sender waits for an ack that it has missed.
    repeats_ack: bool,
    /// The game ends the session at START.
    pub(super) closes: bool,
    inbox: VecDeque<Heard>,
    /// Not acked; the first `sent` have a seq.
    pub(super) outbox: VecDeque<Said>,
    pub(super) sent: usize,
    pub(super) acked: u64,
    /// The last record of the journal: up to it nothing is made fresh.
    last_to_come: u64,
    /// The last record that has arrived, and the last that has been processed or made.
    pub(super) record_heard: u64,
    pub(super) record_had: u64,
    pub(super) records: VecDeque<Made>,
    /// The recorded answer to what the next frame asks.
    stash: Option<u8>,
    pub(super) sending: Option<Sending>,
    /// The proxy has given it up: what it still does touches nobody.
    pub disowned: bool,
}

impl Attachment {
    pub fn new(attach: &Attach<'_>) -> Self {
        Self {
            epoch: attach.epoch.0,
            phase: Phase::Loading { total: attach.state_total_bytes, bytes: Vec::new() },
            level: attach.recovery,
            lost: attach.lost,
            game: Game::new(lineage(attach), attach.lost),
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
            last_to_come: attach.record_seq.0,
            record_heard: 0,
            record_had: 0,
            records: VecDeque::new(),
            stash: None,
            sending: None,
            disowned: false,
        }
    }

    pub fn entry(&self) -> AttachmentEntry {
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
            record_seq: Seq(self.record_heard),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    pub fn is_loading(&self) -> bool {
        matches!(self.phase, Phase::Loading { .. })
    }

    /// It may do things that are seen outside.
    pub fn speaks(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Closing)
    }

    /// What is made before START may go at once.
    fn sends(&self) -> bool {
        let early = matches!(self.level, Recovery::Replay | Recovery::Delta);
        self.linked && (self.speaks() || (self.phase == Phase::Inert && early))
    }

    /// Nothing is under way here.
    pub fn is_settled(&self) -> bool {
        let idle = self.inbox.is_empty() && self.outbox.is_empty() && self.records.is_empty();
        self.phase == Phase::Active && self.linked && idle
    }

    pub fn has_work(&self) -> bool {
        self.runs() && !self.inbox.is_empty()
    }

    pub fn owes_ack(&self) -> bool {
        let owes = self.repeats_ack || self.told < self.processed;
        self.linked && !matches!(self.phase, Phase::Frozen { .. }) && owes
    }

    pub fn last_sent(&self) -> u64 {
        self.acked + self.sent as u64
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Active | Phase::Inert) && !self.closes
    }

    fn is_ending(&self) -> bool {
        self.phase == Phase::Closing || self.closes
    }

    /// What has arrived and isn't begun is thrown away: it comes again.
    pub(super) fn forget_inbox(&mut self) {
        self.inbox.clear();
        (self.received, self.record_heard) = (self.processed, self.record_had);
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

    fn hear(&mut self, heard: Heard, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.inbox.push_back(heard);
        if desk.slow { Ok(()) } else { self.work(desk) }
    }

    pub fn data(&mut self, data: &Data<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.ack(data.ack)?;
        if self.take(data.seq.0, data.again)? {
            self.hear(Heard::Frame(data.frame.to_vec()), desk)?;
        }
        Ok(())
    }

    pub fn record(&mut self, record: &Record<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match self.phase {
            Phase::Frozen { .. } | Phase::Closing => return Ok(()),
            Phase::Inert | Phase::Active if record.again => {}
            _ => return Err(Rule::Unexpected),
        }
        let seq = record.seq.0;
        if seq <= self.record_heard {
            return Ok(());
        }
        if seq != self.record_heard + 1 {
            return Err(Rule::OutOfSequence);
        }
        self.record_heard = seq;
        self.hear(Heard::Record(record.kind, record.after_client_seq.0, record.bytes.to_vec()), desk)
    }

    pub fn close(&mut self, close: &Close<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.ack(close.ack)?;
        let is_new = self.take(close.seq.0, close.again)?;
        if is_new && close.half {
            self.hear(Heard::Half, desk)?;
        } else if is_new || (self.phase == Phase::Inert && self.closes && !close.half) {
            while !self.inbox.is_empty() && self.runs() {
                self.work(desk)?;
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

    /// Processes the next input that waits.
    pub fn work(&mut self, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match self.inbox.pop_front() {
            Some(Heard::Frame(frame)) => {
                self.processed += 1;
                let value = self.answer(&frame, desk)?;
                match self.game.frame(&frame, value) {
                    Ok(reply) => self.reply(reply, desk),
                    Err(wrong) => desk.ghost.wrong(wrong),
                }
            }
            Some(Heard::Half) => {
                self.processed += 1;
                if self.phase == Phase::Inert { self.closes = true } else { self.finish(desk) }
            }
            Some(Heard::Record(kind, after, bytes)) => self.process_record(kind, after, &bytes, desk)?,
            None => {}
        }
        if !self.runs() {
            self.inbox.clear();
            self.processed = self.received;
        }
        self.pump(desk);
        Ok(())
    }

    /// What the game asks of the world while it processes that frame.
    fn answer(&mut self, frame: &[u8], desk: &mut Desk<'_>) -> Result<u8, Rule> {
        let asks = frame.first().is_some_and(|number| number % 2 == 0);
        match (asks, self.stash.take()) {
            (false, None) => Ok(0),
            (true, Some(value)) => Ok(value),
            (true, None) if self.level != Recovery::Replay => Ok(desk.value),
            (true, None) if self.record_had >= self.last_to_come => {
                self.make(RecordKind::Values, vec![desk.value], desk);
                Ok(desk.value)
            }
            _ => Err(Rule::Diverged),
        }
    }

    fn process_record(
        &mut self,
        kind: RecordKind,
        after: u64,
        bytes: &[u8],
        desk: &mut Desk<'_>,
    ) -> Result<(), Rule> {
        self.record_had += 1;
        match kind {
            RecordKind::Values if after == self.processed + 1 => self.stash = Some(bytes[0]),
            RecordKind::Input if after == self.processed => {
                let reply = self.game.say(bytes[0]);
                self.outbox.push_back(Said::Reply(reply, self.record_had));
                self.pump(desk);
            }
            RecordKind::Delta => {
                let delta = Delta::parse(bytes).ok_or(Rule::Diverged)?;
                self.game = Game::read(delta.change).0;
                self.processed = self.processed.max(after);
                self.received = self.received.max(after);
            }
            _ => return Err(Rule::Diverged),
        }
        Ok(())
    }

    /// The game has something to say that nobody asked for.
    pub fn tick(&mut self, desk: &mut Desk<'_>) {
        if self.level == Recovery::Replay {
            self.make(RecordKind::Input, vec![desk.value], desk);
        }
        let reply = self.game.say(desk.value);
        self.reply(reply, desk);
        self.pump(desk);
    }

    fn reply(&mut self, reply: Reply, desk: &mut Desk<'_>) {
        if self.level != Recovery::Delta {
            return self.outbox.push_back(Said::Reply(reply, self.record_had));
        }
        let (mut change, mut bytes) = (Vec::new(), Vec::new());
        self.game.write(&mut change);
        let frames = [&reply.bytes()[..]];
        write_delta(Seq(self.last_sent()), &TraceContext::NONE, frames.into_iter(), &change, &mut bytes);
        self.outbox.push_back(Said::InRecord);
        self.sent += 1;
        self.make(RecordKind::Delta, bytes, desk);
    }

    fn make(&mut self, kind: RecordKind, bytes: Vec<u8>, desk: &mut Desk<'_>) {
        self.record_had += 1;
        self.record_heard = self.record_had;
        let made = Made { seq: self.record_had, kind, after: self.processed, bytes };
        if self.linked {
            self.say_record(&made, false, desk);
        }
        self.records.push_back(made);
    }

    /// The game is told that it is over; CLOSE goes after all that it has said.
    pub fn finish(&mut self, desk: &mut Desk<'_>) {
        self.inbox.clear();
        self.processed = self.received;
        self.phase = Phase::Closing;
        desk.ghost.save(&self.game.frames);
        self.outbox.push_back(Said::Close);
        self.pump(desk);
    }

    pub fn start(&mut self, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match &mut self.phase {
            Phase::Loading { .. } => return Err(Rule::Unexpected),
            Phase::Frozen { started } => *started = true,
            Phase::Inert => self.go_live(desk),
            Phase::Active | Phase::Closing => {}
        }
        Ok(())
    }

    pub(super) fn go_live(&mut self, desk: &mut Desk<'_>) {
        self.phase = Phase::Active;
        if self.closes { self.finish(desk) } else { self.pump(desk) }
    }

    pub fn take_ack(&mut self, ack: &Ack) -> Result<(), Rule> {
        self.ack(ack.data)?;
        if ack.record.0 > self.record_had {
            return Err(Rule::AckBeyondSent);
        }
        while self.records.front().is_some_and(|made| made.seq <= ack.record.0) {
            self.records.pop_front();
        }
        Ok(())
    }

    fn ack(&mut self, seq: Seq) -> Result<(), Rule> {
        if self.is_loading() {
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

    pub fn say_attached(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.processed, false);
        desk.out.push(&Message::Attached(Attached {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            client_seq: Seq(self.processed),
            server_seq: Seq(self.last_sent()),
        }));
    }

    pub fn say_ack(&mut self, desk: &mut Desk<'_>) {
        (self.told, self.repeats_ack) = (self.processed, false);
        let (epoch, data) = (Epoch(self.epoch), Seq(self.processed));
        desk.out.push(&Message::Ack(Ack { subject: SUBJECT, epoch, data, record: Seq::NONE }));
    }

    pub(super) fn say_record(&self, made: &Made, again: bool, desk: &mut Desk<'_>) {
        desk.out.push(&Message::Record(Record {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            seq: Seq(made.seq),
            after_client_seq: Seq(made.after),
            kind: made.kind,
            member: None,
            again,
            bytes: &made.bytes,
        }));
    }

    /// Gives a seq to what has none, as long as it may speak.
    pub(super) fn pump(&mut self, desk: &mut Desk<'_>) {
        while self.sends() && self.sent < self.outbox.len() {
            self.sent += 1;
            self.say(self.last_sent(), self.outbox[self.sent - 1], false, desk);
        }
    }

    pub(super) fn say(&mut self, seq: u64, said: Said, again: bool, desk: &mut Desk<'_>) {
        let (session, epoch, seq, ack) = (SESSION, Epoch(self.epoch), Seq(seq), Seq(self.processed));
        match said {
            Said::InRecord => return,
            Said::Reply(reply, record) => {
                let (record, trace, frame) = (Seq(record), TraceContext::NONE, &reply.bytes());
                let subject = Subject::Session(session);
                desk.out.push(&Message::Data(Data { subject, epoch, seq, ack, record, again, trace, frame }));
            }
            Said::Close => {
                let (record, half, reason) = (Seq(self.record_had), false, "");
                desk.out.push(&Message::Close(Close {
                    session,
                    epoch,
                    seq,
                    ack,
                    record,
                    half,
                    again,
                    reason,
                }));
            }
        }
        (self.told, self.repeats_ack) = (self.processed, false);
    }
}

/// What names a history: the same for every restore of it, higher for one that begins after it.
fn lineage(attach: &Attach<'_>) -> u8 {
    let began = if attach.lost { attach.client_seq.0 + attach.server_seq.0 } else { 0 };
    1 + u8::try_from(began).unwrap()
}
