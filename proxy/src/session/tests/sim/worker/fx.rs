//! A session's effects on a worker. Mirrors `worker::fx`.

use std::time::Duration;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind};
use holdfast_protocol::message::{Message, Rule};
use holdfast_protocol::{GroupId, Seq, SessionId, TraceContext};

use super::super::game::short;
use super::super::io::Io;
use super::company::FIRST_GROUP;
use super::hub::Hub;
use super::seat::{ACK_DELAY, Seat, timer_index};
use crate::routing::pick::hash::{self, Player};
use crate::routing::pick::{Candidate, Rules, pick};
use crate::routing::table::{Balance, Prefer};
use crate::session::outbound::{Entry, Kind};
use crate::session::riders::Departed;
use crate::session::tests::seat::Ask;
use crate::session::{Effects, LinkId, Note, Step, Suspicion, Timer, Wanted};
use crate::telemetry::counters::{CloseReason, HandoffResult};

pub struct Fx<'a> {
    pub key: usize,
    pub id: SessionId,
    pub seat: &'a mut Seat,
    pub hub: &'a mut Hub,
    pub io: &'a mut Io,
}

impl Effects for Fx<'_> {
    fn send(&mut self, link: LinkId, message: &Message<'_>) {
        assert_eq!(self.seat.ended, None, "after its end: {message:?}");
        self.seat.watch.says(link, message);
        let sent = self.hub.say(link, message);
        let numbers = [self.key as u64, u64::from(link.0), u64::from(sent)];
        let name = message.type_name();
        self.io.trace.event(self.hub.now, "says", &numbers, || {
            let lost = if sent { "" } else { " (no link)" };
            format!("s{} -> b{}{lost} {name} {}", self.key, link.0, brief(message))
        });
    }

    fn link_is_up(&self, link: LinkId) -> bool {
        self.hub.link(link).is_up()
    }

    fn client_window_bytes(&self, link: LinkId) -> u32 {
        self.hub.link(link).told.as_ref().map_or(u32::MAX, |told| told.client_window_bytes)
    }

    fn state_credit_bytes(&self, link: LinkId) -> u64 {
        self.hub.link(link).told.as_ref().map_or(0, |told| told.state_credit_bytes)
    }

    fn state_format(&self, link: LinkId) -> String {
        self.hub.link(link).told.as_ref().map_or_else(String::new, |told| told.writes.clone())
    }

    fn max_frame_bytes(&self, _link: LinkId) -> u32 {
        u32::MAX
    }

    fn capabilities(&self, link: LinkId) -> u64 {
        self.hub.link(link).told.as_ref().map_or(0, |told| told.capabilities)
    }

    fn logic(&self, link: LinkId) -> String {
        self.hub.link(link).told.as_ref().map_or_else(String::new, |told| told.logic.clone())
    }

    fn await_recovery(&mut self, suspicion: Suspicion) {
        self.hub.await_recovery(self.key, self.seat, suspicion);
    }

    fn recovery_over(&mut self) {
        self.hub.recovery_over(self.seat);
    }

    fn pick(&mut self, wanted: Wanted<'_>) -> Option<LinkId> {
        let picked = self.candidate(wanted)?;
        self.hub.demand(picked);
        Some(picked)
    }

    fn settled(&mut self, link: Option<LinkId>) {
        if let Some(before) = self.seat.link.take() {
            self.hub.link_mut(before).sessions -= 1;
        }
        if let Some(link) = link {
            self.hub.link_mut(link).sessions += 1;
        }
        self.seat.link = link;
    }

    fn reserve(&mut self, bytes: u64, _frees: u64) -> bool {
        let reserved = self.hub.reserved_bytes;
        let fits = reserved == 0 || reserved + bytes <= self.hub.pool_bytes;
        if fits {
            self.hub.reserved_bytes += bytes;
            self.seat.reserved_bytes += bytes;
        }
        fits
    }

    fn unreserve(&mut self, bytes: u64) {
        assert!(self.seat.reserved_bytes >= bytes, "gave back {bytes} of {}", self.seat.reserved_bytes);
        self.hub.reserved_bytes -= bytes;
        self.seat.reserved_bytes -= bytes;
    }

    fn has_chunks(&mut self, link: LinkId) {
        let transfers = &mut self.hub.link_mut(link).transfers;
        if !transfers.contains(&self.key) {
            transfers.push_back(self.key);
        }
        self.hub.mark_link(link);
    }

    fn deliver(&mut self, seq: Seq, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        assert_eq!(self.seat.ended, None);
        assert_eq!(seq, self.seat.delivered.next(), "server frames are consecutive");
        self.seat.delivered = seq;
        self.hub.service.framing.write(frame, &mut self.seat.outbox).expect("the game's frames are short");
        self.mark_client();
        Ok(())
    }

    fn deliver_to(&mut self, member: SessionId, frame: &[u8], _trace: &TraceContext) -> Result<(), Rule> {
        self.ask(Ask::Deliver(member, frame.to_vec()));
        Ok(())
    }

    fn read_member(&mut self, member: SessionId, on: bool) {
        self.ask(Ask::Read(member, on));
    }

    fn member_departs(&mut self, member: SessionId, departed: Departed) {
        let (key, now, frames, back) = (self.key, self.hub.now, departed.frames.len(), departed.came_back);
        self.io.trace.event(now, "departs", &[key as u64, frames as u64], || {
            format!("{member} from s{key} with {frames} frames {back:?}")
        });
        self.ask(Ask::Departs(member, departed));
    }

    fn member_is_over(&mut self, member: SessionId, reason: CloseReason) {
        self.ask(Ask::Over(member, reason));
    }

    fn joins(&mut self, group: GroupId) {
        self.ask(Ask::Joins(group));
    }

    fn boards(&mut self) {
        self.ask(Ask::Boards);
    }

    fn read_client(&mut self, on: bool) {
        assert_ne!(self.seat.reading, on, "told once");
        self.seat.reading = on;
        // Its task looks again when the turn is over.
        self.seat.held |= on;
        self.hub.relieved |= on;
    }

    fn finish_client(&mut self) {
        assert!(!self.seat.finishing, "told once");
        self.seat.finishing = true;
        self.mark_client();
    }

    fn owe_ack(&mut self) {
        if !std::mem::replace(&mut self.seat.owes_ack, true) {
            self.hub.owed_acks.push(self.key);
            self.hub.owed_due.get_or_insert(self.hub.now + ACK_DELAY);
        }
    }

    fn timer(&mut self, timer: Timer, after: Option<Duration>) {
        let index = timer_index(timer);
        if let Some(due) = self.seat.timers[index].take() {
            self.hub.timers.remove(&(due, self.key, index));
        }
        if let Some(after) = after {
            let due = self.hub.now + after;
            self.seat.timers[index] = Some(due);
            self.hub.timers.insert((due, self.key, index));
        }
    }

    fn trace(&mut self, _step: Step) -> TraceContext {
        TraceContext::default()
    }

    fn processed(&mut self, entry: &Entry<'_>) {
        if entry.kind != Kind::Frame {
            return;
        }
        if self.key < FIRST_GROUP {
            self.seat.processed.insert(short(entry.frame, 0));
        } else if let Some(one) = Addressed::parse(entry.frame)
            && one.kind == AddressedKind::Frame
        {
            self.hub.processed.push((one.member, short(one.payload, 0)));
        }
    }

    fn note(&mut self, note: Note<'_>) {
        let (key, now) = (self.key, self.hub.now);
        self.io.trace.event(now, "note", &[key as u64], || format!("s{key} {note:?}"));
        match note {
            Note::HandoffDone(result) => self.handoff_done(result),
            Note::Freezing(_) => {
                assert!(!self.seat.handoff, "a handoff in a handoff");
                self.seat.handoff = true;
            }
            Note::StateKept { .. } => self.seat.watch.state_is_kept(),
            Note::Lost { link } => {
                self.seat.handoff = true;
                self.seat.crashes += 1;
                self.seat.watch.lost(link);
            }
            Note::Fault { link, rule } => panic!("s{key}: backend {} broke {rule:?}", link.0),
            Note::Failed { link, text, .. } => panic!("s{key}: backend {} gave it up: {text}", link.0),
            Note::CheckpointKept { .. } => self.seat.checkpoints += 1,
            Note::Unprotected { .. } | Note::Diverged { .. } | Note::Poison { .. } => {
                panic!("s{key}: {note:?}")
            }
            Note::Stale => self.hub.stale += 1,
            Note::FramesLost(frames) => self.seat.lost += frames,
            Note::StateDropped { bytes } => panic!("s{key}: {bytes} bytes of state dropped"),
            _ => {}
        }
    }

    fn ended(&mut self, reason: CloseReason) {
        assert_eq!(self.seat.ended, None, "a session ends once");
        self.seat.ended = Some(reason);
        for timer in super::seat::TIMERS {
            self.timer(timer, None);
        }
        if std::mem::take(&mut self.seat.handoff) {
            self.settle_drain(HandoffResult::Closed);
        }
        let key = self.key;
        self.io.trace.event(self.hub.now, "ended", &[key as u64], || format!("s{key} {reason:?}"));
        self.hub.ended.push(key);
    }
}

