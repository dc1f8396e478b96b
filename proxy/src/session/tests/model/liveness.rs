//! That no session stays frozen, parked or on its way for ever: from every state, if no more faults happen, it comes to
//! rest. That it rests well is among the checker's promises.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::acts::Act;
use super::bound::Setup;
use super::world::World;

/// A world that can be walked through.
pub trait Walk: Clone + Hash {
    type Act: Copy;
    type Setup;

    /// What happens without a fault.
    fn goes_on(&self, acts: &mut Vec<Self::Act>);
    /// That, and then what else may happen.
    fn acts(&self, acts: &mut Vec<Self::Act>);
    fn perform(&mut self, act: Self::Act, setup: &Self::Setup);
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

/// All states, and by what each can be reached without a fault.
struct Graph<W> {
    numbers: HashMap<u64, usize>,
    before: Vec<Vec<usize>>,
    resting: Vec<usize>,
    frontier: VecDeque<(usize, W)>,
}

impl<W: Walk> Graph<W> {
    fn visit(&mut self, world: W) -> usize {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        let next = self.before.len();
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if number == next {
            self.before.push(Vec::new());
            let mut acts = Vec::new();
            world.goes_on(&mut acts);
            if acts.is_empty() {
                self.resting.push(number);
            }
            self.frontier.push_back((number, world));
        }
        number
    }

    fn explore(first: W, setup: &W::Setup) -> Self {
        let mut graph = Self {
            numbers: HashMap::new(),
            before: Vec::new(),
            resting: Vec::new(),
            frontier: VecDeque::new(),
        };
        graph.visit(first);
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
pub fn stuck<W: Walk>(first: W, setup: &W::Setup) -> (usize, usize) {
    let mut graph = Graph::explore(first, setup);
    let mut reaches = vec![false; graph.before.len()];
    while let Some(number) = graph.resting.pop() {
        if !std::mem::replace(&mut reaches[number], true) {
            graph.resting.append(&mut graph.before[number]);
        }
    }
    (reaches.len(), reaches.iter().filter(|reaches| !**reaches).count())
}
