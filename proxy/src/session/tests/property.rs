//! Any interleaving of what players, games, operators and networks do, then quiet: nothing is lost, doubled, reordered
//! or stuck.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;

use super::game::chain_of;
use super::seat::WireState;
use super::world::{A, B, C, World, surviving};
use crate::routing::table::Recovery;
use crate::session::{Client, LinkId, Otherwise, Phase};
use crate::telemetry::counters::CloseReason;

const SESSIONS: usize = 2;
const LINKS: [LinkId; 3] = [A, B, C];

#[derive(Debug, Clone, Copy)]
enum Act {
    Frames(usize, usize),
    /// Frames with many answers each.
    Burst(usize),
    Step(LinkId, bool),
    Steps(LinkId, usize),
    Settle,
    Pass(u64),
    Drain(LinkId, Otherwise),
    Undrain(LinkId),
    Refuse(LinkId, u8),
    /// Nothing arrives for longer than a freeze or an attach may take.
    Stall(LinkId),
    Cut(LinkId),
    Connect(LinkId),
    Padding(LinkId, usize),
    Pool(u64),
    Slow(usize, bool),
    /// The client leaves: `true` with its end of stream only.
    Depart(usize, bool),
    /// The process dies; what only it had is lost.
    Kill(LinkId),
    Restart(LinkId),
}

fn link() -> impl Strategy<Value = LinkId> {
    (0..3_u32).prop_map(LinkId)
}

fn otherwise() -> impl Strategy<Value = Otherwise> {
    prop_oneof![Just(Otherwise::Thaw), Just(Otherwise::Park), Just(Otherwise::ParkForHome)]
}

/// What no frame may be lost by.
fn harmless() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..SESSIONS, 1..4_usize).prop_map(|(index, count)| Act::Frames(index, count)),
        2 => (0..SESSIONS).prop_map(Act::Burst),
        8 => (link(), any::<bool>()).prop_map(|(link, to)| Act::Step(link, to)),
        6 => (link(), 1..6_usize).prop_map(|(link, count)| Act::Steps(link, count)),
        2 => Just(Act::Settle),
        3 => (1..120_u64).prop_map(Act::Pass),
        1 => (300..1500_u64).prop_map(Act::Pass),
        5 => (link(), otherwise()).prop_map(|(link, otherwise)| Act::Drain(link, otherwise)),
        3 => link().prop_map(Act::Undrain),
        2 => (link(), 0..3_u8).prop_map(|(link, how)| Act::Refuse(link, how)),
        1 => link().prop_map(Act::Stall),
        3 => link().prop_map(Act::Cut),
        4 => link().prop_map(Act::Connect),
        1 => (link(), prop_oneof![Just(0), Just(40_000), Just(300_000)]).prop_map(|(l, n)| Act::Padding(l, n)),
        1 => prop_oneof![Just(0_u64), Just(2_000), Just(1 << 20)].prop_map(Act::Pool),
        2 => (0..SESSIONS, any::<bool>()).prop_map(|(index, slow)| Act::Slow(index, slow)),
    ]
}

fn leaving() -> impl Strategy<Value = Act> {
    (0..SESSIONS, any::<bool>()).prop_map(|(index, half)| Act::Depart(index, half))
}

/// Without states that are over the limit: those are not kept, by the service's own word.
fn survivable() -> impl Strategy<Value = Act> {
    harmless().prop_filter("a state that may be kept", |act| !matches!(act, Act::Padding(_, 300_000)))
}

fn deadly() -> impl Strategy<Value = Act> {
    prop_oneof![link().prop_map(Act::Kill), link().prop_map(Act::Restart)]
}

fn world(recovery: Recovery) -> World {
    let mut world = World::empty(3);
    for link in LINKS {
        world.knobs(link).ticks.store(true, Ordering::Relaxed);
    }
    let mut service = surviving(recovery);
    // These deaths are nobody's input's fault.
    service.limits.max_recoveries = u32::MAX;
    // A cut may last longer than the end of a session does otherwise.
    service.limits.close_deadline = Duration::from_secs(300);
    let service = Arc::new(service);
    for _ in 0..SESSIONS {
        world.open(Arc::clone(&service));
    }
    world.settle();
    world
}

