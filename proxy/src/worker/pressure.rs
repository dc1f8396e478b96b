//! What a worker holds for players and backends, against one bound: `limits.kept_bytes`.
//!
//! Each buffer that a peer can fill stands in one account, by kind. When the bound is near, those that hold more than
//! an equal share of it aren't read any more; when it is nearer still, those that go on holding so much are closed:
//! the slowest, as few as will do, never everyone. Whoever holds less than a share is neither. At the bound itself
//! nobody comes in, no session is frozen, and whoever holds anything waits. Parked sessions, and those on their way,
//! are held back but never closed for what waits for their backend: their deadlines are their own.

use std::time::{Duration, Instant};

use super::hub::Hub;
use super::slot::{Seat, SessionKey, Slot};
use super::{Worker, WorkerConfig};
use crate::session::{LinkId, Phase, Session};
use crate::telemetry::counters::{CloseReason, Kept, Limit};

/// Who holds more than a share for so long, while memory is short, is slow and not just busy.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// How often at most all sessions are looked through because the bound is reached.
const RELIEF_EVERY: Duration = Duration::from_millis(10);
/// The same for players who don't read, once the bound is reached.
const SLOW_AT_BOUND: Duration = Duration::from_millis(100);
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// What one session adds to the account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holding {
    queue: u64,
    journal: u64,
    state: u64,
    partial: u64,
    outbox: u64,
}

impl Holding {
    fn of(session: &Session, seat: &Seat) -> Self {
        Self {
            queue: session.queued_bytes(),
            state: session.state_bytes(),
            // The others are given back when they are empty: their capacity is what they take.
            journal: session.journal_room_bytes(),
            partial: seat.partial.capacity() as u64,
            outbox: seat.outbox.bytes.capacity() as u64,
        }
    }

    /// Bytes that are there because somebody is slow. A journal isn't, nor is a state.
    fn waiting(self) -> u64 {
        self.queue + self.partial + self.outbox
    }

    /// All of it.
    pub fn total(self) -> u64 {
        self.waiting() + self.journal + self.state
    }

    fn kinds(self) -> [(Kept, u64); 5] {
        [
            (Kept::Queue, self.queue),
            (Kept::Journal, self.journal),
            (Kept::State, self.state),
            (Kept::ClientPartial, self.partial),
            (Kept::ClientOutbox, self.outbox),
        ]
    }
}

/// The account's sum, and how near it is to its bound.
#[derive(Debug)]
pub struct Pressure {
    bound: u64,
    total: u64,
    /// Above three quarters, and not well below since.
    near: bool,
    /// The bound has been reached, and not been left well behind since.
    full: bool,
    /// Sessions are marked that hold more than their share.
    marks: bool,
    next_relief: Option<Instant>,
    /// A session with much journal found no room for the state that would trim it.
    starved: bool,
    complained: Option<Instant>,
}

/// How far the sum has come, once it is above nine tenths of the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Nearly,
    Bound,
    /// A quarter more than the bound: what buffers that grow by doubling, and one turn, may add.
    Well,
}

impl Pressure {
    pub fn new(config: &WorkerConfig) -> Self {
        let limits = &config.counters.limits;
        limits[Limit::MaxSessions as usize].set(config.max_sessions);
        // One bound for all workers together.
        let max_groups = if config.index == 0 { config.max_groups as u64 } else { 0 };
        limits[Limit::MaxGroups as usize].set(max_groups);
        limits[Limit::KeptBytes as usize].set(config.kept_bytes);
        limits[Limit::LinkOutboxBytes as usize].set(config.link_outbox_bytes);
        limits[Limit::TransferPoolBytes as usize].set(config.transfer_pool_bytes);
        Self::within(config.kept_bytes)
    }

    fn within(bound: u64) -> Self {
        Self {
            bound,
            total: 0,
            near: false,
            full: false,
            marks: false,
            next_relief: None,
            starved: false,
            complained: None,
        }
    }

    pub fn is_near(&self) -> bool {
        self.near
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    /// From here on, those that are slow are closed.
    fn short(&self) -> u64 {
        self.bound - self.bound / 10
    }

    fn over(&self) -> Over {
        match self.total {
            total if total >= self.bound + self.bound / 4 => Over::Well,
            total if total >= self.bound => Over::Bound,
            _ => Over::Nearly,
        }
    }

    /// Follows the sum. `true`: what was held back because of it may go on.
    fn weigh(&mut self) -> bool {
        let (was_near, was_full) = (self.near, self.full);
        let eighth = self.bound / 8;
        self.near = self.total >= if was_near { 5 * eighth } else { 6 * eighth };
        // Not below where the slow are closed: nobody would be, and nobody could go on.
        self.full = self.total >= if was_full { self.short() } else { self.bound };
        (was_near && !self.near) || (was_full && !self.full)
    }

    fn may_complain(&mut self, now: Instant) -> bool {
        let quiet = self.complained.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAIN_EVERY);
        if quiet {
            self.complained = Some(now);
        }
        quiet
    }
}

