//! A client's socket: bytes in become frames for its session, frames for it become bytes out.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::io::ReadBuf;
use tokio::task::unconstrained;

use super::slot::{Seat, SessionKey, Slot};
use super::stream::{Outbox, Stream};
use super::trace::SessionTrace;
use super::{Worker, with_worker};
use crate::routing::{Route, Service};
use crate::session::Session;
use crate::telemetry::counters::CloseReason;

/// Reads of one client before others get their turn.
const READS_A_TURN: usize = 4;
/// A burst from one client is read in pieces of this size, so that one read fits a window.
const READ_BYTES: usize = 64 * 1024;
/// The same while memory is short: many clients with a little each still fit.
const READ_BYTES_NEAR_BOUND: usize = 4 * 1024;
/// How long a client may take to notice that its session is over.
const LINGER: Duration = Duration::from_secs(2);

impl Worker {
    /// A client has been accepted, and its route found.
    pub fn open_session(
        &mut self,
        stream: Stream,
        client: SocketAddr,
        sni: Option<Arc<str>>,
        route: Arc<Route>,
        service: Arc<Service>,
    ) {
        *self.hub.population.entry(Arc::clone(&service.name)).or_default() += 1;
        let id = holdfast_protocol::SessionId(fastrand::u128(..).to_be_bytes());
        let mut seat = Seat::new(stream, client, route, self.hub.now);
        seat.sni = sni;
        if self.hub.tracer.enabled() {
            let ratio = self.hub.config.ratio(&service);
            seat.life = Some(Box::new(SessionTrace::begin(&mut self.hub.ids, ratio, self.hub.now)));
        }
        let opened_us = self.now_us();
        let session = Session::new(id, service, client.to_string().into(), opened_us);
        let key = self.slots.insert(Slot::new(session, seat));
        self.by_id.insert(id, key);
        self.hub.counters.sessions.add(1);
        self.hub.counters.sessions_opened.add(1);
        tracing::debug!(session = %id, %client, "session opened");
        self.serve_client(key);
        self.drive(key, |session, fx| session.open(fx));
        self.begin_mirror(key, opened_us);
    }

    /// Gives a client its task.
    pub(super) fn serve_client(&self, key: SessionKey) {
        tokio::spawn(unconstrained(poll_fn(move |cx| with_worker(|worker| worker.poll_client(key, cx)))));
    }

    /// Now, in microseconds of Unix time.
    pub(super) fn now_us(&self) -> u64 {
        let wall = self.hub.clock.wall(self.hub.now);
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
    }

