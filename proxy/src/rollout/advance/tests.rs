use super::*;
use crate::routing::table::{AbortRule, Failure, PauseRule};

const SECOND: u64 = 1_000;

/// From 1 to 2 in two steps of ten seconds.
pub fn plan() -> Rollout {
    Rollout {
        service: "arena".into(),
        from: "1".into(),
        to: "2".into(),
        steps: vec![10, 100],
        interval: Duration::from_secs(10),
        per_second: None,
        abort: AbortRule {
            failures_percent: 5.0,
            window: Duration::from_secs(5),
            lasting: Duration::from_secs(3),
            count: vec![Failure::Crash],
        },
        pause: PauseRule { p99: Duration::from_secs(1), lasting: Duration::from_secs(2) },
        order: RolloutOrder::Run,
        reason: String::new(),
        attempt: 0,
        force: false,
    }
}

struct Run {
    plan: Rollout,
    progress: Progress,
    formats: Formats,
    seen: Seen,
    revision: u64,
    second: u64,
}

impl Run {
    fn new() -> Self {
        let plan = plan();
        let progress = Progress::begin(&plan, 0);
        Self { plan, progress, formats: Formats::Fit, seen: Seen::default(), revision: 1, second: 0 }
    }

    /// Looks once a second, for so many seconds; the state and the share at the end.
    fn seconds(&mut self, seconds: u64) -> (State, u32) {
        for _ in 0..seconds {
            self.second += 1;
            self.look();
        }
        (self.progress.state, self.progress.percent)
    }

    fn look(&mut self) {
        let now = Now {
            ms: self.second * SECOND,
            seen: self.seen.clone(),
            formats: &self.formats,
            revision: self.revision,
        };
        advance(&mut self.progress, &self.plan, &now);
    }

    fn write(&mut self, order: RolloutOrder) {
        self.plan.order = order;
        self.revision += 1;
    }

    fn fails(&mut self, percent: f64) {
        self.seen.failures_percent = percent;
    }
}

#[test]
fn steps_follow_one_another_and_the_last_is_done() {
    let mut run = Run::new();
    assert_eq!(run.seconds(1), (State::Running, 10));
    assert_eq!(run.seconds(9), (State::Running, 10));
    assert_eq!(run.seconds(1), (State::Running, 100));
    assert_eq!(run.seconds(9), (State::Running, 100));
    assert_eq!(run.seconds(1), (State::Done, 100));
    assert_eq!(run.seconds(100), (State::Done, 100));
}

#[test]
fn failures_that_last_bring_everybody_back() {
    let mut run = Run::new();
    run.seconds(2);
    run.seen.on_to = 7;
    run.fails(5.1);
    assert_eq!(run.seconds(3), (State::Running, 10), "not long enough");
    assert_eq!(run.seconds(1), (State::Aborting, 0));
    assert!(run.progress.reason.contains("5.1 %"), "{}", run.progress.reason);
    run.fails(0.0);
    assert_eq!(run.seconds(5), (State::Aborting, 0), "seven are still there");
    run.seen.on_to = 0;
    assert_eq!(run.seconds(1), (State::Aborted, 0));
    assert_eq!((run.progress.to_move_back, run.progress.moved_back_ms), (7, Some(6 * SECOND)));
    run.write(RolloutOrder::Run);
    assert_eq!(run.seconds(100), (State::Aborted, 0), "another attempt has another number");
}

#[test]
fn a_break_in_the_failures_begins_their_time_anew() {
    let mut run = Run::new();
    run.seconds(1);
    for _ in 0..2 {
        run.fails(50.0);
        assert_eq!(run.seconds(3), (State::Running, 10));
        run.fails(5.0);
        assert_eq!(run.seconds(1), (State::Running, 10));
    }
}

#[test]
fn no_step_is_taken_in_doubt() {
    let mut run = Run::new();
    run.seconds(9);
    run.fails(6.0);
    assert_eq!(run.seconds(2), (State::Running, 10), "its time is over, but something is wrong");
    run.fails(0.0);
    assert_eq!(run.seconds(1), (State::Running, 100));
}

