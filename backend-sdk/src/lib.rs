//! Write a game server whose sessions survive its restarts.
//!
//! A Holdfast proxy owns the players' connections; this crate joins a game to it. You implement two traits, [`Game`]
//! and [`Session`], and call [`Server::builder`]. When the process gets SIGTERM, its players move to another process
//! that runs the same game, or wait in the proxy until this one is back, and carry on where they were.
//!
//! # A whole game
//!
//! Each player collects points: a frame adds its length, a timer adds one a second, and the answer is the sum.
//!
//! ```no_run
//! use std::time::Duration;
//! use holdfast_backend::{Context, Game, Opening, Refusal, ServeError, Server, Session, Tag};
//!
//! const SECOND: Tag = Tag(1);
//!
//! struct Points;
//!
//! struct Player { points: u64 }
//!
//! impl Game for Points {
//!     type Session = Player;
//!
//!     fn open(&self, opening: Opening<'_>, context: &mut Context<'_>) -> Result<Player, Refusal> {
//!         let points = match opening {
//!             Opening::Fresh | Opening::Lost => 0,
//!             Opening::State(bytes) | Opening::Recovered(bytes) => u64::from_le_bytes(
//!                 bytes.try_into().map_err(|_| Refusal::for_good("state should have 8 bytes"))?,
//!             ),
//!         };
//!         context.every(SECOND, Duration::from_secs(1));
//!         Ok(Player { points })
//!     }
//! }
//!
//! impl Session for Player {
//!     fn frame(&mut self, frame: &[u8], context: &mut Context<'_>) {
//!         self.points += frame.len() as u64;
//!         context.send(&self.points.to_le_bytes());
//!     }
//!
//!     fn timer(&mut self, _: Tag, _: &mut Context<'_>) {
//!         self.points += 1;
//!     }
//!
//!     fn snapshot(&self) -> Vec<u8> {
//!         self.points.to_le_bytes().to_vec()
//!     }
//! }
//!
//! fn main() -> Result<(), ServeError> {
//!     Server::builder(Points).version("1.4").listen("127.0.0.1:7100").run()
//! }
//! ```
//!
//! # What is guaranteed
//!
//! - Every frame of a player reaches the game exactly once, in order, and every frame that the game sends reaches the
//!   player exactly once, in order: across moves to other processes, moves called off, and broken links to the proxy.
//! - The inputs of a session (frames, timers, results of work) run one at a time, each to its end.
//! - A session is active in one process at a time. Before it is (until the proxy has said so), none of its timers run,
//!   no frame leaves and no spawned work begins.
//! - A handler that panics ends its own session and no other.
//! - A process that is killed, frozen or cut off loses no player's connection. What becomes of the sessions is the
//!   service's choice, below.
//!
//! # After a crash: four levels
//!
//! The service's document says `recovery`; the game does its part, and the proxy keeps what is needed.
//!
//! | level | what the player sees | what the game must do | what it costs |
//! |---|---|---|---|
//! | `replay` | nothing: each frame is processed and delivered once | ask only the [`Context`] for what isn't a function of state and frame; a process with the same [`Builder::logic`] should be there | the proxy keeps frames since the last checkpoint; a record of about 80 bytes for each timer, each result of work, and each frame whose handler asks for the time |
//! | `delta` | nothing, likewise; the new process may even run other logic | tell each change by [`Context::change`], do it again in [`Session::apply`], call [`Builder::deltas`] | each input makes a record of its frames, its change, and about 100 bytes |
//! | `checkpoint` | is thrown back to the last checkpoint; the game is told: [`Opening::Recovered`] | nothing | a snapshot at an interval |
//! | `none` | begins anew ([`Opening::Lost`]), or the connection is closed | nothing | nothing |
//!
//! At the first three the proxy asks for checkpoints from time to time: `snapshot` is called, and the session goes on.
//!
//! At `replay` the process that takes a session over calls the handlers again with the same frames, timers, results, times
//! and random numbers. They must then send the same frames: the proxy compares them with what the player has had. If
//! they differ, the session has diverged and is treated as at `none`. [`testing::check_replay`] finds what would make
//! that happen, in a unit test. What to look for:
//!
//! - clocks, random numbers and hash maps' order of the process's own; the [`Context::epoch`], in states or frames;
//! - things that players share in the [`Game`]: what comes from outside the session should come as the result of
//!   [`Context::spawn`], which is recorded and given again, and not asked for again;
//! - effects outside of handlers that run once more, below.
//!
//! Recorded are: the time, where it was asked for ([`Context::now`]); that a timer fired ([`Context::every`],
//! [`Context::after`]); results ([`Context::spawn`]); that a group refused ([`Session::join_refused`]).
//! [`Context::random`] needs no record. Nothing else is recorded.
//!
//! # What `snapshot` must contain
//!
//! All that [`Game::open`] needs to go on in another process: the player's state, and what of spawned work is under way.
//! Not in it: frames that were sent (the SDK keeps those that haven't left), timers (`open` sets them again), random
//! numbers to come (the SDK keeps the generator), and
//! whatever the process can load by itself. The bytes are yours; name their format with [`Builder::state_format`], and
//! when it changes, let the new version read the old one too ([`Builder::reads_format`]), or players can't move to it.
//! It is called between two inputs, and the other sessions of the same proxy worker wait for it: keep it to a copy.
//!
//! # What happens in a move
//!
//! 1. The proxy stops forwarding the player's frames; the handler that runs now ends.
//! 2. Frames that no handler has begun are thrown away here: the proxy still has them. Timers stop.
//! 3. `snapshot` is called; the bytes, and the frames that were sent but had no room to leave, go to the proxy.
//! 4. Another process opens the session with [`Opening::State`], gets the frames that were thrown away, and goes on.
//! 5. Here the session is dropped; [`Session::closed`] is not called. If no process takes it, it goes on here instead,
//!    as if nothing had been.
//!
//! # Groups
//!
//! Players of one match (a room, a party) share a state and must see one order of events. A session can't give that: it
//! is one player's, and its neighbours may be in other processes. A [`Group`] can. It is like a session with many
//! players: every member's frames, the group's timers and the results of its work are the inputs of one game, one at a
//! time, in the order in which the proxy read the frames from the players' connections.
//!
//! 1. Call [`Builder::groups`] and implement [`Game::open_group`]. A match-maker of yours chooses a [`GroupId`].
//! 2. A session asks to be in it: [`Context::join`]. It plays on until the wish is met. If it never can be,
//!    [`Session::join_refused`] says why.
//! 3. The proxy takes the session's state (its `snapshot`) and makes the group, if it is the first one to come, in
//!    whichever process it picks. There [`Group::joined`] is called with that state; the session itself is dropped. What had
//!    been sent to the player and hadn't left leaves first. No frame of the player is lost or seen twice on the way.
//! 4. From then on the player's frames come to [`Group::frame`]; [`GroupContext::send`] and
//!    [`GroupContext::broadcast`] answer.
//! 5. [`GroupContext::leave`] sends a member on alone, with the state that you give: [`Game::open`] is called with it.
//!    Frames that the player had sent by then and the group had not begun are the first that this session gets.
//!    [`GroupContext::close`] ends a member's connection; [`Group::left`] says that a player has gone.
//! 6. When the last member is out, the group is dropped.
//!
//! A newcomer may be refused by `joined`: then the session goes on alone, as it came, and is told. Timers and unfinished
//! work of a session end when it becomes a member; the group sets its own. A session that comes out of a group goes on
//! with its own random numbers and its own count of inputs.
//!
//! **A move** takes a group whole, to one process: `snapshot` is called once, for the shared state and all members' own;
//! who the members are, and an arrival of which only a part has come, is kept by the SDK. If nobody takes it, it goes on
//! here. **A broken link** changes nothing. **A crash**: at level `replay` and `delta` nothing is seen of it, exactly as for a session,
//! and with the same conditions. Below, the group ends, for a part of a match is worth nothing: its members are closed,
//! or begin anew and alone, as the service's `on_crash` says.
//!
//! At level `delta` all that one input sends stands in one record: the state of who leaves must fit it, too. And the
//! change that `joined` tells must contain what the newcomer came with.
//!
//! A group's members come through one proxy; a session of another one that asks for the group is refused. The members
//! share the task of one of its workers: a handler that takes long holds up all its groups and sessions.
//! [`testing::check_group_replay`] and [`testing::check_group_deltas`] find, in a unit test, what would make a recovery
//! lead elsewhere.
//!
//! # Effects outside
//!
//! A write to a database happens at least once: a move that is called off, or a replay after a crash, may run an input's
//! effects again elsewhere, perhaps while the process before still runs. Make them idempotent by [`Context::session`] and [`Context::input`], or let the store refuse what
//! comes with an older [`Context::epoch`]. Async work goes through [`Context::spawn`]; handlers never block, for the
//! sessions of a proxy's worker share one task.
//!
//! # Capacity and load
//!
//! [`Builder::capacity`] tells the proxies how many sessions the process is to have, and [`Load`], while it runs, how full
//! it is. They choose by it where new players go. Without either, they go by the numbers of sessions.
//!
//! # Costs and bounds
//!
//! | what | bound, by default | beyond it |
//! |---|---|---|
//! | a player's frame | 1 MiB ([`Builder::max_frame_bytes`]) | that session (or group) ends, here and below |
//! | a frame sent | what the proxy takes | that session ends |
//! | unacked frames of a player | 1 MiB | the proxy stops reading the player |
//! | sent frames that wait for a slow player, and records that wait to be kept | 1 MiB | the player's next frame waits; at 4 MiB timers and results, too |
//! | what one input sends and changes at `delta`, a result of work at `replay` | the proxy's largest frame and about 64 KiB | that session ends |
//! | timers of a session | 256, a millisecond or longer | that session ends |
//! | spawned work of a session | 1,024 pieces | that session ends |
//! | a state | 64 MiB; all that arrive on one link: 256 MiB | refused |
//! | sessions and groups of a proxy's worker; members of a group | 100,000 | refused, for now |
//! | states of a group's newcomers that have come in part | a state's, together | that group ends |
//! | a lost link | 150 s | its sessions are given up here |
//! | a drain | 30 s ([`Builder::drain_deadline`]) | the process ends with what is left |
//!
//! [`Builder::settings`] changes any of them. An idle session holds no buffer, only its own state and about 700 bytes
//! here. `send` copies the frame and never blocks; all frames sent while a batch of input is handled leave in one write.
//!
//! # Features
//!
//! - `plain`: `Builder::plain` serves players directly, without a proxy, for development and comparisons.
//! - `otlp`: `telemetry::init` sets up logs and the export of `handle`, `snapshot` and `restore` spans. Without it, they
//!   are ordinary `tracing` spans with their OpenTelemetry parent set, for whatever subscriber the game has.

mod context;
#[doc(hidden)]
pub mod core;
mod game;
mod group;
mod load;
#[cfg(feature = "plain")]
mod plain;
mod population;
mod random;
mod server;
mod settings;
#[cfg(feature = "otlp")]
pub mod telemetry;
pub mod testing;
mod trace;

pub use context::Context;
pub use game::{Game, Opening, Refusal, Session, Tag};
pub use group::{Group, GroupContext, Newcomer};
pub use holdfast_protocol::{Epoch, GroupId, SessionId, TraceContext};
pub use load::Load;
#[doc(hidden)]
pub use population::Population;
pub use server::{Builder, Handle, ServeError, Server};
pub use settings::Settings;