    /// The turn of a client's task: ready when the client is gone.
    fn poll_client(&mut self, key: SessionKey, cx: &mut Context<'_>) -> Poll<()> {
        let Some(slot) = self.slots.get_mut(key) else { return Poll::Ready(()) };
        if !slot.seat.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            slot.seat.waker = Some(cx.waker().clone());
        }
        if !slot.seat.outbox.is_empty() || slot.seat.finishing {
            self.write_client(key);
        }
        for _ in 0..READS_A_TURN {
            let Some(slot) = self.slots.get_mut(key) else { return Poll::Ready(()) };
            if slot.seat.stream.is_none() {
                return Poll::Ready(());
            }
            if !slot.seat.reading || slot.seat.read_closed || slot.seat.finishing {
                return Poll::Pending;
            }
            if self.must_wait(key) {
                return Poll::Pending;
            }
            if self.read_client(key, cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read_client(&mut self, key: SessionKey, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Slot { seat: Seat { stream: Some(stream), .. }, .. }) = self.slots.get_mut(key) else {
            return Poll::Ready(());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let most = if self.hub.pressure.is_near() { READ_BYTES_NEAR_BOUND } else { READ_BYTES };
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        let read = stream.poll_read(cx, &mut buffer);
        let count = buffer.filled().len();
        match &read {
            Poll::Ready(Ok(())) if count > 0 => {
                self.client_bytes(key, &scratch[..count]);
                self.account_partial(key);
            }
            Poll::Ready(Ok(())) => self.client_finished(key),
            Poll::Ready(Err(error)) => self.client_failed(key, error),
            Poll::Pending => {}
        }
        self.scratch = scratch;
        read.map(|_| ())
    }

    fn client_finished(&mut self, key: SessionKey) {
        // Who comes into a group or leaves it in this turn is there, or isn't any more.
        self.do_requests();
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.seat.read_closed = true;
        if !slot.seat.partial.is_empty() {
            tracing::debug!(session = %slot.session.id(), bytes = slot.seat.partial.len(),
                "the client ended within a frame");
        }
        let member = self.slots.get(key).map(|slot| slot.session.id());
        if let (Some(group), Some(member)) = (self.aboard(key), member) {
            self.drive(group, |session, fx| session.member_finished(member, fx));
        }
        self.drive(key, |session, fx| session.client_finished(fx));
        self.mirror_finishes(key);
    }

    fn client_failed(&mut self, key: SessionKey, error: &std::io::Error) {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => CloseReason::ClientClose,
            _ => CloseReason::ClientError,
        };
        if let Some(slot) = self.slots.get(key) {
            tracing::debug!(session = %slot.session.id(), %error, "the client's connection failed");
        }
        self.dismiss_client(key, reason);
    }

    /// The client's connection ends now; the game is still told.
    pub(super) fn dismiss_client(&mut self, key: SessionKey, reason: CloseReason) {
        self.do_requests();
        if self.slots.get(key).is_some_and(|slot| slot.session.is_group()) {
            return self.members_of(key).into_iter().for_each(|member| self.dismiss_client(member, reason));
        }
        self.unclog(key);
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.seat.stream = None;
        // Nobody will take or finish them: their memory goes now.
        slot.seat.outbox = Outbox::default();
        slot.seat.partial = Vec::new();
        slot.seat.wake();
        let member = slot.session.id();
        self.drive(key, |session, fx| session.client_gone(reason, fx));
        self.mirror_leaves(key, reason);
        if let Some(group) = self.aboard(key) {
            self.drive(group, |session, fx| session.member_gone(member, reason, fx));
        }
    }

    fn client_bytes(&mut self, key: SessionKey, bytes: &[u8]) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        if slot.seat.partial.is_empty() {
            let Some((consumed, searched)) = self.cut_frames(key, bytes, 0) else { return };
            if consumed < bytes.len()
                && let Some(slot) = self.slots.get_mut(key)
            {
                slot.seat.partial.extend_from_slice(&bytes[consumed..]);
                slot.seat.searched = searched;
            }
            return;
        }
        let mut partial = std::mem::take(&mut slot.seat.partial);
        let searched = slot.seat.searched;
        partial.extend_from_slice(bytes);
        let Some((consumed, searched)) = self.cut_frames(key, &partial, searched) else { return };
        partial.drain(..consumed);
        if partial.capacity() > 2 * READ_BYTES_NEAR_BOUND.max(partial.len()) {
            partial.shrink_to(partial.len());
        }
        if let Some(slot) = self.slots.get_mut(key) {
            slot.seat.partial = if partial.is_empty() { Vec::new() } else { partial };
            slot.seat.searched = searched;
        }
    }