impl Hub {
    /// Keeps the account in step with one session.
    pub fn account_session(&mut self, session: &Session, seat: &mut Seat) {
        let now = Holding::of(session, seat);
        if now != seat.kept {
            self.replace(std::mem::replace(&mut seat.kept, now), now);
        }
    }

    /// The session has ended: nothing of it counts any more.
    pub fn close_account(&mut self, seat: &mut Seat) {
        self.replace(std::mem::take(&mut seat.kept), Holding::default());
        self.account_reading(seat, true);
        self.set_held(seat, false);
    }

    fn replace(&mut self, before: Holding, now: Holding) {
        let (mut less, mut more) = (0, 0);
        for ((kind, before), (_, now)) in before.kinds().into_iter().zip(now.kinds()) {
            if before != now {
                self.counters.kept_by_kind[kind as usize].add(now.wrapping_sub(before));
                (less, more) = (less + before, more + now);
            }
        }
        self.sum_shifts(less, more);
        self.weigh();
    }

    /// Keeps the account in step with one link.
    pub fn account_link(&mut self, id: LinkId) {
        let link = self.link_mut(id);
        let now = [link.inbox.len() as u64, link.outbox.waiting() as u64];
        let before = std::mem::replace(&mut link.kept, now);
        if before != now {
            self.shift(Kept::LinkInbox, before[0], now[0]);
            self.shift(Kept::LinkOutbox, before[1], now[1]);
            self.weigh();
        }
    }

    /// Room for a state on its way in, within the pool for transfers and the bound of all. One that frees more than it
    /// takes gets it at the bound, too, and so does a small one when no other is on its way: else nothing would ever
    /// be freed there.
    pub fn reserve(&mut self, bytes: u64, frees: u64) -> bool {
        let reserved = self.counters.kept_by_kind[Kept::Transfer as usize].get();
        let in_pool = reserved == 0 || reserved + bytes <= self.config.transfer_pool_bytes;
        let bound = self.pressure.bound;
        let is_small = reserved == 0 && bytes <= bound / 8;
        let fits = in_pool && (is_small || self.pressure.total + bytes <= bound + frees);
        if fits {
            self.shift(Kept::Transfer, 0, bytes);
            self.weigh();
        }
        fits
    }

    pub fn unreserve(&mut self, bytes: u64) {
        if std::mem::take(&mut self.pressure.starved) {
            self.pressure.next_relief = None;
        }
        self.shift(Kept::Transfer, bytes, 0);
        self.weigh();
    }

    /// `false`: too many linger already, or memory is short.
    pub fn begin_linger(&mut self, bytes: u64) -> bool {
        if self.pressure.full || self.counters.lingering.get() >= self.config.max_sessions {
            self.counters.lingers_cut.add(1);
            return false;
        }
        self.counters.lingering.add(1);
        self.shift(Kept::Linger, 0, bytes);
        self.weigh();
        true
    }

    pub fn end_linger(&mut self, bytes: u64) {
        self.counters.lingering.sub(1);
        self.shift(Kept::Linger, bytes, 0);
        self.weigh();
    }

    fn shift(&mut self, kind: Kept, before: u64, now: u64) {
        let cell = &self.counters.kept_by_kind[kind as usize];
        cell.add(now.wrapping_sub(before));
        self.sum_shifts(before, now);
    }

    fn sum_shifts(&mut self, before: u64, now: u64) {
        self.pressure.total = self.pressure.total.wrapping_add(now).wrapping_sub(before);
        self.counters.kept_bytes.set(self.pressure.total);
    }

    fn weigh(&mut self) {
        let was_full = self.pressure.full;
        self.relieved |= self.pressure.weigh();
        let now = self.now;
        if self.pressure.full && !was_full && self.pressure.may_complain(now) {
            let (kept_bytes, bound) = (self.pressure.total, self.pressure.bound);
            tracing::warn!(
                kept_bytes,
                bound,
                "limits.kept_bytes is reached: clients are turned away, or wait"
            );
        }
    }

