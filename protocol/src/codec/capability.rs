//! Bits of HELLO's and WELCOME's capabilities. Unknown bits are ignored.

/// RECORD of kinds `Input` and `Values`.
pub const REPLAY: u64 = 1 << 0;
/// RECORD of kind `Delta`.
pub const DELTA: u64 = 1 << 1;
/// Groups as subjects, JOIN.
pub const GROUPS: u64 = 1 << 2;
/// CHECKPOINT, and the STATE that answers it.
pub const CHECKPOINTS: u64 = 1 << 3;
