//! The bots as a process, steered over its stdin.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_sample::players::report::Line;

use crate::{Process, Progress, Stage, Verdict, sample_binary};

/// An order is taken within a beat of the bots' thread.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Answers nobody has looked at; the reader then waits, and with it the bots' output.
const ANSWERS_WAITING: usize = 1024;

/// How the bots are started.
#[derive(Debug, Clone)]
pub struct PlayersSpec {
    pub addresses: Vec<SocketAddr>,
    pub count: usize,
    pub rate_hz: f64,
    pub frame_bytes: usize,
    pub closed_loop: bool,
    /// Size of their matches.
    pub matches: Option<usize>,
    pub flags: Vec<String>,
}

impl PlayersSpec {
    /// At 20 Hz with frames of 128 bytes.
    pub fn new(addresses: impl IntoIterator<Item = SocketAddr>, count: usize) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            count,
            rate_hz: 20.0,
            frame_bytes: 128,
            closed_loop: false,
            matches: None,
            flags: Vec::new(),
        }
    }

    #[must_use]
    pub fn rate_hz(self, rate_hz: f64) -> Self {
        Self { rate_hz, ..self }
    }

    #[must_use]
    pub fn closed_loop(self) -> Self {
        Self { closed_loop: true, ..self }
    }

    /// All of them, in matches of so many.
    #[must_use]
    pub fn matches(self, size: usize) -> Self {
        Self { matches: Some(size), ..self }
    }

    #[must_use]
    pub fn flags<'a>(mut self, flags: impl IntoIterator<Item = &'a str>) -> Self {
        self.flags.extend(flags.into_iter().map(str::to_owned));
        self
    }

    fn arguments(&self) -> Vec<String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut arguments = vec![
            "--control".to_owned(),
            "--json".to_owned(),
            format!("--connect={}", addresses.join(",")),
            format!("--count={}", self.count),
            format!("--rate={}", self.rate_hz),
            format!("--size={}", self.frame_bytes),
        ];
        if self.closed_loop {
            arguments.push("--closed-loop".to_owned());
        }
        arguments.extend(self.matches.map(|size| format!("--matches={size}")));
        arguments.extend(self.flags.iter().cloned());
        arguments
    }
}

pub struct Players {
    process: Process,
    orders: Option<ChildStdin>,
    answers: Receiver<Answer>,
    latest: Arc<Mutex<Progress>>,
    asked: u64,
}

enum Answer {
    Line(Line),
    Verdict(Box<Verdict>),
}

impl Players {
    /// Returns when all are connected, each has been answered once, and is in its match if it should be.
    pub fn start(stage: &Stage, spec: &PlayersSpec) -> Result<Self> {
        Self::start_as(stage, "players", spec)
    }

    /// `name` names the log: for several at once.
    pub fn start_as(stage: &Stage, name: &str, spec: &PlayersSpec) -> Result<Self> {
        let mut process = Process::new(stage, name, sample_binary("players")?, spec.arguments()).piped();
        process.start()?;
        let (orders, output) = process.take_pipes().context("the players' pipes")?;
        let latest = Arc::new(Mutex::new(Progress::default()));
        let answers = read(output, latest.clone());
        let mut players = Self { process, orders: Some(orders), answers, latest, asked: 0 };
        let count = spec.count as u64;
        let in_matches = if spec.matches.is_some() { count } else { 0 };
        let everybody = |progress: &Progress| {
            let served: u64 = progress.by_backend.iter().map(|share| share.sessions).sum();
            progress.connected == count && served == count && progress.joins >= in_matches
        };
        players.wait_until(
            "all players are in and have been answered",
            Duration::from_secs(60),
            everybody,
        )?;
        Ok(players)
    }

