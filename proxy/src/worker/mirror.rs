//! Mirrors: a share of the clients' frames is given to a shadow service, too, and no player ever feels it.
//!
//! A mirror is an ordinary session of the shadow service without a client: its input is what its player's client has
//! sent, given as it is read. It is bounded as any session is, and never waited for: where a session would be parked,
//! or its client not be read, a mirror is given up, since a stream with a gap says nothing. What it does is in no count
//! of sessions, and nothing that befalls it leads back to its player.

mod comparer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_protocol::SessionId;
use slotmap::SecondaryMap;

use super::Worker;
use super::hub::Hub;
use super::recovery::Place;
use super::slot::{Seat, SessionKey, Slot};
use super::trace::SessionTrace;
use crate::routing::table::{MirrorPolicy, RouteMatch};
use crate::routing::{Route, Service};
use crate::session::{Phase, Session};
use crate::telemetry::counters::{CloseReason, Kept, Likeness, MirrorEnd};
use comparer::{Comparer, Side};

const COMPLAIN_EVERY: Duration = Duration::from_secs(1);
/// Nothing holds a shadow back, as its frames go nowhere; so one that says this many times what its player is told, and
/// this much beyond it, is given up: it would keep the worker busy.
const FLOOD_TIMES: i64 = 4;
const FLOOD_BYTES: i64 = 4 * 1024 * 1024;

/// What is known of one mirror.
#[derive(Debug)]
struct Mirror {
    of: SessionId,
    /// The service that is mirrored.
    service: Arc<str>,
    /// Its player has left: from here on its end is as it should be.
    left: bool,
    end: Option<MirrorEnd>,
    comparer: Option<Comparer>,
    /// What the shadow has said, less [`FLOOD_TIMES`] what its player was told.
    flood_bytes: i64,
}

/// All mirrors of a worker.
#[derive(Debug, Default)]
pub struct Mirrors {
    known: SecondaryMap<SessionKey, Mirror>,
    /// To be ended when this turn is over.
    given_up: Vec<(SessionKey, MirrorEnd)>,
    complained: Option<Instant>,
}

impl Mirrors {
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// The session that this one mirrors.
    pub fn of(&self, mirror: SessionKey) -> Option<SessionId> {
        self.known.get(mirror).map(|mirror| mirror.of)
    }

    pub fn give_up(&mut self, mirror: SessionKey, end: MirrorEnd) {
        self.given_up.push((mirror, end));
    }

    fn leaves(&mut self, mirror: SessionKey) {
        if let Some(mirror) = self.known.get_mut(mirror) {
            mirror.left = true;
        }
    }
}

impl Worker {
    /// A session has just begun: it is mirrored if its service's document says so.
    pub(super) fn begin_mirror(&mut self, of: SessionKey, opened_us: u64) {
        let Some(slot) = self.slots.get(of) else { return };
        let Some(policy) = slot.service.mirror.clone() else { return };
        if !policy.takes(slot.session.id()) {
            return;
        }
        let Some(shadow) = self.hub.table.services.get(&*policy.service).cloned() else { return };
        if let Some(end) = self.hub.keeps_from_mirroring(&shadow) {
            return self.hub.counters.mirrors_ended[end as usize].add(1);
        }
        let id = SessionId(fastrand::u128(..).to_be_bytes());
        let mirror = Mirror {
            of: slot.session.id(),
            service: Arc::clone(&slot.service.name),
            left: false,
            end: None,
            comparer: policy.compare.then(Comparer::default),
            flood_bytes: 0,
        };
        let mut seat = Seat::empty(slot.seat.client, shadow_route(&slot.seat.route, &policy), self.hub.now);
        (seat.sni, seat.is_mirror) = (slot.seat.sni.clone(), true);
        if self.hub.tracer.enabled() {
            let ratio = self.hub.config.ratio(&shadow);
            seat.life = Some(Box::new(SessionTrace::begin(&mut self.hub.ids, ratio, self.hub.now)));
        }
        let session = Session::new(id, shadow, slot.seat.client.to_string().into(), opened_us);
        tracing::debug!(session = %id, mirror_of = %mirror.of, "mirror begun");
        let key = self.slots.insert(Slot::new(session, seat));
        self.by_id.insert(id, key);
        self.hub.mirrors.known.insert(key, mirror);
        self.hub.counters.mirrors.add(1);
        self.slots[of].seat.mirror = Some(key);
        self.drive(key, |session, fx| session.open(fx));
    }

