//! What goes where: the documents people write, the immutable table made of them, and the pick of a backend.

pub mod address;
pub mod compile;
pub mod diff;
pub mod document;
pub mod documents;
pub mod edit;
pub mod fitness;
pub mod pick;
pub mod plan;
pub mod slips;
pub mod table;

pub use compile::{Compiled, Refusal, Warning, compile};
pub use documents::{Documents, LastGood};
pub use fitness::Fitness;
pub use table::{Backend, BackendAddress, BackendId, DrainOrder, Hook, Rollout, Route, Service, Table};
