//! Giving the state away (FREEZE, CHECKPOINT), and going on after all (THAW) or after a cut (resume).

use holdfast_protocol::message::{Attach, Message, Rule, State, Thaw};
use holdfast_protocol::{Epoch, Seq};

use super::attachment::{Attachment, Phase, Said};
use super::backend::{Desk, SUBJECT};
use super::game::{Game, REPLY_BYTES, Reply};

/// A state on its way to the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sending {
    bytes: Vec<u8>,
    offset: usize,
    credit: u64,
    is_final: bool,
    client_seq: u64,
    server_seq: u64,
    record_seq: u64,
}

impl Attachment {
    pub fn freeze(&mut self, credit: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.phase = match self.phase {
            Phase::Loading { .. } => return Err(Rule::Unexpected),
            Phase::Closing => return Ok(()),
            Phase::Inert => Phase::Frozen { started: false },
            Phase::Active => Phase::Frozen { started: true },
            Phase::Frozen { .. } if self.sending.is_some() => return Ok(()),
            Phase::Frozen { started } => Phase::Frozen { started },
        };
        self.forget_inbox();
        self.send_state(credit, true, desk)
    }

    pub fn checkpoint(&mut self, credit: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        match self.phase {
            Phase::Loading { .. } => Err(Rule::Unexpected),
            Phase::Inert | Phase::Active if self.sending.is_none() => self.send_state(credit, false, desk),
            _ => Ok(()),
        }
    }

    fn send_state(&mut self, credit: u64, is_final: bool, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.sending = Some(Sending {
            bytes: self.write_state(),
            offset: 0,
            credit: 0,
            is_final,
            client_seq: self.processed,
            server_seq: self.last_sent(),
            record_seq: self.record_had,
        });
        self.credit(credit, desk)
    }

    /// So much more of the state may go out; its first chunk, even if it is empty, tells the total.
    pub fn credit(&mut self, bytes: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if self.is_loading() {
            return Err(Rule::Unexpected);
        }
        let Some(sending) = &mut self.sending else { return Ok(()) };
        sending.credit += bytes;
        let left = sending.bytes.len() - sending.offset;
        let end = sending.offset + left.min(usize::try_from(sending.credit).unwrap());
        desk.out.push(&Message::State(State {
            subject: SUBJECT,
            epoch: Epoch(self.epoch),
            is_final: sending.is_final,
            total_bytes: sending.bytes.len() as u64,
            offset_bytes: sending.offset as u64,
            client_seq: Seq(sending.client_seq),
            server_seq: Seq(sending.server_seq),
            record_seq: Seq(sending.record_seq),
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
            if let Said::Reply(reply, _) = said {
                bytes.extend_from_slice(&reply.bytes());
            }
        }
        bytes
    }

    pub fn read_state(&mut self, record_seq: u64) {
        let Phase::Loading { bytes, .. } = &self.phase else { return };
        let (mut game, rest) = Game::read(bytes);
        if self.lost {
            // Back at a checkpoint, and told so: what the player saw since then may come differently.
            (game.lineage, game.number) = (self.game.lineage, 0);
        }
        self.closes = rest[0] != 0;
        self.outbox =
            rest[1..].chunks(REPLY_BYTES).map(|reply| Said::Reply(Reply::parse(reply), record_seq)).collect();
        self.game = game;
        (self.record_had, self.record_heard) = (record_seq, record_seq);
    }

    pub fn thaw(&mut self, thaw: &Thaw, desk: &mut Desk<'_>) -> Result<(), Rule> {
        self.epoch = thaw.epoch.0;
        self.sending = None;
        self.forget_inbox();
        self.rejoin(thaw.server_seq.0, thaw.record_seq.0, desk)?;
        match self.phase {
            Phase::Frozen { started: true } => self.go_live(desk),
            Phase::Frozen { started: false } => self.phase = Phase::Inert,
            _ => {}
        }
        self.pump(desk);
        Ok(())
    }

    pub fn resume(&mut self, attach: &Attach<'_>, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if self.is_loading() {
            return Err(Rule::Unexpected);
        }
        self.linked = true;
        self.rejoin(attach.server_seq.0, attach.record_seq.0, desk)?;
        self.pump(desk);
        Ok(())
    }

    /// ATTACHED, then once more what the proxy lacks: records before what depends on them.
    fn rejoin(&mut self, had: u64, record: u64, desk: &mut Desk<'_>) -> Result<(), Rule> {
        if had > self.last_sent() {
            return Err(Rule::AckBeyondSent);
        }
        self.say_attached(desk);
        for made in self.records.iter().filter(|made| made.seq > record) {
            self.say_record(made, true, desk);
        }
        for index in 0..self.sent {
            let seq = self.acked + 1 + index as u64;
            if seq > had {
                self.say(seq, self.outbox[index], true, desk);
            }
        }
        Ok(())
    }

    /// The link is gone: a state under way ends, the rest waits for the next one.
    pub fn unlink(&mut self) {
        (self.linked, self.sending) = (false, None);
    }
}