    /// Whole frames, as their client sent them: the mirror gets them all, or ends.
    pub(super) fn mirror_frames(&mut self, mirror: SessionKey, bytes: &[u8], received: u64) {
        let Some(slot) = self.slots.get(mirror) else { return };
        let is_congested = slot.seat.link.is_some_and(|link| self.hub.link(link).congested);
        let given = self.drive(mirror, |session, fx| {
            let (mut at, mut frames) = (0, 0);
            while at < bytes.len() && fx.seat.reading && !is_congested {
                // They have been cut before: so many bytes are whole frames.
                let Ok(Some(cut)) = fx.service.framing.cut(&bytes[at..]) else { break };
                let trace = fx.hub.ids.root(fx.ratio);
                session.frame(&bytes[at + cut.frame.start..at + cut.frame.end], trace, received, fx);
                at += cut.consumed;
                frames += 1;
            }
            fx.hub.counters.mirrored_frames.add(frames);
            at
        });
        if given.is_some_and(|given| given < bytes.len()) {
            self.hub.mirrors.give_up(mirror, MirrorEnd::Overflow);
        }
    }

    /// The client has sent its last byte.
    pub(super) fn mirror_finishes(&mut self, of: SessionKey) {
        let Some(mirror) = self.slots.get(of).and_then(|slot| slot.seat.mirror) else { return };
        self.hub.mirrors.leaves(mirror);
        self.drive(mirror, |session, fx| session.client_finished(fx));
    }

    /// The client is gone, or its session is over.
    pub(super) fn mirror_leaves(&mut self, of: SessionKey, reason: CloseReason) {
        let Some(mirror) = self.slots.get_mut(of).and_then(|slot| slot.seat.mirror.take()) else { return };
        self.hub.mirrors.leaves(mirror);
        self.drive(mirror, |session, fx| session.client_gone(reason, fx));
    }

    /// After every turn: those end that can't go on, and all of them before a player has to wait for memory.
    pub(super) fn give_up_mirrors(&mut self) {
        if self.hub.mirrors.known.is_empty() {
            return;
        }
        if self.hub.pressure.is_near() {
            self.end_mirrors(MirrorEnd::Pressure);
        }
        while let Some((mirror, end)) = self.hub.mirrors.given_up.pop() {
            self.end_mirror(mirror, end);
        }
    }

    /// The table has changed: mirrors that are wanted no more, or elsewhere, end.
    pub(super) fn review_mirrors(&mut self) {
        let table = Arc::clone(&self.hub.table);
        let is_wanted = |key: SessionKey, mirror: &Mirror| {
            let policy = table.services.get(&*mirror.service).and_then(|service| service.mirror.as_ref());
            let shadow = self.slots.get(key).map(|slot| &*slot.service.name);
            policy.is_some_and(|policy| policy.percent > 0 && Some(&*policy.service) == shadow)
        };
        let known = self.hub.mirrors.known.iter();
        let unwanted: Vec<_> =
            known.filter(|(key, mirror)| !is_wanted(*key, mirror)).map(|(key, _)| key).collect();
        unwanted.into_iter().for_each(|key| self.end_mirror(key, MirrorEnd::Withdrawn));
    }

    pub(super) fn end_mirrors(&mut self, end: MirrorEnd) {
        let all: Vec<_> = self.hub.mirrors.known.keys().collect();
        all.into_iter().for_each(|key| self.end_mirror(key, end));
    }

    /// Its backend is told that it may forget it.
    fn end_mirror(&mut self, key: SessionKey, end: MirrorEnd) {
        if let Some(mirror) = self.hub.mirrors.known.get_mut(key) {
            mirror.end.get_or_insert(end);
            self.drive(key, |session, fx| session.end(CloseReason::Limit, fx));
        }
    }
}

