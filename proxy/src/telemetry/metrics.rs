//! The `/metrics` page. Per-worker counters are summed when scraped; nothing is aggregated before.

mod reference;
mod text;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{
    APPLY_BUCKETS, Breaker, Cell, ClaimResult, CloseReason, Counters, Faults, HandoffCause, HandoffResult,
    Kept, Likeness, Limit, MirrorEnd, PAUSE_BUCKETS,
};
use super::tracer::SpanStats;
use crate::drain::progress::State;
use crate::events::EventsView;
use crate::health::HealthView;
use crate::routing::fitness::UnfitCause;
pub use reference::{Kind, Metric, REFERENCE};
pub use text::Exposition;

/// What the control plane knows at the moment of a scrape.
#[derive(Debug, Clone, Default)]
pub struct ControlView {
    pub table_revision: u64,
    pub refused_documents: u64,
    /// Services that a change of is held.
    pub held_changes: u64,
    /// By the index of their state.
    pub rollouts: [u64; crate::rollout::State::ALL.len()],
    /// When the source was last heard, unless it is connected now.
    pub silent_since: Option<SystemTime>,
    pub health: HealthView,
    /// By action and result.
    pub hooks: Vec<([(&'static str, &'static str); 2], u64)>,
    pub events: EventsView,
}

/// Everything that a scrape reads.
pub struct MetricsSources {
    pub workers: Vec<Arc<Counters>>,
    pub spans: Arc<SpanStats>,
    pub control: Box<dyn Fn() -> ControlView + Send + Sync>,
    pub started_at: SystemTime,
    pub version: &'static str,
}

impl fmt::Debug for MetricsSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSources").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// Renders the page.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    #[must_use]
    pub fn new(sources: MetricsSources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self { registry }
    }

    /// The page in the format that the scraper's `Accept` header asks for.
    ///
    /// # Errors
    /// Only when a metric can't be written, which is a bug in the collector.
    pub fn render(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(8 * 1024);
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(match exposition {
            Exposition::OpenMetrics => page,
            Exposition::Prometheus => text::prometheus(&page),
        })
    }
}

impl Collector for MetricsSources {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page { encoder };
        self.encode_sessions(&mut page)?;
        self.encode_mirrors(&mut page)?;
        self.encode_bounds(&mut page)?;
        self.encode_handoffs(&mut page)?;
        self.encode_recovery(&mut page)?;
        self.encode_frames(&mut page)?;
        self.encode_links(&mut page)?;
        self.encode_control(&mut page)?;
        self.encode_process(&mut page)
    }
}

impl MetricsSources {
    fn sum(&self, cell: impl Fn(&Counters) -> &Cell) -> u64 {
        self.workers.iter().fold(0, |sum, counters| sum.wrapping_add(cell(counters).get()))
    }

    fn encode_sessions(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(&reference::SESSIONS, self.sum(|c| &c.sessions))?;
        page.counter(&reference::SESSIONS_OPENED, self.sum(|c| &c.sessions_opened))?;
        page.counters(
            &reference::SESSIONS_CLOSED,
            CloseReason::ALL.map(|reason| {
                ([("reason", reason.name())], self.sum(|c| &c.sessions_closed[reason as usize]))
            }),
        )?;
        page.gauge(&reference::PARKED, self.sum(|c| &c.parked))?;
        page.gauge(&reference::GROUPS, self.sum(|c| &c.groups))?;
        page.gauge(&reference::GROUP_MEMBERS, self.sum(|c| &c.group_members))?;
        page.counters(
            &reference::GROUP_CLAIMS,
            ClaimResult::ALL
                .map(|result| ([("result", result.name())], self.sum(|c| &c.group_claims[result as usize]))),
        )?;
        page.counter(&reference::JOINS_REFUSED, self.sum(|c| &c.joins_refused))?;
        page.counter(&reference::STATES_DROPPED, self.sum(|c| &c.states_dropped))
    }

    fn encode_mirrors(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(&reference::MIRRORS, self.sum(|c| &c.mirrors))?;
        page.counter(&reference::MIRRORED_FRAMES, self.sum(|c| &c.mirrored_frames))?;
        let ended = MirrorEnd::ALL
            .map(|end| ([("reason", end.name())], self.sum(|c| &c.mirrors_ended[end as usize])));
        page.counters(&reference::MIRRORS_ENDED, ended)?;
        let replies = Likeness::ALL.map(|likeness| {
            ([("result", likeness.name())], self.sum(|c| &c.mirror_replies[likeness as usize]))
        });
        page.counters(&reference::MIRROR_REPLIES, replies)
    }

