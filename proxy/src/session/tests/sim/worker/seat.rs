//! What lies around one session in a proxy, and the checks that hold at every one of its effects.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_protocol::message::{AttachMode, Message};
use holdfast_protocol::{Epoch, Seq};

use super::super::io::{ConnId, Time};
use super::company::Company;
use super::recovery::Place;
use crate::session::{LinkId, Timer};
use crate::telemetry::counters::{CloseReason, HandoffResult};

pub struct Seat {
    pub conn: Option<ConnId>,
    pub partial: Vec<u8>,
    pub outbox: Vec<u8>,
    pub finishing: bool,
    pub reading: bool,
    pub held: bool,
    pub read_closed: bool,
    pub dirty: bool,
    pub owes_ack: bool,
    pub link: Option<LinkId>,
    pub leaving: Option<LinkId>,
    /// The drained link that it leaves: it goes back there only if nobody else takes it.
    pub avoids: Option<LinkId>,
    pub returning: bool,
    pub timers: [Option<Time>; TIMERS.len()],
    pub kept_bytes: u64,
    pub parked: bool,
    pub handoff: bool,
    pub reserved_bytes: u64,
    pub recovery: Option<Place>,
    pub crashes: u64,
    pub checkpoints: u64,
    pub delivered: Seq,
    pub frames: u64,
    /// The indices of those of its frames that a game has processed.
    pub processed: BTreeSet<u32>,
    pub lost: u64,
    pub results: Vec<HandoffResult>,
    pub ended: Option<CloseReason>,
    pub watch: Watch,
    pub company: Company,
}

impl Seat {
    pub fn new(conn: ConnId) -> Self {
        Self { conn: Some(conn), ..Self::empty() }
    }

    /// Of a group, which has no client.
    pub fn empty() -> Self {
        Self {
            conn: None,
            partial: Vec::new(),
            outbox: Vec::new(),
            finishing: false,
            reading: true,
            held: false,
            read_closed: false,
            dirty: false,
            owes_ack: false,
            link: None,
            leaving: None,
            avoids: None,
            returning: false,
            timers: [None; TIMERS.len()],
            kept_bytes: 0,
            parked: false,
            handoff: false,
            reserved_bytes: 0,
            recovery: None,
            crashes: 0,
            checkpoints: 0,
            delivered: Seq::NONE,
            frames: 0,
            processed: BTreeSet::new(),
            lost: 0,
            results: Vec::new(),
            ended: None,
            watch: Watch::default(),
            company: Company::default(),
        }
    }
}

pub const TIMERS: [Timer; 5] = [Timer::Answer, Timer::Park, Timer::Home, Timer::Close, Timer::Checkpoint];

pub fn timer_index(timer: Timer) -> usize {
    TIMERS.iter().position(|it| *it == timer).expect("every timer is listed")
}

pub const ACK_DELAY: Duration = Duration::from_millis(100);

/// Watches what a session says: epochs grow, and never do two attachments run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Attachments that were given START (or THAW), and neither their whole state nor RELEASE.
    running: Vec<(LinkId, Epoch)>,
    last: Epoch,
}

impl Watch {
    pub fn says(&mut self, link: LinkId, message: &Message<'_>) {
        match message {
            Message::Attach(attach) if attach.mode != AttachMode::Resume => {
                assert!(attach.epoch >= self.last, "epoch {} after {}", attach.epoch, self.last);
                self.last = attach.epoch;
            }
            Message::Start(start) => self.runs((link, start.epoch)),
            Message::Thaw(thaw) => {
                assert!(thaw.epoch >= self.last, "epoch {} after {}", thaw.epoch, self.last);
                self.last = thaw.epoch;
                self.running.retain(|entry| *entry != (link, thaw.old_epoch));
                self.runs((link, thaw.epoch));
            }
            Message::Release(release) => self.running.retain(|entry| *entry != (link, release.epoch)),
            _ => {}
        }
    }

    fn runs(&mut self, entry: (LinkId, Epoch)) {
        assert!(self.running.iter().all(|it| *it == entry), "{entry:?} beside {:?}", self.running);
        self.running = vec![entry];
    }

    pub fn state_is_kept(&mut self) {
        self.running.clear();
    }

    pub fn lost(&mut self, link: LinkId) {
        self.running.retain(|(at, _)| *at != link);
    }
}