#[test]
fn a_version_that_fails_while_paused_or_done_is_given_up_too() {
    for order in [RolloutOrder::Run, RolloutOrder::Pause] {
        let mut run = Run::new();
        run.seconds(2);
        run.write(order);
        run.seconds(30);
        assert_ne!(run.progress.state, State::Running);
        run.fails(50.0);
        assert_eq!(run.seconds(4), (State::Aborting, 0));
    }
}

#[test]
fn a_slow_version_pauses_until_somebody_writes_the_document_again() {
    let mut run = Run::new();
    run.seconds(1);
    run.seen.p99_ms = Some(1_001);
    assert_eq!(run.seconds(3), (State::Paused, 10));
    run.seen.p99_ms = Some(5);
    assert_eq!(run.seconds(60), (State::Paused, 10));
    run.write(RolloutOrder::Run);
    assert_eq!(run.seconds(1), (State::Running, 10));
    assert_eq!(run.seconds(9), (State::Running, 10), "the step begins anew");
    assert_eq!(run.seconds(1), (State::Running, 100));
}

#[test]
fn an_ordered_pause_ends_with_the_order() {
    let mut run = Run::new();
    run.seconds(1);
    run.write(RolloutOrder::Pause);
    assert_eq!(run.seconds(60), (State::Paused, 10));
    run.write(RolloutOrder::Run);
    assert_eq!(run.seconds(1), (State::Running, 10));
}

#[test]
fn an_ordered_abort_is_one_whatever_the_state() {
    for seconds in [0, 1, 5, 15, 40] {
        let mut run = Run::new();
        run.seconds(seconds);
        run.seen.on_to = 1;
        run.write(RolloutOrder::Abort);
        assert_eq!(run.seconds(1), (State::Aborting, 0), "after {seconds} s");
        run.seen.on_to = 0;
        assert_eq!(run.seconds(1), (State::Aborted, 0));
    }
}

#[test]
fn nobody_is_moved_before_it_is_known_that_they_could_come_back() {
    let mut run = Run::new();
    run.formats = Formats::Unknown { version: "2".to_owned() };
    assert_eq!(run.seconds(60), (State::Checking, 0));
    run.formats = Formats::Unfit("1 doesn't read 2's".to_owned());
    assert_eq!(run.seconds(1), (State::Refused, 0));
    run.formats = Formats::Fit;
    assert_eq!(run.seconds(60), (State::Refused, 0), "nobody has looked at it since");
    run.write(RolloutOrder::Run);
    assert_eq!(run.seconds(1), (State::Running, 10));
}

#[test]
fn force_begins_a_rollout_without_a_way_back() {
    let mut run = Run::new();
    run.formats = Formats::Unfit("1 doesn't read 2's".to_owned());
    run.plan.force = true;
    assert_eq!(run.seconds(1), (State::Running, 10));
}

#[test]
fn steps_that_change_on_the_way_are_followed() {
    let mut run = Run::new();
    run.seconds(12);
    assert_eq!(run.progress.percent, 100);
    run.plan.steps = vec![10, 50, 100];
    assert_eq!(run.seconds(1), (State::Running, 50));
    run.plan.steps = vec![20];
    assert_eq!(run.seconds(1), (State::Running, 20));
    assert_eq!(run.seconds(10), (State::Done, 20));
    run.plan.steps = vec![20, 60];
    assert_eq!(run.seconds(1), (State::Running, 20));
    assert_eq!(run.seconds(11), (State::Running, 60));
}

#[test]
fn another_controller_goes_on_from_what_is_written() {
    let mut run = Run::new();
    run.seconds(1);
    run.fails(50.0);
    run.seconds(2);
    let written = serde_json::to_string(&run.progress).unwrap();
    run.progress = serde_json::from_str(&written).unwrap();
    assert_eq!(run.seconds(2), (State::Aborting, 0), "the failures' time has gone on");
}
