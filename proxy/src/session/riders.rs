//! A group: a session with many clients. Its members' frames stand in one sequence each way, and each says whose it is.
//!
//! The machine of a session drives it, so it moves, thaws, parks and recovers whole. What is its own stands here: members
//! that come with their state, are addressed, and leave with it. Invariant: whatever becomes of a group, each member is
//! in it, goes on alone, or has ended; and each of its frames stands in one place.

use std::collections::BTreeMap;

use holdfast_protocol::codec::addressed::{
    ADDRESS_BYTES, Addressed, AddressedKind, Arrival, Departure, parts,
};
use holdfast_protocol::message::{Rule, Subject};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext};

use super::effects::{Effects, LinkId, Note};
use super::outbound::{Kind, Queued};
use super::planted::Bug;
use super::{Client, Phase, Session};
use crate::telemetry::counters::CloseReason;

/// What a departure may weigh beside the member's state.
const DEPARTURE_ROOM_BYTES: u64 = 128 * 1024;

/// Who is in a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Riders {
    members: BTreeMap<SessionId, Rider>,
    /// The most that there were since the last state: what they did since, and left with, is kept.
    most: usize,
    /// Of all departures, what has come.
    departing_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Rider {
    client: Client,
    /// Bytes of its frames that the game hasn't processed.
    queued_bytes: usize,
    reading: bool,
    /// Of its departure, what has come.
    departing: Vec<u8>,
    /// The client frame of the group before its arrival, and the last of its arrival: others of its frames in the
    /// stream are of an earlier stay.
    came_after: Seq,
    came_at: Seq,
}

/// With what a session goes on alone that was in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// A state and its format; none: it is lost.
    pub state: Option<(Vec<u8>, String)>,
    /// Its frames that the state doesn't cover.
    pub frames: Vec<Queued>,
    /// It never took part, for this reason: it goes on as it came.
    pub came_back: Option<&'static str>,
}

/// With what a session comes into a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boarding {
    pub arrival: Vec<u8>,
    pub frames: Vec<Queued>,
    pub client: Client,
}

impl Boarding {
    /// It comes into no group after all, for that reason.
    #[must_use]
    pub fn back(self, reason: &'static str) -> Departed {
        let arrival = Arrival::parse(&self.arrival);
        let state = arrival.map(|arrival| (arrival.state.to_vec(), arrival.format.to_owned()));
        Departed { state, frames: self.frames, came_back: Some(reason) }
    }
}

impl Riders {
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Nobody listens any more.
    #[must_use]
    pub fn all_gone(&self) -> bool {
        self.members.values().all(|rider| rider.client == Client::Gone)
    }

    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes of departures that aren't whole.
    #[must_use]
    pub fn departing_bytes(&self) -> usize {
        self.departing_bytes
    }

    pub fn ids(&self) -> impl Iterator<Item = SessionId> {
        self.members.keys().copied()
    }
}

impl Session {
    /// The members, if this is a group.
    #[must_use]
    pub fn riders(&self) -> Option<&Riders> {
        self.riders.as_deref()
    }

    #[must_use]
    pub fn is_group(&self) -> bool {
        self.riders.is_some()
    }

    /// The first look for a backend for a group: beside its first member, if that backend takes it.
    pub fn open_beside<E: Effects>(&mut self, link: Option<LinkId>, env: &mut E) {
        self.beside = link;
        self.seek(env);
        self.beside = None;
    }

    /// A session becomes a member.
    pub fn admit<E: Effects>(&mut self, member: SessionId, boarding: &Boarding, env: &mut E) {
        let came_after = self.outbound.last();
        let Some(riders) = &mut self.riders else { return };
        let rider = Rider {
            client: boarding.client,
            queued_bytes: 0,
            reading: true,
            departing: Vec::new(),
            came_after,
            came_at: came_after,
        };
        riders.members.insert(member, rider);
        riders.most = riders.most.max(riders.members.len());
        for (kind, part) in parts(&boarding.arrival) {
            self.push_addressed(kind, member, part, TraceContext::NONE, 0, env);
        }
        let came_at = self.outbound.last();
        if let Some(rider) = self.rider_mut(member) {
            rider.came_at = came_at;
        }
        for queued in &boarding.frames {
            let kind = match queued.kind {
                Kind::Frame => AddressedKind::Frame,
                Kind::CloseHalf => AddressedKind::Half,
                Kind::Close => AddressedKind::Close,
            };
            self.push_addressed(kind, member, &queued.frame, queued.trace, queued.received, env);
        }
        if !self.is_deserted() {
            env.timer(super::Timer::Close, None);
        }
        self.regulate_member(member, env);
        self.pump(env);
    }