    /// Gives every whole frame to the session. Returns the bytes consumed, and how many of the rest hold no frame's
    /// end; `None`: the client is dismissed.
    fn cut_frames(&mut self, key: SessionKey, bytes: &[u8], mut searched: usize) -> Option<(usize, usize)> {
        // Who has left its group in this turn sends for itself.
        self.do_requests();
        let mut at = 0;
        let received = self.hub.clock.stamp(self.hub.now);
        let slot = self.slots.get(key)?;
        let (member, mirror) = (slot.session.id(), slot.seat.mirror);
        let aboard = self.aboard(key);
        let outcome = self.drive(aboard.unwrap_or(key), |session, fx| {
            while at < bytes.len() {
                let Some(cut) = fx.service.framing.cut_resumed(&bytes[at..], searched)? else {
                    searched = bytes.len() - at;
                    return Ok(());
                };
                let trace = fx.hub.ids.root(fx.ratio);
                let frame = &bytes[at + cut.frame.start..at + cut.frame.end];
                match aboard {
                    None => session.frame(frame, trace, received, fx),
                    Some(_) => session.member_frame(member, frame, trace, received, fx),
                }
                at += cut.consumed;
                searched = 0;
            }
            Ok::<(), crate::framing::FramingError>(())
        })?;
        if let Some(mirror) = mirror {
            self.mirror_frames(mirror, &bytes[..at], received);
        }
        if let Err(error) = outcome {
            let slot = self.slots.get(key)?;
            tracing::info!(session = %slot.session.id(), client = %slot.seat.client, %error, "bad frame");
            self.dismiss_client(key, CloseReason::BadFrame);
            return None;
        }
        Some((at, searched))
    }

    /// Everything that was delivered in this turn goes out, one write a client.
    pub(super) fn flush_clients(&mut self) {
        let mut dirty = std::mem::take(&mut self.hub.dirty_clients);
        for key in dirty.drain(..) {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.seat.dirty = false;
                self.write_client(key);
            }
        }
        // What was marked meanwhile stands in the new list; the old one lends it its capacity.
        dirty.append(&mut self.hub.dirty_clients);
        self.hub.dirty_clients = dirty;
    }

    fn write_client(&mut self, key: SessionKey) {
        let Some(Slot { seat, .. }) = self.slots.get_mut(key) else { return };
        if seat.is_mirror {
            // Nobody takes it, so it is taken at once.
            self.drive(key, |session, fx| session.handed(fx));
            return;
        }
        let Some(stream) = &mut seat.stream else { return };
        let waker = seat.waker.as_ref().unwrap_or(Waker::noop());
        let mut cx = Context::from_waker(waker);
        match seat.outbox.poll_out(stream, &mut cx) {
            Poll::Pending => {
                seat.unread_since.get_or_insert(self.hub.now);
                return;
            }
            Poll::Ready(Err(error)) => return self.client_failed(key, &error),
            Poll::Ready(Ok(())) => seat.unread_since = None,
        }
        let buffer = std::mem::take(&mut seat.outbox.bytes);
        if seat.finishing {
            seat.wake();
            if let Some(stream) = seat.stream.take() {
                self.let_linger(stream, Outbox::default());
            }
        }
        self.hub.give_buffer(buffer);
        self.unclog(key);
        self.drive(key, |session, fx| session.handed(fx));
    }

    /// Clients that aren't read don't show by reading that they are gone.
    pub(super) fn look_for_hangups(&mut self) {
        let hung: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.seat.reading || slot.seat.held || slot.seat.read_closed)
            .filter(|(_, slot)| slot.seat.stream.as_ref().is_some_and(Stream::is_hung_up))
            .map(|(key, _)| key)
            .collect();
        for key in hung {
            self.dismiss_client(key, CloseReason::ClientClose);
        }
    }
}

impl Worker {
    /// The session is over; its client still gets its last bytes, unless too many others do already.
    pub(super) fn let_linger(&mut self, stream: Stream, outbox: Outbox) {
        let bytes = outbox.bytes.capacity() as u64;
        if !self.hub.begin_linger(bytes) {
            return;
        }
        tokio::spawn(async move {
            linger(stream, outbox).await;
            with_worker(|worker| worker.hub.end_linger(bytes));
        });
    }
}

/// Ends a connection so that the client gets its last bytes: a socket closed with unread input would reset it.
pub(super) async fn linger(mut stream: Stream, mut outbox: Outbox) {
    let mut discard = [0u8; 4096];
    let until_closed = async {
        poll_fn(|cx| outbox.poll_out(&mut stream, cx)).await?;
        poll_fn(|cx| stream.poll_shutdown(cx)).await?;
        loop {
            let mut buffer = ReadBuf::new(&mut discard);
            poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
            if buffer.filled().is_empty() {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    // Whether the client answers in time or not, the connection ends here.
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}
