//! Groups on this worker: sessions come into them and go, and their clients' frames with them.
//!
//! A group has a slot as a session has, without a client; its members keep theirs, with their sockets, and their
//! machines rest meanwhile. A group lives on one worker: who is to be in it and sits on another is taken over there,
//! socket and all.

mod boarding;
pub mod claims;
pub mod directory;
pub mod traveller;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use holdfast_protocol::codec::capability::DELTA;
use holdfast_protocol::message::{Message, Recovery, Refused, Rule, Subject};
use holdfast_protocol::{GroupId, SessionId};

use super::Worker;
use super::fx::Fx;
use super::hub::Hub;
use super::slot::{SessionKey, Slot};
use crate::session::handoff::Begun;
use crate::session::riders::Departed;
use crate::session::{LinkId, Order, Otherwise, Phase};
use crate::telemetry::counters::{CloseReason, HandoffCause};

/// A session whose way into its group failed waits so long before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// For so long a backend may still speak for a group that was released.
const ECHO_OF_RELEASED: Duration = Duration::from_secs(5);
/// So many of those are known.
const RELEASED_GROUPS: usize = 4096;

/// A record may be so much larger than a frame (a little less: heads). Half of it is for what stands beside a state.
const RECORD_ROOM_BYTES: u64 = 65_536;
const TOO_MANY: &str = "there are too many groups: limits.max_groups";

/// What a group, or a session that is to be in one, asks of its worker. Done in order, after the input that asked.
pub enum Request {
    /// So many bytes of the hub's relay are for that member.
    Deliver(SessionKey, SessionId, usize),
    Read(SessionId, bool),
    Departs(SessionId, Departed),
    Over(SessionId, CloseReason),
    Joins(SessionKey, GroupId),
    Boards(SessionKey),
}

/// Why a session isn't in the group that it was to be in.
type Reason = Cow<'static, str>;

/// A session's part in a group.
#[derive(Debug, Default)]
pub struct Company {
    /// The group that it is in.
    pub aboard: Option<SessionKey>,
    /// The group that it is to be in, as its game asks.
    pub wanted: Option<GroupId>,
    /// When the way there may be tried (again).
    pub not_before: Option<Instant>,
    /// Where it was when it left for the group.
    pub from: Option<LinkId>,
    /// A group that it can't be in, and the reason: its game is told when it asks again.
    pub barred: Option<(GroupId, Reason)>,
    /// It holds up its group since then: its socket doesn't take what is for it.
    pub clogs_since: Option<Instant>,
    /// Of a group: how many members hold it up.
    pub clogged: u32,
}

impl Worker {
    /// What groups asked for in this turn. Doing it may make them ask for more.
    pub(super) fn do_requests(&mut self) {
        if self.hub.requests.is_empty() {
            return;
        }
        let mut acked = Vec::new();
        let mut at = 0;
        while !self.hub.requests.is_empty() {
            let relay = std::mem::take(&mut self.hub.relay);
            for request in std::mem::take(&mut self.hub.requests) {
                match request {
                    Request::Deliver(group, member, bytes) => {
                        self.relay(group, member, &relay[at..at + bytes]);
                        at += bytes;
                        if acked.last() != Some(&group) {
                            acked.push(group);
                        }
                    }
                    Request::Read(member, on) => self.read_member(member, on),
                    Request::Departs(member, departed) => self.departs(member, departed),
                    Request::Over(member, reason) => self.over(member, reason),
                    Request::Joins(key, group) => self.joins(key, group),
                    Request::Boards(key) => self.boards(key),
                }
            }
            at = 0;
            self.hub.give_relay(relay);
        }
        for group in acked {
            self.group_handed(group);
        }
    }

