//! A backend that has reached a bound takes no more, until it is below it again.

use super::*;
use crate::routing::Backend;
use crate::telemetry::counters::Breaker;
use holdfast_protocol::message::Pong;

fn at_bound(rig: &Rig, breaker: Breaker) -> bool {
    let shown = rig.links().iter().any(|link| link.at_bound.as_deref() == Some(breaker.name()));
    shown && rig.counters.breakers[breaker as usize].get() == 1
}

/// Nobody is to attach now.
fn is_left_alone(link: &mut FakeLink) -> bool {
    link.hear_out(|message| matches!(message, Message::Attach(_)).then_some(())).is_empty()
}

#[test]
fn a_backend_with_all_its_sessions_takes_the_next_when_one_leaves() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    rig.serve("arena", &json!({"breakers": {"max_sessions": 1}}));
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let _first = rig.player("arena");
    let mut link = backend.link();
    let (session, epoch) = link.attach();
    let _second = rig.player("arena");
    until("the bound", || at_bound(&rig, Breaker::MaxSessions) && rig.counters.parked.get() == 1);
    assert!(is_left_alone(&mut link));
    link.close(session, epoch, 1);
    let (next, _) = link.attach();
    assert_ne!(next, session);
    rig.stop(Duration::ZERO);
}

#[test]
fn only_so_many_attach_at_once_and_all_arrive() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    rig.serve("arena", &json!({"breakers": {"max_attaching": 2}}));
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let _players: Vec<_> = (0..6).map(|_| rig.player("arena")).collect();
    let mut link = backend.link();
    for _ in 0..2 {
        let asked = [link.asked_to_attach(), link.asked_to_attach()];
        until("the bound", || at_bound(&rig, Breaker::MaxAttaching));
        assert!(is_left_alone(&mut link));
        asked.into_iter().for_each(|attached| link.say(&Message::Attached(attached)));
    }
    let last = [link.asked_to_attach(), link.asked_to_attach()];
    last.into_iter().for_each(|attached| link.say(&Message::Attached(attached)));
    until("everybody's arrival", || rig.counters.parked.get() == 0);
    until("no bound", || rig.counters.breakers[Breaker::MaxAttaching as usize].get() == 0);
    rig.stop(Duration::ZERO);
}

#[test]
fn a_backends_capacity_counts_what_others_have_there() {
    let rig = Rig::start(&["arena"], &json!({}), |_| {});
    let backend = FakeBackend::new("arena", "a");
    rig.list(&backend);
    let id = backend.id.clone();
    rig.change(|table| {
        let listed = Backend { capacity: Some(3), ..Backend::clone(&table.backends[&id]) };
        table.backends.insert(id.clone(), Arc::new(listed));
    });
    let _first = rig.player("arena");
    let mut link = backend.link();
    link.attach();
    // It is asked again and again, since nobody else knows.
    let mut tell = |attachments: u32| {
        let nonce = link.hear(|message| match message {
            Message::Ping(ping) => Some(ping.nonce),
            _ => None,
        });
        link.say(&Message::Pong(Pong { nonce, attachments, capacity: None, load_permille: None }));
    };
    tell(3);
    until("the bound", || at_bound(&rig, Breaker::Capacity));
    let _second = rig.player("arena");
    until("the second waits", || rig.counters.parked.get() == 1);
    tell(2);
    link.attach();
    rig.stop(Duration::ZERO);
}
