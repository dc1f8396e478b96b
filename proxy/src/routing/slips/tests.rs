//! What is held, until when, and what is let through.

mod property;

use super::*;
use crate::routing::compile;

const SECOND: u64 = 1_000;

/// A proxy's documents and what it has in force, change by change.
pub struct Proxy {
    pub documents: Documents,
    pub in_force: LastGood,
    pub judgement: Judgement,
    revision: u64,
    at_ms: u64,
}

impl Proxy {
    /// Service `arena` with so many backends of version 1, and a route to it.
    pub fn new(backends: usize) -> Self {
        let mut proxy = Self {
            documents: Documents::default(),
            in_force: LastGood::new(),
            judgement: Judgement::default(),
            revision: 0,
            at_ms: 1_000_000,
        };
        proxy.change(|proxy| {
            proxy.put("services/arena", r#"{"protocol": "link", "framing": {"kind": "length"}}"#);
            proxy.put("routes/public", r#"{"listener": "game", "service": "arena"}"#);
            (0..backends).for_each(|number| proxy.put(&key(number), &backend(100)));
        });
        // What it began with settles.
        proxy.wait(600);
        proxy
    }

    pub fn put(&mut self, key: &str, text: &str) {
        self.documents.put(key, text.as_bytes(), self.revision);
    }

    pub fn delete(&mut self, keys: impl IntoIterator<Item = usize>) {
        keys.into_iter().for_each(|number| self.documents.remove(&key(number)));
    }

    pub fn wait(&mut self, seconds: u64) {
        self.at_ms += seconds * SECOND;
    }

    pub fn change(&mut self, change: impl FnOnce(&mut Self)) {
        self.revision += 1;
        change(self);
        let moment = Moment { revision: self.revision, at_ms: self.at_ms };
        self.judgement = judge(&self.judgement.memory, &self.documents, &self.in_force, moment);
        let kept = hold(&self.documents, &self.in_force, &self.judgement.held);
        self.in_force = compile(&kept, &self.in_force, self.revision).last_good;
    }

    /// The yes to all that is held, as a document.
    pub fn accept(&mut self) {
        let accepts: Vec<_> =
            self.judgement.held.iter().map(|held| (held.service.clone(), held.accept.clone())).collect();
        self.change(|proxy| {
            for (service, accept) in accepts {
                proxy.put(&format!("accepts/{service}"), &serde_json::to_string(&accept).unwrap());
            }
        });
    }

    pub fn backends(&self) -> usize {
        self.in_force.keys().filter(|key| key.starts_with("backends/arena/")).count()
    }

    fn why(&self) -> Vec<String> {
        self.judgement.held.iter().map(Held::text).collect()
    }
}

pub fn key(number: usize) -> String {
    format!("backends/arena/b{number}")
}

fn backend(weight: u32) -> String {
    format!(r#"{{"address": "127.0.0.1:7100", "version": "1", "weight": {weight}}}"#)
}

#[test]
fn more_than_half_of_the_backends_stay_half_may_go() {
    for (all, removed, is_held) in [
        (1, 1, true),
        (2, 1, false),
        (2, 2, true),
        (3, 1, false),
        (3, 2, true),
        (10, 5, false),
        (10, 6, true),
    ] {
        let mut proxy = Proxy::new(all);
        proxy.change(|proxy| proxy.delete(0..removed));
        let left = if is_held { all } else { all - removed };
        assert_eq!((proxy.backends(), !proxy.why().is_empty()), (left, is_held), "{removed} of {all}");
    }
}

#[test]
fn the_rest_of_the_same_change_goes_on() {
    let mut proxy = Proxy::new(4);
    proxy.change(|proxy| {
        proxy.delete(0..3);
        proxy.put("backends/arena/new", &backend(5));
        proxy.put(&key(3), &backend(7));
        proxy.put("services/lobby", r#"{"protocol": "link", "framing": {"kind": "varint"}}"#);
    });
    assert_eq!(proxy.why(), ["arena: 3 of 5 backends would be gone within 60 s"]);
    assert_eq!(proxy.judgement.held[0].keys.len(), 3);
    assert_eq!(proxy.backends(), 5);
    assert!(proxy.in_force.contains_key("services/lobby"));
    assert_eq!(&*proxy.in_force[&*key(3)].raw, backend(7).as_bytes());
}

#[test]
fn one_key_after_the_other_is_seen_for_what_it_is() {
    let mut proxy = Proxy::new(10);
    for number in 0..10 {
        proxy.wait(1);
        proxy.change(|proxy| proxy.delete([number]));
    }
    assert_eq!(proxy.backends(), 5);
    assert!(proxy.why()[0].starts_with("arena: 10 of 10 backends would be gone within 60 s"));
    proxy.wait(100_000);
    proxy.change(|_| {});
    assert_eq!(proxy.backends(), 5, "time is no yes");
    proxy.change(|proxy| (20..40).for_each(|number| proxy.put(&key(number), &backend(1))));
    assert_eq!(proxy.backends(), 25, "nor are others that come");
}

#[test]
fn a_slow_scale_down_goes_through_until_nobody_would_be_left() {
    let mut proxy = Proxy::new(10);
    for number in 0..9 {
        proxy.wait(61);
        proxy.change(|proxy| proxy.delete([number]));
        assert_eq!(proxy.backends(), 9 - number);
    }
    proxy.wait(61);
    proxy.change(|proxy| proxy.delete([9]));
    assert_eq!(proxy.backends(), 1);
    let why =
        "arena: 1 of 1 backends would be gone within 60 s; no backend with a weight above 0 would be left";
    assert_eq!(proxy.why(), [why]);
}

#[test]
fn a_replacement_by_as_many_others_is_no_slip() {
    let mut proxy = Proxy::new(10);
    proxy.change(|proxy| {
        proxy.delete(0..10);
        (10..20).for_each(|number| proxy.put(&key(number), &backend(100)));
    });
    assert_eq!((proxy.backends(), proxy.why()), (10, vec![]));
    // What comes later is too late.
    let mut proxy = Proxy::new(10);
    proxy.change(|proxy| proxy.delete(0..10));
    proxy.change(|proxy| (10..20).for_each(|number| proxy.put(&key(number), &backend(100))));
    assert_eq!((proxy.backends(), proxy.why().len()), (20, 1));
}

#[test]
fn a_hold_that_is_forgotten_swallows_no_later_change() {
    let mut proxy = Proxy::new(4);
    proxy.change(|proxy| proxy.delete(0..3));
    proxy.change(|proxy| (10..16).for_each(|number| proxy.put(&key(number), &backend(100))));
    assert_eq!(proxy.backends(), 10);
    for number in 10..14 {
        proxy.wait(61);
        proxy.change(|proxy| proxy.delete([number]));
        assert!(!proxy.in_force.contains_key(&*key(number)), "{number}");
        assert_eq!(proxy.why(), ["arena: 3 of 4 backends would be gone within 60 s"]);
        assert_eq!(proxy.judgement.memory.services["arena"].gone.len(), 1, "the others are forgotten");
    }
    // Most of the others at once are a slip of their own.
    let mut proxy = Proxy::new(4);
    proxy.change(|proxy| proxy.delete(0..3));
    proxy.change(|proxy| (10..20).for_each(|number| proxy.put(&key(number), &backend(100))));
    proxy.change(|proxy| proxy.delete(10..20));
    assert_eq!(proxy.backends(), 14);
    proxy.accept();
    assert_eq!((proxy.backends(), proxy.why()), (1, vec![]));
}

#[test]
fn a_held_route_does_not_make_the_backends_that_went_count_for_ever() {
    let mut proxy = Proxy::new(10);
    let nowhere = r#"{"listener": "game", "service": "arena", "versions": {"9": 100}}"#;
    proxy.change(|proxy| proxy.put("routes/public", nowhere));
    assert_eq!(proxy.why().len(), 1);
    for number in 0..8 {
        proxy.wait(61);
        proxy.change(|proxy| proxy.delete([number]));
        assert_eq!(proxy.backends(), 9 - number);
    }
    assert_eq!(proxy.judgement.memory.services["arena"].gone.len(), 1);
}

#[test]
fn a_backend_that_went_and_stands_again_after_a_restart_counts_once() {
    let mut proxy = Proxy::new(4);
    let older = proxy.in_force.clone();
    proxy.change(|proxy| proxy.delete(0..2));
    assert_eq!((proxy.backends(), proxy.why()), (2, vec![]));
    // The table on disk is older than what is remembered.
    proxy.in_force = older;
    proxy.change(|_| {});
    assert_eq!((proxy.backends(), proxy.why()), (2, vec![]));
}

#[test]
fn where_the_rest_is_drained_the_last_one_that_takes_sessions_stays() {
    let mut proxy = Proxy::new(2);
    proxy.change(|proxy| proxy.put("drains/arena/b0", "{}"));
    proxy.change(|proxy| proxy.put(&key(1), &backend(0)));
    assert_eq!(proxy.why(), ["arena: no backend with a weight above 0 would be left"]);
    assert_eq!(&*proxy.in_force[&*key(1)].raw, backend(100).as_bytes());
}

#[test]
fn a_drained_backend_may_go() {
    let mut proxy = Proxy::new(3);
    proxy.change(|proxy| (0..2).for_each(|number| proxy.put(&format!("drains/arena/b{number}"), "{}")));
    proxy.change(|proxy| proxy.delete(0..2));
    assert_eq!((proxy.backends(), proxy.why()), (1, vec![]));
}

#[test]
fn what_is_taken_back_is_forgotten() {
    let mut proxy = Proxy::new(10);
    proxy.change(|proxy| proxy.delete(0..6));
    assert_eq!(proxy.backends(), 10);
    proxy.change(|proxy| proxy.put(&key(0), &backend(100)));
    assert_eq!((proxy.backends(), proxy.why()), (5, vec![]), "five of ten may go");
    let mut proxy = Proxy::new(10);
    proxy.change(|proxy| proxy.delete(0..10));
    proxy.change(|proxy| (0..10).for_each(|number| proxy.put(&key(number), &backend(1))));
    assert_eq!((proxy.backends(), &proxy.judgement), (10, &Judgement::default()));
}

#[test]
fn weights_that_all_become_zero_keep_the_last_above() {
    let mut proxy = Proxy::new(3);
    proxy.change(|proxy| (0..2).for_each(|number| proxy.put(&key(number), &backend(0))));
    assert_eq!(proxy.why(), [""; 0]);
    proxy.change(|proxy| proxy.put(&key(2), &backend(0)));
    assert_eq!(proxy.why(), ["arena: no backend with a weight above 0 would be left"]);
    assert_eq!(&*proxy.in_force[&*key(2)].raw, backend(100).as_bytes());
}

#[test]
fn an_etcd_that_comes_back_empty_changes_nothing() {
    let mut proxy = Proxy::new(3);
    let before = proxy.in_force.clone();
    proxy.change(|proxy| proxy.documents.retain(|_| false));
    assert_eq!(proxy.in_force, before);
    assert_eq!(
        proxy.why(),
        [
            "arena: 3 of 3 backends would be gone within 60 s; no backend with a weight above 0 would be left; \
          services/arena would be gone, with 3 backends in force; no route would lead to arena"
        ]
    );
    proxy.accept();
    assert_eq!(proxy.in_force.keys().map(|key| &**key).collect::<Vec<_>>(), ["accepts/arena"]);
    assert_eq!(proxy.why(), [""; 0]);
}

#[test]
fn a_route_to_versions_that_nobody_has_waits_for_them() {
    let route = |version: &str| {
        format!(r#"{{"listener": "game", "service": "arena", "versions": {{"{version}": 100}}}}"#)
    };
    let mut proxy = Proxy::new(2);
    proxy.change(|proxy| proxy.put("routes/public", &route("2")));
    assert_eq!(proxy.why(), ["arena: routes/public: no backend of arena takes sessions of 2"]);
    proxy.change(|proxy| {
        proxy.put("backends/arena/new", r#"{"address": "127.0.0.1:7100", "version": "2"}"#);
    });
    assert_eq!(proxy.why(), [""; 0]);
    assert_eq!(&*proxy.in_force["routes/public"].raw, route("2").as_bytes());
}

#[test]
fn a_route_may_be_renamed_and_a_service_without_backends_may_go() {
    let mut proxy = Proxy::new(2);
    proxy.change(|proxy| {
        proxy.documents.remove("routes/public");
        proxy.put("routes/main", r#"{"listener": "game", "service": "arena"}"#);
    });
    assert_eq!(proxy.why(), [""; 0]);
    let mut proxy = Proxy::new(0);
    proxy.change(|proxy| proxy.documents.retain(|_| false));
    assert!(proxy.in_force.is_empty());
}

#[test]
fn a_yes_is_for_what_was_held_and_for_nothing_later() {
    let mut proxy = Proxy::new(4);
    proxy.change(|proxy| proxy.delete(0..3));
    proxy.accept();
    assert_eq!((proxy.backends(), proxy.why()), (1, vec![]));
    // The same keys come again, and go again.
    proxy.change(|proxy| (0..3).for_each(|number| proxy.put(&key(number), &backend(100))));
    proxy.change(|proxy| proxy.delete(0..3));
    assert_eq!(proxy.backends(), 4);
    assert_eq!(proxy.why().len(), 1);
}

#[test]
fn a_yes_that_comes_with_the_change_lets_it_through_at_once() {
    let mut proxy = Proxy::new(4);
    let mut trial = judge(
        &proxy.judgement.memory,
        &{
            let mut documents = proxy.documents.clone();
            documents.retain(|key| !key.starts_with("backends/"));
            documents
        },
        &proxy.in_force,
        Moment { revision: 9, at_ms: proxy.at_ms },
    );
    let accept = serde_json::to_string(&trial.held.remove(0).accept).unwrap();
    proxy.change(|proxy| {
        proxy.delete(0..4);
        proxy.put("accepts/arena", &accept);
    });
    assert_eq!((proxy.backends(), proxy.why()), (0, vec![]));
}

/// Two proxies that took the same removals in other portions hold other keys of them.
#[test]
fn the_yes_of_one_proxy_covers_what_another_holds_of_the_same() {
    let (mut slow, mut fast) = (Proxy::new(4), Proxy::new(4));
    for number in 0..4 {
        slow.change(|proxy| proxy.delete([number]));
    }
    fast.revision = slow.revision - 1;
    fast.change(|proxy| proxy.delete(0..4));
    assert_eq!((slow.backends(), fast.backends()), (2, 4));
    let accept = serde_json::to_string(&slow.judgement.held[0].accept).unwrap();
    fast.change(|proxy| proxy.put("accepts/arena", &accept));
    assert_eq!((fast.backends(), fast.why()), (0, vec![]));
}

#[test]
fn what_is_remembered_survives_being_written_down() {
    let mut proxy = Proxy::new(10);
    for number in 0..8 {
        proxy.change(|proxy| proxy.delete([number]));
    }
    let text = serde_json::to_string(&proxy.judgement.memory).unwrap();
    proxy.judgement.memory = serde_json::from_str(&text).unwrap();
    proxy.wait(1_000);
    proxy.change(|_| {});
    assert_eq!(proxy.backends(), 5);
}