    /// A member's bytes go to its client.
    fn relay(&mut self, group: SessionKey, member: SessionId, bytes: &[u8]) {
        let Some(key) = self.by_id.get(&member).copied() else { return };
        let now = self.hub.now;
        let Some(slot) = self.slots.get_mut(key) else { return };
        let window = slot.session.service().limits.server_window_bytes as usize;
        let seat = &mut slot.seat;
        if seat.company.aboard != Some(group) || seat.stream.is_none() {
            return;
        }
        if seat.outbox.bytes.capacity() == 0 {
            seat.outbox.bytes = self.hub.take_buffer();
        }
        seat.outbox.bytes.extend_from_slice(bytes);
        if !seat.dirty {
            seat.dirty = true;
            self.hub.dirty_clients.push(key);
            self.hub.unflushed_since.get_or_insert(now);
        }
        let clogs = seat.outbox.waiting() > window && seat.company.clogs_since.is_none();
        if clogs {
            seat.company.clogs_since = Some(now);
        }
        self.hub.account_session(&slot.session, &mut slot.seat);
        if clogs && let Some(slot) = self.slots.get_mut(group) {
            slot.seat.company.clogged += 1;
        }
    }

    /// A member's socket has taken all that was for it, or the member is gone.
    pub(super) fn unclog(&mut self, key: SessionKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let company = &mut slot.seat.company;
        if company.clogs_since.take().is_some()
            && let Some(group) = company.aboard
            && let Some(slot) = self.slots.get_mut(group)
        {
            slot.seat.company.clogged = slot.seat.company.clogged.saturating_sub(1);
            self.group_handed(group);
        }
    }

    /// What is on its way from a backend may still name it: nobody is at fault.
    pub(super) fn was_released(&self, group: GroupId) -> bool {
        self.hub.released_groups.iter().any(|(_, released)| *released == group)
    }

    /// Who takes nothing for too long has to go: the others play on.
    pub(super) fn look_after_groups(&mut self) {
        let now = self.hub.now;
        let is_old = |(at, _): &(Instant, GroupId)| now.saturating_duration_since(*at) >= ECHO_OF_RELEASED;
        while self.hub.released_groups.front().is_some_and(is_old)
            || self.hub.released_groups.len() > RELEASED_GROUPS
        {
            self.hub.released_groups.pop_front();
        }
        let mut slow = Vec::new();
        let mut waiting = Vec::new();
        for (key, slot) in &self.slots {
            let company = &slot.seat.company;
            if slot.seat.held && company.aboard.is_some() {
                // What its group holds may be less by now.
                slot.seat.wake();
            }
            let patience = slot.session.service().limits.slow_member;
            let late = |since| now.saturating_duration_since(since) >= patience;
            if company.clogs_since.is_some_and(late) {
                slow.push(key);
            } else if company.wanted.is_some() {
                waiting.push(key);
            }
        }
        for key in slow {
            if let Some(slot) = self.slots.get(key) {
                tracing::warn!(session = %slot.session.id(), client = %slot.seat.client, reason = "slow_player",
                    "closed: it doesn't read, and holds up its group");
            }
            self.dismiss_client(key, CloseReason::SlowPlayer);
        }
        for key in waiting {
            self.try_board(key);
        }
    }

    fn group_handed(&mut self, group: SessionKey) {
        let clogged = self.slots.get(group).is_none_or(|slot| slot.seat.company.clogged > 0);
        if !clogged {
            self.drive(group, |session, fx| session.handed(fx));
        }
    }

    fn read_member(&mut self, member: SessionId, on: bool) {
        let Some(slot) = self.by_id.get(&member).and_then(|key| self.slots.get_mut(*key)) else { return };
        self.hub.account_reading(&mut slot.seat, on);
        if on {
            slot.seat.wake();
        }
    }

    /// A member goes on alone.
    fn departs(&mut self, member: SessionId, departed: Departed) {
        let Some(key) = self.by_id.get(&member).copied() else { return };
        let group = self.disembarks(key);
        if let (Some(reason), Some(group), Some(slot)) = (departed.came_back, group, self.slots.get_mut(key))
        {
            slot.seat.company.barred = Some((group, reason.into()));
        }
        self.read_member(member, true);
        self.drive(key, |session, fx| session.disembark(departed, fx));
    }

