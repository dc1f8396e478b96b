//! [`Peer`]: all attachments of one proxy worker, as a state machine without I/O.
//!
//! Inputs are messages, timers that are due, work that has come back, the link's coming and going, and the time;
//! outputs are bytes for the link, orders for async work, and the moment at which it wants to be called again. It
//! knows no socket, no clock and no runtime, so a simulation drives the very code that a server runs. Only the crate's
//! own driver and simulations should use it.

mod attach;
mod attachment;
mod bytes;
mod change;
mod crowd;
mod desk;
mod dispatch;
mod envelope;
mod fault;
mod frames;
mod jobs;
mod outbox;
mod records;
mod schedule;
mod values;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{AttachmentEntry, AttachmentsBuf, Drain, Hello, Pong, Subject, Welcome};
use holdfast_protocol::{Message, PROTOCOL_VERSION};

pub(crate) use self::attachment::caught;
use self::attachment::{Attachment, Next};
#[cfg(feature = "plain")]
pub(crate) use self::attachment::{Input, call};
pub use self::bytes::BytesError;
pub(crate) use self::crowd::{CLOSED_BY_GAME, Roster, depart, departing, lone_state};
pub use self::desk::Now;
use self::desk::{Desk, Link};
pub use self::envelope::EnvelopeError;
pub(crate) use self::envelope::parse as parse_envelope;
pub use self::fault::{Fault, LinkEnd};
pub use self::jobs::{JobId, JobOrder};
#[cfg(feature = "plain")]
pub(crate) use self::schedule::{Schedule, Timers};
use crate::game::{Game, Tag};
use crate::load::Told;
use crate::population::{PeerName, Population};
use crate::settings::Settings;

/// State bytes put into the output at a time, so that frames come in between.
const STATE_BATCH_BYTES: usize = 128 * 1024;
/// Timers run at a time, likewise.
const TIMER_BATCH: usize = 4096;

/// The process is about to end: the proxies are to take the sessions off it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainOrder {
    pub deadline: Instant,
    /// The process comes back under the same name.
    pub returns: bool,
}

/// What a peer counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages for attachments that aren't current, dropped.
    pub stale: u64,
    /// Client frames that came once more, dropped.
    pub repeated: u64,
    /// Sessions that ended by a fault.
    pub faults: u64,
    /// Sessions given up because their link didn't come back.
    pub orphans: u64,
}

/// All attachments of one proxy worker.
pub struct Peer<G: Game> {
    game: Arc<G>,
    population: Population,
    attachments: HashMap<Subject, Attachment<G::Session>>,
    desk: Desk,
    drain: Option<DrainOrder>,
    /// Whose links these are: proxy and worker.
    name: PeerName,
    /// When the attachments are given up, unless the link comes back.
    orphans_at: Option<Instant>,
    /// Bytes of state that attachments are waiting for.
    loading_bytes: u64,
    counts: Counts,
}

impl<G: Game> Peer<G> {
    /// A peer without a link. `seed` is for the games' random numbers.
    pub fn new(game: Arc<G>, settings: Arc<Settings>, population: Population, now: Now, seed: u64) -> Self {
        Self {
            game,
            population,
            attachments: HashMap::new(),
            desk: Desk::new(settings, now, seed),
            drain: None,
            name: PeerName::default(),
            orphans_at: None,
            loading_bytes: 0,
            counts: Counts::default(),
        }
    }

    /// The proxy has said HELLO on a new link: answers WELCOME. What may have been lost is said again once the proxy
    /// speaks of the attachment.
    ///
    /// # Errors
    /// The generation isn't newer than the present link's; this link is to be refused, the present one stays.
    pub fn link_up(&mut self, hello: &Hello<'_>, now: Now) -> Result<(), Fault> {
        if let Some(link) = self.desk.link.as_ref().filter(|link| link.generation >= hello.generation) {
            let text = format!("link generation {}, {} is up", hello.generation, link.generation);
            return Err(Fault::new(holdfast_protocol::message::Rule::Handshake, text));
        }
        self.link_lost(now);
        self.orphans_at = None;
        self.name =
            PeerName { proxy: hello.proxy.to_owned(), instance: hello.instance, worker: hello.worker };
        let max_frame_bytes = hello.max_frame_bytes as usize;
        let capabilities = hello.capabilities & self.capabilities();
        self.desk.link = Some(Link { generation: hello.generation, max_frame_bytes, capabilities });
        self.welcome(hello.generation, capabilities);
        self.say_drain();
        if self.desk.settings.load.told() != Told::default() {
            self.say_load();
        }
        Ok(())
    }

