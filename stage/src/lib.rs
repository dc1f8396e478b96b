//! Real processes on loopback: what the end-to-end tests, the demo and the benches share.
//!
//! Everything blocks, and every wait has a deadline and says what it waited for. A process ends with the value that
//! stands for it. A [`Stage`] holds the run's folder: logs, configs, documents; it stays if the run fails.

mod accounting;
mod arena;
mod binaries;
pub mod chaos;
mod collector;
mod documents;
mod envoy;
mod etcd;
mod forwarder;
mod haproxy;
pub mod http;
mod jaeger;
mod mutations;
mod players;
mod ports;
mod process;
mod proxy;
pub mod timestamps;
mod upstream;
mod wait;

pub use accounting::{Machine, Metered, Usage, meter, usage};
pub use arena::{Arena, ArenaSpec};
pub use binaries::{holdfast_binary, sample_binary};
pub use collector::Collector;
pub use documents::{BEST_RECOVERY, Documents, arena_service};
pub use envoy::Envoy;
pub use etcd::{Etcd, EtcdBinary};
pub use forwarder::Forwarder;
pub use haproxy::Haproxy;
pub use holdfast_sample::players::report::{BackendShare, EventReport, Progress, Verdict};
pub use jaeger::{FoundTrace, Jaeger};
pub use mutations::{Mutation, Mutations};
pub use players::{Players, PlayersSpec};
pub use ports::free_address;
pub use process::{Process, Signal, Stage};
pub use proxy::{Proxy, ProxySpec, Source};
pub use upstream::Upstream;
pub use wait::{until, until_some};
