//! Where documents come from, and how a change of them becomes the table that workers read.
//!
//! A source owns the documents and is the only one that writes them. It compiles them at each change and swaps the
//! table in one step; nothing here ever waits for a worker, a disk or a log before that swap.

pub mod etcd;
pub mod files;
pub mod history;
pub mod identity;
pub mod memory;
pub mod published;
pub mod write;

pub use identity::Identity;
pub use published::{Origin, Published, Publisher, Source};
