//! What several promises need beyond the stage.

pub mod fleet;
pub mod forwarder;
pub mod logs;
pub mod program;
pub mod scene;
pub mod spans;
