//! Bits of the header's flags byte. What a type doesn't define is ignored.

/// The subject id is a group's (every type that has a subject).
pub const GROUP: u8 = 0x80;
/// DATA, RECORD, CLOSE: resent, or what an earlier attachment was given.
pub const AGAIN: u8 = 0x01;
/// CLOSE: only this direction ends.
pub const HALF: u8 = 0x02;
/// WELCOME: the backend drains.
pub const DRAINING: u8 = 0x01;
/// ATTACH: an earlier state was lost.
pub const LOST: u8 = 0x01;
/// REFUSED: ask again later.
pub const RETRY: u8 = 0x01;
/// STATE: the answer to FREEZE.
pub const FINAL: u8 = 0x01;
/// DRAIN: the process comes back under the same name.
pub const RETURNS: u8 = 0x01;
/// FAULT: about the attachment that it names, not the link.
pub const ATTACHMENT: u8 = 0x01;
