//! What several promises need beyond the stage.

pub mod fleet;
pub mod logs;
pub mod play;
pub mod program;
pub mod scene;