    /// An equal share of three quarters of the bound: while more than that is held, somebody is above it.
    fn share(&self) -> u64 {
        // A group holds for its members, and they for themselves.
        let sharers = self.counters.sessions.get() + self.counters.group_members.get();
        (self.pressure.bound - self.pressure.bound / 4) / sharers.max(1)
    }

    /// Whether a client's next frames must wait in its socket, though its own window has room. What it has begun to
    /// send is no reason before the bound is reached: to end it, it has to be read.
    fn holds_back(&self, seat: &Seat) -> bool {
        let kept = &seat.kept;
        seat.link.is_some_and(|link| self.link(link).congested)
            || (self.pressure.full && (kept.waiting() > 0 || kept.journal > self.share()))
            || (self.pressure.near && kept.queue + kept.outbox > self.share())
    }

    /// The same for a member of that group, whose frames wait with the group's.
    fn holds_back_member(&self, group: &Slot) -> bool {
        let (seat, kept) = (&group.seat, &group.seat.kept);
        seat.link.is_some_and(|link| self.link(link).congested)
            || (self.pressure.full && (kept.waiting() > 0 || kept.journal / sharers(group) > self.share()))
            || (self.pressure.near && kept.queue / sharers(group) > self.share())
    }

    /// Something of the session has changed: its client may go on.
    pub fn review_hold(&self, seat: &mut Seat) {
        if seat.held && !self.holds_back(seat) {
            self.set_held(seat, false);
            seat.wake();
        }
    }

    fn set_held(&self, seat: &mut Seat, held: bool) {
        if std::mem::replace(&mut seat.held, held) != held {
            step(&self.counters.unread_by_worker, held);
        }
    }

    /// The session itself wants its client read, or not.
    pub fn account_reading(&self, seat: &mut Seat, reading: bool) {
        // There is no client behind a mirror that would wait.
        if std::mem::replace(&mut seat.reading, reading) != reading && !seat.is_mirror {
            step(&self.counters.unread_by_window, !reading);
        }
    }
}

fn step(cell: &crate::telemetry::counters::Cell, up: bool) {
    if up { cell.add(1) } else { cell.sub(1) }
}

/// A session that may be closed because memory is short.
struct Slow {
    key: SessionKey,
    bytes: u64,
    reason: CloseReason,
}

impl Worker {
    /// The client is about to be read. `true`: not now.
    pub(super) fn must_wait(&mut self, key: SessionKey) -> bool {
        let group = self.aboard(key).and_then(|group| self.slots.get(group));
        let with_group = group.is_some_and(|group| self.hub.holds_back_member(group));
        let Some(slot) = self.slots.get_mut(key) else { return false };
        let held = with_group || self.hub.holds_back(&slot.seat);
        self.hub.set_held(&mut slot.seat, held);
        held
    }

    pub(super) fn account_partial(&mut self, key: SessionKey) {
        if let Some(slot) = self.slots.get_mut(key) {
            self.hub.account_session(&slot.session, &mut slot.seat);
        }
    }

    /// A turn may have brought much: the bound isn't left to the next look.
    pub(super) fn keep_below_the_bound(&mut self) {
        let (now, pressure) = (self.hub.now, &mut self.hub.pressure);
        let due = pressure.next_relief.is_none_or(|due| due <= now);
        if pressure.full && due {
            pressure.next_relief = Some(now + RELIEF_EVERY);
            if pressure.total >= pressure.bound {
                self.close_the_slowest();
            }
            self.trim_journals();
        }
    }

    /// What is kept for a crash is kept no longer than it takes to have a newer state instead.
    fn trim_journals(&mut self) {
        let share = self.hub.share();
        let is_large = |(_, slot): &(SessionKey, &Slot)| slot.seat.kept.journal / sharers(slot) > share;
        let large: Vec<SessionKey> = self.slots.iter().filter(is_large).map(|(key, _)| key).collect();
        for key in large {
            if self.drive(key, |session, fx| session.make_room(fx)) == Some(false) {
                // The others would fare no better.
                self.hub.pressure.starved = true;
                break;
            }
        }
    }

    /// Notes who holds more than a share, and since when.
    pub(super) fn look_at_memory(&mut self) {
        let (now, near, share) = (self.hub.now, self.hub.pressure.near, self.hub.share());
        if !near && !self.hub.pressure.marks {
            return;
        }
        self.hub.pressure.marks = near;
        let is_over = |(key, slot)| (key, near && self.slow_bytes(slot).0 / sharers(slot) > share);
        let marks: Vec<(SessionKey, bool)> = self.slots.iter().map(is_over).collect();
        for (key, over) in marks {
            let seat = &mut self.slots[key].seat;
            seat.over_since = over.then(|| seat.over_since.unwrap_or(now));
        }
        self.close_the_slowest();
    }

