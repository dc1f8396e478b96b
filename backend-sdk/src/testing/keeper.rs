//! [`Keeper`]: the proxy's memory of one session or group, in a test: what its backend said, checked, and what another one is to
//! be given.

use std::collections::BTreeMap;

use holdfast_protocol::codec::delta::Delta;
use holdfast_protocol::message::{
    Ack, Attach, AttachMode, Close, Data, Record, RecordKind, Recovery, Start, State, Subject,
};
use holdfast_protocol::{Epoch, Message, Seq, TraceContext};

/// What was given, or is to be given again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Given {
    Frame { seq: Seq, bytes: Vec<u8> },
    Close { seq: Seq, half: bool },
    Record { seq: Seq, kind: RecordKind, after: Seq, bytes: Vec<u8> },
}

/// A whole state.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Kept {
    pub bytes: Vec<u8>,
    pub client_seq: Seq,
    pub server_seq: Seq,
    pub record_seq: Seq,
    pub is_final: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub subject: Subject,
    pub level: Recovery,
    /// All of it, in the order in which it is given again.
    pub given: Vec<Given>,
    /// All server frames, by number.
    pub frames: BTreeMap<Seq, Vec<u8>>,
    /// Last record.
    pub records: Seq,
    pub state: Option<Kept>,
    pub client_seq: Seq,
    /// Why it is over.
    pub ended: Option<String>,
    incoming: Vec<u8>,
}

impl Keeper {
    pub fn new(subject: Subject, level: Recovery) -> Self {
        Self {
            subject,
            level,
            given: Vec::new(),
            frames: BTreeMap::new(),
            records: Seq::NONE,
            state: None,
            client_seq: Seq::NONE,
            ended: None,
            incoming: Vec::new(),
        }
    }

    pub fn last_server_seq(&self) -> Seq {
        self.frames.last_key_value().map_or(Seq::NONE, |(seq, _)| *seq)
    }

    /// Takes what the backend says; what breaks a rule is told.
    pub fn take(&mut self, message: &Message<'_>) -> Result<(), String> {
        match message {
            Message::Data(data) => {
                if self.level == Recovery::Delta {
                    return Err(format!("bare DATA {}", data.seq));
                }
                if data.record > self.records {
                    return Err(format!("DATA {} of record {}, has {}", data.seq, data.record, self.records));
                }
                self.keep_frame(data.seq, data.frame)
            }
            Message::Record(record) => self.keep_record(record),
            Message::State(state) => self.keep_chunk(state),
            Message::Close(close) => {
                self.ended.get_or_insert_with(|| format!("closed: {}", close.reason));
                Ok(())
            }
            Message::Refused(refused) => Err(format!("refused: {}", refused.reason)),
            Message::Fault(fault) => Err(format!("fault {:?}: {}", fault.rule, fault.text)),
            _ => Ok(()),
        }
    }

    fn keep_frame(&mut self, seq: Seq, frame: &[u8]) -> Result<(), String> {
        let next = self.last_server_seq().next();
        if seq > next {
            return Err(format!("server frame {seq}, expected {next}"));
        }
        let kept = self.frames.entry(seq).or_insert_with(|| frame.to_vec());
        if kept != frame { Err(format!("server frame {seq} came twice and differs")) } else { Ok(()) }
    }

    fn keep_record(&mut self, record: &Record<'_>) -> Result<(), String> {
        if record.seq <= self.records {
            return Ok(());
        }
        if record.seq != self.records.next() || record.after_client_seq > self.client_seq {
            return Err(format!("record {} after client frame {}", record.seq, record.after_client_seq));
        }
        self.records = record.seq;
        let (seq, kind, after) = (record.seq, record.kind, record.after_client_seq);
        let entry = Given::Record { seq, kind, after, bytes: record.bytes.to_vec() };
        match kind {
            RecordKind::Input => self.given.insert(self.place_after(after), entry),
            RecordKind::Values => {
                let at = self.place_after(Seq(after.0.saturating_sub(1)));
                self.given.insert(at, entry);
            }
            RecordKind::Delta => {
                let delta = Delta::parse(record.bytes).ok_or("a delta that can't be read")?;
                for (frame, number) in delta.frames().zip(delta.server_seq.0 + 1..) {
                    self.keep_frame(Seq(number), frame)?;
                }
                // It covers them.
                self.given.retain(|given| !matches!(given.client_seq(), Some(seq) if seq <= after));
                let at = self.given.iter().take_while(|given| given.client_seq().is_none()).count();
                self.given.insert(at, entry);
            }
        }
        Ok(())
    }

    /// Behind client frame `after` and what stands after it.
    fn place_after(&self, after: Seq) -> usize {
        let next = |given: &Given| match given {
            Given::Frame { seq, .. } | Given::Close { seq, .. } => *seq > after,
            Given::Record { kind, after: of, .. } => *kind == RecordKind::Values && *of > after,
        };
        self.given.iter().position(next).unwrap_or(self.given.len())
    }

