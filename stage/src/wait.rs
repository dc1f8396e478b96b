//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const STEP: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; the error says that `what` didn't come true.
pub fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    until_some(what, within, || Ok(condition().then_some(())))
}

/// Waits until `look` finds something; an error of `look` ends the wait.
pub fn until_some<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {within:?} in vain for: {what}");
        }
        std::thread::sleep(STEP);
    }
}
