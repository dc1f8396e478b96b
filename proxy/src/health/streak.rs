//! From single checks to a verdict: it turns after so many in a row that say otherwise.

use crate::routing::table::CheckPolicy;

/// A backend is healthy until it is known not to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streak {
    /// Why the last failed check that counted did; `None`: healthy.
    failure: Option<String>,
    /// Checks in a row that speak against the verdict.
    against: u32,
}

impl Streak {
    /// Why it is unhealthy.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// One more check. `true`: the verdict has turned.
    pub fn add(&mut self, check: Result<(), String>, policy: &CheckPolicy) -> bool {
        let (speaks_against, needed) = match (&self.failure, &check) {
            (None, Err(_)) => (true, policy.unhealthy_after),
            (Some(_), Ok(())) => (true, policy.healthy_after),
            _ => (false, u32::MAX),
        };
        self.against = if speaks_against { self.against + 1 } else { 0 };
        let turns = self.against >= needed;
        if turns {
            self.against = 0;
            self.failure = check.err();
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::routing::table::CheckKind;

    fn policy(unhealthy_after: u32, healthy_after: u32) -> CheckPolicy {
        CheckPolicy {
            kind: CheckKind::Tcp { port: None },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after,
            healthy_after,
            subset: 10,
        }
    }

    fn check(passes: bool) -> Result<(), String> {
        if passes { Ok(()) } else { Err("refused".to_owned()) }
    }

    #[test]
    fn a_verdict_turns_after_so_many_in_a_row() {
        let (policy, mut streak) = (policy(3, 2), Streak::default());
        let turned: Vec<bool> = [false, false, true, false, false, false, false, true, false, true, true]
            .map(|passes| streak.add(check(passes), &policy))
            .to_vec();
        let at = [5, 10].map(|index| turned[index]);
        assert_eq!((at, turned.iter().filter(|turned| **turned).count()), ([true, true], 2), "{turned:?}");
        assert_eq!(streak.failure(), None);
    }

    proptest! {
        #[test]
        fn it_turns_just_when_the_last_checks_all_say_so(
            checks in prop::collection::vec(any::<bool>(), 0..60),
            (fall, rise) in (1u32..6, 1u32..6),
        ) {
            let (policy, mut streak) = (policy(fall, rise), Streak::default());
            let (mut healthy, mut since) = (true, 0);
            for (index, passes) in checks.iter().enumerate() {
                let needed = if healthy { fall } else { rise } as usize;
                let run = &checks[since.max((index + 1).saturating_sub(needed))..=index];
                let turns = run.len() == needed && run.iter().all(|passes| *passes != healthy);
                prop_assert_eq!(streak.add(check(*passes), &policy), turns);
                if turns {
                    (healthy, since) = (!healthy, index + 1);
                }
                prop_assert_eq!(streak.failure().is_none(), healthy);
            }
        }
    }
}
