//! The pace of a drain, its order, its deadline, and what it tells of itself.

use super::*;
use crate::routing::table::{OnDeadline, OnSigterm};

fn policy(in_flight: u32, per_second: u32) -> DrainPolicy {
    DrainPolicy {
        in_flight,
        per_second,
        deadline: Duration::from_secs(60),
        on_deadline: OnDeadline::Keep,
        on_sigterm: OnSigterm::Move,
    }
}

#[test]
fn idle_sessions_leave_first_and_no_more_than_allowed_at_once() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(2, 1_000_000), 0, now, now + Duration::from_secs(60));
    drain.add([(1, false), (2, true), (3, false)]);
    let later = now + Duration::from_secs(1);
    assert_eq!(drain.next(later), Some(2));
    assert_eq!(drain.next(later), Some(1));
    assert_eq!(drain.next(later), None, "two are under way");
    drain.settled(0, HandoffResult::Moved, now);
    assert_eq!(drain.next(later), Some(3));
    assert!(!drain.is_idle());
}

#[test]
fn a_rate_is_kept_over_a_second() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(u32::MAX, 100), 0, now, now + Duration::from_secs(60));
    drain.add((0..1000).map(|key| (key, true)));
    let mut begun = 0;
    for step in 0..=1000 {
        while drain.next(now + Duration::from_millis(step)).is_some() {
            begun += 1;
        }
    }
    assert!((100..=111).contains(&begun), "{begun} begun in a second at 100 a second");
}

#[test]
fn a_thawed_session_is_tried_again_later_and_nothing_begins_after_the_deadline() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(8, 1000), 0, now, now + Duration::from_secs(1));
    drain.add([(7, true)]);
    assert_eq!(drain.next(now), Some(7));
    drain.settled(7, HandoffResult::Thawed, now);
    assert_eq!(drain.next(now + Duration::from_millis(10)), None);
    let then = now + THAWED_DELAY;
    assert_eq!(drain.next(then), Some(7));
    drain.held_up(7, Delay::NotNow, then);
    assert_eq!(drain.due(then), Some(then + NOT_NOW_DELAY));
    drain.retry(then);
    assert_eq!(drain.next(then), Some(7), "something has changed for the better");
    drain.held_up(7, Delay::NotNow, then);
    let over = now + Duration::from_secs(1);
    assert_eq!((drain.next(over), drain.due(over)), (None, None));
}

#[test]
fn sessions_that_cannot_go_hold_up_no_others() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(1, 1000), 0, now, now + Duration::from_secs(60));
    drain.add((0..100).map(|key| (key, false)));
    let mut met = std::collections::BTreeSet::new();
    for step in 0..200 {
        let now = now + Duration::from_millis(step);
        while let Some(key) = drain.next(now) {
            met.insert(key);
            drain.held_up(key, Delay::NotNow, now);
        }
    }
    assert_eq!(met.len(), 100, "each has had a turn in 200 ms at 1,000 a second");
}

#[test]
fn what_left_under_an_earlier_drain_holds_its_places() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(2, 1000), 2, now, now + Duration::from_secs(60));
    drain.add([(1, true)]);
    assert_eq!(drain.next(now), None);
    drain.settled(0, HandoffResult::Moved, now);
    assert_eq!(drain.next(now), Some(1));
}

#[test]
fn a_deadline_that_moves_out_is_told_anew_and_one_that_moves_in_counts() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(2, 1000), 0, now, now + Duration::from_secs(10));
    drain.add([(1, true)]);
    drain.told = true;
    drain.set_deadline(now + Duration::from_secs(20));
    assert!(!drain.told);
    drain.set_deadline(now);
    assert_eq!(drain.next(now), None);
}

#[test]
fn that_nobody_can_take_its_sessions_shows_at_the_first_turn() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(64, 1000), 0, now, now + Duration::from_secs(10));
    drain.add([(1, true), (2, true)]);
    assert_eq!(drain.progress(2, now).state, State::Moving);
    let key = drain.next(now).unwrap();
    drain.held_up(key, Delay::NoPlace, now);
    let progress = drain.progress(2, now);
    assert_eq!((progress.state, progress.homeless, progress.left), (State::Stuck, 1, 2));
    assert!(progress.waits_for.is_some_and(|text| text.contains("another backend")));
    let then = now + Duration::from_secs(1);
    assert!(drain.next(then).is_some());
    drain.begins();
    let progress = drain.progress(2, then);
    assert_eq!((progress.state, progress.in_flight, progress.waits_for), (State::Moving, 1, None));
}

#[test]
fn what_became_of_each_session_is_counted() {
    let now = Instant::now();
    let mut drain = Drain::new(policy(64, 1_000_000), 0, now, now + Duration::from_secs(10));
    drain.add((0..5).map(|key| (key, true)));
    let later = now + Duration::from_secs(1);
    let results = [HandoffResult::Moved, HandoffResult::Parked, HandoffResult::Closed, HandoffResult::Thawed];
    for result in results {
        let key = drain.next(later).unwrap();
        drain.settled(key, result, later);
    }
    drain.next(later).unwrap();
    drain.ended();
    let counts = Counts { moved: 1, parked: 1, ended: 2, thawed: 1 };
    assert_eq!(drain.progress(1, later).counts, counts);
    assert_eq!(drain.progress(0, later).state, State::Drained);
    let over = now + Duration::from_secs(10);
    assert_eq!(
        (drain.progress(1, over).state, drain.progress(1, over).remaining),
        (State::Deadline, Duration::ZERO)
    );
}