    /// A frame from a member's client.
    pub fn member_frame<E: Effects>(
        &mut self,
        member: SessionId,
        frame: &[u8],
        trace: TraceContext,
        received: u64,
        env: &mut E,
    ) {
        let open = self.rider(member).is_some_and(|rider| rider.client == Client::Open);
        if !open || self.phase == Phase::Ended {
            return;
        }
        self.push_addressed(AddressedKind::Frame, member, frame, trace, received, env);
        self.regulate_member(member, env);
        self.pump(env);
    }

    /// A member's client has sent its last byte; it may still listen.
    pub fn member_finished<E: Effects>(&mut self, member: SessionId, env: &mut E) {
        let Some(rider) = self.rider_mut(member).filter(|rider| rider.client == Client::Open) else { return };
        rider.client = Client::Half;
        self.push_addressed(AddressedKind::Half, member, &[], TraceContext::NONE, 0, env);
        self.watch_the_end(env);
        self.pump(env);
    }

    /// A member's client is gone, or must go: the game is told, behind the frames that wait.
    pub fn member_gone<E: Effects>(&mut self, member: SessionId, reason: CloseReason, env: &mut E) {
        let Some(rider) = self.rider_mut(member).filter(|rider| rider.client != Client::Gone) else { return };
        rider.client = Client::Gone;
        let reason = reason.name().as_bytes();
        self.push_addressed(AddressedKind::Close, member, reason, TraceContext::NONE, 0, env);
        self.watch_the_end(env);
        self.pump(env);
    }

    /// No member has anything more to say: the game is waited for no longer than for the end of a session alone.
    pub(super) fn is_deserted(&self) -> bool {
        self.riders().is_some_and(|riders| riders.members.values().all(|rider| rider.client != Client::Open))
    }

    fn watch_the_end<E: Effects>(&mut self, env: &mut E) {
        if self.is_deserted() && matches!(self.phase, Phase::Active { .. } | Phase::Replaying { .. }) {
            env.timer(super::Timer::Close, Some(self.service.limits.close_deadline));
        }
    }

    fn push_addressed<E: Effects>(
        &mut self,
        kind: AddressedKind,
        member: SessionId,
        payload: &[u8],
        trace: TraceContext,
        received: u64,
        env: &mut E,
    ) {
        let head = Addressed::head(kind, member);
        self.outbound.push_after(Kind::Frame, &head, payload, trace, received, env);
        if let Some(rider) = self.rider_mut(member) {
            rider.queued_bytes += ADDRESS_BYTES + payload.len();
        }
    }

    fn rider(&self, member: SessionId) -> Option<&Rider> {
        self.riders.as_ref()?.members.get(&member)
    }

    fn rider_mut(&mut self, member: SessionId) -> Option<&mut Rider> {
        self.riders.as_mut()?.members.get_mut(&member)
    }

    /// Back-pressure for one member: what it may have waiting is what a session alone may.
    fn regulate_member<E: Effects>(&mut self, member: SessionId, env: &mut E) {
        let bound = self.service.limits.client_window_bytes as usize;
        let full = self.journal_is_full();
        let Some(rider) = self.rider_mut(member) else { return };
        let fits = if rider.reading { rider.queued_bytes < bound } else { rider.queued_bytes <= bound / 2 };
        let reading = fits && !full;
        if reading != rider.reading {
            rider.reading = reading;
            env.read_member(member, reading);
        }
    }

    /// A state covers what those who have left did, if nothing came behind it.
    pub(super) fn forget_who_left(&mut self) {
        if let Some(riders) = self.riders.as_mut().filter(|_| self.journal.records.is_empty()) {
            riders.most = riders.members.len();
        }
    }

