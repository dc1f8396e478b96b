//! The four events, in order. Each tells what the operator does, does it, and checks that it really happened.

use std::time::Duration;

use anyhow::Result;
use holdfast_stage::Progress;
use serde_json::json;

use crate::screen::players_at;
use crate::theatre::{Theatre, VERSIONS, route};

const LATE_PLAYERS: usize = 100;
/// New shares of the two versions, in percent.
const NEW_SHARES: [u32; 2] = [80, 20];
/// Of a hundred players, 80 expected: fewer than 60 would be off by five standard deviations.
const LEAST_AT_FIRST: u64 = 60;
/// A game server that is told to end gives up its players first.
const END_WITHIN: Duration = Duration::from_secs(30);

pub fn perform(theatre: &mut Theatre) -> Result<()> {
    drain(theatre)?;
    restart(theatre)?;
    shift(theatre)?;
    drain_back(theatre)?;
    show_trace(theatre)
}

/// All of a's players go to b.
fn drain(theatre: &mut Theatre) -> Result<()> {
    let at_a = players_at(&theatre.quiet()?, VERSIONS[0]);
    theatre.screen.title("1. A drain: game server a is to be replaced");
    let key = theatre.arenas[0].drain_key();
    empty(theatre, "drain", at_a, VERSIONS[0], |theatre| {
        theatre.put(&key, &json!({"deadline_s": 60, "reason": "deploy"}))
    })
}

/// b ends with everybody on it, while nobody else may take them, and comes back.
fn restart(theatre: &mut Theatre) -> Result<()> {
    let everybody = theatre.quiet()?.connected;
    theatre
        .screen
        .title("2. A restart in place: game server b ends with everybody on it, and a may not help");
    theatre.players()?.begin("restart in place")?;
    theatre
        .screen
        .tell("SIGTERM to game server b. The proxies take its players' state and hold their connections.");
    let process = theatre.arenas[1].process();
    process.terminate()?;
    let status = process.wait(END_WITHIN)?;
    theatre
        .screen
        .tell(&format!("It has ended ({status}). {everybody} players are still connected, to no game."));
    if !status.success() {
        theatre.failures.push(format!("restart in place: the game server ended with {status}"));
    }
    theatre.arenas[1].start_again()?;
    theatre.screen.tell("It is back, and the players with it.");
    let back = |progress: &Progress| progress.moved == everybody;
    theatre.watch(&format!("all {everybody} players play on at the new process"), back)?;
    theatre.players()?.end("restart in place")
}

/// a may take players again, and gets most of the new ones.
fn shift(theatre: &mut Theatre) -> Result<()> {
    theatre.screen.title("3. A weight shift: a is back in play, and gets 80 of 100 new players");
    let key = theatre.arenas[0].drain_key();
    theatre.and_applied(|theatre| theatre.delete(&key))?;
    let before = theatre.quiet()?;
    theatre.players()?.begin("weight shift")?;
    let [first, second] = NEW_SHARES;
    theatre.and_applied(|theatre| theatre.put("routes/public", &route(first, second)))?;
    theatre.players()?.add(LATE_PLAYERS, None)?;
    let wanted = before.connected + LATE_PLAYERS as u64;
    let served =
        |progress: &Progress| VERSIONS.iter().map(|it| players_at(progress, it)).sum::<u64>() == wanted;
    let after = theatre.watch(&format!("all {wanted} players have been answered"), served)?;
    theatre.players()?.end("weight shift")?;
    let [at_a, at_b] = VERSIONS.map(|it| players_at(&after, it).saturating_sub(players_at(&before, it)));
    theatre.screen.tell(&format!(
        "{LATE_PLAYERS} more players have come: {at_a} to a, {at_b} to b. Who was there stays where they were."
    ));
    if at_a < LEAST_AT_FIRST {
        theatre
            .failures
            .push(format!("weight shift: {at_a} of {LATE_PLAYERS} new players went to a, expected 80"));
    }
    if after.moved > 0 {
        theatre.failures.push(format!("weight shift: {} players were moved by it", after.moved));
    }
    Ok(())
}

/// All of b's players go to a.
fn drain_back(theatre: &mut Theatre) -> Result<()> {
    let at_b = players_at(&theatre.quiet()?, VERSIONS[1]);
    theatre.screen.title("4. A drain back: everybody to game server a");
    let key = theatre.arenas[1].drain_key();
    empty(theatre, "drain back", at_b, VERSIONS[1], |theatre| {
        theatre.put(&key, &json!({"deadline_s": 60, "reason": "back to a"}))
    })?;
    theatre.quiet()?;
    Ok(())
}

/// An event after which nobody plays at that version any more.
fn empty(
    theatre: &mut Theatre,
    name: &str,
    players: u64,
    version: &str,
    act: impl FnOnce(&mut Theatre) -> Result<()>,
) -> Result<()> {
    if players == 0 {
        theatre.failures.push(format!("{name}: nobody was there to be moved"));
    }
    theatre.players()?.begin(name)?;
    act(theatre)?;
    let done = |progress: &Progress| players_at(progress, version) == 0 && progress.moved >= players;
    let after = theatre.watch(&format!("all {players} players of version {version} have moved"), done)?;
    theatre.players()?.end(name)?;
    theatre.screen.tell(&format!("{} of {players} players have moved, with their state.", after.moved));
    Ok(())
}

/// With Jaeger: where a handoff can be looked at.
fn show_trace(theatre: &mut Theatre) -> Result<()> {
    let Some(jaeger) = &theatre.jaeger else { return Ok(()) };
    theatre.screen.title("The traces");
    theatre.screen.tell("Asking Jaeger for a handoff from proxy and both game servers.");
    let mut last = String::from("no trace named handoff");
    let found = holdfast_stage::until_some("a handoff's trace over proxy and both games", END_WITHIN, || {
        let traces = jaeger.traces("holdfast", "handoff", 20)?;
        if let Some(trace) = traces.first() {
            last = format!("a handoff's trace has spans of {:?} only", trace.services());
        }
        Ok(traces.into_iter().find(|trace| trace.services().len() >= 3))
    });
    match found {
        Ok(trace) => {
            let line = format!(
                "  A handoff, step by step ({} spans): {}",
                trace.spans.len(),
                jaeger.link(&trace.id)
            );
            theatre.screen.say(&line);
        }
        Err(error) => theatre.failures.push(format!("{error:#}: {last}")),
    }
    Ok(())
}
