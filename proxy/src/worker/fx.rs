//! A session's effects on this worker: messages go to links' outboxes, frames to the client's, notes to telemetry.

use std::time::Duration;

use holdfast_protocol::codec::addressed::Addressed;
use holdfast_protocol::message::{Message, Rule};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext, codec};

use super::groups::Request;
use super::hub::{ACK_DELAY, Hub};
use super::link::LinkState;
use super::placing::Occasion;
use super::slot::{Seat, SessionKey, timer_index};
use super::trace::{HandoffTrace, frame_span};
use crate::routing::Service;
use crate::session::outbound::{Entry, Kind};
use crate::session::riders::Departed;
use crate::session::{Effects, LinkId, Note, Step, Suspicion, Timer, Wanted};
use crate::telemetry::counters::{
    Breaker, CloseReason, HandoffCause, HandoffResult, MirrorEnd, PAUSE_BUCKETS,
};
use crate::telemetry::span::Value;

/// The world of one session, for the length of one input.
pub struct Fx<'a> {
    pub key: SessionKey,
    pub id: SessionId,
    pub is_group: bool,
    pub ratio: f64,
    pub service: &'a Service,
    pub seat: &'a mut Seat,
    pub hub: &'a mut Hub,
}

impl Effects for Fx<'_> {
    fn send(&mut self, link: LinkId, message: &Message<'_>) {
        let counters = &self.hub.counters;
        if let Message::Data(data) = message {
            counters.frames_to_backend.add(1);
            counters.bytes_to_backend.add(data.frame.len() as u64);
            if data.again {
                counters.frames_again.add(1);
            }
        }
        let to = self.hub.link_mut(link);
        if to.state == LinkState::Up && to.stream.is_some() {
            codec::encode(message, &mut to.outbox.bytes);
            self.hub.mark_link(link);
        }
    }

    fn link_is_up(&self, link: LinkId) -> bool {
        self.hub.link(link).is_up()
    }

    fn client_window_bytes(&self, link: LinkId) -> u32 {
        self.hub.link(link).peer.as_ref().map_or(u32::MAX, |peer| peer.client_window_bytes)
    }

    fn state_credit_bytes(&self, link: LinkId) -> u64 {
        self.hub.link(link).peer.as_ref().map_or(0, |peer| peer.state_credit_bytes)
    }

    fn state_format(&self, link: LinkId) -> String {
        self.hub.link(link).peer.as_ref().map_or_else(String::new, |peer| peer.writes_format.clone())
    }

    fn max_frame_bytes(&self, link: LinkId) -> u32 {
        self.hub.link(link).peer.as_ref().map_or(u32::MAX, |peer| peer.takes_frame_bytes)
    }

    fn capabilities(&self, link: LinkId) -> u64 {
        self.hub.link(link).peer.as_ref().map_or(0, |peer| peer.capabilities)
    }

    fn logic(&self, link: LinkId) -> String {
        self.hub.link(link).peer.as_ref().map_or_else(String::new, |peer| peer.logic.clone())
    }

    fn await_recovery(&mut self, suspicion: Suspicion) {
        self.hub.await_recovery(self.service, self.key, self.seat, suspicion);
        self.phase("wait");
    }

    fn recovery_over(&mut self) {
        self.hub.recovery_over(&self.service.name, self.seat);
    }

    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId> {
        let picked = self.candidate(wanted, Occasion::Going)?;
        self.hub.demand(picked);
        Some(picked)
    }

    fn settled(&mut self, link: Option<LinkId>) {
        if let Some(before) = self.seat.link.take() {
            let link = self.hub.link_mut(before);
            link.sessions = link.sessions.saturating_sub(self.seat.weight);
            self.seat.before = Some(before);
            self.hub.may_have_room(before, Breaker::MaxSessions);
            self.hub.may_have_room(before, Breaker::Capacity);
        }
        if let Some(link) = link {
            self.hub.link_mut(link).sessions += self.seat.weight;
        }
        self.seat.link = link;
        // Where the link isn't up the session learns it later, and says so.
        let peer = link.and_then(|link| self.hub.link(link).peer.as_ref());
        let lacks = peer.is_some_and(|peer| self.service.recovery.needs() & !peer.capabilities != 0);
        let lacks = lacks && !self.seat.is_mirror;
        self.hub.set_unprotected(self.seat, lacks);
    }

    fn reserve(&mut self, bytes: u64, frees: u64) -> bool {
        (!self.seat.is_mirror || self.hub.has_room_for_mirrors(bytes)) && self.hub.reserve(bytes, frees)
    }

    fn unreserve(&mut self, bytes: u64) {
        self.hub.unreserve(bytes);
    }

    fn has_chunks(&mut self, link: LinkId) {
        let transfers = &mut self.hub.link_mut(link).transfers;
        if !transfers.contains(&self.key) {
            transfers.push_back(self.key);
        }
        self.hub.mark_link(link);
    }

    fn deliver(&mut self, _seq: Seq, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        if self.seat.is_mirror {
            self.hub.shadow_said(self.key, frame);
            self.mark_client();
            return Ok(());
        }
        if self.seat.outbox.bytes.capacity() == 0 {
            self.seat.outbox.bytes = self.hub.take_buffer();
        }
        if let Err(error) = self.service.framing.write(frame, &mut self.seat.outbox.bytes) {
            tracing::warn!(session = %self.id, %error, "the backend's frame can't be written to the client");
            return Err(if frame.len() > self.service.framing.max_frame_bytes() {
                Rule::FrameTooLarge
            } else {
                Rule::Malformed
            });
        }
        self.hub.counters.frames_to_client.add(1);
        self.hub.counters.bytes_to_client.add(frame.len() as u64);
        if let Some(mirror) = self.seat.mirror {
            self.hub.player_got(mirror, frame);
        }
        self.mark_client();
        Ok(())
    }

    fn read_client(&mut self, on: bool) {
        self.hub.account_reading(self.seat, on);
        if on {
            self.seat.wake();
        }
    }

    fn deliver_to(&mut self, member: SessionId, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        self.relay_to(member, frame)
    }

    fn read_member(&mut self, member: SessionId, on: bool) {
        self.hub.requests.push(Request::Read(member, on));
    }

    fn member_departs(&mut self, member: SessionId, departed: Departed) {
        self.hub.requests.push(Request::Departs(member, departed));
    }

    fn member_is_over(&mut self, member: SessionId, reason: CloseReason) {
        self.hub.requests.push(Request::Over(member, reason));
    }

    fn joins(&mut self, group: GroupId) {
        if self.seat.is_mirror {
            return self.hub.mirrors.give_up(self.key, MirrorEnd::Group);
        }
        if let Some(mirror) = self.seat.mirror.take() {
            self.hub.mirrors.give_up(mirror, MirrorEnd::Group);
        }
        self.hub.requests.push(Request::Joins(self.key, group));
    }

    fn boards(&mut self) {
        self.hub.requests.push(Request::Boards(self.key));
    }

    fn finish_client(&mut self) {
        self.seat.finishing = true;
        self.mark_client();
    }

    fn owe_ack(&mut self) {
        if !self.seat.owes_ack {
            self.seat.owes_ack = true;
            self.hub.owed_acks.push(self.key);
            if self.hub.owed_due.is_none() {
                self.hub.owed_due = Some(self.hub.now + ACK_DELAY);
            }
        }
    }

    fn timer(&mut self, timer: Timer, after: Option<Duration>) {
        let index = timer_index(timer);
        let number = u8::try_from(index).expect("a handful of timers");
        let timers = match timer {
            Timer::Checkpoint => &mut self.hub.checkpoints,
            _ => &mut self.hub.timers,
        };
        if let Some(due) = self.seat.timers[index].take() {
            timers.remove(&(due, self.key, number));
        }
        if let Some(after) = after {
            let due = self.hub.now + after;
            self.seat.timers[index] = Some(due);
            timers.insert((due, self.key, number));
        }
    }

    fn trace(&mut self, step: Step) -> TraceContext {
        let (now, clock) = (self.hub.now, self.hub.clock);
        match &mut self.seat.handoff {
            Some(handoff) => {
                let name = match step {
                    Step::Freeze => "freeze",
                    Step::Attach => "attach",
                    Step::Thaw => "thaw",
                };
                handoff.phase(name, &mut self.hub.ids, &clock, now)
            }
            None => self.hub.ids.root(self.ratio),
        }
    }

    fn processed(&mut self, entry: &Entry<'_>) {
        if entry.kind != Kind::Frame {
            return;
        }
        let took_us = self.hub.clock.stamp(self.hub.now).saturating_sub(entry.received);
        if let Some(link) = self.seat.link {
            self.hub.link_mut(link).tally.service.add(took_us);
        }
        if !self.hub.tracer.enabled() {
            return;
        }
        if entry.trace.sampled || u128::from(took_us) >= self.service.trace.slow_frame.as_micros() {
            let member =
                if self.is_group { Addressed::parse(entry.frame).map(|one| one.member) } else { None };
            let session = member.unwrap_or(self.id).to_string();
            let span = frame_span(entry, session, &self.hub.clock, self.hub.now);
            self.hub.tracer.end(span);
        }
    }

    fn note(&mut self, note: Note<'_>) {
        self.note_life(note);
        self.count(note);
        match note {
            Note::Freezing(cause) => self.handoff_begins(cause),
            Note::StateBegins => self.phase("state"),
            Note::StateKept { bytes } => self.state_kept(bytes),
            Note::Attaching { link } => self.attaching(link),
            Note::Attached { .. } => self.phase("replay"),
            Note::Live { .. } => self.phase("flush"),
            Note::HandoffDone(result) => self.handoff_done(result),
            Note::Refused { link, reason } => self.failed(link, "refused", reason),
            Note::Late { link } => self.failed(link, "late", "no answer in time"),
            Note::Lost { link } => self.lost(link),
            Note::Fault { link, rule } => {
                self.hub.counters.session_faults.add(rule);
                let backend = self.name(link);
                tracing::warn!(session = %self.id, %backend, rule = ?rule, "the backend broke a rule of the link");
            }
            Note::StateTooLarge { link, total_bytes, max_bytes } => {
                self.too_large(link, total_bytes, max_bytes)
            }
            Note::Failed { link, rule, text } => {
                self.hub.counters.session_faults.add(rule);
                let backend = self.name(link);
                tracing::warn!(session = %self.id, %backend, %rule, text, "the backend gave the session up");
            }
            Note::CheckpointKept { bytes } => self.checkpoint_kept(bytes),
            Note::Unprotected { link } => self.unprotected(link),
            Note::Diverged { link, seq, record } => self.diverged(link, seq, record),
            Note::Poison { seq, hash } => self.poison(seq, hash),
            Note::Stale => self.hub.counters.stale_messages.add(1),
            // What no player sent is no player's loss.
            Note::FramesLost(_) | Note::StateDropped { .. } if self.seat.is_mirror => {}
            Note::FramesLost(frames) => self.hub.counters.frames_lost.add(frames),
            Note::StateDropped { bytes } => {
                self.hub.counters.states_dropped.add(1);
                tracing::error!(session = %self.id, bytes, "state dropped: no backend took the session in time");
            }
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        if self.seat.is_mirror {
            self.hub.mirror_ended(self.key, reason);
        } else if !self.is_group {
            self.hub.counters.sessions_closed[reason as usize].add(1);
        }
        for timer in super::slot::TIMERS {
            self.timer(timer, None);
        }
        if let (CloseReason::BackendClose, Some(link), false) = (reason, self.seat.before, self.is_group) {
            self.hub.link_mut(link).tally.closes += 1;
        }
        let age_s = self.hub.now.saturating_duration_since(self.seat.opened).as_secs();
        match reason {
            _ if self.seat.is_mirror => {
                tracing::debug!(session = %self.id, reason = reason.name(), age_s, "mirror ended");
            }
            CloseReason::ClientClose | CloseReason::BackendClose | CloseReason::Shutdown => {
                tracing::debug!(session = %self.id, reason = reason.name(), age_s, "session closed");
            }
            _ => tracing::info!(session = %self.id, reason = reason.name(), age_s, "session closed"),
        }
        if self.seat.handoff.is_some() {
            self.handoff_done(HandoffResult::Closed);
        }
        self.tell_life(reason);
        self.hub.ended.push(self.key);
    }

    fn take_buffer(&mut self) -> Vec<u8> {
        self.hub.take_buffer()
    }

    fn give_buffer(&mut self, buffer: Vec<u8>) {
        self.hub.give_buffer(buffer);
    }
}

