//! Making records: what an input asked for (`replay`), or what it did (`delta`).

use holdfast_protocol::codec::delta::write_delta;
use holdfast_protocol::message::{RecordKind, Recovery, Rule};
use holdfast_protocol::{Seq, TraceContext};

use super::super::change::{self, Cause, Change};
use super::super::desk::Desk;
use super::super::fault::Fault;
use super::super::jobs::Spawned;
use super::super::values::{self, Recorded};
use super::Attachment;
use super::input::Input;
use super::moment::{Moment, Source};
use crate::context::Effects;
use crate::game::Session;

impl<S: Session> Attachment<S> {
    /// Makes the record of an input that has run, if its level wants one. At `delta` its frames leave in it.
    pub(super) fn record_input(
        &mut self,
        desk: &mut Desk,
        effects: &Effects,
        input: Input<'_>,
        moment: Moment,
        trace: TraceContext,
        work: &[Spawned],
    ) -> Result<(), Fault> {
        match self.recovery {
            Recovery::None | Recovery::Checkpoint => Ok(()),
            Recovery::Replay => self.record_values(desk, input, moment),
            Recovery::Delta => {
                let (cause, close) = match input {
                    Input::Frame { .. } => (Cause::Other, effects.close),
                    Input::Timer(tag) => (Cause::Timer(tag), effects.close),
                    Input::Finished { ordinal, .. } => (Cause::Finished(ordinal), effects.close),
                    Input::Closed => (Cause::Closed, true),
                    Input::JoinRefused { .. } => (Cause::JoinRefused, effects.close),
                };
                // Of a refusal: what is wished for after it.
                let stands = matches!(input, Input::JoinRefused { .. }).then_some(self.wish).flatten();
                let wish = effects.join.or(stands);
                let change = Change {
                    cause,
                    close,
                    time: moment.time,
                    inputs: self.inputs,
                    random: self.random.state(),
                    work: work.iter().map(|spawned| (spawned.ordinal, spawned.tag)).collect(),
                    timers: effects.timers.clone(),
                    wish,
                    roster: &effects.roster,
                    game: &effects.change,
                };
                self.record_delta(desk, effects, &change, trace)
            }
        }
    }

    fn record_values(&mut self, desk: &mut Desk, input: Input<'_>, moment: Moment) -> Result<(), Fault> {
        if moment.source != Source::Fresh {
            return Ok(());
        }
        let (kind, recorded) = match input {
            Input::Frame { .. } | Input::Closed => (RecordKind::Values, Recorded::Time),
            Input::Timer(tag) => (RecordKind::Input, Recorded::Timer(tag)),
            Input::Finished { ordinal, tag, result } => {
                (RecordKind::Input, Recorded::Finished { tag, ordinal, result })
            }
            Input::JoinRefused { group, reason } => {
                (RecordKind::Input, Recorded::JoinRefused { group, reason })
            }
        };
        let mut bytes = std::mem::take(&mut desk.scratch.record);
        bytes.clear();
        values::write(moment.time, recorded, &mut bytes);
        let outcome = self.push_record(desk, kind, &bytes);
        desk.scratch.record = bytes;
        outcome
    }

    /// Records the time at which a client's CLOSE was taken.
    pub(super) fn record_close(&mut self, desk: &mut Desk, moment: Moment) -> Result<(), Fault> {
        self.record_values(desk, Input::Closed, moment)
    }

    /// What `open` sent, and what the state had unsent, at `delta`. In a journal that goes on it is the first record.
    pub(super) fn record_opening(&mut self, desk: &mut Desk, effects: &Effects) -> Result<(), Fault> {
        let mut all = Effects::default();
        for (_, frame) in self.outbox.unsent() {
            all.bytes.extend_from_slice(frame);
            all.lengths.push(frame.len());
        }
        self.outbox.recycle(&mut desk.pool);
        all.bytes.extend_from_slice(&effects.bytes);
        all.lengths.extend_from_slice(&effects.lengths);
        if all.lengths.is_empty() || self.records.are_missing() {
            return Ok(());
        }
        let change = Change {
            cause: Cause::Other,
            close: effects.close || self.ending.is_some(),
            time: self.opened,
            inputs: self.inputs,
            random: self.random.state(),
            work: Vec::new(),
            timers: Vec::new(),
            wish: None,
            roster: &[],
            game: &[],
        };
        self.record_delta(desk, &all, &change, TraceContext::NONE)
    }

    fn record_delta(
        &mut self,
        desk: &mut Desk,
        effects: &Effects,
        change: &Change<'_>,
        trace: TraceContext,
    ) -> Result<(), Fault> {
        let max = self.largest_frame(desk.max_frame_bytes());
        let mut scratch = std::mem::take(&mut desk.scratch);
        scratch.change.clear();
        change::write(change, &mut scratch.change);
        scratch.record.clear();
        let mut rest = effects.bytes.as_slice();
        let frames = effects.lengths.iter().map(|&length| {
            let (frame, after) = rest.split_at(length);
            rest = after;
            frame
        });
        write_delta(self.outbox.last_sent(), &trace, frames, &scratch.change, &mut scratch.record);
        let largest = effects.lengths.iter().copied().max().unwrap_or(0);
        let outcome = check_frame(largest, max)
            .and_then(|()| self.push_record(desk, RecordKind::Delta, &scratch.record));
        desk.scratch = scratch;
        outcome?;
        let mut begin = 0;
        for &length in &effects.lengths {
            let frame = &effects.bytes[begin..begin + length];
            begin += length;
            self.outbox.push_recorded(&mut desk.pool, trace, length);
            if self.is_departure(frame) {
                self.outbox.mark_departure(self.processed);
            }
        }
        Ok(())
    }

    fn push_record(&mut self, desk: &mut Desk, kind: RecordKind, bytes: &[u8]) -> Result<(), Fault> {
        let max = desk.max_record_bytes();
        if bytes.len() > max {
            let text = format!("an input made a record of {} bytes, the limit is {max}", bytes.len());
            return Err(Fault::new(Rule::FrameTooLarge, text));
        }
        let after = self.processed;
        self.records.push(&mut desk.pool, kind, after, bytes);
        Ok(())
    }

    /// Writes records that no link has seen.
    pub(super) fn pump_records(&mut self, desk: &mut Desk) {
        if self.linked && desk.link.is_some() {
            let wrote = self.records.pump(self.place.subject, self.epoch, &mut desk.out);
            if wrote && self.recovery == Recovery::Delta {
                // A change acks the client frames that it covers.
                self.ack_is_told();
            }
        }
    }

    /// Last record that it has, given or made.
    pub fn last_record(&self) -> Seq {
        self.records.had()
    }
}

/// A frame that is larger could never be delivered.
pub(super) fn check_frame(length: usize, max: usize) -> Result<(), Fault> {
    if length <= max {
        return Ok(());
    }
    let text = format!("the game sent a frame of {length} bytes, the limit is {max}");
    Err(Fault::new(Rule::FrameTooLarge, text))
}
