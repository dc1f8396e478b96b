//! What goes where: the documents people write, the immutable table made of them, and the pick of a backend.

pub mod address;
pub mod document;
pub mod pick;
pub mod table;

pub use table::{Backend, BackendAddress, BackendId, DrainOrder, Route, Service, Table};
