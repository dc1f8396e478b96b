use super::*;
use crate::rollout::advance::tests::plan;
use crate::routing::table::Failure;

fn row(version: &str, sessions: u64, attached: u64, crashes: u64) -> VersionRow {
    VersionRow {
        service: "arena".to_owned(),
        version: version.to_owned(),
        sessions,
        attached,
        crashes,
        ..VersionRow::default()
    }
}

fn report<'a>(proxy: &'a str, run: &'a str, rows: &'a [VersionRow]) -> Report<'a> {
    Report { proxy, run, rows }
}

#[test]
fn failures_are_counted_over_the_window_and_over_all_proxies() {
    let mut judge = Judge::default();
    let plan = plan();
    let seconds = plan.abort.window.as_secs();
    judge.look(
        &plan,
        &[report("a", "1", &[row("2", 50, 50, 7)]), report("b", "1", &[row("2", 30, 30, 0)])],
        0,
    );
    let rows = ([row("2", 50, 60, 9)], [row("2", 30, 30, 1)]);
    let seen = judge.look(&plan, &[report("a", "1", &rows.0), report("b", "1", &rows.1)], 1_000);
    assert_eq!(
        (seen.players, seen.failures, seen.on_to),
        (90, 3, 80),
        "what was before the first look is not counted"
    );
    let later =
        judge.look(&plan, &[report("a", "1", &rows.0), report("b", "1", &rows.1)], 1_000 * (seconds + 1));
    assert_eq!((later.players, later.failures), (80, 0), "the window has passed");
}

#[test]
fn a_proxy_that_starts_anew_or_goes_takes_nothing_back() {
    let mut judge = Judge::default();
    let plan = plan();
    judge.look(&plan, &[report("a", "1", &[row("2", 10, 100, 5)])], 0);
    let seen = judge.look(&plan, &[report("a", "2", &[row("2", 1, 4, 2)])], 1_000);
    assert_eq!((seen.failures, seen.players), (0, 10), "its first row says nothing of when");
    let seen = judge.look(&plan, &[report("a", "2", &[row("2", 1, 5, 3)])], 2_000);
    assert_eq!(seen.failures, 1);
    assert_eq!(judge.look(&plan, &[], 3_000).failures, 1);
    let seen = judge.look(&plan, &[report("a", "2", &[row("2", 1, 2, 2)])], 4_000);
    assert_eq!(seen.failures, 1, "it comes back as a stranger");
}

#[test]
fn only_what_the_rule_names_is_a_failure() {
    let mut judge = Judge::default();
    let plan = Rollout {
        abort: crate::routing::table::AbortRule { count: vec![Failure::Close], ..plan().abort },
        ..plan()
    };
    judge.look(&plan, &[report("a", "1", &[row("2", 10, 10, 0)])], 0);
    let closed = VersionRow { closes: 2, ..row("2", 10, 10, 9) };
    assert_eq!(judge.look(&plan, &[report("a", "1", &[closed])], 1_000).failures, 2);
}

#[test]
fn the_service_time_is_that_of_the_window() {
    let mut judge = Judge::default();
    let plan = plan();
    let with = |micros: u64, frames: usize| {
        let mut times = Histogram::default();
        (0..frames).for_each(|_| times.add(micros));
        times
    };
    let slow = with(3_000_000, 100);
    let mut both = slow.clone();
    both.merge(&with(1_000, 100));
    let rows = |times: &Histogram| [VersionRow { times: times.to_counts(), ..row("2", 1, 1, 0) }];
    assert_eq!(judge.look(&plan, &[report("a", "1", &rows(&slow))], 0).p99_ms, None);
    let seen = judge.look(&plan, &[report("a", "1", &rows(&both))], 1_000);
    assert_eq!((seen.frames, seen.p99_ms), (100, Some(1)), "the slow ones were before");
}

fn spoken(version: &str, writes: &[&str], reads: &[&str]) -> VersionRow {
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    VersionRow { writes: set(writes), reads: set(reads), spoken: 1, ..row(version, 0, 0, 0) }
}

#[test]
fn players_must_be_able_to_go_there_and_back() {
    let plan = plan();
    let judged = |rows: &[VersionRow]| formats(&plan, &[report("a", "1", rows)]);
    let old = spoken("1", &["s1"], &["s1", "s2"]);
    assert_eq!(judged(std::slice::from_ref(&old)), Formats::Unknown { version: "2".to_owned() });
    assert_eq!(judged(&[old.clone(), spoken("2", &["s2"], &["s1", "s2"])]), Formats::Fit);
    let Formats::Unfit(text) = judged(&[old.clone(), spoken("2", &["s3"], &["s1", "s3"])]) else {
        panic!("they couldn't come back")
    };
    assert_eq!(text, "version 1 doesn't read the state format s3 that 2 writes; it reads s1, s2");
    assert!(
        matches!(judged(&[old, spoken("2", &["s2"], &["s2"])]), Formats::Unfit(_)),
        "they couldn't go there"
    );
}

#[test]
fn what_one_server_of_the_old_version_cannot_read_cannot_be_read_back() {
    let plan = plan();
    let new = spoken("2", &["s2"], &["s1", "s2"]);
    let (able, unable) = ([new, spoken("1", &["s1"], &["s1", "s2"])], [spoken("1", &["s1"], &["s1"])]);
    let reports = [report("a", "1", &able), report("b", "1", &unable)];
    assert!(matches!(formats(&plan, &reports), Formats::Unfit(_)));
}
