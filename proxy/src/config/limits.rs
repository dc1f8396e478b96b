//! `[limits]`: the bounds of this process. A service's own bounds are in its document.

use std::time::Duration;

use super::reader::Section;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// Bounds of the process; where it says so, of each of its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Sessions on one worker, of all services; more are closed when accepted.
    pub max_sessions: u32,
    /// Groups on all workers together.
    pub max_groups: u32,
    /// Bytes that one worker holds for its players and backends: frames that wait or are kept, states, unread answers.
    pub kept_bytes: u64,
    /// Bytes that may wait for one backend to read them; above it the players of one worker on it aren't read.
    pub link_outbox_bytes: u64,
    /// Bytes of states that one worker has under way; at least one largest state.
    pub transfer_pool_bytes: u64,
    /// How long a TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How long live sessions may go on after SIGTERM.
    pub shutdown_deadline: Duration,
}

impl Limits {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let max_sessions = section.number("max_sessions", 10_000, 1..=1_000_000);
        let max_groups = section.number("max_groups", 10_000, 0..=1_000_000);
        let limits = Self {
            max_groups: u32::try_from(max_groups).unwrap_or(u32::MAX),
            max_sessions: u32::try_from(max_sessions).unwrap_or(u32::MAX),
            kept_bytes: section.number("kept_bytes", 256 * MIB, MIB..=1024 * GIB),
            link_outbox_bytes: section.number("link_outbox_bytes", 8 * MIB, 256 * 1024..=GIB),
            transfer_pool_bytes: section.number("transfer_pool_bytes", 64 * MIB, 64 * 1024..=64 * GIB),
            tls_handshake_timeout: section.seconds("tls_handshake_timeout_s", 10, 1..=300),
            shutdown_deadline: section.seconds("shutdown_deadline_s", 30, 0..=86_400),
        };
        section.finish();
        limits
    }
}
