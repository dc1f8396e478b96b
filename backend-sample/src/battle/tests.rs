//! What a match writes of itself is all that it knows.

use super::*;
use crate::arena::Faults;
use crate::hero::BadState;
use crate::mishaps::Mishaps;

const ADA: SessionId = SessionId([1; 16]);
const BOB: SessionId = SessionId([2; 16]);

fn empty(faults: Faults) -> Battle {
    let tag = Tag { instance: 7, version: "1.4".into() };
    let mishaps = Mishaps::default();
    let rules = Rules {
        tag,
        shares_tag: false,
        state_bytes: 300,
        first_state_bytes: None,
        tick: None,
        faults,
        mishaps,
    };
    Battle {
        rules: Arc::new(rules),
        world: World::default(),
        members: BTreeMap::new(),
        served_by: Tag { instance: 0, version: String::new() },
        out: Vec::new(),
    }
}

fn member(name: &str, state_bytes: usize) -> Member {
    let mut hero = Hero::new(name);
    hero.core.advance(name.as_bytes());
    hero.ticks = 4;
    Member { hero, state_bytes }
}

/// Two players, some turns.
fn played(faults: Faults) -> Battle {
    let mut battle = empty(faults);
    battle.members = BTreeMap::from([(ADA, member("Ada", 300)), (BOB, member("Bob", 5000))]);
    battle.world = World::new(3);
    battle.world.advance(ADA, 10);
    battle.world.advance(BOB, 11);
    battle.served_by = Tag { instance: 9, version: "1.5".into() };
    battle
}

#[test]
fn a_match_survives_saving_and_any_changed_byte_is_noticed() {
    let battle = played(Faults::default());
    let saved = battle.snapshot();
    let mut again = empty(Faults::default());
    assert_eq!(again.load(&saved), Ok(()));
    assert_eq!(again.snapshot(), saved);
    assert_eq!((again.world, &again.served_by), (battle.world, &battle.served_by));
    for (id, member) in &battle.members {
        assert_eq!(again.members[id].hero, member.hero);
        assert_eq!(again.members[id].state_bytes, member.state_bytes, "heroes go as large as they came");
    }
    for position in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[position] ^= 1;
        assert_eq!(empty(Faults::default()).load(&damaged), Err(BadState::Corrupt), "byte {position}");
    }
    assert!(empty(Faults::default()).load(&saved[..saved.len() - 1]).is_err());
}

#[test]
fn a_match_that_is_told_to_damage_its_state_does() {
    let saved = played(Faults { corrupt_state: true, ..Faults::default() }).snapshot();
    assert_eq!(empty(Faults::default()).load(&saved), Err(BadState::Corrupt));
}

#[test]
fn changes_bring_a_match_where_it_was() {
    let mut kept = empty(Faults::default());
    let mut battle = played(Faults::default());
    let apply = |kept: &mut Battle, write: &dyn Fn(&mut Vec<u8>)| {
        let mut change = Vec::new();
        write(&mut change);
        kept.read(&change)
    };
    let whole = |out: &mut Vec<u8>| {
        battle.write_world(out);
        battle.write_member(ADA, 0, out);
        battle.write_member(BOB, 0, out);
    };
    assert_eq!(apply(&mut kept, &whole), Ok(()));
    assert_eq!(kept.save(), battle.save());

    battle.members.remove(&ADA);
    assert_eq!(apply(&mut kept, &|out| saved::write_gone(ADA, out)), Ok(()));
    assert_eq!(kept.save(), battle.save());

    assert!(apply(&mut kept, &|out| out.push(99)).is_err());
}
