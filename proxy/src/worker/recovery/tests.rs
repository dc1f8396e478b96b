//! Who goes when, and beside whom.

use std::collections::HashMap;

use slotmap::SlotMap;

use super::*;

const PLENTY: u64 = u64::MAX;
const BYTES: u64 = 1000;

/// The line as a worker keeps it, and the sessions that are on their way out of it.
struct Line {
    keys: SlotMap<SessionKey, Arc<str>>,
    recoveries: Recoveries,
    under_way: Vec<(SessionKey, Suspicion)>,
}

impl Line {
    fn new() -> Self {
        Self { keys: SlotMap::with_key(), recoveries: Recoveries::default(), under_way: Vec::new() }
    }

    fn wait(&mut self, service: &str, most: u32, suspicion: Suspicion) -> SessionKey {
        let service: Arc<str> = service.into();
        let key = self.keys.insert(Arc::clone(&service));
        self.recoveries.join(&service, most, key, suspicion);
        key
    }

    /// Gives all the turns that there are.
    fn turns(&mut self, most_bytes: u64) -> Vec<SessionKey> {
        let mut given = Vec::new();
        while let Some((key, suspicion)) = self.recoveries.next(most_bytes) {
            self.recoveries.begun(&self.keys[key], suspicion, BYTES);
            self.under_way.push((key, suspicion));
            given.push(key);
        }
        assert!(!self.recoveries.has_turn(most_bytes), "it says that there are more");
        given
    }

    fn over(&mut self, key: SessionKey) {
        let at = self.under_way.iter().position(|(other, _)| *other == key).expect("it is on its way");
        let (_, suspicion) = self.under_way.swap_remove(at);
        self.recoveries.over(&self.keys[key], suspicion, BYTES);
        self.recoveries.tidy();
    }
}

#[test]
fn who_is_beyond_suspicion_goes_first() {
    let mut line = Line::new();
    let again = line.wait("arena", 10, Suspicion::Again);
    let once = line.wait("arena", 10, Suspicion::Once);
    let trusted = line.wait("arena", 10, Suspicion::None);
    assert_eq!(line.turns(PLENTY), [trusted, once]);
    line.over(trusted);
    assert_eq!(line.turns(PLENTY), []);
    line.over(once);
    assert_eq!(line.turns(PLENTY), [again]);
    line.over(again);
    assert!(line.recoveries.is_empty());
}

#[test]
fn no_suspect_goes_beside_one_that_was_there_twice() {
    let mut line = Line::new();
    let twice = [line.wait("arena", 10, Suspicion::Again), line.wait("arena", 10, Suspicion::Again)];
    assert_eq!(line.turns(PLENTY), [twice[0]]);
    let once = line.wait("arena", 10, Suspicion::Once);
    let trusted = line.wait("arena", 10, Suspicion::None);
    assert_eq!(line.turns(PLENTY), [trusted], "one beyond suspicion isn't kept from play");
    line.over(twice[0]);
    assert_eq!(line.turns(PLENTY), [once]);
    line.over(trusted);
    line.over(once);
    assert_eq!(line.turns(PLENTY), [twice[1]]);
}

#[test]
fn so_many_of_a_service_are_on_their_way_at_once() {
    let mut line = Line::new();
    let keys: Vec<_> = (0..5).map(|_| line.wait("arena", 2, Suspicion::None)).collect();
    assert_eq!(line.turns(PLENTY), keys[..2]);
    line.over(keys[1]);
    assert_eq!(line.turns(PLENTY), keys[2..3]);
}

#[test]
fn so_many_bytes_are_on_their_way_at_once_and_one_session_always() {
    let mut line = Line::new();
    let keys: Vec<_> = (0..5).map(|_| line.wait("arena", 10, Suspicion::None)).collect();
    assert_eq!(line.turns(1), keys[..1], "larger than the bound, and alone");
    line.over(keys[0]);
    assert_eq!(line.turns(2 * BYTES), keys[1..3]);
}

#[test]
fn services_take_turns_and_the_culprits_of_one_hold_up_no_other() {
    let mut line = Line::new();
    let arena: Vec<_> = (0..3).map(|_| line.wait("arena", 10, Suspicion::None)).collect();
    let lobby = [line.wait("lobby", 10, Suspicion::Again), line.wait("lobby", 10, Suspicion::Again)];
    assert_eq!(line.turns(PLENTY), [arena[0], lobby[0], arena[1], arena[2]]);
}

#[test]
fn thousands_recover_in_their_order_within_the_bound() {
    const SESSIONS: usize = 9_000;
    const MOST: u32 = 256;
    let mut line = Line::new();
    let mut suspicions = HashMap::new();
    for number in 0..SESSIONS {
        let suspicion = match number % 100 {
            0 => Suspicion::Again,
            1..=9 => Suspicion::Once,
            _ => Suspicion::None,
        };
        suspicions.insert(line.wait("arena", MOST, suspicion), suspicion);
    }
    let mut order = Vec::new();
    while order.len() < SESSIONS {
        order.extend(line.turns(PLENTY));
        assert!(line.under_way.len() <= MOST as usize);
        let culprits = line.under_way.iter().filter(|(_, suspicion)| *suspicion == Suspicion::Again).count();
        assert!(culprits == 0 || line.under_way.len() == 1);
        let (first, _) = line.under_way[0];
        line.over(first);
    }
    assert!(order.is_sorted_by_key(|key| suspicions[key]));
}
