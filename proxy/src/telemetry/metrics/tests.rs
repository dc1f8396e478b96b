use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

fn metrics(workers: Vec<Arc<Counters>>) -> Metrics {
    let silent = SystemTime::now() - Duration::from_secs(30);
    let control = move || ControlView {
        table_revision: 17,
        refused_documents: 2,
        held_changes: 1,
        rollouts: [0, 0, 1, 0, 0, 2, 0],
        silent_since: Some(silent),
        hooks: crate::hooks::Counts::default().all(),
        ..ControlView::default()
    };
    Metrics::new(MetricsSources {
        workers,
        spans: Arc::default(),
        control: Box::new(control),
        started_at: SystemTime::now(),
        version: "1.2.3",
    })
}

fn two_workers() -> Vec<Arc<Counters>> {
    let workers = vec![Arc::new(Counters::default()), Arc::new(Counters::default())];
    for counters in &workers {
        counters.sessions.add(3);
        counters.sessions_closed[CloseReason::BadFrame as usize].add(2);
        counters.handoffs[HandoffCause::Backend as usize][HandoffResult::Parked as usize].add(5);
        counters.bytes_to_client.add(1_000);
        counters.pause_buckets[0].add(1);
        counters.pause_buckets[PAUSE_BUCKETS.len()].add(1);
        counters.pause_sum_us.add(12_001_000);
    }
    workers
}

#[test]
fn a_scrape_sums_the_workers() {
    let page = metrics(two_workers()).render(Exposition::Prometheus).unwrap();
    for line in [
        "holdfast_sessions 6",
        "holdfast_sessions_closed_total{reason=\"bad_frame\"} 4",
        "holdfast_sessions_closed_total{reason=\"shutdown\"} 0",
        "holdfast_handoffs_total{cause=\"backend\",result=\"parked\"} 10",
        "holdfast_bytes_total{direction=\"to_client\"} 2000",
        "holdfast_handoff_pause_seconds_bucket{le=\"0.001\"} 2",
        "holdfast_handoff_pause_seconds_bucket{le=\"10.0\"} 2",
        "holdfast_handoff_pause_seconds_bucket{le=\"+Inf\"} 4",
        "holdfast_handoff_pause_seconds_count 4",
        "holdfast_handoff_pause_seconds_sum 24.002",
        "holdfast_table_revision 17",
        "holdfast_refused_documents 2",
        "holdfast_held_changes 1",
        "holdfast_rollouts{state=\"running\"} 1",
        "holdfast_rollouts{state=\"aborted\"} 2",
        "holdfast_build_info{version=\"1.2.3\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} isn't in\n{page}");
    }
    let age = page.lines().find_map(|line| line.strip_prefix("holdfast_table_age_seconds ")).unwrap();
    assert!((30.0..40.0).contains(&age.parse::<f64>().unwrap()), "{age}");
}

/// What the page declares, as `(name, type, help)`.
fn declared(page: &str) -> BTreeSet<(String, String, String)> {
    let words = |line: &str| line.splitn(2, ' ').map(str::to_owned).collect::<Vec<_>>();
    let of = |head: &'static str| page.lines().filter_map(move |line| line.strip_prefix(head)).map(words);
    of("# TYPE ")
        .zip(of("# HELP "))
        .map(|(kind, help)| {
            assert_eq!(kind[0], help[0]);
            (kind[0].clone(), kind[1].clone(), help[1].clone())
        })
        .collect()
}

#[test]
fn the_reference_is_what_the_page_shows() {
    let page = metrics(two_workers()).render(Exposition::Prometheus).unwrap();
    let documented: BTreeSet<_> = REFERENCE
        .iter()
        .map(|metric| {
            assert!(!metric.help.is_empty() && !metric.unit.is_empty(), "{}", metric.name);
            let kind = format!("{:?}", metric.kind).to_lowercase();
            (metric.name.to_owned(), kind, metric.help.to_owned())
        })
        .collect();
    assert_eq!(declared(&page), documented);
    assert_eq!(documented.len(), REFERENCE.len(), "a name stands twice");
}

#[test]
fn labels_are_the_documented_ones() {
    let page = metrics(two_workers()).render(Exposition::Prometheus).unwrap();
    for metric in REFERENCE.iter().filter(|metric| metric.kind != Kind::Histogram) {
        let samples: Vec<_> = page
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(metric.name))
            .map(|line| line.matches("=\"").count())
            .collect();
        assert!(!samples.is_empty(), "{} has no sample", metric.name);
        assert!(samples.iter().all(|labels| *labels == metric.labels.len()), "{}", metric.name);
    }
}

#[test]
fn open_metrics_declares_units_and_ends() {
    let page = metrics(two_workers()).render(Exposition::OpenMetrics).unwrap();
    assert!(page.contains("# UNIT holdfast_handoff_pause_seconds seconds\n"));
    assert!(page.contains("# UNIT holdfast_kept_bytes bytes\n"));
    assert!(page.contains("# TYPE holdfast_bytes counter\n# UNIT holdfast_bytes bytes\n"));
    assert!(page.ends_with("# EOF\n"));
}

/// By Prometheus's own linter.
#[test]
fn promtool_accepts_the_page() {
    let page = metrics(two_workers()).render(Exposition::Prometheus).unwrap();
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = promtool.expect("promtool runs: `./dev setup` installs it (Debian's prometheus)");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
