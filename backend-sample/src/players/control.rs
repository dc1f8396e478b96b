//! Orders on the way (lines on stdin), and what is said on the way (stdout as JSON, or one live line).

use std::io::{BufRead, IsTerminal, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::players::event::Event;
use crate::players::mischief::Mischief;
use crate::players::report::{Line, Phase, Progress};
use crate::players::swarm::Swarm;

/// One line on stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Begin(String),
    /// It concerns those who are served by this run of a backend.
    BeginAt {
        instance: u64,
        name: String,
    },
    End(String),
    Add {
        count: usize,
        address: Option<SocketAddr>,
    },
    Stats(u64),
    Mischief(Mischief),
    Stop,
}

/// Bounds what a script may pile up; the writer then waits.
const ORDERS_WAITING: usize = 64;
const MAX_PLAYERS_A_TIME: usize = 20_000;

pub type Orders = mpsc::Receiver<Result<Order, String>>;

impl FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let name = || match rest.trim() {
            "" => Err(format!("{word:?}: expected the event's name behind it")),
            name => Ok(name.to_owned()),
        };
        match word {
            "begin" => name().map(Self::Begin),
            "begin-at" => parse_begin_at(rest),
            "end" => name().map(Self::End),
            "add" => parse_add(rest),
            "stats" => Ok(Self::Stats(rest.trim().parse().unwrap_or(0))),
            "stop" => Ok(Self::Stop),
            "slow" | "flood" | "burst" | "leave" => Mischief::parse(word, rest).map(Self::Mischief),
            _ => Err(format!(
                "{word:?}: expected begin NAME, begin-at INSTANCE NAME, end NAME, add N [ADDR], slow, flood, burst, \
                 leave, stats or stop"
            )),
        }
    }
}

fn parse_begin_at(rest: &str) -> Result<Order, String> {
    let (instance, name) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
    match (u64::from_str_radix(instance, 16), name.trim()) {
        (Ok(instance), name) if !name.is_empty() => Ok(Order::BeginAt { instance, name: name.to_owned() }),
        _ => Err(format!("begin-at {rest:?}: expected an instance (hexadecimal) and the event's name")),
    }
}

fn parse_add(rest: &str) -> Result<Order, String> {
    let mut words = rest.split_whitespace();
    let number = words.next().unwrap_or_default();
    let count: usize = number.parse().map_err(|_| format!("add {number:?}: expected a number of players"))?;
    if count > MAX_PLAYERS_A_TIME {
        return Err(format!("add {count}: {MAX_PLAYERS_A_TIME} at most at a time"));
    }
    let parse =
        |text: &str| text.parse().map_err(|_| format!("add: {text:?} is not an address like 127.0.0.1:7000"));
    Ok(Order::Add { count, address: words.next().map(parse).transpose()? })
}

/// Reads stdin on a thread of its own; its end is `stop`.
pub fn from_stdin() -> Orders {
    let (sender, orders) = mpsc::channel(ORDERS_WAITING);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if line.trim().is_empty() {
                continue;
            }
            if sender.blocking_send(line.parse()).is_err() {
                return;
            }
        }
        // Nobody listens any more if the run is over: then there is nothing to stop.
        let _ = sender.blocking_send(Ok(Order::Stop));
    });
    orders
}

/// How progress is told.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
    pub period: Duration,
}

impl Output {
    /// A JSON line on stdout, if that is wanted.
    pub fn say(&self, line: &Line) {
        if self.json
            && let Ok(text) = serde_json::to_string(line)
        {
            // Nobody reads any more: the run goes on, its exit code still counts.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    fn progress(&self, progress: Progress) {
        if !self.json && std::io::stderr().is_terminal() {
            let Progress { connected, sent, replied, moved, lost, repeated, reordered, .. } = progress;
            let (mismatched, disconnects) = (progress.mismatched, progress.disconnects);
            let (in_match, diverged) = (progress.in_match, progress.worlds_diverged);
            eprint!(
                "\r\x1b[K{connected} players, {in_match} in a match, {sent} sent, {replied} answered, {moved} moved | \
                 lost {lost}, repeated {repeated}, reordered {reordered}, mismatched {mismatched}, \
                 disconnects {disconnects}, worlds diverged {diverged}"
            );
        }
        self.say(&Line::Progress(progress));
    }
}

/// Takes orders until the time is over or `stop` comes.
pub(super) async fn conduct(swarm: &Rc<Swarm>, mut orders: Option<Orders>, output: &Output) {
    let end = swarm.settings.play.map(|play| Instant::now() + play);
    let mut beat = tokio::time::interval(output.period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = until(end) => return,
            order = next(&mut orders) => match order {
                None | Some(Ok(Order::Stop)) => return,
                Some(Ok(order)) => take(swarm, order, output).await,
                Some(Err(error)) => complain(output, error),
            },
            _ = beat.tick() => output.progress(swarm.progress()),
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn next(orders: &mut Option<Orders>) -> Option<Result<Order, String>> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

fn complain(output: &Output, error: String) {
    eprintln!("players: {error}");
    output.say(&Line::Error(error));
}

async fn take(swarm: &Rc<Swarm>, order: Order, output: &Output) {
    let now_us = swarm.now_us();
    let event = |name, phase| Line::Event { name, phase, at_ms: now_us / 1000 };
    let begin = |name: String, at| {
        let begun = Event { name: name.clone(), at, begin_us: now_us, end_us: None };
        swarm.events.borrow_mut().push(begun);
        output.say(&event(name, Phase::Begin));
    };
    match order {
        Order::Begin(name) => begin(name, None),
        Order::BeginAt { instance, name } => match swarm.known_backend(instance) {
            Some(backend) => begin(name, Some(backend)),
            None => complain(output, format!("begin-at {instance:016x}: nobody has been served by that one")),
        },
        Order::End(name) => {
            let mut events = swarm.events.borrow_mut();
            match events.iter_mut().rev().find(|event| event.name == name && event.end_us.is_none()) {
                Some(open) => {
                    open.end_us = Some(now_us);
                    output.say(&event(name, Phase::End));
                }
                None => complain(output, format!("end {name:?}: no such event is under way")),
            }
        }
        Order::Add { count, address } => {
            let (connected, failed) = swarm.join(count, address).await;
            output.say(&Line::Added { connected, failed });
        }
        Order::Stats(number) => {
            output.say(&Line::Progress(Progress { answers: Some(number), ..swarm.progress() }));
        }
        Order::Mischief(mischief) => {
            let players = swarm.misbehave(&mischief);
            output.say(&Line::Mischief { players });
        }
        Order::Stop => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_errors_name_what_was_expected() {
        assert_eq!("begin a drain".parse(), Ok(Order::Begin("a drain".into())));
        let name = "a cut".to_owned();
        assert_eq!("begin-at 00ff a cut".parse(), Ok(Order::BeginAt { instance: 255, name }));
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 7000)));
        assert_eq!("add 5 127.0.0.1:7000".parse(), Ok(Order::Add { count: 5, address }));
        assert_eq!("add 5".parse(), Ok(Order::Add { count: 5, address: None }));
        let error = |line: &str| line.parse::<Order>().unwrap_err();
        assert!(error("add x").contains("expected a number"));
        assert!(error("begin").contains("expected the event's name"));
        assert!(error("begin-at 00ff").contains("expected an instance"));
        assert!(error("begin-at a-b cut").contains("expected an instance"));
        assert!(error("dance").contains("expected begin NAME"));
    }
}
