//! Matches at a small server that keeps their rules, or breaks one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use holdfast_backend::{GroupId, SessionId};

use super::*;
use crate::players::matches::MatchRules;
use crate::wire::{Ask, Joined, Refused, Turn};
use crate::world::{World, frame_hash};

#[derive(Clone, Copy, PartialEq)]
enum Breach {
    None,
    /// A member is told of another world from the twentieth turn on, one that is right by itself.
    Fork,
    /// Another member than its own isn't told of the twentieth turn.
    Untold,
    Refuse,
    /// Nobody is ever let in.
    Ignore,
}

#[derive(Default)]
struct Rooms(BTreeMap<GroupId, Room>);

struct Room {
    world: World,
    /// Who is told of another world, and that.
    fork: Option<(SessionId, World)>,
    members: BTreeMap<SessionId, TcpStream>,
}

struct Guest {
    id: SessionId,
    stream: TcpStream,
    core: Core,
    room: Option<GroupId>,
}

fn serve_matches(breach: Breach) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rooms = Arc::new(Mutex::new(Rooms::default()));
    std::thread::spawn(move || {
        for (stream, number) in listener.incoming().zip(1u128..) {
            let rooms = rooms.clone();
            let (id, stream) = (SessionId(number.to_be_bytes()), stream.unwrap());
            let guest = Guest { id, stream, core: Core::default(), room: None };
            std::thread::spawn(move || host(guest, &rooms, breach));
        }
    });
    address
}

fn host(mut guest: Guest, rooms: &Mutex<Rooms>, breach: Breach) {
    let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(bytes @ 1..) = guest.stream.read(&mut chunk) {
        input.extend_from_slice(&chunk[..bytes]);
        let rooms = &mut *rooms.lock().unwrap();
        let used = split(&input, |frame| rooms.take(&mut guest, frame, breach)).unwrap();
        input.drain(..used);
    }
    let rooms = &mut *rooms.lock().unwrap();
    if let Some(room) = guest.room.and_then(|room| rooms.0.get_mut(&room)) {
        room.members.remove(&guest.id);
    }
}

/// A player who has gone isn't missed.
fn send(mut stream: &TcpStream, write: impl FnOnce(&mut Vec<u8>)) {
    let mut out = Vec::new();
    with_prefix(&mut out, write);
    let _ = stream.write_all(&out);
}

impl Rooms {
    fn take(&mut self, guest: &mut Guest, frame: &[u8], breach: Breach) {
        let input = Input::decode(frame).unwrap();
        if let Some(room) = guest.room.and_then(|room| self.0.get_mut(&room)) {
            room.turn(guest.id, input.seq, frame, breach);
        }
        guest.core.advance(frame);
        let tag = Tag { instance: 1, version: "1.4".into() };
        send(&guest.stream, |out| encode_reply(frame, input.seq, &guest.core, 0, &tag, out));
        match input.ask {
            Ask::Match(game) if guest.room.is_none() => self.join(guest, game, breach),
            Ask::Leave => {
                if let Some(room) = guest.room.take().and_then(|room| self.0.get_mut(&room)) {
                    room.members.remove(&guest.id);
                }
            }
            Ask::Match(_) | Ask::Nothing | Ask::Burst(_) => {}
        }
    }

    fn join(&mut self, guest: &mut Guest, game: GroupId, breach: Breach) {
        match breach {
            Breach::Ignore => return,
            Breach::Refuse => {
                return send(&guest.stream, |out| Refused { game, reason: "no matches here" }.encode(out));
            }
            Breach::None | Breach::Fork | Breach::Untold => {}
        }
        let world = World::new(u64::from(game.0[15]));
        let room = self.0.entry(game).or_insert(Room { world, fork: None, members: BTreeMap::new() });
        room.members.insert(guest.id, guest.stream.try_clone().unwrap());
        let members = room.members.keys().copied().collect();
        let joined = Joined { game, you: guest.id, world: room.world, members };
        send(&guest.stream, |out| joined.encode(out));
        guest.room = Some(game);
    }
}

