//! What several promises need beyond the stage.

pub mod client;
pub mod forwarder;
pub mod impostor;
pub mod scene;
pub mod tls;
