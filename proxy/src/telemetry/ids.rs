//! Trace and span ids, and the decision what is sampled. One generator a worker: no lock, no system call.

use holdfast_protocol::TraceContext;

/// Makes ids. Not for secrets: session and instance ids come from the operating system.
#[derive(Debug, Clone)]
pub struct Ids {
    random: fastrand::Rng,
}

impl Default for Ids {
    fn default() -> Self {
        Self { random: fastrand::Rng::new() }
    }
}

impl Ids {
    /// The same ids at every run, for tests.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed) }
    }

    /// Never all zero, which W3C Trace Context calls invalid.
    pub fn trace_id(&mut self) -> [u8; 16] {
        self.random.u128(1..).to_be_bytes()
    }

    /// Never all zero, which W3C Trace Context calls invalid.
    pub fn span_id(&mut self) -> [u8; 8] {
        self.random.u64(1..).to_be_bytes()
    }

    /// Whether a new trace is to be sampled, at a ratio from 0 to 1; anything that isn't above 0 is never.
    pub fn sample(&mut self, ratio: f64) -> bool {
        // `f64()` is in [0, 1): a ratio of 1 always holds, 0 (or a NaN) never.
        self.random.f64() < ratio
    }

    /// The context of a span that begins a trace.
    pub fn root(&mut self, ratio: f64) -> TraceContext {
        TraceContext { trace_id: self.trace_id(), span_id: self.span_id(), sampled: self.sample(ratio) }
    }

    /// The context of a child: its parent's trace and its parent's decision. A parent that is "none" makes a root.
    pub fn child(&mut self, parent: &TraceContext, ratio: f64) -> TraceContext {
        if parent.trace_id == [0; 16] {
            return self.root(ratio);
        }
        TraceContext { trace_id: parent.trace_id, span_id: self.span_id(), sampled: parent.sampled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_zero_and_differ() {
        let mut ids = Ids::with_seed(1);
        let made: std::collections::HashSet<_> = (0..10_000).map(|_| ids.trace_id()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(!made.contains(&[0; 16]));
        assert!((0..10_000).all(|_| ids.span_id() != [0; 8]));
    }

    #[test]
    fn the_ratio_is_kept() {
        let mut ids = Ids::with_seed(2);
        let mut sampled = |ratio| (0..20_000).filter(|_| ids.sample(ratio)).count();
        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 20_000);
        assert_eq!(sampled(f64::NAN), 0);
        assert!((1_700..2_300).contains(&sampled(0.1)));
    }

    #[test]
    fn a_child_follows_its_parent() {
        let mut ids = Ids::with_seed(3);
        let parent = TraceContext { sampled: true, ..ids.root(0.0) };
        let child = ids.child(&parent, 0.0);
        assert_eq!((child.trace_id, child.sampled), (parent.trace_id, true));
        assert_ne!(child.span_id, parent.span_id);
        let unsampled = TraceContext { sampled: false, ..parent };
        assert!(!ids.child(&unsampled, 1.0).sampled);
        assert!(ids.child(&TraceContext::default(), 1.0).sampled, "no parent: a root, by the ratio");
    }
}
