//! Rollouts: players are brought from one version of a service to another, step by step, and back if it fails them.
//!
//! One of the proxies is the controller (`source::etcd::controller`). It sums what all proxies have seen of the new version (`account`),
//! judges it (`judge`) and advances the rollout's progress (`advance`), which stands in etcd for everybody. Each proxy
//! makes of the plan and the progress what its workers do (`stage`): the shares by which they place players, or the
//! order to bring them back. All of it is pure.

pub mod account;
pub mod advance;
pub mod judge;
pub mod orders;
pub mod progress;
pub mod stage;

pub use account::VersionRow;
pub use progress::{Progress, Progresses, State};
pub use stage::{Stage, Stages, stages};
