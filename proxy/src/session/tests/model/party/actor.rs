//! The game behind an attachment: a player alone, or the group with all its members. A player's own history travels with
//! it, so that nothing that is lost, doubled or reordered on any way in or out can hide.

use std::collections::BTreeMap;

use holdfast_protocol::codec::addressed::{Addressed, AddressedKind, Arrival, Departure};
use holdfast_protocol::message::Subject;
use holdfast_protocol::{GroupId, Seq, SessionId};

use super::super::game::{Game, REPLY_BYTES};
use super::super::ghost::Wrong;

pub const GROUP: GroupId = GroupId(*b"the-one-group...");
/// The one that boards, and leaves again.
pub const TRAVELLER: u8 = 1;
/// Every player's frame that makes its game want to be in the group.
const JOINS: u8 = 1;
/// The traveller's frame after which the group's game lets it go.
const LEAVES: u8 = 2;

pub fn session(player: u8) -> SessionId {
    SessionId([player; 16])
}

/// A server frame; `leaves`: the last of a departure, after that client frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Said {
    pub bytes: Vec<u8>,
    pub leaves: Option<u64>,
}

impl Said {
    pub fn frame(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), leaves: None }
    }

    fn to(kind: AddressedKind, member: SessionId, bytes: &[u8]) -> Self {
        Self::frame(&[&Addressed::head(kind, member)[..], bytes].concat())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    Alone {
        game: Game,
        /// It wants to be in the group.
        wish: bool,
    },
    /// `count`: frames of all members so far, which is what they share.
    Crowd { count: u8, members: BTreeMap<u8, Game> },
}

impl Actor {
    pub fn new(subject: Subject, lineage: u8, lost: bool) -> Self {
        match subject {
            Subject::Session(_) => Self::Alone { game: Game::new(lineage, lost), wish: false },
            Subject::Group(_) => Self::Crowd { count: 0, members: BTreeMap::new() },
        }
    }

    pub fn wishes(&self) -> bool {
        matches!(self, Self::Alone { wish: true, .. })
    }

    pub fn plays(&self, player: u8) -> bool {
        matches!(self, Self::Crowd { members, .. } if members.contains_key(&player))
    }

    /// Processes client frame `seq`; what it answers.
    pub fn process(&mut self, seq: u64, frame: &[u8]) -> Result<Vec<Said>, Wrong> {
        match self {
            Self::Alone { game, wish } => {
                let reply = game.frame(frame, 0)?;
                *wish |= frame == [JOINS];
                Ok(vec![Said::frame(&reply.bytes())])
            }
            Self::Crowd { count, members } => {
                let addressed = Addressed::parse(frame).ok_or(Wrong::ClientFrames)?;
                let player = addressed.member.0[0];
                match addressed.kind {
                    AddressedKind::Passage if members.contains_key(&player) => Err(Wrong::ClientFrames),
                    AddressedKind::Passage => Ok(arrive(members, player, addressed.payload)),
                    AddressedKind::Frame => frame_of(count, members, player, seq, addressed.payload),
                    _ => Err(Wrong::ClientFrames),
                }
            }
        }
    }

    /// All of it, and what has no seq yet.
    pub fn write<'a>(&self, unsent: impl Iterator<Item = &'a Said>) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Alone { game, wish } => {
                bytes.push(u8::from(*wish));
                game.write(&mut bytes);
            }
            Self::Crowd { count, members } => {
                bytes.extend_from_slice(&[*count, u8::try_from(members.len()).unwrap()]);
                for (player, game) in members {
                    bytes.push(*player);
                    game.write(&mut bytes);
                }
            }
        }
        for said in unsent {
            assert_eq!(said.leaves, None, "who leaves is told of at once");
            bytes.push(u8::try_from(said.bytes.len()).unwrap());
            bytes.extend_from_slice(&said.bytes);
        }
        bytes
    }

    pub fn read(subject: Subject, bytes: &[u8]) -> (Self, Vec<Said>) {
        match subject {
            Subject::Session(_) => {
                let (game, rest) = Game::read(&bytes[1..]);
                (Self::Alone { game, wish: bytes[0] != 0 }, unsent(rest))
            }
            Subject::Group(_) => {
                let (mut members, mut rest) = (BTreeMap::new(), &bytes[2..]);
                for _ in 0..bytes[1] {
                    let (game, behind) = Game::read(&rest[1..]);
                    members.insert(rest[0], game);
                    rest = behind;
                }
                (Self::Crowd { count: bytes[0], members }, unsent(rest))
            }
        }
    }
}

fn unsent(mut rest: &[u8]) -> Vec<Said> {
    let mut all = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let (frame, behind) = behind.split_at(usize::from(*length));
        all.push(Said::frame(frame));
        rest = behind;
    }
    all
}

fn arrive(members: &mut BTreeMap<u8, Game>, player: u8, bytes: &[u8]) -> Vec<Said> {
    let arrival = Arrival::parse(bytes).expect("one part is the whole");
    let subject = Subject::Session(session(player));
    let (Actor::Alone { game, .. }, unsent) = Actor::read(subject, arrival.state) else { unreachable!() };
    members.insert(player, game);
    let addressed = |said: Said| Said::to(AddressedKind::Frame, session(player), &said.bytes);
    unsent.into_iter().map(addressed).collect()
}

fn frame_of(
    count: &mut u8,
    members: &mut BTreeMap<u8, Game>,
    player: u8,
    seq: u64,
    frame: &[u8],
) -> Result<Vec<Said>, Wrong> {
    let Some(game) = members.get_mut(&player) else { return Ok(Vec::new()) };
    *count += 1;
    let reply = game.frame(frame, *count)?;
    let mut all = vec![Said::to(AddressedKind::Frame, session(player), &reply.bytes())];
    debug_assert_eq!(reply.bytes().len(), REPLY_BYTES);
    if player == TRAVELLER && frame == [LEAVES] {
        let game = members.remove(&player).expect("it is there");
        let state = Actor::Alone { game, wish: false }.write(std::iter::empty());
        let departure = Departure { client_seq: Seq(seq), state: &state }.to_bytes();
        let said = Said::to(AddressedKind::Passage, session(player), &departure);
        all.push(Said { leaves: Some(seq), ..said });
    }
    Ok(all)
}
