//! Placement: one pure pick for new and moved sessions.
