//! What several promises need beyond the stage.

pub mod scene;
