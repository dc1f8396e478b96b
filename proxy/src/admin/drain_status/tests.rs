//! When a drained backend counts as empty, and what is said while it doesn't.

use super::*;
use crate::worker::command::LinkView;

fn link(sessions: u64, attachments: Option<u64>) -> LinkView {
    LinkView {
        capacity_told: None,
        load_permille: None,
        at_bound: None,
        slow_start_percent: None,
        worker: 0,
        backend: "arena/a".into(),
        link: "up".into(),
        instance: None,
        backend_version: None,
        sessions,
        draining: vec!["key".into()],
        left: sessions,
        last_error: None,
        drain: None,
        attachments,
    }
}

fn view(links: Vec<LinkView>) -> BackendView {
    BackendView {
        unfit: Vec::new(),
        capacity_told: None,
        load_permille: None,
        at_bound: Vec::new(),
        capacity: None,
        backend: "arena/a".into(),
        in_table: true,
        address: None,
        version: None,
        weight: Some(100),
        zone: None,
        link: "up".into(),
        sessions: links.iter().map(|link| link.sessions).sum(),
        draining: vec!["key".into()],
        left: 0,
        last_error: None,
        drain: None,
        attachments: links.iter().filter_map(|link| link.attachments).max(),
        links,
    }
}

fn row(sessions: u64, in_flight: u64) -> DrainRow {
    DrainRow { backend: "arena/a".into(), sessions, in_flight, stuck: false }
}

fn worker(revision: u64, rows: Vec<DrainRow>) -> DrainRows {
    DrainRows { revision, rows }
}

fn proxy(id: &str, applied: u64, rows: Vec<DrainRow>) -> ProxyDrains {
    ProxyDrains { proxy: id.into(), applied, rows, unlisted: 0 }
}

/// Ordered at revision 20, in force on both workers, nobody left, one other proxy that says the same.
fn empty() -> Known {
    Known {
        backend: "arena/a".into(),
        revision: Some(20),
        ordered: true,
        workers: vec![worker(20, vec![row(0, 0)]), worker(21, vec![])],
        view: Some(view(vec![link(0, Some(0))])),
        proxies: vec![proxy("b", 20, vec![row(0, 0)])],
    }
}

#[test]
fn a_backend_is_empty_when_every_count_says_so() {
    assert_eq!(empty().judge().state, DrainState::Empty);
    let alone = Known { proxies: vec![], ..empty() };
    assert_eq!(alone.judge().state, DrainState::Empty);
}

#[test]
fn a_proxy_that_has_not_taken_the_order_is_waited_for_however_empty_it_is() {
    let late = Known { proxies: vec![proxy("b", 19, vec![])], ..empty() }.judge();
    assert_eq!(late.state, DrainState::Ordered);
    assert!(late.waits_for.unwrap().contains("b to act"), "named");
    let here = Known { workers: vec![worker(20, vec![]), worker(19, vec![])], ..empty() }.judge();
    assert_eq!(here.state, DrainState::Ordered);
    let unlisted = ProxyDrains { unlisted: 1, ..proxy("b", 20, vec![]) };
    assert_eq!(Known { proxies: vec![unlisted], ..empty() }.judge().state, DrainState::Ordered);
}

#[test]
fn sessions_of_any_proxy_and_moves_under_way_are_waited_for() {
    let here = Known { view: Some(view(vec![link(3, Some(3))])), ..empty() }.judge();
    assert_eq!((here.state, here.left), (DrainState::Draining, 3));
    let there = Known { proxies: vec![proxy("b", 20, vec![row(4, 1)])], ..empty() }.judge();
    assert_eq!((there.state, there.left, there.sessions), (DrainState::Draining, 4, 0));
    let moving = Known { workers: vec![worker(20, vec![row(0, 1)])], ..empty() }.judge();
    assert_eq!((moving.state, moving.left), (DrainState::Draining, 0));
}

#[test]
fn the_backends_own_count_has_the_last_word() {
    let counted = Known { view: Some(view(vec![link(0, Some(2))])), ..empty() }.judge();
    assert_eq!(counted.state, DrainState::Draining);
    assert!(counted.waits_for.unwrap().contains("let go of 2"));
    let unasked = Known { view: Some(view(vec![link(0, None)])), ..empty() }.judge();
    assert_eq!(unasked.state, DrainState::Draining);
    assert!(unasked.waits_for.unwrap().contains("own count"));
    let never_called = Known { view: Some(view(vec![])), ..empty() };
    assert!(never_called.is_count_missing(), "it is called first");
    // One that doesn't answer can't be asked: its process is gone, or it is out of this proxy's reach.
    let gone = LinkView { link: "down".into(), ..link(0, None) };
    assert_eq!(Known { view: Some(view(vec![gone])), ..empty() }.judge().state, DrainState::Empty);
}

#[test]
fn that_nobody_can_take_them_is_known_from_any_proxy() {
    let stuck = DrainRow { stuck: true, ..row(5, 0) };
    let there = Known { proxies: vec![proxy("b", 20, vec![stuck])], ..empty() }.judge();
    assert_eq!((there.state, there.left), (DrainState::Stuck, 5));
}

#[test]
fn a_lifted_drain_is_no_empty_backend() {
    let lifted = Known { ordered: false, workers: vec![worker(22, vec![])], ..empty() };
    assert_eq!(lifted.judge().state, DrainState::Lifted);
    let other_cause = Known { ordered: false, ..empty() };
    assert_eq!(other_cause.judge().state, DrainState::Empty, "its own drain is still in force");
    let off_the_list = Known { ordered: false, workers: vec![worker(22, vec![])], view: None, ..empty() };
    assert_eq!(off_the_list.judge().state, DrainState::Empty, "nobody can come");
}

#[test]
fn an_order_of_this_proxys_own_asks_no_other_but_the_backend() {
    let local = Known { revision: None, ordered: false, proxies: vec![], ..empty() };
    assert_eq!(local.judge().state, DrainState::Empty);
    let others = Known { view: Some(view(vec![link(0, Some(9))])), ..local };
    assert_eq!(others.judge().state, DrainState::Draining);
}
