//! What a process has used so far, by the operating system's accounting.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Players;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads, in the kernel's ticks (10 ms).
    pub cpu: Duration,
    pub rss_bytes: u64,
}

/// From `/proc/<pid>/stat`.
pub fn usage(pid: u32) -> Result<Usage> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    parse(&text).with_context(|| format!("{path}: unexpected content {text:?}"))
}

fn parse(text: &str) -> Option<Usage> {
    // The second field is the name in parentheses, which may hold anything; the third follows the last ')'.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let cpu = ticks(field(14)? + field(15)?);
    Some(Usage { cpu, rss_bytes: field(24)? * rustix::param::page_size() as u64 })
}

/// What this machine's processors have done so far.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// Work of any kind, over all processors.
    busy: Duration,
    /// Ours, and that of children that have ended and were waited for.
    own: Duration,
}

impl Machine {
    /// From `/proc/stat` and `/proc/self/stat`.
    pub fn now() -> Result<Self> {
        let (path, own_path) = ("/proc/stat", "/proc/self/stat");
        let text = std::fs::read_to_string(path).context(path)?;
        let own = std::fs::read_to_string(own_path).context(own_path)?;
        Ok(Self {
            busy: parse_busy(&text).with_context(|| format!("{path}: unexpected content"))?,
            own: parse_own(&own).with_context(|| format!("{own_path}: unexpected content"))?,
        })
    }

    /// How many processors others kept busy on average since an earlier look, `elapsed` ago.
    pub fn others_since(&self, earlier: &Self, elapsed: Duration) -> f64 {
        let others = (self.busy - earlier.busy).saturating_sub(self.own - earlier.own);
        others.as_secs_f64() / elapsed.as_secs_f64()
    }
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal, ...
fn parse_busy(text: &str) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields = line.split_whitespace().map(|field| field.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let busy: u64 =
        fields.iter().take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|it| it.1).sum();
    Some(ticks(busy))
}

fn parse_own(text: &str) -> Option<Duration> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(ticks(field(14)? + field(15)? + field(16)? + field(17)?))
}

fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A stretch of steady play.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// Round trips: frames that got their reply.
    pub frames: u64,
    /// What each process used meanwhile.
    pub cpu: Vec<Duration>,
}

impl Metered {
    /// CPU of the process at `index`, in microseconds a round trip.
    pub fn cpu_us_per_frame(&self, index: usize) -> f64 {
        self.cpu[index].as_secs_f64() * 1e6 / self.frames.max(1) as f64
    }
}

/// Lets play go on for so long, and reads the books of these processes before and after.
pub fn meter(players: &mut Players, pids: &[u32], play: Duration) -> Result<Metered> {
    let read = || pids.iter().map(|pid| Ok(usage(*pid)?.cpu)).collect::<Result<Vec<_>>>();
    let (first, before) = (players.progress()?, read()?);
    std::thread::sleep(play);
    let (last, after) = (players.progress()?, read()?);
    let cpu = before.into_iter().zip(after).map(|(before, after)| after - before).collect();
    Ok(Metered { frames: last.replied - first.replied, cpu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_time_and_memory() {
        let before = usage(std::process::id()).unwrap();
        let mut sum = 0u64;
        let used = loop {
            sum = (0..1_000_000u64).fold(sum, |sum, number| std::hint::black_box(sum.wrapping_add(number)));
            let now = usage(std::process::id()).unwrap();
            if now.cpu > before.cpu {
                break now;
            }
        };
        assert!(used.rss_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn the_machines_work_is_all_but_idling_and_waiting() {
        let second = rustix::param::clock_ticks_per_second();
        let text = format!("cpu  {second} 0 {second} 99 99 0 0 {second} 7 7\ncpu0 1 2 3\n");
        assert_eq!(parse_busy(&text), Some(Duration::from_secs(3)));
        let (before, after) = (Machine::now().unwrap(), Machine::now().unwrap());
        assert!(after.others_since(&before, Duration::from_secs(1)) >= 0.0);
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_skipped() {
        let rest = "S 1 1 1 0 -1 4194304 1 0 0 0 30 20 0 0 20 0 1 0 100 4096 7 0";
        let usage = parse(&format!("42 (a) b (c) {rest}")).unwrap();
        assert_eq!(usage.rss_bytes, 7 * rustix::param::page_size() as u64);
        assert!(usage.cpu > Duration::ZERO);
    }
}
