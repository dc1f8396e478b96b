//! How long after a moment a line was logged.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

const DAY_S: f64 = 86_400.0;

/// From a moment to a line's timestamp, as `2026-01-31T23:59:59.123456Z`. Both clocks are this machine's; a day is
/// longer than any test.
pub fn since(moment: SystemTime, timestamp: &str) -> Result<Duration> {
    let logged = seconds_of_day(timestamp).with_context(|| format!("the time of day in {timestamp:?}"))?;
    let moment = moment.duration_since(UNIX_EPOCH)?.as_secs_f64() % DAY_S;
    Ok(Duration::from_secs_f64((logged - moment).rem_euclid(DAY_S)))
}

fn seconds_of_day(text: &str) -> Option<f64> {
    let mut parts = text.split_once('T')?.1.strip_suffix('Z')?.split(':');
    let mut part = || parts.next()?.parse::<f64>().ok();
    Some(part()? * 3600.0 + part()? * 60.0 + part()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn midnight_may_lie_between() {
        let moment = UNIX_EPOCH + Duration::from_secs(2 * 86_400 - 1);
        assert_eq!(since(moment, "1970-01-03T00:00:01.500000Z").unwrap(), Duration::from_millis(2500));
        assert!(since(moment, "yesterday").is_err());
    }
}
