//! Which sessions move, when, how fast.
