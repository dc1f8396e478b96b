//! [`Desk`]: what all attachments of a peer share: the link's output, the schedule, buffers, and lists of who has
//! something to say at the end of a batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use holdfast_protocol::message::{FaultScope, Subject};
use holdfast_protocol::{Epoch, Message, encode, message};

use super::fault::Fault;
use super::frames::Pool;
use super::jobs::Jobs;
use super::schedule::Schedule;
use crate::context::Effects;
use crate::settings::Settings;

/// How long a processed frame may wait for its ack to go with others.
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(20);

/// A receiver takes messages of so many bytes more than its largest frame; less a record's header and fields.
const RECORD_ROOM_BYTES: usize = 65_536 - 65;

/// A moment, on both clocks. The core has none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    pub at: Instant,
    pub wall: SystemTime,
}

impl Now {
    /// The real clocks.
    #[must_use]
    pub fn real() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now() }
    }
}

/// A link that is up.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub generation: u64,
    /// Largest frame that the proxy takes.
    pub max_frame_bytes: usize,
    /// Abilities that both sides have.
    pub capabilities: u64,
}

/// Sessions that owe an ack.
#[derive(Debug, Default)]
pub(crate) struct AckList {
    /// At the end of this batch: a good part of their window is unacked.
    pub soon: Vec<Subject>,
    /// When `due`.
    pub later: Vec<Subject>,
    pub due: Option<Instant>,
}

/// Buffers in which records are put together.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub record: Vec<u8>,
    pub change: Vec<u8>,
}

pub(crate) struct Desk {
    pub settings: Arc<Settings>,
    pub now: Now,
    pub link: Option<Link>,
    /// Bytes for the link.
    pub out: Vec<u8>,
    pub schedule: Schedule,
    pub pool: Pool,
    pub effects: Effects,
    /// For what isn't the games': nonces.
    pub random: fastrand::Rng,
    pub scratch: Scratch,
    pub jobs: Jobs,
    pub acks: AckList,
    /// Sessions with a chunk of state to send, and credit for it, in turn.
    pub transfers: VecDeque<Subject>,
    /// Client frames that had been had, dropped.
    pub repeated: u64,
}

impl Desk {
    pub fn new(settings: Arc<Settings>, now: Now, seed: u64) -> Self {
        Self {
            settings,
            now,
            link: None,
            out: Vec::new(),
            schedule: Schedule::default(),
            pool: Pool::default(),
            effects: Effects::default(),
            random: fastrand::Rng::with_seed(seed),
            scratch: Scratch::default(),
            jobs: Jobs::default(),
            acks: AckList::default(),
            transfers: VecDeque::new(),
            repeated: 0,
        }
    }

    /// Says it, if there is a link to say it on.
    pub fn say(&mut self, message: &Message<'_>) {
        if self.link.is_some() {
            encode(message, &mut self.out);
        }
    }

    pub fn say_fault(&mut self, subject: Subject, epoch: Epoch, fault: &Fault) {
        let scope = FaultScope::Attachment(subject, epoch);
        self.say(&Message::Fault(message::Fault { scope, rule: fault.rule, text: &fault.text }));
    }

    /// Largest frame that may be sent. Without a link, what the server itself takes.
    pub fn max_frame_bytes(&self) -> usize {
        self.link.as_ref().map_or(self.settings.max_frame_bytes as usize, |link| link.max_frame_bytes)
    }

    /// Largest record that may be sent: with its header and fields it is a message that the proxy takes.
    pub fn max_record_bytes(&self) -> usize {
        self.max_frame_bytes().saturating_add(RECORD_ROOM_BYTES)
    }

    pub fn ack_later(&mut self, subject: Subject) {
        self.acks.later.push(subject);
        self.acks.due.get_or_insert(self.now.at + ACK_DELAY);
    }
}