    /// The group as a whole is read, or isn't.
    pub(super) fn regulate_members<E: Effects>(&mut self, env: &mut E) {
        let full = self.journal_is_full();
        if std::mem::replace(&mut self.reading, !full) == full {
            let members: Vec<_> = self.riders.iter().flat_map(|riders| riders.ids()).collect();
            members.into_iter().for_each(|member| self.regulate_member(member, env));
        }
    }

    /// The game has processed client frames up to `seq`.
    pub(super) fn members_processed<E: Effects>(&mut self, seq: Seq, env: &mut E) {
        if self.riders.is_none() {
            return;
        }
        let mut done: Vec<(SessionId, usize, bool)> = Vec::new();
        self.outbound.for_unprocessed(seq, |seq, frame| {
            if let Some(addressed) = Addressed::parse(frame)
                && self.rider(addressed.member).is_some_and(|rider| seq > rider.came_after)
            {
                done.push((addressed.member, frame.len(), addressed.kind == AddressedKind::Close));
            }
        });
        for (member, bytes, is_gone) in done {
            if let Some(rider) = self.rider_mut(member) {
                rider.queued_bytes = rider.queued_bytes.saturating_sub(bytes);
                let is_gone = is_gone && rider.client == Client::Gone;
                self.regulate_member(member, env);
                if is_gone {
                    self.remove_rider(member);
                    env.member_is_over(member, CloseReason::ClientClose);
                }
            }
        }
    }

    fn remove_rider(&mut self, member: SessionId) {
        if let Some(riders) = &mut self.riders
            && let Some(rider) = riders.members.remove(&member)
        {
            riders.departing_bytes -= rider.departing.len();
        }
    }

    /// A frame of the group's stream, for one of its members.
    pub(super) fn deliver_addressed<E: Effects>(
        &mut self,
        frame: &[u8],
        trace: &TraceContext,
        env: &mut E,
    ) -> Result<(), Rule> {
        let waits_for_client = self.address(frame, trace, env)?;
        // Nobody else will say that it is done with.
        if !waits_for_client && self.inbound.only_last_is_unhanded() {
            self.handed(env);
        }
        Ok(())
    }

    /// `true`: it is on its way to a client, which takes its time.
    fn address<E: Effects>(&mut self, frame: &[u8], trace: &TraceContext, env: &mut E) -> Result<bool, Rule> {
        let addressed = Addressed::parse(frame).ok_or(Rule::Malformed)?;
        let member = addressed.member;
        let Some(rider) = self.rider_mut(member) else {
            // It has gone, or has left, and the game didn't know yet.
            env.note(Note::Stale);
            return Ok(false);
        };
        match addressed.kind {
            AddressedKind::Frame if rider.client == Client::Gone => {}
            AddressedKind::Frame => {
                env.deliver_to(member, addressed.payload, trace)?;
                return Ok(true);
            }
            AddressedKind::Half => return Err(Rule::Unexpected),
            AddressedKind::Close => {
                self.remove_rider(member);
                env.member_is_over(member, CloseReason::BackendClose);
                self.watch_the_end(env);
            }
            AddressedKind::Part | AddressedKind::Passage => {
                self.departs(member, addressed.kind, addressed.payload, env)?;
            }
        }
        Ok(false)
    }

    /// A piece of a departure; after the last one the member goes on alone.
    fn departs<E: Effects>(
        &mut self,
        member: SessionId,
        kind: AddressedKind,
        payload: &[u8],
        env: &mut E,
    ) -> Result<(), Rule> {
        let (max_bytes, sent, acked) =
            (self.service.limits.max_state_bytes, self.outbound.sent(), self.outbound.acked());
        let Some(riders) = &mut self.riders else { return Ok(()) };
        let Some(rider) = riders.members.get_mut(&member) else { return Ok(()) };
        rider.departing.extend_from_slice(payload);
        riders.departing_bytes += payload.len();
        // One leaves after the other: one state at a time. One that comes back as it came says why, too.
        if riders.departing_bytes as u64 > max_bytes.saturating_add(DEPARTURE_ROOM_BYTES) {
            return Err(Rule::StateOverrun);
        }
        if kind == AddressedKind::Part {
            return Ok(());
        }
        let (departing, came_at) = (std::mem::take(&mut rider.departing), rider.came_at);
        riders.departing_bytes -= departing.len();
        let departure = Departure::parse(&departing).ok_or(Rule::Malformed)?;
        if departure.client_seq > sent {
            return Err(Rule::AckBeyondSent);
        }
        if departure.client_seq < acked.max(came_at) {
            // Frames that come after it may be gone: nobody may ack them before. Nor can it leave before it has come.
            return Err(Rule::OutOfSequence);
        }
        let format = self.link().map_or_else(String::new, |link| env.state_format(link));
        let after = if self.planted.is(Bug::ForgottenFarewell) { sent } else { departure.client_seq };
        let frames = self.frames_of(member, after);
        self.remove_rider(member);
        self.inbound.hurry_ack();
        // A game that didn't take it has said so in the state: it won't be asked for again.
        let state = Some((departure.state.to_vec(), format));
        env.member_departs(member, Departed { state, frames, came_back: None });
        self.watch_the_end(env);
        Ok(())
    }