    /// An event begins now.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.order(&format!("begin {name}"))?;
        self.answer("begin", |line| matches!(line, Line::Event { .. }).then_some(()))
    }

    /// An event begins now that concerns those whom this run of a backend serves, see [`crate::BackendShare`].
    pub fn begin_at(&mut self, instance: &str, name: &str) -> Result<()> {
        self.order(&format!("begin-at {instance} {name}"))?;
        self.answer("begin-at", |line| matches!(line, Line::Event { .. }).then_some(()))
    }

    pub fn end(&mut self, name: &str) -> Result<()> {
        self.order(&format!("end {name}"))?;
        self.answer("end", |line| matches!(line, Line::Event { .. }).then_some(()))
    }

    /// More players come, all to one address or spread as the first; an error if one can't connect.
    pub fn add(&mut self, count: usize, address: Option<SocketAddr>) -> Result<()> {
        let address = address.map(|address| format!(" {address}")).unwrap_or_default();
        self.order(&format!("add {count}{address}"))?;
        let failed = self.answer("add", |line| match line {
            Line::Added { failed, .. } => Some(failed),
            _ => None,
        })?;
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {count} more players couldn't connect"),
        }
    }

    /// `slow`, `flood`, `burst` or `leave`, as the bots take it; returns how many players do it.
    pub fn mischief(&mut self, order: &str) -> Result<u64> {
        self.order(order)?;
        self.answer(order, |line| match line {
            Line::Mischief { players } => Some(players),
            _ => None,
        })
    }

    /// As of now.
    pub fn progress(&mut self) -> Result<Progress> {
        self.asked += 1;
        let asked = self.asked;
        self.order(&format!("stats {asked}"))?;
        self.answer("stats", |line| match line {
            Line::Progress(progress) if progress.answers == Some(asked) => Some(progress),
            _ => None,
        })
    }

    /// What they said last by themselves, at most a quarter of a second ago.
    pub fn latest(&self) -> Progress {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks until `condition` holds; returns the progress for which it did.
    pub fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        condition: impl Fn(&Progress) -> bool,
    ) -> Result<Progress> {
        let deadline = Instant::now() + within;
        loop {
            let progress = self.progress()?;
            if condition(&progress) {
                return Ok(progress);
            }
            if Instant::now() > deadline {
                bail!("waited {within:?} in vain for: {what}; the players' last word: {progress:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops them, and waits for the replies that are owed.
    pub fn finish(mut self) -> Result<Verdict> {
        self.order("stop")?;
        self.orders = None;
        let deadline = Instant::now() + ANSWER_WITHIN;
        let verdict = loop {
            match self.next(deadline, "the verdict")? {
                Answer::Verdict(verdict) => break verdict,
                Answer::Line(_) => {}
            }
        };
        let status = self.process.wait(ANSWER_WITHIN)?;
        if status.success() != verdict.is_clean() {
            bail!("the players ended with {status}, their verdict: {verdict:?}");
        }
        Ok(*verdict)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn order(&mut self, line: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("the players are stopped already")?;
        writeln!(orders, "{line}").with_context(|| format!("telling the players {line:?}"))
    }

    fn answer<T>(&mut self, order: &str, mut wanted: impl FnMut(Line) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            match self.next(deadline, order)? {
                Answer::Line(Line::Error(error)) => bail!("the players: {error}"),
                Answer::Line(line) => {
                    if let Some(found) = wanted(line) {
                        return Ok(found);
                    }
                }
                Answer::Verdict(verdict) => bail!("{order}: the players ended early: {verdict:?}"),
            }
        }
    }

    fn next(&mut self, deadline: Instant, awaited: &str) -> Result<Answer> {
        match self.answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => bail!("the players didn't answer in time: {awaited}"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the players ended without an answer to {awaited}:\n{}", self.process.log())
            }
        }
    }
}

/// A thread that ends with the players' output.
fn read(output: ChildStdout, latest: Arc<Mutex<Progress>>) -> Receiver<Answer> {
    let (sender, answers) = sync_channel(ANSWERS_WAITING);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let answer = match serde_json::from_str::<Line>(&line) {
                Ok(Line::Progress(progress)) if progress.answers.is_none() => {
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = progress;
                    continue;
                }
                Ok(line) => Answer::Line(line),
                Err(_) => match serde_json::from_str(&line) {
                    Ok(verdict) => Answer::Verdict(Box::new(verdict)),
                    Err(error) => Answer::Line(Line::Error(format!("{error} in {line:?}"))),
                },
            };
            if sender.send(answer).is_err() {
                return;
            }
        }
    });
    answers
}
