//! The two text formats that a Prometheus asks for.

/// How the page is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposition {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>, for scrapers that name it in `Accept`.
    OpenMetrics,
    /// The text format 0.0.4, which everything understands.
    Prometheus,
}

impl Exposition {
    /// Chooses by a request's `Accept` header.
    #[must_use]
    pub fn for_accept(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics to 0.0.4. There, a counter's HELP and TYPE name the samples (with `_total`), and `# UNIT` and
/// `# EOF` don't exist.
pub(super) fn prometheus(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let counter = [Some(line), lines.peek().copied()].into_iter().flatten().any(is_counter_type);
        match split_metadata(line) {
            Some((head, name, rest)) if counter => {
                page.extend([head, name, "_total ", rest]);
            }
            _ => page.push_str(line),
        }
        page.push('\n');
    }
    page
}

fn is_counter_type(line: &str) -> bool {
    line.starts_with("# TYPE ") && line.ends_with(" counter")
}

/// `# HELP name text` or `# TYPE name kind` as its three parts.
fn split_metadata(line: &str) -> Option<(&str, &str, &str)> {
    let at = "# HELP ".len();
    let (head, rest) =
        line.split_at_checked(at).filter(|(head, _)| matches!(*head, "# HELP " | "# TYPE "))?;
    let (name, rest) = rest.split_once(' ')?;
    Some((head, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_their_samples() {
        let open = "# HELP a_bytes Text\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 1\n\
                    # HELP b Text\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_bytes_total Text\n# TYPE a_bytes_total counter\na_bytes_total 1\n\
                        # HELP b Text\n# TYPE b gauge\nb 2\n";
        assert_eq!(prometheus(open), expected);
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75";
        assert_eq!(Exposition::for_accept(Some(prometheus)), Exposition::OpenMetrics);
        assert_eq!(Exposition::for_accept(Some("*/*")), Exposition::Prometheus);
        assert_eq!(Exposition::for_accept(None), Exposition::Prometheus);
    }
}
