//! What the checker is asked of the three machines.

use std::fmt::Write as _;

use stateright::{Model, Property};

use super::super::check::{
    BACKEND_RULES, BOOKS, CLIENT_FRAMES, CONNECTION, NOT_LOST, ONE_ACTIVE, PROXY_RULES, SERVER_FRAMES,
    Verdict, explore_model,
};
use super::super::ghost::Wrong;
use super::super::liveness::Walk;
use super::acts::Act;
use super::world::{Setup, World};

struct Bounded(Setup);

const WHOLE: &str = "invariant 8: a group moves whole: its members with it, and its state once";
const REST: &str = "where nothing goes on, everybody plays in one place and has all answers";

impl Model for Bounded {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.0)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Act>) {
        state.acts(actions);
    }

    fn next_state(&self, last: &World, act: Act) -> Option<World> {
        let mut next = last.clone();
        next.perform(act, &self.0);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(CONNECTION, |_, world: &World| world.ghost.wrong != Some(Wrong::Ended)),
            Property::always(CLIENT_FRAMES, |_, world: &World| {
                world.ghost.wrong != Some(Wrong::ClientFrames)
            }),
            Property::always(SERVER_FRAMES, |_, world: &World| {
                world.ghost.wrong != Some(Wrong::ServerFrames)
            }),
            Property::always(ONE_ACTIVE, |_, world: &World| world.ghost.wrong != Some(Wrong::TwoActive)),
            Property::always(WHOLE, |_, world: &World| world.ghost.wrong != Some(Wrong::Torn)),
            Property::always(NOT_LOST, |_, world: &World| !matches!(world.ghost.wrong, Some(Wrong::Lost(_)))),
            Property::always(PROXY_RULES, |_, world: &World| {
                world.ghost.wrong != Some(Wrong::ProxyBrokeARule)
            }),
            Property::always(BACKEND_RULES, |_, world: &World| {
                world.ghost.wrong != Some(Wrong::BackendBrokeARule)
            }),
            Property::always(BOOKS, |_, world: &World| world.ghost.wrong != Some(Wrong::Bookkeeping)),
            Property::always(REST, |_, world: &World| {
                world.ghost.wrong.is_some() || !world.is_at_rest() || world.rests_well()
            }),
        ]
    }
}

impl Walk for World {
    type Act = Act;
    type Setup = Setup;

    fn goes_on(&self, acts: &mut Vec<Act>) {
        self.goes_on(acts);
    }

    fn acts(&self, acts: &mut Vec<Act>) {
        self.acts(acts);
    }

    fn perform(&mut self, act: Act, setup: &Setup) {
        self.perform(act, setup);
    }
}

pub fn explore(name: &str, setup: Setup) -> Verdict<Act> {
    explore_model(name, Bounded(setup), brief)
}

fn brief(world: &World) -> String {
    let mut line = String::new();
    for (who, machine) in world.machines.iter().enumerate() {
        let Some(machine) = machine else { continue };
        let _ = writeln!(line, "    {who} {:?} e{} {:?}", machine.phase(), machine.epoch(), world.seats[who]);
    }
    for wire in &world.wires {
        let attachments = wire.backend.as_ref().map(|backend| &backend.attachments);
        let _ = writeln!(
            line,
            "      {:?} draining={} to_backend {:?} to_proxy {:?}\n        {attachments:?}",
            wire.line, wire.draining, wire.to_backend, wire.to_proxy
        );
    }
    let _ = write!(line, "      {:?}", world.ghost);
    line
}