impl Fx<'_> {
    fn ask(&mut self, ask: Ask) {
        self.hub.requests.push((self.key, ask));
    }

    pub fn candidate(&mut self, wanted: Wanted<'_>) -> Option<LinkId> {
        let mut ids = Vec::new();
        let mut candidates = Vec::new();
        for id in self.hub.link_ids() {
            let link = self.hub.link(id);
            let avoided = wanted.tried.contains(&id) || self.seat.avoids == Some(id);
            let may = wanted.home.is_none_or(|home| home == id) && !avoided;
            if may && link.takes(wanted.format, wanted.needs) {
                ids.push(id);
                let (backend, load, logic) = (&link.backend, link.sessions, link.runs(wanted.logic));
                let (weight, fit) = (backend.weight.into(), true);
                let (local, same_zone) = (false, false);
                candidates.push(Candidate {
                    backend,
                    weight,
                    load,
                    report: None,
                    local,
                    same_zone,
                    logic,
                    fit,
                });
            }
        }
        if wanted.home.is_some() {
            return ids.first().copied();
        }
        let shares = std::collections::BTreeMap::new();
        let Balance { policy, panic_percent, .. } = Balance::default();
        let rules = Rules { shares: &shares, prefer: Prefer::None, policy, panic_percent };
        let player = Player { session: self.id, client: None, sni: None };
        pick(hash::seed(policy, &player), &rules, &candidates, &mut []).map(|index| ids[index])
    }

    fn mark_client(&mut self) {
        if !std::mem::replace(&mut self.seat.dirty, true) {
            self.hub.dirty_clients.push(self.key);
        }
    }

    fn handoff_done(&mut self, result: HandoffResult) {
        assert!(self.seat.handoff, "{result:?} of no handoff");
        self.seat.handoff = result == HandoffResult::Parked;
        self.seat.results.push(result);
        self.settle_drain(result);
    }

    /// The drain that this session left under gets its place back.
    fn settle_drain(&mut self, result: HandoffResult) {
        self.seat.avoids = None;
        let Some(link) = self.seat.leaving.take() else { return };
        let now = self.hub.instant();
        if let Some(drain) = &mut self.hub.link_mut(link).drain {
            drain.settled(self.key, result, now);
        }
    }
}

/// A message without its bytes.
pub fn brief(message: &Message<'_>) -> String {
    match message {
        Message::Data(data) => {
            let (epoch, seq, ack, again) = (data.epoch, data.seq, data.ack, data.again);
            format!("{epoch}/{seq} ack {ack}{} {} B", if again { " again" } else { "" }, data.frame.len())
        }
        Message::State(state) => format!(
            "{} {}+{} of {} client {} server {}",
            state.epoch,
            state.offset_bytes,
            state.chunk.len(),
            state.total_bytes,
            state.client_seq,
            state.server_seq
        ),
        Message::Attach(attach) => format!(
            "{} {:?} client {} server {} {} B",
            attach.epoch, attach.mode, attach.client_seq, attach.server_seq, attach.state_total_bytes
        ),
        other => format!("{other:?}"),
    }
}