    fn keep_chunk(&mut self, state: &State<'_>) -> Result<(), String> {
        if state.offset_bytes == 0 {
            self.incoming.clear();
        }
        self.incoming.extend_from_slice(state.chunk);
        if self.incoming.len() as u64 != state.total_bytes {
            return Ok(());
        }
        if state.record_seq > self.records || state.server_seq > self.last_server_seq() {
            return Err("a state names what hasn't come".into());
        }
        self.state = Some(Kept {
            bytes: std::mem::take(&mut self.incoming),
            client_seq: state.client_seq,
            server_seq: state.server_seq,
            record_seq: state.record_seq,
            is_final: state.is_final,
        });
        Ok(())
    }

    /// The player sends it; says where it stands in `given`.
    pub fn frame(&mut self, bytes: &[u8]) -> usize {
        self.client_seq = self.client_seq.next();
        self.given.push(Given::Frame { seq: self.client_seq, bytes: bytes.to_vec() });
        self.given.len() - 1
    }

    pub fn close(&mut self, half: bool) -> usize {
        self.client_seq = self.client_seq.next();
        self.given.push(Given::Close { seq: self.client_seq, half });
        self.given.len() - 1
    }

    /// Acks all server frames up to `data`, and all records.
    pub fn ack(&self, epoch: Epoch, data: Seq) -> Message<'static> {
        Message::Ack(Ack { subject: self.subject, epoch, data, record: self.records })
    }

    pub fn start(&self, epoch: Epoch) -> Message<'static> {
        Message::Start(Start { subject: self.subject, epoch })
    }

    /// ATTACH from a state or from nothing, and the state.
    pub fn attach<'a>(&self, epoch: Epoch, window: u32, from: Option<&'a Kept>) -> Vec<Message<'a>> {
        let (client_seq, base) =
            from.map_or((Seq::NONE, Seq::NONE), |state| (state.client_seq, state.server_seq));
        let server_seq = if self.level == Recovery::Delta { self.last_server_seq() } else { base };
        let mode = if from.is_some() { AttachMode::State } else { AttachMode::Fresh };
        let mut messages = vec![Message::Attach(Attach {
            subject: self.subject,
            epoch,
            mode,
            lost: false,
            client_seq,
            server_seq,
            record_seq: self.records,
            state_total_bytes: from.map_or(0, |state| state.bytes.len() as u64),
            server_window_bytes: window,
            trace: TraceContext::NONE,
            group: None,
            recovery: self.level,
            opened_us: 1_000_000,
            client: "127.0.0.1:5000",
            service: "test",
            format: "1",
        })];
        messages.extend(from.map(|state| {
            Message::State(State {
                subject: self.subject,
                epoch,
                is_final: state.is_final,
                total_bytes: state.bytes.len() as u64,
                offset_bytes: 0,
                client_seq: state.client_seq,
                server_seq: state.server_seq,
                record_seq: state.record_seq,
                members: 0,
                chunk: &state.bytes,
            })
        }));
        messages
    }

    /// Which of what was given is to be given again after that state.
    pub fn after(&self, from: Option<&Kept>) -> Vec<usize> {
        let (client, record) =
            from.map_or((Seq::NONE, Seq::NONE), |state| (state.client_seq, state.record_seq));
        let is_later = |given: &Given| match given {
            Given::Frame { seq, .. } | Given::Close { seq, .. } => *seq > client,
            Given::Record { seq, .. } => *seq > record,
        };
        (0..self.given.len()).filter(|&at| is_later(&self.given[at])).collect()
    }

    pub fn message(&self, epoch: Epoch, at: usize, again: bool) -> Message<'_> {
        let subject = self.subject;
        let (ack, record) = (Seq::NONE, Seq::NONE);
        match &self.given[at] {
            Given::Frame { seq, bytes } => {
                let (seq, trace, frame) = (*seq, TraceContext::NONE, bytes.as_slice());
                Message::Data(Data { subject, epoch, seq, ack, record, again, trace, frame })
            }
            Given::Close { seq, half } => {
                let (seq, half, reason) = (*seq, *half, "client closed");
                // A group has none.
                let Subject::Session(session) = subject else { return Message::Undrain };
                Message::Close(Close { session, epoch, seq, ack, record, half, again, reason })
            }
            Given::Record { seq, kind, after, bytes } => Message::Record(Record {
                subject,
                epoch,
                seq: *seq,
                after_client_seq: *after,
                kind: *kind,
                member: None,
                again,
                bytes,
            }),
        }
    }
}

impl Given {
    pub fn client_seq(&self) -> Option<Seq> {
        match self {
            Self::Frame { seq, .. } | Self::Close { seq, .. } => Some(*seq),
            Self::Record { .. } => None,
        }
    }
}
