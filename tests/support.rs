//! What several promises need beyond the stage.

pub mod client;
pub mod impostor;
pub mod scene;
