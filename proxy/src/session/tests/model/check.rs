//! The checker's view of the world, and what it is asked.

use std::fmt::{Debug, Write as _};
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Model, Property};

use super::acts::Act;
use super::bound::Setup;
use super::ghost::Wrong;
use super::world::World;

/// The world under one bound.
pub struct Bounded(pub Setup);

/// The promises, as the checker names them.
pub const CONNECTION: &str = "invariant 1: the client's connection ends only by client, game or deadline";
pub const CLIENT_FRAMES: &str = "invariant 2: every client frame reaches the game once, in order";
pub const SERVER_FRAMES: &str = "invariant 2: every server frame reaches the client once, in order";
pub const ONE_ACTIVE: &str = "invariant 3: at most one attachment is active";
pub const NOT_LOST: &str = "invariant 4: no handoff takes the crash path while the backend is well";
pub const PROXY_RULES: &str = "the proxy breaks no rule of the link";
pub const BACKEND_RULES: &str = "no backend seems to break a rule of the link";
pub const BOOKS: &str = "timers, reservations and places fit the phase";
const REST: &str = "where nothing goes on, the player plays or the game has saved";

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

/// What came of a run.
pub struct Verdict<A = Act> {
    pub states: usize,
    /// The shortest way to the first promise that was found broken: its name, then what happened.
    pub broken: Option<(&'static str, Vec<A>)>,
    pub trace: String,
}

/// Explores every state within the bound; stops at the first promise broken.
pub fn explore(name: &str, setup: Setup) -> Verdict {
    explore_model(name, Bounded(setup), brief)
}

/// The same of any model.
pub fn explore_model<M>(name: &str, model: M, brief: fn(&M::State) -> String) -> Verdict<M::Action>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + PartialEq + Hash + Debug + Send + Sync,
    M::Action: Clone + PartialEq + Debug + Send + Sync,
{
    let begun = Instant::now();
    let checker = model.checker().finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries().into_iter().min_by_key(|(_, path)| path.clone().into_actions().len());
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, longest way {}, {:.1} s",
        checker.max_depth(),
        begun.elapsed().as_secs_f32()
    );
    let mut trace = String::new();
    let broken = found.map(|(name, path)| {
        let _ = writeln!(trace, "{name}");
        for (world, act) in path.clone().into_vec() {
            let _ = writeln!(trace, "{}", brief(&world));
            let _ = writeln!(trace, "  -> {act:?}");
        }
        (name, path.into_actions())
    });
    Verdict { states, broken, trace }
}

fn brief(world: &World) -> String {
    let mut line = format!("    {:?} e{}", world.session.phase(), world.session.epoch());
    for wire in &world.wires {
        let backend = wire.backend.as_ref();
        let attachment = backend.and_then(|backend| backend.attachment.as_ref());
        let _ = write!(
            line,
            "\n      {:?}{} to_backend {:?} to_proxy {:?}\n        {attachment:?}",
            wire.line,
            if wire.drain.is_some() { " draining" } else { "" },
            wire.to_backend,
            wire.to_proxy
        );
    }
    let _ = write!(line, "\n      {:?}\n      {:?}", world.seat, world.ghost);
    line
}
