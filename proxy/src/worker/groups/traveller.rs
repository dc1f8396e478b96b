//! A session on its way from one worker to another, with its client's socket: its group lives there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use holdfast_protocol::GroupId;
use tokio::sync::mpsc;

use super::super::slot::{Seat, SessionKey, Slot};
use super::super::stream::{Outbox, Stream};
use super::super::trace::SessionTrace;
use super::super::{Worker, with_worker};
use crate::routing::{BackendId, Route};
use crate::session::Session;
use crate::telemetry::counters::CloseReason;

/// What a session is without its worker.
pub struct Traveller {
    session: Session,
    group: GroupId,
    stream: Option<Carried>,
    lease: Option<Arc<()>>,
    from: Option<BackendId>,
    client: SocketAddr,
    sni: Option<Arc<str>>,
    route: Arc<Route>,
    opened: Instant,
    partial: Vec<u8>,
    searched: usize,
    outbox: Outbox,
    read_closed: bool,
    life: Option<Box<SessionTrace>>,
}

/// A socket between two reactors.
enum Carried {
    Tcp(std::net::TcpStream),
    /// It can't be taken off its reactor: it stays on that of the worker that accepted it, and is only polled elsewhere.
    Bound(Stream),
}

/// Where a worker's travellers arrive.
pub type Door = mpsc::UnboundedSender<Traveller>;

/// Takes in those who come from other workers, for as long as the worker lives.
pub async fn receive(mut arrivals: mpsc::UnboundedReceiver<Traveller>) {
    while let Some(traveller) = arrivals.recv().await {
        with_worker(|worker| worker.take_in(traveller));
    }
}

impl Worker {
    /// The session's group lives on another worker: it goes there.
    pub(super) fn send_over(&mut self, key: SessionKey, group: GroupId, to: u16) {
        let Some(door) = self.hub.config.doors.get(usize::from(to)).cloned() else { return };
        let from = self.slots.get(key).and_then(|slot| slot.seat.company.from);
        let from = from.map(|link| self.hub.link(link).backend.id.clone());
        let Some(mut slot) = self.take_slot(key) else { return };
        let seat = &mut slot.seat;
        let is_bound = !matches!(seat.stream, None | Some(Stream::Tcp(_)));
        let lease = seat.lease.take().or_else(|| is_bound.then(|| Arc::clone(&self.lent)));
        let traveller = Traveller {
            group,
            from,
            stream: seat.stream.take().and_then(leave_runtime),
            lease,
            client: seat.client,
            sni: seat.sni.take(),
            route: Arc::clone(&seat.route),
            opened: seat.opened,
            partial: std::mem::take(&mut seat.partial),
            searched: seat.searched,
            outbox: std::mem::take(&mut seat.outbox),
            read_closed: seat.read_closed,
            life: seat.life.take(),
            session: slot.session,
        };
        seat.wake();
        // That worker has ended, and its groups with it.
        if let Err(mpsc::error::SendError(traveller)) = door.send(traveller) {
            let (key, gone) = self.seat(traveller);
            self.go_alone(key, "the group's worker has ended".into());
            self.look_after_client(key, gone);
        }
    }

    /// Gives it a place here. Returns that, and whether the socket was lost on the way.
    fn seat(&mut self, traveller: Traveller) -> (SessionKey, bool) {
        let Traveller { session, group, client, route, opened, .. } = traveller;
        let (id, service) = (session.id(), Arc::clone(session.service()));
        let mut seat = Seat::empty(client, route, opened);
        seat.sni = traveller.sni;
        seat.stream = traveller.stream.and_then(enter_runtime);
        (seat.partial, seat.searched, seat.outbox) =
            (traveller.partial, traveller.searched, traveller.outbox);
        (seat.read_closed, seat.life) = (traveller.read_closed, traveller.life);
        seat.lease = traveller.lease;
        self.hub.account_reading(&mut seat, session.is_reading());
        let gone = seat.stream.is_none() && !session.is_client_gone();
        if let Some(backend) = traveller.from.and_then(|id| self.hub.table.backends.get(&id).cloned()) {
            seat.company.from = Some(self.hub.link_for(&backend));
        }
        seat.company.wanted = Some(group);
        let key = self.slots.insert(Slot::new(session, seat));
        self.by_id.insert(id, key);
        *self.hub.population.entry(Arc::clone(&service.name)).or_default() += 1;
        self.hub.counters.sessions.add(1);
        self.serve_client(key);
        (key, gone)
    }

    fn take_in(&mut self, traveller: Traveller) {
        let group = traveller.group;
        let (key, gone) = self.seat(traveller);
        self.enter(key, group);
        self.look_after_client(key, gone);
    }

    fn look_after_client(&mut self, key: SessionKey, gone: bool) {
        if gone {
            self.dismiss_client(key, CloseReason::ClientError);
        } else if self.stopping.is_some_and(|stopping| stopping.has_told()) {
            self.dismiss_client(key, CloseReason::Shutdown);
        }
        if let Some(slot) = self.slots.get_mut(key)
            && !slot.seat.outbox.is_empty()
        {
            slot.seat.dirty = true;
            self.hub.dirty_clients.push(key);
        }
    }
}

fn leave_runtime(stream: Stream) -> Option<Carried> {
    match stream {
        Stream::Tcp(stream) => stream.into_std().ok().map(Carried::Tcp),
        other => Some(Carried::Bound(other)),
    }
}

fn enter_runtime(stream: Carried) -> Option<Stream> {
    match stream {
        Carried::Tcp(stream) => tokio::net::TcpStream::from_std(stream).ok().map(Stream::Tcp),
        Carried::Bound(stream) => Some(stream),
    }
}
