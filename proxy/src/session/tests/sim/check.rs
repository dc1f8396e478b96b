//! What holds when a run is over: every promise kept, nothing left behind.

use std::collections::BTreeSet;

use super::plan::Departure;
use super::worker::FIRST_GROUP;
use super::world::World;
use crate::telemetry::counters::CloseReason;

impl World {
    pub fn assert_all_is_well(&self) {
        self.assert_nothing_is_left();
        for player in &self.players {
            let worker = &self.workers[player.plan.proxy];
            let seat = &worker.ended[&player.index];
            let (index, reason) = (player.index, seat.ended.expect("it has ended"));
            let by_player = matches!(reason, CloseReason::ClientClose | CloseReason::ClientError);
            let by_game = reason == CloseReason::BackendClose;
            let fair = match player.plan.departure {
                Departure::Quits => by_game,
                Departure::Content | Departure::Half(_) | Departure::Hurried(_) | Departure::Broken(_) => {
                    by_player || by_game
                }
            };
            assert!(fair, "player {index} ({:?}) ended by {reason:?}", player.plan.departure);
            let accounted = seat.processed.len() as u64 + seat.lost;
            // A game that has ended the session has no use for what comes behind.
            let all = accounted == seat.frames || (by_game && accounted < seat.frames)
                // A match's last acks may come when a member has had all and is gone; and frames that go with who leaves are
                // processed by it too, as nothing. What the player was told shows the rest.
                || seat.company.joined > 0;
            assert!(all, "player {index}: {accounted} frames of {} are accounted for", seat.frames);
            if self.plan.is_lossless() {
                // A backend forgets whom it has closed: a cut may take its last ack along, and nobody knows then.
                let is_unsure = matches!(player.plan.departure, Departure::Hurried(_) | Departure::Broken(_));
                assert!(seat.lost == 0 || is_unsure, "player {index}: {} frames lost", seat.lost);
                assert!(player.oracle.lineages <= 1, "player {index} has one history");
            }
            let waited =
                matches!(player.plan.departure, Departure::Content | Departure::Quits | Departure::Half(_));
            if self.plan.is_lossless() && waited {
                let told = player.last_loud().is_none_or(|loud| player.oracle.last >= Some(loud));
                assert!(told, "player {index} was told of {:?} only", player.oracle.last);
            }
        }
        if self.plan.is_lossless() {
            self.assert_games_were_told();
        }
    }

    /// Each game whose player came to it heard of the end.
    fn assert_games_were_told(&self) {
        let told: BTreeSet<_> = self
            .backends
            .iter()
            .flat_map(|it| it.knobs.closed.lock().unwrap().keys().copied().collect::<Vec<_>>())
            .collect();
        let reached =
            self.workers.iter().flat_map(|worker| worker.ended.range(..FIRST_GROUP)).map(|(_, seat)| seat);
        let reached = reached.filter(|seat| !seat.processed.is_empty());
        assert!(told.len() >= reached.count(), "a game wasn't told of its player's end");
    }

    fn assert_nothing_is_left(&self) {
        for worker in &self.workers {
            let hub = &worker.hub;
            assert_eq!((hub.reserved_bytes, hub.kept_bytes, hub.parked), (0, 0, 0), "p{}", hub.index);
            let recoveries = (hub.recoveries.under_way, hub.recoveries.bytes_under_way);
            assert_eq!(recoveries, ([0; 3], 0), "p{}", hub.index);
            assert_eq!((hub.timers.len(), hub.returning_in_flight), (0, 0), "p{}", hub.index);
            for (at, link) in hub.links.iter().enumerate() {
                assert_eq!(link.sessions, 0, "p{} - b{at}", hub.index);
                let in_flight = link.drain.as_ref().map_or(0, crate::drain::Drain::in_flight);
                assert_eq!(in_flight, 0, "p{} - b{at}: places in its drain", hub.index);
            }
        }
        for backend in &self.backends {
            let kept = backend.process.as_ref().map_or(0, |process| process.population.get());
            assert_eq!(kept, 0, "b{} keeps what nobody wants", backend.index);
        }
    }
}