    /// Closes those that hold most, until what is left is below nine tenths of the bound.
    fn close_the_slowest(&mut self) {
        let pressure = &self.hub.pressure;
        let Some(excess) = pressure.total.checked_sub(pressure.short()) else { return };
        let over = pressure.over();
        let (now, share) = (self.hub.now, self.hub.share());
        let mut leaving_bytes = 0;
        let mut slow = Vec::new();
        for (key, slot) in &self.slots {
            let (bytes, reason) = self.slow_bytes(slot);
            let leaves = match slot.session.riders() {
                Some(riders) => riders.all_gone(),
                None => slot.seat.stream.is_none(),
            };
            if leaves {
                // It is on its way out already, with all that it holds.
                leaving_bytes += slot.seat.kept.queue;
            } else if bytes / sharers(slot) > share && is_slow(&slot.seat, reason, over, now) {
                slow.push(Slow { key, bytes, reason });
            }
        }
        slow.sort_unstable_by_key(|slow| std::cmp::Reverse(slow.bytes));
        let mut excess = excess.saturating_sub(leaving_bytes);
        for Slow { key, bytes, reason } in slow {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            self.close_slow(key, bytes, reason);
        }
    }

    /// What a session holds because its player, or else its backend, is slow.
    fn slow_bytes(&self, slot: &Slot) -> (u64, CloseReason) {
        let kept = &slot.seat.kept;
        let group = slot.seat.company.aboard.and_then(|group| self.slots.get(group));
        let served = &group.unwrap_or(slot).session;
        let is_served = matches!(served.phase(), Phase::Active { .. });
        // A group that a member holds up is no fault of its backend's, nor of the others in it.
        let queue = if is_served && slot.seat.company.clogged == 0 { kept.queue } else { 0 };
        // Who isn't read can't end its frame: that is no fault of its own unless its backend is there to take it.
        let partial = if is_served || !slot.seat.held { kept.partial } else { 0 };
        // A player who takes nothing holds up the backend, too: what waits for that one is then no fault of its own.
        let reason = if slot.seat.unread_since.is_some() || queue == 0 {
            CloseReason::SlowPlayer
        } else {
            CloseReason::SlowBackend
        };
        (kept.outbox + partial + queue, reason)
    }

    fn close_slow(&mut self, key: SessionKey, bytes: u64, reason: CloseReason) {
        if let Some(slot) = self.slots.get(key) {
            let (kept_bytes, bound) = (self.hub.pressure.total, self.hub.pressure.bound);
            tracing::warn!(session = %slot.session.id(), client = %slot.seat.client, reason = reason.name(), bytes,
                kept_bytes, bound, "closed: memory is short, and this session holds most of it");
        }
        self.dismiss_client(key, reason);
    }
}

/// How many clients' shares a session may hold.
fn sharers(slot: &Slot) -> u64 {
    slot.session.riders().map_or(1, |riders| riders.len().max(1) as u64)
}

/// It has had its time. Beyond the bound that is short, and well beyond it there is none, for players who don't read:
/// only they can have brought it about, since who waits for a backend isn't read any more.
fn is_slow(seat: &Seat, reason: CloseReason, over: Over, now: Instant) -> bool {
    let lasts = |since: Option<Instant>, time| {
        since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    };
    let long = lasts(seat.over_since, SLOW_AFTER);
    match (reason, seat.unread_since) {
        (CloseReason::SlowPlayer, Some(_)) => {
            let time = match over {
                Over::Nearly => SLOW_AFTER,
                Over::Bound => SLOW_AT_BOUND,
                Over::Well => Duration::ZERO,
            };
            lasts(seat.unread_since, time)
        }
        _ => long,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_full_are_left_well_below_where_they_were_entered() {
        let mut pressure = Pressure::within(800);
        let mut at = |total, near, full, relieves| {
            pressure.total = total;
            assert_eq!(pressure.weigh(), relieves, "{total}");
            assert_eq!((pressure.near, pressure.full), (near, full), "{total}");
        };
        at(599, false, false, false);
        at(600, true, false, false);
        at(500, true, false, false);
        at(800, true, true, false);
        at(720, true, true, false);
        at(719, true, false, true);
        at(499, false, false, true);
        at(599, false, false, false);
    }
}