    /// The session is in no group any more. Returns the one that it was in.
    fn disembarks(&mut self, key: SessionKey) -> Option<GroupId> {
        self.unclog(key);
        let aboard = self.slots.get_mut(key)?.seat.company.aboard.take()?;
        let group = self.slots.get(aboard).and_then(|slot| slot.session.group());
        self.hub.counters.group_members.sub(1);
        self.weigh_group(aboard);
        if self.slots.get(aboard).is_some_and(|slot| slot.session.riders().is_some_and(|r| r.is_empty())) {
            self.drive(aboard, |session, fx| session.end(CloseReason::BackendClose, fx));
        }
        group
    }

    fn over(&mut self, member: SessionId, reason: CloseReason) {
        let Some(key) = self.by_id.get(&member).copied() else { return };
        let aboard = self.slots.get(key).and_then(|slot| slot.seat.company.aboard);
        let at = aboard
            .and_then(|group| self.slots.get(group))
            .and_then(|slot| slot.seat.link.or(slot.seat.before));
        if let Some(slot) = self.slots.get_mut(key) {
            slot.seat.before = at;
        }
        self.disembarks(key);
        self.drive(key, |session, fx| session.part(reason, fx));
    }

    /// A session's game wants it in a group.
    fn joins(&mut self, key: SessionKey, group: GroupId) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.seat.company.wanted = Some(group);
        self.try_board(key);
    }

    /// The request can't be met, now or later.
    fn refuse_join(&mut self, key: SessionKey, reason: &str) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        (slot.seat.company.wanted, slot.seat.company.barred) = (None, None);
        self.hub.counters.joins_refused.add(1);
        let (subject, epoch) = (slot.session.subject(), slot.session.epoch());
        tracing::info!(session = %slot.session.id(), reason, "a session can't be in the group that its game wants");
        if let Phase::Active { link } = *slot.session.phase() {
            self.send_on_link(link, &Message::Refused(Refused { subject, epoch, retry: false, reason }));
        }
    }

    /// Begins to freeze a session that is to be in a group, if nothing stands against it.
    fn try_board(&mut self, key: SessionKey) {
        let now = self.hub.now;
        let Some(slot) = self.slots.get(key) else { return };
        let company = &slot.seat.company;
        let (Some(group), &Phase::Active { link }) = (company.wanted, slot.session.phase()) else { return };
        if company.not_before.is_some_and(|time| now < time) || slot.seat.leaving.is_some() {
            return;
        }
        // Who asks and doesn't read the answers gets none.
        if self.hub.link(link).congested {
            return;
        }
        let barred = company.barred.as_ref().filter(|(barred, _)| *barred == group);
        let barred = barred.map(|(_, reason)| reason.clone());
        if let Some(reason) = barred.or_else(|| self.bars(slot, group).map(Reason::from)) {
            return self.refuse_join(key, &reason);
        }
        if self.stopping.is_some() {
            return;
        }
        // Nobody leaves a backend to wait for one.
        let here = self.group_here(group).and_then(|key| self.slots.get(key));
        if here.is_some_and(|slot| !matches!(slot.session.phase(), Phase::Active { .. })) {
            return;
        }
        let order = Order { cause: HandoffCause::Group, otherwise: Otherwise::Board };
        let begun = self.drive(key, |session, fx| {
            fx.seat.company.not_before = Some(fx.hub.now + AGAIN_AFTER);
            fx.seat.company.from = Some(link);
            session.leave(order, fx)
        });
        if begun == Some(Begun::NotNow)
            && let Some(slot) = self.slots.get_mut(key)
        {
            slot.seat.company.not_before = None;
        }
    }

    /// Why that session can't be in that group.
    fn bars(&self, slot: &Slot, group: GroupId) -> Option<&'static str> {
        let service = slot.session.service();
        let here = self.group_here(group).and_then(|key| self.slots.get(key));
        if let Some(here) = here {
            let members = here.session.riders().map_or(0, |riders| riders.len());
            if here.session.service().name != service.name {
                return Some("the group is another service's");
            }
            if members >= service.limits.max_group_members as usize {
                return Some("the group is full: limits.max_group_members");
            }
        }
        let room = self.hub.config.groups.has_room(group, self.hub.config.max_groups);
        (!room).then_some(TOO_MANY)
    }

    /// At `delta` a member leaves in one record. One that can't would take the group down with it.
    pub(super) fn can_come_back(&self, key: SessionKey) -> bool {
        let Some(slot) = self.slots.get(key) else { return true };
        let service = slot.session.service();
        let from = slot.seat.company.from.and_then(|link| self.hub.link(link).peer.as_ref());
        let in_records =
            service.recovery == Recovery::Delta && from.is_some_and(|peer| peer.capabilities & DELTA != 0);
        let most = service.framing.max_frame_bytes() as u64 + RECORD_ROOM_BYTES / 2;
        !in_records || slot.session.state_bytes() <= most
    }

    /// A group counts on its link for as many as are in it.
    fn weigh_group(&mut self, key: SessionKey) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let weight = slot.session.riders().map_or(1, |riders| riders.len() as u64);
        let before = std::mem::replace(&mut slot.seat.weight, weight);
        if let Some(link) = slot.seat.link {
            let link = self.hub.link_mut(link);
            link.sessions = (link.sessions + weight).saturating_sub(before);
        }
    }

    /// A group that isn't over. One that is keeps its slot until the end of the turn; who comes meanwhile comes into a new
    /// one.
    fn group_here(&self, group: GroupId) -> Option<SessionKey> {
        let key = self.groups.get(&group).copied()?;
        self.slots.get(key).is_some_and(|slot| *slot.session.phase() != Phase::Ended).then_some(key)
    }

    /// The group's slot is gone.
    pub(super) fn group_removed(&mut self, group: GroupId, key: SessionKey) {
        if self.groups.get(&group) == Some(&key) {
            self.groups.remove(&group);
            self.hub.released_groups.push_back((self.hub.now, group));
            self.hub.config.groups.release(group, self.hub.config.index);
        }
        self.hub.counters.groups.sub(1);
        tracing::debug!(%group, "group ended");
    }

    /// The session or group of this subject.
    pub(super) fn key_of(&self, subject: Subject) -> Option<SessionKey> {
        match subject {
            Subject::Session(session) => self.by_id.get(&session).copied(),
            Subject::Group(group) => self.groups.get(&group).copied(),
        }
    }

    /// The group whose stream takes this session's frames.
    pub(super) fn aboard(&self, key: SessionKey) -> Option<SessionKey> {
        self.slots.get(key)?.seat.company.aboard
    }

    /// All members of a group.
    pub(super) fn members_of(&self, key: SessionKey) -> Vec<SessionKey> {
        let riders = self.slots.get(key).and_then(|slot| slot.session.riders());
        riders
            .into_iter()
            .flat_map(|riders| riders.ids())
            .filter_map(|id| self.by_id.get(&id).copied())
            .collect()
    }
}

impl Fx<'_> {
    /// Bytes for a member's client, framed.
    pub fn relay_to(&mut self, member: SessionId, frame: &[u8]) -> Result<(), Rule> {
        let before = self.hub.relay.len();
        if let Err(error) = self.service.framing.write(frame, &mut self.hub.relay) {
            self.hub.relay.truncate(before);
            tracing::warn!(session = %member, %error, "the backend's frame can't be written to the client");
            let large = frame.len() > self.service.framing.max_frame_bytes();
            return Err(if large { Rule::FrameTooLarge } else { Rule::Malformed });
        }
        let bytes = self.hub.relay.len() - before;
        self.hub.counters.frames_to_client.add(1);
        self.hub.counters.bytes_to_client.add(frame.len() as u64);
        self.hub.requests.push(Request::Deliver(self.key, member, bytes));
        Ok(())
    }
}

impl Hub {
    fn give_relay(&mut self, mut relay: Vec<u8>) {
        if self.relay.is_empty() {
            relay.clear();
            self.relay = relay;
        }
    }
}