impl Room {
    fn turn(&mut self, member: SessionId, seq: u64, frame: &[u8], breach: Breach) {
        let hash = frame_hash(frame);
        let before = self.world;
        self.world.advance(member, hash);
        let another = self.members.keys().copied().find(|id| *id != member);
        if breach == Breach::Fork && self.world.turn >= 20 && self.fork.is_none() {
            self.fork = another.map(|victim| (victim, before));
        } else if let Some((_, world)) = &mut self.fork {
            world.advance(member, hash);
        }
        for (id, stream) in &self.members {
            let mut turn =
                Turn { number: self.world.turn, member, seq, frame_hash: hash, hash: self.world.hash };
            match &mut self.fork {
                Some((victim, world)) if victim == id => {
                    if world.turn < turn.number {
                        turn.frame_hash ^= 1;
                        world.advance(member, turn.frame_hash);
                    }
                    turn.hash = world.hash;
                }
                _ if breach == Breach::Untold && turn.number == 20 && Some(*id) == another => continue,
                _ => {}
            }
            send(stream, |out| turn.encode(out));
        }
    }
}

fn play_in_matches(breach: Breach, rules: MatchRules) -> Verdict {
    let matches = Some(rules);
    let settings = Settings { matches, grace: Duration::from_millis(500), ..settings(serve_matches(breach)) };
    let output = Output { json: false, period: Duration::from_secs(60) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict = tokio::task::LocalSet::new().block_on(&runtime, run(settings, None, output, pending()));
    assert!(verdict.sessions == 10 && verdict.frames > 100, "{verdict:?}");
    verdict
}

const FIVES: MatchRules = MatchRules { size: 5, share_percent: 100, rematch: None, id: None };

#[test]
fn players_in_honest_matches_find_no_fault() {
    let verdict = play_in_matches(Breach::None, FIVES);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.in_match, verdict.joins), (10, 10));
    // Each frame of a match is told to five.
    assert!(verdict.received > verdict.frames * 5, "{verdict:?}");
}

#[test]
fn a_share_of_the_players_plays_alone() {
    let verdict = play_in_matches(Breach::None, MatchRules { share_percent: 50, ..FIVES });
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.in_match, verdict.joins), (5, 5));
}

#[test]
fn players_leave_and_join_again_without_a_gap() {
    let rematch = Some(Duration::from_millis(50));
    let verdict = play_in_matches(Breach::None, MatchRules { size: 3, rematch, ..FIVES });
    assert!(verdict.is_clean(), "{verdict:?}");
    assert!(verdict.joins > 20, "{verdict:?}");
}

#[test]
fn two_worlds_in_one_match_are_found() {
    let verdict = play_in_matches(Breach::Fork, FIVES);
    let counts = [verdict.lost, verdict.repeated, verdict.reordered, verdict.mismatched];
    assert_eq!(counts, [0; 4], "{verdict:?}");
    // In each of two matches, one who differs from four, or four from the one who was told first.
    assert!((2..=8).contains(&verdict.worlds_diverged), "{verdict:?}");
    assert!(!verdict.is_clean());
}

#[test]
fn a_turn_that_a_member_is_not_told_of_is_found() {
    let verdict = play_in_matches(Breach::Untold, FIVES);
    assert_eq!((verdict.lost, verdict.worlds_diverged), (2, 0), "{verdict:?}");
}

#[test]
fn a_match_that_is_refused_or_never_begins_is_found() {
    let refused = play_in_matches(Breach::Refuse, FIVES);
    assert_eq!((refused.joins_refused, refused.lost, refused.in_match), (10, 0, 0), "{refused:?}");
    assert!(!refused.is_clean() && refused.notes[0].contains("no matches here"), "{refused:?}");
    let ignored = play_in_matches(Breach::Ignore, FIVES);
    assert_eq!((ignored.joins_refused, ignored.lost), (0, 10), "{ignored:?}");
}