fn perform(world: &mut World, act: Act) {
    match act {
        Act::Frames(index, count) => world.frames(index, count),
        Act::Burst(index) => world.frame(index, b"burst"),
        Act::Step(link, to_backend) => {
            world.send_chunks();
            world.step(link, to_backend);
        }
        Act::Steps(link, count) => {
            for _ in 0..count {
                world.step(link, true);
                world.step(link, false);
            }
        }
        Act::Settle => world.settle(),
        Act::Pass(ms) => world.advance(Duration::from_millis(ms)),
        Act::Drain(link, otherwise) => drain(world, link, otherwise),
        Act::Undrain(link) => world.undrain(link),
        Act::Refuse(link, how) => world.refuse(link, how),
        Act::Stall(link) => {
            world.wire(link).stalled = true;
            world.advance(Duration::from_millis(350));
            world.wire(link).stalled = false;
            world.settle();
        }
        Act::Cut(link) => world.cut(link),
        Act::Connect(link) => revive(world, link),
        Act::Padding(link, bytes) => world.knobs(link).padding.store(bytes, Ordering::Relaxed),
        Act::Pool(bytes) => world.hub.pool_bytes = bytes,
        Act::Slow(index, slow) => world.seats[index].slow = slow,
        Act::Depart(index, true) => world.drive(index, |session, fx| session.client_finished(fx)),
        Act::Depart(index, false) => {
            world.drive(index, |session, fx| session.client_gone(CloseReason::ClientError, fx));
        }
        Act::Kill(link) => world.kill(link),
        Act::Restart(link) => {
            if world.wire(link).state == WireState::Dead {
                world.restart(link);
            }
        }
    }
}

/// As the worker does: with nowhere to go, only an order that parks begins.
fn drain(world: &mut World, link: LinkId, otherwise: Otherwise) {
    world.wire(link).draining = true;
    let somewhere = world.hub.wires.iter().any(|wire| wire.state == WireState::Up && !wire.draining);
    for index in 0..SESSIONS {
        let there = *world.sessions[index].phase() == Phase::Active { link };
        if there && (somewhere || otherwise != Otherwise::Thaw) {
            world.leave(index, otherwise);
        }
    }
}

fn revive(world: &mut World, link: LinkId) {
    if matches!(world.wire(link).state, WireState::Broken | WireState::Idle) {
        world.connect(link);
    }
}

/// Everything comes back, and time enough passes for every wait to end.
fn quiesce(world: &mut World) {
    world.hub.pool_bytes = 1 << 20;
    for link in LINKS {
        world.refuse(link, 0);
        world.knobs(link).padding.store(0, Ordering::Relaxed);
        revive(world, link);
        perform(world, Act::Restart(link));
        world.undrain(link);
    }
    for seat in &mut world.seats {
        seat.slow = false;
    }
    world.advance(Duration::from_secs(8));
    for link in LINKS {
        world.knobs(link).ticks.store(false, Ordering::Relaxed);
    }
    for index in 0..SESSIONS {
        world.frames(index, 1);
    }
    world.advance(Duration::from_secs(4));
}

fn assert_nothing_is_stuck(world: &World) {
    assert_eq!(world.hub.reserved, 0);
    assert_eq!(world.faults_of_the_proxy(), 0, "the proxy breaks no rule");
    for index in 0..SESSIONS {
        let (session, seat) = (&world.sessions[index], &world.seats[index]);
        let over = matches!(session.phase(), Phase::Active { .. } | Phase::Ended);
        assert!(over, "stuck: {session:?}");
        assert_eq!(seat.ended.is_some(), session.client() != Client::Open, "{session:?}");
        assert!(!seat.handoff && (seat.outbox.is_empty() || seat.ended.is_some()));
    }
    let alive = world.seats.iter().filter(|seat| seat.ended.is_none()).count();
    let kept: usize = world.nodes.iter().map(|node| node.peer.as_ref().unwrap().attachments()).sum();
    assert_eq!(kept, alive, "backends keep what is theirs, and nothing else");
}