    /// All that is optional and built.
    fn capabilities(&self) -> u64 {
        let deltas = if self.desk.settings.deltas { capability::DELTA } else { 0 };
        let groups = if self.desk.settings.groups { capability::GROUPS } else { 0 };
        capability::CHECKPOINTS | capability::REPLAY | deltas | groups
    }

    fn welcome(&mut self, generation: u64, capabilities: u64) {
        let settings = Arc::clone(&self.desk.settings);
        let mut list = AttachmentsBuf::new();
        for (subject, attachment) in &self.attachments {
            list.push(AttachmentEntry {
                subject: *subject,
                epoch: attachment.epoch(),
                phase: attachment.link_phase(),
                client_seq: attachment.received(),
                server_seq: attachment.last_sent(),
                record_seq: attachment.last_record(),
            });
        }
        self.desk.say(&Message::Welcome(Welcome {
            version: PROTOCOL_VERSION,
            instance: settings.instance,
            generation,
            max_frame_bytes: settings.max_frame_bytes,
            client_window_bytes: settings.client_window_bytes,
            state_credit_bytes: settings.state_credit_bytes,
            orphan_deadline_ms: u32::try_from(settings.orphan_deadline.as_millis()).unwrap_or(u32::MAX),
            capabilities,
            draining: self.drain.is_some(),
            backend_version: &settings.version,
            logic: &settings.logic,
            writes_format: &settings.writes_format,
            reads_formats: &settings.reads_list(),
            attachments: list.as_attachments(),
        }));
    }

    /// The link is gone: attachments stay as they are until the orphan deadline.
    pub fn link_lost(&mut self, now: Now) {
        self.desk.now = now;
        if self.desk.link.take().is_none() {
            return;
        }
        self.desk.out.clear();
        self.desk.transfers.clear();
        self.desk.acks = desk::AckList::default();
        self.orphans_at = Some(now.at + self.desk.settings.orphan_deadline);
        let lost: Vec<_> = self
            .attachments
            .iter_mut()
            .filter_map(|(subject, attachment)| (!attachment.link_lost(&mut self.desk)).then_some(*subject))
            .collect();
        lost.into_iter().for_each(|subject| self.remove(subject, Next::Forget));
    }

    /// The process is to end; the proxy is told, now or when its link is up.
    pub fn drain(&mut self, order: DrainOrder, now: Now) {
        self.desk.now = now;
        self.drain = Some(order);
        self.say_drain();
    }

    fn say_drain(&mut self) {
        let Some(order) = self.drain else { return };
        let left = order.deadline.saturating_duration_since(self.desk.now.at);
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let reason = "the backend was told to end";
        self.desk.say(&Message::Drain(Drain { deadline_ms, returns: order.returns, reason }));
    }

    /// Tells how full the process is, though nobody has asked.
    pub fn say_load(&mut self) {
        self.say_pong(0);
    }

    fn say_pong(&mut self, nonce: u64) {
        let Told { capacity, load_permille } = self.desk.settings.load.told();
        let attachments = self.population.get();
        self.desk.say(&Message::Pong(Pong { nonce, attachments, capacity, load_permille }));
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) {
        let nonce = self.desk.random.u64(..);
        self.desk.say(&Message::Ping(holdfast_protocol::message::Ping { nonce }));
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        self.desk.now = now;
        for _ in 0..TIMER_BATCH {
            let Some((due, subject)) = self.desk.schedule.pop(now.at) else { break };
            self.with(subject, |attachment, desk| attachment.timer(desk, due));
        }
        if self.desk.acks.due.is_some_and(|due| due <= now.at) {
            self.desk.acks.due = None;
            let sessions = std::mem::take(&mut self.desk.acks.later);
            self.tell_acks(sessions, |acks| &mut acks.later);
        }
        if self.orphans_at.is_some_and(|at| at <= now.at) {
            self.give_up_orphans();
        }
    }