    /// A member's frames in the group's stream after that one, of its present stay.
    fn frames_of(&self, member: SessionId, after: Seq) -> Vec<Queued> {
        let mut frames = Vec::new();
        let after = after.max(self.rider(member).map_or(Seq::NONE, |rider| rider.came_at));
        self.outbound.for_each_after(after, |entry| {
            let Some(addressed) = Addressed::parse(entry.frame).filter(|one| one.member == member) else {
                return;
            };
            let kind = match addressed.kind {
                AddressedKind::Frame => Kind::Frame,
                AddressedKind::Half => Kind::CloseHalf,
                AddressedKind::Close => Kind::Close,
                AddressedKind::Part | AddressedKind::Passage => return,
            };
            let frame = if kind == Kind::Frame { addressed.payload.to_vec() } else { Vec::new() };
            frames.push(Queued { kind, frame, trace: entry.trace, received: entry.received });
        });
        frames
    }

    /// The arrival of a member of which no backend has been given anything: it can go back to what it was.
    fn arrival_of(&self, member: SessionId) -> Option<(Vec<u8>, String)> {
        let came_after = self.rider(member)?.came_after;
        if came_after < self.outbound.highest() {
            return None;
        }
        let mut bytes = Vec::new();
        self.outbound.for_each_after(came_after, |entry| {
            if let Some(one) = Addressed::parse(entry.frame).filter(|one| one.member == member)
                && matches!(one.kind, AddressedKind::Part | AddressedKind::Passage)
            {
                bytes.extend_from_slice(one.payload);
            }
        });
        let arrival = Arrival::parse(&bytes)?;
        Some((arrival.state.to_vec(), arrival.format.to_owned()))
    }

    /// The group is no more, or can't come about: who came and was never given to a backend goes on as it was; all
    /// others go on anew, with the frames that no backend was given.
    pub(super) fn dissolve<E: Effects>(&mut self, reason: &'static str, env: &mut E) {
        let given = self.outbound.highest();
        let members: Vec<_> = self.riders.iter().flat_map(|riders| riders.ids()).collect();
        for member in members {
            let state = self.arrival_of(member);
            let frames = self.frames_of(member, given);
            self.remove_rider(member);
            let came_back = state.is_some().then_some(reason);
            env.member_departs(member, Departed { state, frames, came_back });
        }
    }

    /// Asked to attach a group that has never lived, a backend says that it is somebody else's.
    pub(super) fn is_another_proxys(&self) -> bool {
        self.is_group() && matches!(self.phase, Phase::Attaching { .. }) && self.is_untouched()
    }

    /// The group lives, through another proxy: no other backend is to be asked, or there would be two of it.
    pub(super) fn give_way<E: Effects>(&mut self, env: &mut E) {
        self.dissolve("a backend has the group through another proxy", env);
        self.end(CloseReason::NoBackend, env);
    }

    /// The group has ended, and its members with it.
    pub(super) fn end_riders<E: Effects>(&mut self, reason: CloseReason, env: &mut E) {
        let riders = self.riders.as_deref_mut().map(std::mem::take).unwrap_or_default();
        for member in riders.members.into_keys() {
            env.member_is_over(member, reason);
        }
    }
}