impl Fx<'_> {
    fn mark_client(&mut self) {
        if !self.seat.dirty {
            self.seat.dirty = true;
            self.hub.dirty_clients.push(self.key);
            self.hub.unflushed_since.get_or_insert(self.hub.now);
        }
    }

    fn name(&self, link: LinkId) -> String {
        self.hub.link(link).backend.id.to_string()
    }

    /// What the backend's tally says of it.
    fn count(&mut self, note: Note<'_>) {
        let players = self.seat.weight;
        match note {
            Note::Attached { link } => self.hub.link_mut(link).tally.attached += players,
            Note::Refused { link, .. } => self.hub.link_mut(link).tally.refused += players,
            Note::Late { link } => self.hub.link_mut(link).tally.late += players,
            Note::Fault { link, .. } | Note::Failed { link, .. } => {
                self.seat.faulted = true;
                self.hub.link_mut(link).tally.faults += players;
            }
            Note::Diverged { link, .. } => {
                self.seat.faulted = true;
                self.hub.link_mut(link).tally.diverged += players;
            }
            Note::Lost { link } if !std::mem::take(&mut self.seat.faulted) => {
                self.hub.link_mut(link).tally.crashes += players;
            }
            _ => {}
        }
    }

    /// What a session's own span says of it: the first attachment, and where each move led.
    fn note_life(&mut self, note: Note<'_>) {
        let Some(life) = &mut self.seat.life else { return };
        match note {
            Note::Attached { .. } if self.seat.handoff.is_none() => life.event("attached", self.hub.now),
            Note::Freezing(_) | Note::Lost { .. } => life.keep(),
            Note::HandoffDone(result) => life.event(result.name(), self.hub.now),
            _ => {}
        }
    }

    fn tell_life(&mut self, reason: CloseReason) {
        let Some(life) = self.seat.life.take().filter(|life| life.is_sampled()) else { return };
        let of = (&*self.service.name, &*self.seat.route.name);
        let mut span = life.finish(self.id.to_string(), of, reason, &self.hub.clock, self.hub.now);
        if let Some(player) = self.hub.mirrors.of(self.key) {
            span.attributes.push(("holdfast.mirror_of", Value::Text(player.to_string())));
        }
        self.hub.tracer.end(span);
    }

    fn handoff_begins(&mut self, cause: HandoffCause) {
        let from = self.seat.link.map_or_else(String::new, |link| self.name(link));
        let exported = self.hub.tracer.enabled();
        self.seat.handoff = Some(HandoffTrace::begin(&mut self.hub.ids, exported, cause, from, self.hub.now));
    }

    fn phase(&mut self, name: &'static str) {
        let (now, clock) = (self.hub.now, self.hub.clock);
        if let Some(handoff) = &mut self.seat.handoff {
            handoff.phase(name, &mut self.hub.ids, &clock, now);
        }
    }

    fn state_kept(&mut self, bytes: u64) {
        let (now, clock) = (self.hub.now, self.hub.clock);
        if let Some(handoff) = &mut self.seat.handoff {
            handoff.state_bytes = bytes;
            handoff.end_phase(&clock, now, None);
        }
    }

    fn attaching(&mut self, link: LinkId) {
        // A game that still wants it asks again; one that begins anew knows nothing of it.
        self.seat.company.wanted = None;
        let to = self.name(link);
        if let Some(handoff) = &mut self.seat.handoff {
            handoff.to = Some(to);
        }
    }

    fn checkpoint_kept(&mut self, bytes: u64) {
        self.hub.counters.checkpoints.add(1);
        self.hub.counters.checkpoint_bytes.add(bytes);
        tracing::trace!(session = %self.id, bytes, "checkpoint kept");
    }

    fn unprotected(&mut self, link: LinkId) {
        if self.seat.is_mirror {
            return;
        }
        self.hub.set_unprotected(self.seat, true);
        let (backend, now) = (self.name(link), self.hub.now);
        if self.hub.link_mut(link).may_warn(now) {
            let recovery = self.service.recovery.name();
            tracing::warn!(service = %self.service.name, %backend, recovery,
                "sessions aren't protected as the service's recovery asks: this backend's crash will cost them their state");
        }
    }

    fn diverged(&mut self, link: LinkId, seq: Seq, record: Seq) {
        self.hub.counters.diverged.add(1);
        let backend = self.name(link);
        tracing::error!(session = %self.id, %backend, server_seq = seq.0, record = record.0,
            "a replay made something else than the player has seen: the game isn't deterministic");
    }

    fn poison(&mut self, seq: Seq, hash: u64) {
        self.hub.counters.poisoned.add(1);
        tracing::error!(session = %self.id, client_seq = seq.0, hash = format_args!("{hash:016x}"),
            "the session's input brought its backends down");
    }

    fn too_large(&mut self, link: LinkId, state_bytes: u64, max_bytes: u64) {
        let (backend, now) = (self.name(link), self.hub.now);
        if self.hub.link_mut(link).may_complain(now) {
            tracing::warn!(session = %self.id, %backend, state_bytes, "limits.max_state_bytes" = max_bytes,
                "the session can't move: its state is over the service's limit");
        }
    }

    fn failed(&mut self, link: LinkId, what: &'static str, reason: &str) {
        let backend = self.name(link);
        let now = self.hub.now;
        if self.hub.link_mut(link).may_complain(now) {
            tracing::warn!(session = %self.id, %backend, what, reason, "a backend didn't take a session");
        } else {
            tracing::debug!(session = %self.id, %backend, what, reason, "a backend didn't take the session");
        }
        let (now, clock) = (self.hub.now, self.hub.clock);
        if let Some(handoff) = &mut self.seat.handoff {
            handoff.end_phase(&clock, now, Some(format!("{what}: {reason}")));
        }
    }

    fn lost(&mut self, link: LinkId) {
        let backend = self.name(link);
        tracing::debug!(session = %self.id, %backend, "the session's backend is gone");
        if self.seat.handoff.is_none() {
            let crash = HandoffCause::Crash;
            let (exported, now) = (self.hub.tracer.enabled(), self.hub.now);
            self.seat.handoff = Some(HandoffTrace::begin(&mut self.hub.ids, exported, crash, backend, now));
        }
    }

    fn handoff_done(&mut self, result: HandoffResult) {
        let Some(handoff) = &self.seat.handoff else { return };
        // Nobody feels what befalls a mirror.
        let is_mirror = self.seat.is_mirror;
        if !is_mirror {
            self.hub.counters.handoffs[handoff.cause as usize][result as usize].add(1);
        }
        if result == HandoffResult::Parked {
            self.phase("park");
            return self.settle_drain(result);
        }
        let Some(handoff) = self.seat.handoff.take() else { return };
        let (now, clock) = (self.hub.now, self.hub.clock);
        let counters = &self.hub.counters;
        let pause = now.saturating_duration_since(handoff.begun);
        if matches!(result, HandoffResult::Moved | HandoffResult::Thawed) && !is_mirror {
            let seconds = pause.as_secs_f64();
            let bucket =
                PAUSE_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(PAUSE_BUCKETS.len());
            counters.pause_buckets[bucket].add(1);
            counters.pause_sum_us.add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
        }
        let trace_id = holdfast_protocol::InstanceId(handoff.trace_id());
        tracing::debug!(session = %self.id, trace_id = %trace_id, from = %handoff.from,
            to = handoff.to.as_deref().unwrap_or("-"), result = result.name(), pause_us = pause.as_micros(), "handoff");
        self.settle_drain(result);
        if self.hub.tracer.enabled() {
            for span in handoff.finish(self.id.to_string(), result, &clock, now) {
                self.hub.tracer.end(span);
            }
        }
    }

    /// The drain that this session left under gets its place back.
    fn settle_drain(&mut self, result: HandoffResult) {
        (self.seat.avoids, self.seat.bound_for) = (None, None);
        let Some(link) = self.seat.leaving.take() else { return };
        let now = self.hub.now;
        if let Some(drain) = &mut self.hub.link_mut(link).drain {
            drain.settled(self.key, result, now);
        }
    }
}
