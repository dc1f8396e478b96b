//! What the audience sees: lines that stay, and under them, on a terminal, a table that lives.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use holdfast_stage::Progress;

/// Widest bar, in players' shares.
const BAR_WIDTH: u64 = 40;
const REDRAW_EVERY: Duration = Duration::from_millis(100);

pub struct Screen {
    started: Instant,
    terminal: bool,
    /// Lines of the live table that stand below the last lasting line.
    drawn: usize,
    drawn_at: Option<Instant>,
}

/// A backend as the audience knows it.
pub struct Cast<'a> {
    pub name: &'a str,
    pub version: &'a str,
}

impl Screen {
    pub fn new() -> Self {
        Self { started: Instant::now(), terminal: stderr().is_terminal(), drawn: 0, drawn_at: None }
    }

    /// A line that stays. Who reads it is a person: if nobody can, the show goes on.
    pub fn say(&mut self, line: &str) {
        self.erase();
        let _ = writeln!(stderr(), "{line}");
    }

    /// The same with the time before it.
    pub fn tell(&mut self, line: &str) {
        let seconds = self.started.elapsed().as_secs_f32();
        self.say(&format!("{seconds:>6.1} s  {line}"));
    }

    pub fn title(&mut self, line: &str) {
        match self.terminal {
            true => self.say(&format!("\n\x1b[1m{line}\x1b[0m")),
            false => self.say(&format!("\n{line}")),
        }
    }

    /// Redraws the live table, if there is a terminal and it's time.
    pub fn show(&mut self, progress: &Progress, cast: &[Cast<'_>]) {
        if !self.terminal || self.drawn_at.is_some_and(|at| at.elapsed() < REDRAW_EVERY) {
            return;
        }
        self.erase();
        let lines = table(progress, cast);
        let _ = writeln!(stderr(), "{}", lines.join("\n"));
        self.drawn = lines.len();
        self.drawn_at = Some(Instant::now());
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            let _ = write!(stderr(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
        self.drawn_at = None;
    }
}

fn table(progress: &Progress, cast: &[Cast<'_>]) -> Vec<String> {
    let total = progress.connected.max(1);
    let mut lines = vec![String::new()];
    for Cast { name, version } in cast {
        let players = players_at(progress, version);
        let bar = "█".repeat((players * BAR_WIDTH / total) as usize);
        lines.push(format!("    {name:<9} {version:<5} {players:>5} players  {bar}"));
    }
    lines.push(String::new());
    let Progress { sent, lost, repeated, reordered, disconnects, .. } = progress;
    lines.push(format!(
        "    {sent} frames   lost {lost}   repeated {repeated}   reordered {reordered}   disconnects {disconnects}"
    ));
    lines
}

/// Who plays at a version, whichever run of it.
pub fn players_at(progress: &Progress, version: &str) -> u64 {
    progress.by_backend.iter().filter(|share| share.version == version).map(|share| share.sessions).sum()
}