    /// What is bounded, beside its bound.
    fn encode_bounds(&self, page: &mut Page<'_>) -> fmt::Result {
        let kept =
            Kept::ALL.map(|kind| ([("kind", kind.name())], self.sum(|c| &c.kept_by_kind[kind as usize])));
        page.gauges(&reference::KEPT_BYTES, kept)?;
        let limits =
            Limit::ALL.map(|limit| ([("limit", limit.name())], self.sum(|c| &c.limits[limit as usize])));
        page.gauges(&reference::LIMIT, limits)?;
        let open = Breaker::ALL
            .map(|breaker| ([("breaker", breaker.name())], self.sum(|c| &c.breakers[breaker as usize])));
        page.gauges(&reference::BREAKERS_OPEN, open)?;
        let unread = [
            ([("bound", "window")], self.sum(|c| &c.unread_by_window)),
            ([("bound", "worker")], self.sum(|c| &c.unread_by_worker)),
        ];
        page.gauges(&reference::UNREAD_CLIENTS, unread)?;
        page.gauge(&reference::LINGERING, self.sum(|c| &c.lingering))?;
        page.counter(&reference::LINGERS_CUT, self.sum(|c| &c.lingers_cut))?;
        page.gauge(&reference::TLS_HANDSHAKES, self.sum(|c| &c.tls_handshakes))
    }

    fn encode_handoffs(&self, page: &mut Page<'_>) -> fmt::Result {
        let series = HandoffCause::ALL.into_iter().flat_map(|cause| {
            HandoffResult::ALL.map(|result| {
                let labels = [("cause", cause.name()), ("result", result.name())];
                (labels, self.sum(|c| &c.handoffs[cause as usize][result as usize]))
            })
        });
        page.counters(&reference::HANDOFFS, series)?;
        let drains = State::ALL
            .map(|state| ([("state", state.name())], self.sum(|counters| &counters.drains[state as usize])));
        page.gauges(&reference::DRAINS, drains)?;
        page.gauge(&reference::DRAIN_LEFT, self.sum(|c| &c.drain_left))?;
        page.gauge(&reference::DRAIN_IN_FLIGHT, self.sum(|c| &c.drain_in_flight))?;
        page.gauge(&reference::DRAIN_HOMELESS, self.sum(|c| &c.drain_homeless))?;
        page.gauge(&reference::REBALANCING, self.sum(|c| &c.rebalancing))?;
        let bounds = PAUSE_BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.enumerate().map(|(index, bound)| (bound, self.sum(|c| &c.pause_buckets[index]))).collect();
        let sum_seconds = self.sum(|c| &c.pause_sum_us) as f64 / 1e6;
        page.histogram(&reference::HANDOFF_PAUSE, sum_seconds, &buckets)
    }

    fn encode_frames(&self, page: &mut Page<'_>) -> fmt::Result {
        const TO_BACKEND: [(&str, &str); 1] = [("direction", "to_backend")];
        const TO_CLIENT: [(&str, &str); 1] = [("direction", "to_client")];
        let frames = [
            (TO_BACKEND, self.sum(|c| &c.frames_to_backend)),
            (TO_CLIENT, self.sum(|c| &c.frames_to_client)),
        ];
        page.counters(&reference::FRAMES, frames)?;
        let bytes =
            [(TO_BACKEND, self.sum(|c| &c.bytes_to_backend)), (TO_CLIENT, self.sum(|c| &c.bytes_to_client))];
        page.counters(&reference::BYTES, bytes)?;
        page.counter(&reference::FRAMES_AGAIN, self.sum(|c| &c.frames_again))?;
        page.counter(&reference::FRAMES_LOST, self.sum(|c| &c.frames_lost))
    }

    fn encode_links(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(&reference::LINKS, self.sum(|c| &c.links_up))?;
        page.counter(&reference::LINKS_LOST, self.sum(|c| &c.links_lost))?;
        page.counter(&reference::STALE_MESSAGES, self.sum(|c| &c.stale_messages))?;
        let faults =
            [("session", self.faults(|c| &c.session_faults)), ("link", self.faults(|c| &c.link_faults))];
        let series = faults.into_iter().flat_map(|(scope, rules)| {
            rules.into_iter().map(move |(rule, count)| ([("scope", scope), ("rule", rule)], count))
        });
        page.counters(&reference::FAULTS, series)
    }

