//! That no session stays frozen, parked or on its way for ever: from every state, if no more faults happen, it comes to
//! rest. That it rests well is among the checker's promises.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::bound::Setup;
use super::world::World;

/// All states, and by what each can be reached without a fault.
#[derive(Default)]
struct Graph {
    numbers: HashMap<u64, usize>,
    before: Vec<Vec<usize>>,
    resting: Vec<usize>,
    frontier: VecDeque<(usize, World)>,
}

impl Graph {
    fn visit(&mut self, world: World) -> usize {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let next = self.before.len();
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if number == next {
            self.before.push(Vec::new());
            if world.is_at_rest() {
                self.resting.push(number);
            }
            self.frontier.push_back((number, world));
        }
        number
    }

    fn explore(setup: &Setup) -> Self {
        let mut graph = Self::default();
        graph.visit(World::new(setup));
        let mut acts = Vec::new();
        while let Some((number, world)) = graph.frontier.pop_front() {
            acts.clear();
            world.goes_on(&mut acts);
            let by_itself = acts.len();
            acts.clear();
            world.acts(&mut acts);
            for (index, act) in acts.drain(..).enumerate() {
                let mut next = world.clone();
                next.perform(act, setup);
                let next = graph.visit(next);
                if index < by_itself {
                    graph.before[next].push(number);
                }
            }
        }
        graph
    }
}

/// How many states there are, and from how many of them the world can't come to rest by itself.
pub fn stuck(setup: &Setup) -> (usize, usize) {
    let mut graph = Graph::explore(setup);
    let mut reaches = vec![false; graph.before.len()];
    while let Some(number) = graph.resting.pop() {
        if !std::mem::replace(&mut reaches[number], true) {
            graph.resting.append(&mut graph.before[number]);
        }
    }
    (reaches.len(), reaches.iter().filter(|reaches| !**reaches).count())
}
