//! What operators, kubelets and Prometheus talk to: two small HTTP servers on the control runtime.
//!
//! The health address is read-only and may be public inside a cluster; the admin address shows sessions and takes
//! orders, so it is loopback or a Unix socket. Neither touches the data plane but by messages with a deadline.

mod address;
mod ask;
mod drain_status;
mod drains;
mod ejections;
mod health;
mod hooks;
mod inspect;
mod rollouts;
mod route;
mod server;
mod state;
mod tables;
pub mod view;
mod writes;

pub use address::{Address, AddressError};
pub use drains::{
    DrainKey, DrainStore, DrainWriter, EjectionKey, ProxyDrains, StoreError, StoreFuture, Written,
};
pub use hooks::{HookDesk, HookOrders, HookStore, HookWriter};
pub use route::Surface;
pub use server::{BindError, Listener, serve};
pub use state::{AdminState, ListenerInfo, control_view};
pub use writes::{ProxyWord, TableStore, TableWriter};

#[cfg(test)]
pub(crate) mod tests;
