//! Whatever is written in whatever order: never most of a service within the settling time, without a yes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Delete(Vec<usize>),
    Put(Vec<usize>),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = || prop::collection::vec(0..12usize, 1..12);
    let step = prop_oneof![
        3 => numbers().prop_map(Step::Delete),
        1 => numbers().prop_map(Step::Put),
        2 => (0..80u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn half_of_those_of_the_last_minute_stay(all in 1..12usize, steps in steps()) {
        let mut proxy = Proxy::new(all);
        // When each backend went out of force.
        let mut went: BTreeMap<String, u64> = BTreeMap::new();
        for step in steps {
            let before: Vec<_> = names(&proxy);
            match step {
                Step::Delete(numbers) => proxy.change(|proxy| proxy.delete(numbers)),
                Step::Put(numbers) => {
                    proxy.change(|proxy| numbers.iter().for_each(|number| proxy.put(&key(*number), &backend(1))));
                }
                Step::Wait(seconds) => {
                    proxy.wait(seconds);
                    proxy.change(|_| {});
                }
            }
            let after = names(&proxy);
            for name in before.iter().filter(|name| !after.contains(name)) {
                went.insert(name.clone(), proxy.at_ms);
            }
            went.retain(|name, at| !after.contains(name) && proxy.at_ms - *at < 60_000);
            prop_assert!(went.len() <= after.len(), "{} went of {}", went.len(), went.len() + after.len());
            // Judged once more, nothing is different.
            let held = proxy.judgement.held.clone();
            proxy.change(|_| {});
            prop_assert_eq!(&names(&proxy), &after);
            prop_assert_eq!(&proxy.judgement.held, &held);
        }
        // A yes to all leaves what the source has.
        proxy.accept();
        let source: Vec<_> = proxy.documents.below("backends/").map(|(key, _)| key.to_string()).collect();
        prop_assert_eq!(names(&proxy), source);
        prop_assert_eq!(&proxy.judgement.held, &[]);
    }
}

fn names(proxy: &Proxy) -> Vec<String> {
    proxy.in_force.keys().filter(|key| key.starts_with("backends/")).map(ToString::to_string).collect()
}
