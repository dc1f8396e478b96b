//! Clients' connections: bytes in become frames, frames become bytes out. Mirrors `worker::client`.

use std::sync::Arc;

use holdfast_protocol::{SessionId, TraceContext};

use super::super::io::{ConnId, Io, Read, Written};
use super::seat::Seat;
use super::{Slot, Worker};
use crate::session::{Client, Session};
use crate::telemetry::counters::CloseReason;

const READS_A_TURN: usize = 4;
/// The proxy's end of a client's connection.
const HERE: usize = 1;

impl Worker {
    pub fn open_session(&mut self, key: usize, conn: ConnId, io: &mut Io) {
        let id = SessionId(io.rng.u128(..).to_be_bytes());
        let opened_us = u64::try_from(io.now.as_micros()).unwrap();
        let service = Arc::clone(&self.hub.service);
        let session = Session::new(id, service, "203.0.113.9:50123".into(), opened_us);
        self.slots.insert(key, Slot { session, seat: Seat::new(conn) });
        self.by_id.insert(id, key);
        self.drive(key, io, |session, fx| session.open(fx));
    }

    pub fn poll_client(&mut self, key: usize, io: &mut Io) {
        for turn in 0..READS_A_TURN {
            let Some(slot) = self.slots.get_mut(&key) else { return };
            let Some(conn) = slot.seat.conn else { return };
            if turn == 0 && (!slot.seat.outbox.is_empty() || slot.seat.finishing) {
                self.write_client(key, io);
                continue;
            }
            if !slot.seat.reading || slot.seat.read_closed || slot.seat.finishing {
                slot.seat.held = false;
                return;
            }
            let link = match slot.seat.company.aboard {
                Some(group) => self.slots.get(&group).and_then(|slot| slot.seat.link),
                None => slot.seat.link,
            };
            let Some(slot) = self.slots.get_mut(&key) else { return };
            slot.seat.held = link.is_some_and(|link| self.hub.link(link).congested);
            if slot.seat.held {
                return;
            }
            let most = io.rng.usize(1..=65_536);
            match io.read(conn, HERE, most) {
                Read::Nothing => return,
                Read::Bytes(bytes) => self.client_bytes(key, &bytes, io),
                Read::End => {
                    slot.seat.read_closed = true;
                    let member = slot.session.id();
                    if let Some(group) = self.aboard(key) {
                        self.drive(group, io, |session, fx| session.member_finished(member, fx));
                    }
                    self.drive(key, io, |session, fx| session.client_finished(fx));
                }
                Read::Reset => self.dismiss_client(key, CloseReason::ClientClose, io),
            }
        }
        // What is left is read in another turn.
        if let Some(conn) = self.slots.get(&key).and_then(|slot| slot.seat.conn) {
            io.at(io.now, super::Event::Socket(conn, HERE));
        }
    }

    pub fn dismiss_client(&mut self, key: usize, reason: CloseReason, io: &mut Io) {
        self.unclog(key, io);
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if let Some(conn) = slot.seat.conn.take() {
            io.close(conn, HERE);
        }
        slot.seat.outbox.clear();
        let member = slot.session.id();
        self.drive(key, io, |session, fx| session.client_gone(reason, fx));
        if let Some(group) = self.aboard(key) {
            self.drive(group, io, |session, fx| session.member_gone(member, reason, fx));
        }
    }

    fn client_bytes(&mut self, key: usize, bytes: &[u8], io: &mut Io) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let mut partial = std::mem::take(&mut slot.seat.partial);
        partial.extend_from_slice(bytes);
        let framing = Arc::clone(&self.hub.service);
        let received = u64::try_from(io.now.as_micros()).unwrap();
        let mut at = 0;
        let (member, aboard, is_open) =
            (slot.session.id(), slot.seat.company.aboard, slot.session.client() == Client::Open);
        let mut count = 0;
        self.drive(aboard.unwrap_or(key), io, |session, fx| {
            while let Some(cut) = framing.framing.cut(&partial[at..]).expect("players send good frames") {
                let frame = &partial[at + cut.frame.start..at + cut.frame.end];
                count += u64::from(is_open);
                match aboard {
                    None => session.frame(frame, TraceContext::default(), received, fx),
                    Some(_) => session.member_frame(member, frame, TraceContext::default(), received, fx),
                }
                at += cut.consumed;
            }
        });
        if let Some(slot) = self.slots.get_mut(&key) {
            slot.seat.partial = partial.split_off(at);
            slot.seat.frames += count;
        }
    }

    pub fn write_client(&mut self, key: usize, io: &mut Io) {
        let Some(Slot { seat, .. }) = self.slots.get_mut(&key) else { return };
        let Some(conn) = seat.conn else { return };
        match io.write(conn, HERE, &mut seat.outbox) {
            Written::Some => return,
            Written::Failed => return self.dismiss_client(key, CloseReason::ClientClose, io),
            Written::All => {}
        }
        if seat.finishing {
            seat.conn = None;
            self.linger(conn, Vec::new(), io);
        }
        self.unclog(key, io);
        self.drive(key, io, |session, fx| session.handed(fx));
    }

    /// The client still gets its last bytes.
    pub fn linger(&mut self, conn: ConnId, mut outbox: Vec<u8>, io: &mut Io) {
        match io.write(conn, HERE, &mut outbox) {
            Written::Some => {
                self.lingering.insert(conn, outbox);
            }
            Written::All | Written::Failed => {
                self.lingering.remove(&conn);
                io.close(conn, HERE);
            }
        }
    }

    /// The connection has room, or something to read.
    pub fn client_is_ready(&mut self, key: usize, conn: ConnId, io: &mut Io) {
        match self.lingering.remove(&conn) {
            Some(outbox) => self.linger(conn, outbox, io),
            None => self.poll_client(key, io),
        }
    }

    /// Clients that aren't read don't show by reading that they are gone.
    pub fn look_for_hangups(&mut self, io: &mut Io) {
        let hung: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.seat.reading || slot.seat.held || slot.seat.read_closed)
            .filter(|(_, slot)| slot.seat.conn.is_some_and(|conn| io.is_hung_up(conn, HERE)))
            .map(|(key, _)| *key)
            .collect();
        for key in hung {
            self.dismiss_client(key, CloseReason::ClientClose, io);
        }
    }
}
