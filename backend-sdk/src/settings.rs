//! [`Settings`]: what a server was built with, as its peers see it. Every bound of the SDK stands here.

use std::time::Duration;

use holdfast_protocol::InstanceId;

use crate::load::Load;

/// A server's settings. The defaults fit a game with small frames.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of this server in logs.
    pub name: String,
    /// This run of the process.
    pub instance: InstanceId,
    /// The build of the game, as routes name it.
    pub version: String,
    /// What must be equal for a replay to be sure.
    pub logic: String,
    /// The format that `snapshot` writes.
    pub writes_format: String,
    /// The formats that `open` reads.
    pub reads_formats: Vec<String>,
    /// Whether sessions tell their changes and apply them, for level `delta`.
    pub deltas: bool,
    /// Whether the game has groups.
    pub groups: bool,
    /// The service that links must be for; any, when absent.
    pub service: Option<String>,
    /// Largest frame taken from a player.
    pub max_frame_bytes: u32,
    /// Unacked client bytes that a session may have in flight.
    pub client_window_bytes: u32,
    /// STATE bytes that each ATTACH may bring at once.
    pub state_credit_bytes: u64,
    /// Largest state taken.
    pub max_state_bytes: u64,
    /// All states of one peer that are being received, together.
    pub max_loading_bytes: u64,
    /// Sessions of one peer.
    pub max_sessions: usize,
    /// Peers (proxy workers).
    pub max_peers: usize,
    /// Frames that wait to leave and records that wait to be kept: above this, a session's next client frame waits; above four times this, every input of the session.
    pub outbox_bytes: usize,
    /// How long sessions whose link is lost are kept.
    pub orphan_deadline: Duration,
    /// How long an accepted connection may take to say HELLO.
    pub hello_deadline: Duration,
    /// How long the proxies have to move the players off after SIGTERM.
    pub drain_deadline: Duration,
    /// Whether the process comes back under the same name.
    pub returns: bool,
    /// What the proxies are told of capacity and load; may change at any time.
    pub load: Load,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "game".into(),
            instance: random_instance(),
            version: "0".into(),
            logic: String::new(),
            writes_format: "1".into(),
            reads_formats: Vec::new(),
            deltas: false,
            groups: false,
            service: None,
            max_frame_bytes: 1024 * 1024,
            client_window_bytes: 1024 * 1024,
            state_credit_bytes: 256 * 1024,
            max_state_bytes: 64 * 1024 * 1024,
            max_loading_bytes: 256 * 1024 * 1024,
            max_sessions: 100_000,
            max_peers: 1024,
            outbox_bytes: 1024 * 1024,
            orphan_deadline: Duration::from_secs(150),
            hello_deadline: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(30),
            returns: true,
            load: Load::default(),
        }
    }
}

impl Settings {
    /// Largest message on a link: a frame, or a chunk of state, and what stands around it.
    #[must_use]
    pub fn max_message_bytes(&self) -> usize {
        (self.max_frame_bytes as usize).saturating_add(MESSAGE_ROOM_BYTES)
    }

    pub(crate) fn reads(&self, format: &str) -> bool {
        format == self.writes_format || self.reads_formats.iter().any(|known| known == format)
    }

    pub(crate) fn reads_list(&self) -> String {
        let mut list = self.writes_format.clone();
        for format in &self.reads_formats {
            list.push(',');
            list.push_str(format);
        }
        list
    }
}

/// Room for a message's other fields, texts included.
const MESSAGE_ROOM_BYTES: usize = 256 * 1024;

/// 128 bits of the operating system's randomness, by way of the standard library's hash keys.
fn random_instance() -> InstanceId {
    use std::hash::{BuildHasher, RandomState};
    let half = || RandomState::new().hash_one(std::process::id()).to_be_bytes();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half());
    id[8..].copy_from_slice(&half());
    InstanceId(id)
}
