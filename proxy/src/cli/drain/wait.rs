//! The wait for a drain's end: over all proxies where the order is a key, else by this proxy's and the backend's count.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::super::client::{Client, ClientError};
use super::super::output::count;
use super::nobody_else;
use crate::admin::view::{DrainAnswer, DrainState, DrainStatusView, ProxyDrainView};

const POLL: Duration = Duration::from_millis(200);
/// Proxies that a line names.
const NAMED: usize = 3;

/// Looks until the backend is empty, the drain is lifted, or the deadline has passed; returns the last look.
pub(super) async fn until_empty(
    client: &Client,
    order: &DrainAnswer,
    deadline: Instant,
) -> Result<DrainStatusView, ClientError> {
    let revision = order.revision.map(|revision| format!("&revision={revision}")).unwrap_or_default();
    let path = format!("/drain?backend={}{revision}", order.backend);
    // It has been said with the order already.
    let mut lines = Lines { warned: order.others == Some(0), shown: None };
    let mut last = None;
    loop {
        match client.get::<DrainStatusView>(&path).await {
            Ok(view) if matches!(view.state, DrainState::Empty | DrainState::Lifted) => {
                lines.end();
                return Ok(view);
            }
            Ok(view) => {
                lines.show(&view);
                last = Some(view);
            }
            // A worker too busy to answer, or an etcd that is away, in the middle of a drain, is no reason to give up.
            Err(ClientError::Refused { status: 503, text }) if Instant::now() < deadline => {
                lines.change(format!("{}: can't tell how far it is: {text}", order.backend));
            }
            Err(error) => match last {
                Some(view) if Instant::now() >= deadline => return Ok(view),
                _ => return Err(error),
            },
        }
        if Instant::now() >= deadline
            && let Some(view) = last.take()
        {
            lines.end();
            return Ok(view);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far it is, in a line.
pub(in super::super) fn render_progress(view: &DrainStatusView) -> String {
    let mut line = format!("{}: {}", view.backend, render_left(view));
    let moving = view.in_flight + view.proxies.iter().map(|proxy| proxy.in_flight).sum::<u64>();
    if moving > 0 {
        line.push_str(&format!(", {moving} on their way"));
    }
    if let Some(what) = &view.waits_for {
        line.push_str(&format!("; waits for {what}"));
    }
    line
}

/// `20 sessions left (12 here, 8 at host-b)`
fn render_left(view: &DrainStatusView) -> String {
    let mut text = format!("{} left", count(view.left, "session"));
    let elsewhere: Vec<&ProxyDrainView> = view.proxies.iter().filter(|proxy| proxy.sessions > 0).collect();
    if !elsewhere.is_empty() {
        let named =
            elsewhere.iter().take(NAMED).map(|proxy| format!("{} at {}", proxy.sessions, proxy.proxy));
        let places: Vec<_> = std::iter::once(format!("{} here", view.sessions)).chain(named).collect();
        let more = elsewhere.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and more at {more} others") } else { String::new() };
        text.push_str(&format!(" ({}{more})", places.join(", ")));
    }
    text
}

/// The last word.
pub(in super::super) fn render_end(order: &DrainAnswer, view: &DrainStatusView, took: Duration) -> String {
    let (backend, took) = (&view.backend, took.as_secs_f64());
    let whole = order.revision.is_some();
    let local = if whole { "" } else { " --local" };
    match view.state {
        DrainState::Empty => {
            let who = match (whole, view.attachments) {
                (true, _) => "no proxy has a session there",
                (false, Some(_)) => "this proxy has no session there, and the backend counts none",
                (false, None) => {
                    "this proxy has no session there; the backend, which can't be asked, may have others"
                }
            };
            format!("{backend} is empty after {took:.1} s: {who}\n")
        }
        DrainState::Lifted => {
            format!("the drain of {backend} was lifted after {took:.1} s, with {}\n", render_left(view))
        }
        DrainState::Ordered | DrainState::Draining | DrainState::Stuck => {
            let why =
                view.waits_for.as_ref().map(|what| format!("; it waits for {what}")).unwrap_or_default();
            format!(
                "{backend} isn't empty at the deadline, after {took:.1} s: {}{why}\n\
                 They stay there, and no new ones come. Another try: holdfast drain {backend}{local} --wait\n\
                 More: holdfast status      lift it: holdfast undrain {backend}{local}\n",
                render_left(view)
            )
        }
    }
}

/// Progress on stderr: one line that changes on a terminal, a line per change elsewhere.
#[derive(Debug)]
struct Lines {
    shown: Option<String>,
    /// That nobody can take the sessions has been said.
    warned: bool,
}

impl Lines {
    fn show(&mut self, view: &DrainStatusView) {
        let is_stuck = view.state == DrainState::Stuck;
        if is_stuck && !self.warned {
            self.end();
            eprintln!("{}", nobody_else(&view.backend));
        }
        self.warned |= is_stuck;
        self.change(render_progress(view));
    }

    fn change(&mut self, line: String) {
        if self.shown.as_ref() == Some(&line) {
            return;
        }
        let mut stderr = std::io::stderr().lock();
        // Progress that can't be shown is no reason to stop waiting.
        let _ =
            if stderr.is_terminal() { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
        self.shown = Some(line);
    }

    fn end(&self) {
        let mut stderr = std::io::stderr().lock();
        if self.shown.is_some() && stderr.is_terminal() {
            let _ = write!(stderr, "\r\x1b[K");
        }
    }
}