    fn give_up_orphans(&mut self) {
        self.orphans_at = None;
        let sessions: Vec<_> = self.attachments.keys().copied().collect();
        if !sessions.is_empty() {
            tracing::warn!(sessions = sessions.len(), "link didn't come back, sessions given up");
        }
        self.counts.orphans += sessions.len() as u64;
        sessions.into_iter().for_each(|session| self.remove(session, Next::Forget));
    }

    fn tell_acks(
        &mut self,
        mut sessions: Vec<Subject>,
        list: impl FnOnce(&mut desk::AckList) -> &mut Vec<Subject>,
    ) {
        for session in sessions.drain(..) {
            if let Some(attachment) = self.attachments.get_mut(&session) {
                attachment.tell_ack(&mut self.desk);
            }
        }
        // The buffer goes back, so that a batch allocates nothing.
        *list(&mut self.desk.acks) = sessions;
    }

    /// Work has come back; `None`: it panicked.
    pub fn finished(&mut self, job: JobId, result: Option<Vec<u8>>, now: Now) {
        self.desk.now = now;
        if let Some(session) = self.desk.jobs.ended(job) {
            self.with(session, |attachment, desk| attachment.finished(desk, job, result));
        }
    }

    /// Ends a batch: acks that shouldn't wait and, if the link `has_room`, some state. Call it before each write of
    /// the output.
    pub fn flush(&mut self, has_room: bool) {
        if !self.desk.acks.soon.is_empty() {
            let sessions = std::mem::take(&mut self.desk.acks.soon);
            self.tell_acks(sessions, |acks| &mut acks.soon);
        }
        let limit = if has_room { self.desk.out.len() + STATE_BATCH_BYTES } else { 0 };
        while self.desk.out.len() < limit {
            let Some(session) = self.desk.transfers.pop_front() else { break };
            let Some(attachment) = self.attachments.get_mut(&session) else { continue };
            if attachment.send_chunk(&mut self.desk) {
                self.desk.transfers.push_back(session);
            }
        }
    }

    /// Whether [`Self::flush`] has more to put out as soon as this output is written.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.desk.transfers.is_empty()
    }

    /// Bytes for the link. Whoever writes them takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.desk.out
    }

    /// Work to begin or to abort.
    pub fn job_orders(&mut self) -> std::vec::Drain<'_, JobOrder> {
        self.desk.jobs.orders()
    }

    /// What the session calls the work.
    #[must_use]
    pub fn job_tag(&self, job: JobId) -> Option<Tag> {
        self.desk.jobs.tag(job)
    }

    /// When [`Self::tick`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        [self.desk.schedule.next(), self.desk.acks.due, self.orphans_at].into_iter().flatten().min()
    }

    #[must_use]
    pub fn attachments(&self) -> usize {
        self.attachments.len()
    }

    /// Whether nothing would be lost if it ended now.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.attachments.is_empty() && self.desk.jobs.is_empty()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { repeated: self.desk.repeated, ..self.counts }
    }

    /// Runs something on an attachment, and does what follows from how it went.
    fn with(
        &mut self,
        subject: Subject,
        action: impl FnOnce(&mut Attachment<G::Session>, &mut Desk) -> Result<Next, Fault>,
    ) {
        let Some(attachment) = self.attachments.get_mut(&subject) else { return };
        match action(attachment, &mut self.desk) {
            Ok(Next::Stay) => {}
            Ok(next) => self.remove(subject, next),
            Err(fault) => self.fail(subject, &fault),
        }
    }

    /// Ends one session that broke a rule, or whose game did.
    fn fail(&mut self, subject: Subject, fault: &Fault) {
        let Some(attachment) = self.attachments.get(&subject) else { return };
        let epoch = attachment.epoch();
        self.counts.faults += 1;
        tracing::warn!(?subject, %epoch, rule = ?fault.rule, reason = fault.text, "session ended by a fault");
        self.desk.say_fault(subject, epoch, fault);
        self.remove(subject, Next::Forget);
    }

    fn remove(&mut self, subject: Subject, next: Next) {
        let Some(mut attachment) = self.attachments.remove(&subject) else { return };
        self.loading_bytes = self.loading_bytes.saturating_sub(attachment.loading_bytes());
        attachment.dismantle(&mut self.desk, next == Next::Forget);
        if let Err(fault) = caught("drop", || drop(attachment)) {
            tracing::warn!(?subject, reason = fault.text, "a session's drop failed");
        }
    }
}