/// Whatever happens, every frame is processed and delivered exactly once, in order, in one history.
fn assert_survives(recovery: Recovery, acts: Vec<Act>) {
    let mut world = world(recovery);
    for act in acts {
        perform(&mut world, act);
    }
    quiesce(&mut world);
    assert_nothing_is_stuck(&world);
    for index in 0..SESSIONS {
        world.assert_flawless(index);
        world.assert_all_answered(index);
        assert_eq!((world.seats[index].ended, world.seats[index].diverged), (None, 0));
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_handoff_cut_refusal_or_delay_loses_doubles_or_reorders_a_frame(
        acts in prop::collection::vec(harmless(), 1..80),
    ) {
        let mut world = world(Recovery::None);
        for act in acts {
            perform(&mut world, act);
        }
        quiesce(&mut world);
        assert_nothing_is_stuck(&world);
        for index in 0..SESSIONS {
            world.assert_flawless(index);
            world.assert_all_answered(index);
            prop_assert_eq!(world.seats[index].ended, None);
        }
    }

    #[test]
    fn a_game_is_told_of_every_players_end_and_always_with_every_frame(
        acts in prop::collection::vec(prop_oneof![12 => harmless(), 1 => leaving()], 1..80),
    ) {
        let mut world = world(Recovery::None);
        for act in acts {
            perform(&mut world, act);
        }
        quiesce(&mut world);
        assert_nothing_is_stuck(&world);
        let closed: Vec<_> =
            world.nodes.iter().flat_map(|node| node.knobs.closed.lock().unwrap().clone()).collect();
        let mut ends = Vec::new();
        for index in 0..SESSIONS {
            let frames = &world.seats[index].frames;
            if world.sessions[index].client() == Client::Open {
                world.assert_all_answered(index);
            } else {
                ends.push((u32::try_from(frames.len()).unwrap(), chain_of(frames)));
            }
        }
        for end in &ends {
            prop_assert!(closed.contains(end), "{:?} in {:?}", end, closed);
        }
        for told in &closed {
            // Twice, if the answer went down with a link and the state was still kept: never with other frames.
            prop_assert!(ends.contains(told), "{:?} in {:?}", told, ends);
        }
    }

    #[test]
    fn a_dead_process_takes_only_what_it_had_and_that_is_counted(
        acts in prop::collection::vec(prop_oneof![20 => harmless(), 4 => deadly(), 1 => leaving()], 1..80),
    ) {
        let mut world = world(Recovery::None);
        for act in acts {
            perform(&mut world, act);
        }
        quiesce(&mut world);
        assert_nothing_is_stuck(&world);
        for index in 0..SESSIONS {
            world.assert_in_order(index);
            let seat = &world.seats[index];
            if world.sessions[index].client() == Client::Open {
                prop_assert_eq!(seat.processed as u64 + seat.lost, seat.frames.len() as u64);
                prop_assert_eq!(seat.ended, None);
            }
        }
    }

    #[test]
    fn at_replay_no_dead_process_loses_doubles_or_reorders_a_frame(
        acts in prop::collection::vec(prop_oneof![20 => survivable(), 5 => deadly()], 1..80),
    ) {
        assert_survives(Recovery::Replay, acts);
    }

    #[test]
    fn at_delta_no_dead_process_loses_doubles_or_reorders_a_frame(
        acts in prop::collection::vec(prop_oneof![20 => survivable(), 5 => deadly()], 1..80),
    ) {
        assert_survives(Recovery::Delta, acts);
    }

    #[test]
    fn at_checkpoint_a_dead_process_loses_no_frame_that_the_player_sent(
        acts in prop::collection::vec(prop_oneof![20 => survivable(), 5 => deadly()], 1..80),
    ) {
        let mut world = world(Recovery::Checkpoint);
        for act in acts {
            perform(&mut world, act);
        }
        quiesce(&mut world);
        assert_nothing_is_stuck(&world);
        for index in 0..SESSIONS {
            let seat = &world.seats[index];
            prop_assert_eq!((seat.ended, seat.lost), (None, 0));
            let last = world.shown(index).last().copied().unwrap();
            prop_assert_eq!(last.count as usize, seat.frames.len());
            prop_assert_eq!(last.chain, chain_of(&seat.frames));
        }
    }
}
