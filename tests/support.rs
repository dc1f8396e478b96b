//! What several promises need beyond the stage.

pub mod arena_client;
pub mod client;
pub mod fleet;
pub mod forwarder;
pub mod impostor;
pub mod logs;
pub mod play;
pub mod program;
pub mod scene;
pub mod spans;
pub mod tls;
