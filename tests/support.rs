//! What several promises need beyond the stage.