impl Hub {
    /// Mirrors are to cost no player a place.
    fn keeps_from_mirroring(&self, shadow: &Service) -> Option<MirrorEnd> {
        let own = self.population.get(&shadow.name).copied().unwrap_or(0);
        let mirrors = self.mirrors.len() as u64;
        let is_crowded = mirrors >= self.config.max_sessions
            || mirrors + u64::from(own) >= u64::from(shadow.limits.max_sessions);
        match self.pressure.is_near() {
            true => Some(MirrorEnd::Pressure),
            false => is_crowded.then_some(MirrorEnd::Limit),
        }
    }

    /// After each input to a mirror: it may wait for its turn after a crash, but not for a backend.
    pub fn account_mirror(&mut self, key: SessionKey, session: &Session, seat: &Seat) {
        let waits_its_turn = matches!(seat.recovery, Some(Place::Waiting(_)));
        if *session.phase() == Phase::Parked && !waits_its_turn {
            self.mirrors.give_up(key, MirrorEnd::NoBackend);
        }
    }

    /// Half of the pool for states on their way is the players' own.
    pub fn has_room_for_mirrors(&self, bytes: u64) -> bool {
        let reserved = self.counters.kept_by_kind[Kept::Transfer as usize].get();
        reserved + bytes <= self.config.transfer_pool_bytes / 2
    }

    /// A player is sent this frame.
    pub fn player_got(&mut self, mirror: SessionKey, frame: &[u8]) {
        self.compare(mirror, Side::Player, frame);
    }

    /// The shadow's game has sent this frame, which goes nowhere.
    pub fn shadow_said(&mut self, mirror: SessionKey, frame: &[u8]) {
        self.compare(mirror, Side::Shadow, frame);
    }

    fn compare(&mut self, key: SessionKey, side: Side, frame: &[u8]) {
        let Some(mirror) = self.mirrors.known.get_mut(key) else { return };
        let bytes = i64::try_from(frame.len()).unwrap_or(i64::MAX);
        mirror.flood_bytes = match side {
            Side::Player => mirror.flood_bytes.saturating_sub(FLOOD_TIMES.saturating_mul(bytes)),
            Side::Shadow => mirror.flood_bytes.saturating_add(bytes),
        };
        if mirror.flood_bytes > FLOOD_BYTES {
            self.mirrors.give_up(key, MirrorEnd::Overflow);
            return;
        }
        let Some(comparer) = &mut mirror.comparer else { return };
        let Some((likeness, frames)) = comparer.takes(side, frame) else { return };
        self.counters.mirror_replies[likeness as usize].add(frames);
        let last = self.mirrors.complained;
        let quiet = last.is_none_or(|last| self.now.saturating_duration_since(last) >= COMPLAIN_EVERY);
        if likeness == Likeness::Different && quiet {
            self.mirrors.complained = Some(self.now);
            tracing::info!(session = %mirror.of, service = %mirror.service, frame = comparer.compared(),
                "the shadow's frame isn't what the player got");
        }
    }

    /// The last of a mirror's effects: what it ended for.
    pub fn mirror_ended(&self, key: SessionKey, reason: CloseReason) {
        let Some(mirror) = self.mirrors.known.get(key) else { return };
        let by_itself = match reason {
            _ if mirror.left => MirrorEnd::Finished,
            CloseReason::BackendClose => MirrorEnd::Closed,
            CloseReason::NoBackend | CloseReason::ParkDeadline => MirrorEnd::NoBackend,
            _ => MirrorEnd::Failed,
        };
        self.counters.mirrors_ended[mirror.end.unwrap_or(by_itself) as usize].add(1);
    }

    /// Its slot is gone.
    pub fn forget_mirror(&mut self, key: SessionKey) {
        let Some(mirror) = self.mirrors.known.remove(key) else { return };
        self.counters.mirrors.sub(1);
        let unmatched = mirror.comparer.map_or(0, |comparer| comparer.waiting());
        self.counters.mirror_replies[Likeness::Uncompared as usize].add(unmatched);
    }
}

/// A mirror comes by no route: shares by version are the players'.
fn shadow_route(of: &Route, policy: &MirrorPolicy) -> Arc<Route> {
    Arc::new(Route {
        name: Arc::clone(&of.name),
        listener: Arc::clone(&of.listener),
        service: Arc::clone(&policy.service),
        versions: Default::default(),
        prefer: of.prefer,
        matches: RouteMatch::default(),
    })
}