impl Session {
    /// Its STATE(final) is here, and it is to be in a group: the group is the owner now.
    pub(super) fn board<E: Effects>(&mut self, env: &mut E) {
        if let Some(old) = self.old.take() {
            self.release(old.link, old.epoch, env);
        }
        self.phase = Phase::Aboard;
        self.order = None;
        env.timer(super::Timer::Checkpoint, None);
        env.timer(super::Timer::Close, None);
        env.settled(None);
        self.journal.clock_runs = false;
        // It may be its turn still; nobody is to wait for who is in a group.
        self.recovery_is_over(env);
        env.note(Note::HandoffDone(crate::telemetry::counters::HandoffResult::Moved));
        env.boards();
    }

    /// It is to be in a group, and isn't yet: its state is here, and its client's frames are its own.
    pub(super) fn has_luggage(&self) -> bool {
        self.phase == Phase::Aboard && self.journal.state.is_some()
    }

    /// What it takes into the group. Nothing of it stays here but its place and its numbers.
    pub fn take_luggage<E: Effects>(&mut self, env: &mut E) -> Boarding {
        let state = self.journal.state.take();
        let (bytes, format) =
            state.as_ref().map_or((&[][..], ""), |state| (&*state.bytes, state.format.as_str()));
        let arrival =
            Arrival { opened_us: self.opened_us, client: &self.client_address, format, state: bytes };
        let arrival = arrival.to_bytes();
        let frames = self.outbound.take_all(env);
        self.journal = super::journal::Journal { origin: self.positions(), ..Default::default() };
        self.outbound.set_keeps(false);
        self.inbound.set_keeps_hashes(false);
        if !std::mem::replace(&mut self.reading, true) {
            env.read_client(true);
        }
        Boarding { arrival, frames, client: self.client }
    }

    fn positions(&self) -> super::journal::Origin {
        super::journal::Origin {
            client_seq: self.outbound.highest(),
            server_seq: self.inbound.had(),
            record_seq: Seq::NONE,
        }
    }

    /// It isn't in the group any more, and goes on alone.
    pub fn disembark<E: Effects>(&mut self, departed: Departed, env: &mut E) {
        if self.phase != Phase::Aboard {
            return;
        }
        self.phase = Phase::Parked;
        self.journal.origin = self.positions();
        self.inbound.attend(self.inbound.had());
        self.lost = departed.state.is_none();
        self.journal.state = departed.state.map(|(bytes, format)| super::state::KeptState {
            bytes,
            format,
            client_seq: self.journal.origin.client_seq,
            server_seq: self.journal.origin.server_seq,
            record_seq: Seq::NONE,
            given_to: None,
        });
        let is_told = |kind| departed.frames.iter().any(|queued| queued.kind == kind);
        let untold = match self.client {
            Client::Open => None,
            Client::Half => (!is_told(Kind::CloseHalf)).then_some(Kind::CloseHalf),
            Client::Gone => (!is_told(Kind::Close)).then_some(Kind::Close),
        };
        if self.client == Client::Gone && departed.frames.is_empty() && self.lost {
            // Nothing is left to be saved, and nobody to begin anew for.
            return self.end(self.ending.unwrap_or(CloseReason::Crash), env);
        }
        for queued in departed.frames {
            self.outbound.push(queued.kind, &queued.frame, queued.trace, queued.received, env);
        }
        if let Some(kind) = untold {
            // Only a game that is no more has heard of it.
            self.outbound.push(kind, &[], TraceContext::NONE, 0, env);
        }
        self.seek(env);
    }

    /// The game has ended it, in the group: its client gets its last bytes.
    pub fn part<E: Effects>(&mut self, reason: CloseReason, env: &mut E) {
        if self.phase != Phase::Aboard {
            return;
        }
        self.ending.get_or_insert(reason);
        if self.client == Client::Gone || reason != CloseReason::BackendClose {
            return self.end(self.ending.unwrap_or(reason), env);
        }
        self.phase = Phase::Parting;
        env.timer(super::Timer::Close, Some(self.service.limits.close_deadline));
        env.finish_client();
    }

    /// The group that this is.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match self.subject {
            Subject::Group(group) => Some(group),
            Subject::Session(_) => None,
        }
    }
}