    /// Every rule's name, and how often it was broken.
    fn faults(&self, of: impl Fn(&Counters) -> &Faults) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<_> = Faults::default().cells().map(|(rule, _)| (rule, 0)).collect();
        for counters in &self.workers {
            for (sum, (_, cell)) in sums.iter_mut().zip(of(counters).cells()) {
                sum.1 = u64::wrapping_add(sum.1, cell.get());
            }
        }
        sums
    }

    fn encode_recovery(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter(&reference::CHECKPOINTS, self.sum(|c| &c.checkpoints))?;
        page.counter(&reference::CHECKPOINT_BYTES, self.sum(|c| &c.checkpoint_bytes))?;
        page.counter(&reference::RECORDS, self.sum(|c| &c.records))?;
        page.gauge(&reference::RECOVERING, self.sum(|c| &c.recovering))?;
        page.gauge(&reference::UNPROTECTED, self.sum(|c| &c.unprotected))?;
        page.counter(&reference::DIVERGED, self.sum(|c| &c.diverged))?;
        page.counter(&reference::POISONED, self.sum(|c| &c.poisoned))
    }

    fn encode_control(&self, page: &mut Page<'_>) -> fmt::Result {
        let view = (self.control)();
        page.gauge(&reference::TABLE_REVISION, view.table_revision)?;
        let age = view.silent_since.and_then(|since| since.elapsed().ok()).unwrap_or_default();
        page.gauge_f64(&reference::TABLE_AGE, age.as_secs_f64())?;
        let bounds = APPLY_BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<_> =
            bounds.enumerate().map(|(index, bound)| (bound, self.sum(|c| &c.apply_buckets[index]))).collect();
        page.histogram(&reference::TABLE_APPLY, self.sum(|c| &c.apply_sum_us) as f64 / 1e6, &buckets)?;
        page.gauge(&reference::REFUSED_DOCUMENTS, view.refused_documents)?;
        page.gauge(&reference::HELD_CHANGES, view.held_changes)?;
        page.gauges(
            &reference::ROLLOUTS,
            crate::rollout::State::ALL
                .map(|state| ([("state", state.name())], view.rollouts[state as usize])),
        )?;
        self.encode_health(page, &view.health)?;
        page.counters(&reference::HOOKS, view.hooks)?;
        let EventsView { sent, dropped, failed } = view.events;
        let events = [("sent", sent), ("dropped", dropped), ("failed", failed)];
        page.counters(&reference::EVENTS, events.map(|(result, count)| ([("result", result)], count)))?;
        page.counter(&reference::SPANS_EXPORTED, self.spans.exported())?;
        page.counter(&reference::SPANS_DROPPED, self.spans.dropped())
    }

    fn encode_health(&self, page: &mut Page<'_>, health: &HealthView) -> fmt::Result {
        let unfit = UnfitCause::ALL.map(|cause| ([("cause", cause.name())], health.unfit[cause as usize]));
        page.gauges(&reference::UNFIT_BACKENDS, unfit)?;
        let checks =
            [([("result", "passed")], health.checks_passed), ([("result", "failed")], health.checks_failed)];
        page.counters(&reference::CHECKS, checks)?;
        page.counter(&reference::EJECTIONS, health.ejections)
    }

    fn encode_process(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge_with(&reference::BUILD_INFO, [("version", self.version)], 1)?;
        let started = self.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.gauge_f64(&reference::START_TIME, started.as_secs_f64())?;
        page.gauge(&reference::RESIDENT_MEMORY, resident_memory_bytes().unwrap_or(0))
    }
}

/// From the kernel's accounting; none where `/proc` is missing.
fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Writes documented metrics only: each call takes its entry of the reference.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn counter(&mut self, metric: &Metric, value: u64) -> fmt::Result {
        self.encode(metric, |encoder| ConstCounter::new(value).encode(encoder))
    }

    fn counters<'l, const N: usize>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.encode(metric, |mut encoder| {
            series.into_iter().try_for_each(|(labels, value)| {
                ConstCounter::new(value).encode(encoder.encode_family(&labels)?)
            })
        })
    }

    fn gauge(&mut self, metric: &Metric, value: u64) -> fmt::Result {
        self.encode(metric, |encoder| ConstGauge::new(value).encode(encoder))
    }

    fn gauges<'l, const N: usize>(
        &mut self,
        metric: &Metric,
        series: impl IntoIterator<Item = ([(&'l str, &'l str); N], u64)>,
    ) -> fmt::Result {
        self.encode(metric, |mut encoder| {
            series.into_iter().try_for_each(|(labels, value)| {
                ConstGauge::new(value).encode(encoder.encode_family(&labels)?)
            })
        })
    }

    fn gauge_f64(&mut self, metric: &Metric, value: f64) -> fmt::Result {
        self.encode(metric, |encoder| ConstGauge::new(value).encode(encoder))
    }

    fn gauge_with(&mut self, metric: &Metric, labels: [(&str, &str); 1], value: u64) -> fmt::Result {
        self.encode(metric, |mut encoder| ConstGauge::new(value).encode(encoder.encode_family(&labels)?))
    }

    fn histogram(&mut self, metric: &Metric, sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().fold(0u64, |count, (_, in_bucket)| count.wrapping_add(*in_bucket));
        self.encode(metric, |mut encoder| {
            encoder.encode_histogram::<[(&str, &str); 0]>(sum, count, buckets, None)
        })
    }

    fn encode(
        &mut self,
        metric: &Metric,
        write: impl FnOnce(prometheus_client::encoding::MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        // The encoder appends the unit and `_total` itself.
        let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let (name, unit) = match metric.unit {
            "seconds" => (name.strip_suffix("_seconds").unwrap_or(name), Some(Unit::Seconds)),
            "bytes" => (name.strip_suffix("_bytes").unwrap_or(name), Some(Unit::Bytes)),
            _ => (name, None),
        };
        write(self.encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?)
    }
}

#[cfg(test)]
#[path = "metrics/tests.rs"]
mod tests;
