//! The task of a link: dials when somebody needs the backend, shakes hands. Mirrors `worker::dial`.

use std::time::Duration;

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{Hello, Message};
use holdfast_protocol::{InstanceId, MAX_MESSAGE_BYTES, PROTOCOL_VERSION, decode, encode};

use super::super::io::{ConnId, Event, Holder, Io, Read};
use super::Worker;
use super::hub::{LinkState, Task, Told};
use crate::session::LinkId;

const OFFERED: u64 = capability::REPLAY | capability::DELTA | capability::CHECKPOINTS | capability::GROUPS;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_CUT: Duration = Duration::from_millis(1);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
const BACKOFF_PARKED: Duration = Duration::from_millis(50);
const PAUSE_LEAST: Duration = Duration::from_millis(10);
const STEADY: Duration = Duration::from_secs(1);
const TRY_LEAST: Duration = Duration::from_millis(100);

impl Worker {
    pub fn poll_task(&mut self, id: LinkId, io: &mut Io) {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        match link.task {
            Task::Rests if std::mem::take(&mut link.demanded) => self.wish(id, io),
            Task::Dials { conn, until, .. } if now >= until => {
                conn.into_iter().for_each(|conn| io.close(conn, 0));
                self.dial_failed(id, false, io);
                self.pause(id, io);
            }
            Task::Pauses { least, until } => {
                let hurried = now >= least && std::mem::take(&mut link.demanded);
                if hurried || now >= until {
                    link.backoff = if hurried { Duration::ZERO } else { link.backoff * 2 };
                    self.wish(id, io);
                }
            }
            Task::Rests | Task::Dials { .. } | Task::Serves { .. } => {}
        }
    }

    fn wish(&mut self, id: LinkId, io: &mut Io) {
        if self.is_wanted(id) {
            self.dial(id, io);
        } else {
            self.hub.link_mut(id).task = Task::Rests;
        }
    }

    fn is_wanted(&self, id: LinkId) -> bool {
        let link = self.hub.link(id);
        match link.state {
            LinkState::Broken { .. } | LinkState::Dead => true,
            _ => link.called_ahead.is_some_and(|until| self.hub.now < until) || link.sessions > 0,
        }
    }

    fn dial(&mut self, id: LinkId, io: &mut Io) {
        let (now, proxy, backend) = (self.hub.now, self.hub.index, id.0 as usize);
        let limits = self.hub.service.limits;
        self.hub.generation += 1;
        let generation = self.hub.generation;
        let link = self.hub.link_mut(id);
        if link.state == LinkState::Idle {
            link.state = LinkState::Connecting;
        }
        let patience = match link.state {
            LinkState::Broken { since } => (since + limits.resume_timeout).saturating_sub(now).max(TRY_LEAST),
            _ => CONNECT_TIMEOUT + limits.liveness,
        };
        let held = io.held_until(proxy, backend);
        let conn = io.listening[backend]
            .map(|run| io.open([Holder::Link(proxy, id), Holder::Process(backend, run)], io.link_shape));
        let until = now + patience.min(limits.liveness + io.link_shape.latency);
        link.task = Task::Dials { conn, generation, until };
        link.wait += 1;
        let wait = link.wait;
        io.trace.event(now, "dial", &[proxy as u64, backend as u64, generation], || {
            format!("p{proxy} -> b{backend} generation {generation} {conn:?}")
        });
        match conn {
            Some(conn) => {
                io.hold(conn, held);
                let mut hello = self.hello(generation);
                io.write(conn, 0, &mut hello);
                io.at(until, Event::Task(proxy));
            }
            None => io.at(held.max(now + io.link_shape.latency), Event::Refused(proxy, id, wait)),
        }
    }

    fn hello(&self, generation: u64) -> Vec<u8> {
        let service = &self.hub.service;
        let hello = Message::Hello(Hello {
            min_version: PROTOCOL_VERSION,
            max_version: PROTOCOL_VERSION,
            instance: InstanceId([u8::try_from(self.hub.index).unwrap(); 16]),
            worker: 0,
            generation,
            max_frame_bytes: u32::try_from(service.framing.max_frame_bytes()).unwrap(),
            liveness_ms: u32::try_from(service.limits.liveness.as_millis()).unwrap(),
            capabilities: OFFERED,
            proxy: "host-a",
            service: &service.name,
            proof: &[],
        });
        let mut bytes = Vec::new();
        encode(&hello, &mut bytes);
        bytes
    }

    /// Nobody listened there.
    pub fn refused(&mut self, id: LinkId, wait: u64, io: &mut Io) {
        let link = self.hub.link(id);
        if link.wait == wait && matches!(link.task, Task::Dials { conn: None, .. }) {
            self.dial_failed(id, true, io);
            self.pause(id, io);
        }
    }

    /// Something came on a connection that hasn't brought WELCOME yet.
    pub fn shake_hands(&mut self, id: LinkId, conn: ConnId, io: &mut Io) {
        let mut bytes = match io.read(conn, 0, usize::MAX) {
            Read::Nothing => return,
            Read::Bytes(bytes) => bytes,
            Read::End | Read::Reset => {
                io.close(conn, 0);
                self.dial_failed(id, false, io);
                return self.pause(id, io);
            }
        };
        let link = self.hub.link_mut(id);
        link.inbox.append(&mut bytes);
        let inbox = std::mem::take(&mut link.inbox);
        let Some((message, length)) = decode(&inbox, MAX_MESSAGE_BYTES).expect("backends say whole things")
        else {
            link.inbox = inbox;
            return;
        };
        match message {
            Message::Welcome(welcome) => {
                let mut attachments: Vec<_> = welcome.attachments.iter().collect();
                // The order in which a backend lists them means nothing, and differs from run to run.
                attachments.sort_by_key(|entry| format!("{:?}", entry.subject));
                let told = Told {
                    instance: welcome.instance,
                    writes: welcome.writes_format.to_owned(),
                    reads: welcome.reads_formats.split(',').map(|it| it.trim().to_owned()).collect(),
                    logic: welcome.logic.to_owned(),
                    capabilities: welcome.capabilities & OFFERED,
                    client_window_bytes: welcome.client_window_bytes,
                    state_credit_bytes: welcome.state_credit_bytes,
                    draining: welcome.draining,
                    attachments,
                };
                self.hub.link_mut(id).task = Task::Serves { since: self.hub.now };
                self.link_up(id, conn, told, &inbox[length..], io);
            }
            Message::Fault(fault) => {
                assert_eq!(fault.rule, holdfast_protocol::message::Rule::Handshake, "{}", fault.text);
                io.close(conn, 0);
                self.dial_failed(id, false, io);
                self.pause(id, io);
            }
            other => panic!("{} instead of WELCOME", other.type_name()),
        }
    }

    /// The connection is over: the task dials again, at once if it was a good one.
    pub fn served(&mut self, id: LinkId, io: &mut Io) {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        let Task::Serves { since } = link.task else { return };
        if now - since < STEADY {
            return self.pause(id, io);
        }
        link.backoff = Duration::ZERO;
        self.wish(id, io);
    }

    fn pause(&mut self, id: LinkId, io: &mut Io) {
        let (now, proxy) = (self.hub.now, self.hub.index);
        let longest = self.longest_backoff();
        let link = self.hub.link_mut(id);
        link.inbox.clear();
        let cut = matches!(link.state, LinkState::Broken { .. });
        let least = if cut { BACKOFF_CUT } else { BACKOFF_FIRST };
        link.backoff = link.backoff.clamp(least, longest.max(least));
        let pause = link.backoff.mul_f64(0.5 + io.rng.f64());
        let least = now + pause.min(PAUSE_LEAST);
        link.task = Task::Pauses { least, until: now + pause };
        link.wait += 1;
        io.at(least, Event::Task(proxy));
        io.at(now + pause, Event::Task(proxy));
    }

    fn longest_backoff(&self) -> Duration {
        if self.hub.parked == 0 {
            return BACKOFF_LAST;
        }
        let dead = self.hub.links.iter().filter(|link| link.state == LinkState::Dead).count();
        BACKOFF_PARKED.saturating_mul(u32::try_from(dead.max(1)).unwrap()).min(BACKOFF_LAST)
    }

    /// Sessions have just been parked: backends that are away are asked for at once.
    pub fn hurry_dials(&mut self) {
        if std::mem::take(&mut self.hub.parked_anew) && self.hub.now >= self.next_hurry {
            self.next_hurry = self.hub.now + self.longest_backoff();
            let away = self.hub.links.iter_mut().filter(|link| link.state == LinkState::Dead);
            away.for_each(|link| link.demanded = true);
        }
    }
}
