//! What applies, what is refused, and what stays in force.

use super::*;

const SERVICE: &str = r#"{"protocol": "link", "framing": {"kind": "length"}}"#;
const BACKEND: &str = r#"{"address": "127.0.0.1:7100", "version": "1.4"}"#;
const ROUTE: &str = r#"{"listener": "game", "service": "arena", "versions": {"1.4": 1}}"#;

/// A source's documents and what the last compilation left, as a source keeps them.
#[derive(Default)]
struct World {
    documents: Documents,
    last_good: LastGood,
    revision: u64,
}

impl World {
    fn of(documents: &[(&str, &str)]) -> (Self, Compiled) {
        let mut world = Self::default();
        let compiled =
            world.change(&documents.iter().map(|&(key, text)| (key, Some(text))).collect::<Vec<_>>());
        (world, compiled)
    }

    /// One change of the source: `None` deletes.
    fn change(&mut self, changes: &[(&str, Option<&str>)]) -> Compiled {
        self.revision += 1;
        for &(key, text) in changes {
            match text {
                Some(text) => self.documents.put(key, text.as_bytes(), self.revision),
                None => self.documents.remove(key),
            }
        }
        let compiled = compile(&self.documents, &self.last_good, self.revision);
        self.last_good = compiled.last_good.clone();
        compiled
    }
}

fn whole() -> Vec<(&'static str, &'static str)> {
    vec![("services/arena", SERVICE), ("backends/arena/a", BACKEND), ("routes/public", ROUTE)]
}

fn refused(compiled: &Compiled) -> Vec<(&str, &str, bool)> {
    compiled.refused.iter().map(|refusal| (&*refusal.key, &*refusal.field, refusal.last_good)).collect()
}

fn warned(compiled: &Compiled) -> Vec<&str> {
    compiled.warnings.iter().map(|warning| &*warning.key).collect()
}

#[test]
fn invariant_7_a_bad_document_changes_nothing_and_says_why() {
    let (mut world, before) = World::of(&whole());
    assert_eq!((refused(&before), warned(&before)), (vec![], vec![]));
    for (key, bad, field) in [
        ("services/arena", r#"{"protocol": "link"}"#, "framing"),
        ("services/arena", r#"{"protocol": "stream", "framing": {"kind": "length"}}"#, "protocol"),
        ("backends/arena/a", r#"{"address": "127.0.0.1:7100", "version": "1.4", "wieght": 5}"#, "wieght"),
        ("backends/arena/a", "{", "document"),
        ("routes/public", r#"{"listener": "game", "service": "nowhere"}"#, "service"),
        ("routes/public", r#"{"listener": "game", "service": "arena", "versions": {"1.4": 0}}"#, "versions"),
    ] {
        let good = world.documents.get(key).unwrap().parsed.clone().unwrap();
        let other = r#"{"address": "127.0.0.1:7101", "version": "1.4"}"#;
        let after = world.change(&[(key, Some(bad)), ("backends/arena/b", Some(other))]);
        assert_eq!(refused(&after), [(key, field, true)], "{bad}");
        assert_eq!(after.refused[0].since, world.revision);
        assert_eq!(after.table.services, before.table.services);
        assert_eq!(after.table.routes, before.table.routes);
        assert_eq!(after.table.backends.len(), 2, "the other document of the change applies");
        let mended =
            world.change(&[(key, Some(std::str::from_utf8(&good.raw).unwrap())), ("backends/arena/b", None)]);
        assert_eq!(refused(&mended), []);
        assert_eq!(mended.table.backends, before.table.backends);
    }
}

#[test]
fn a_document_that_was_never_good_is_absent() {
    let (_, compiled) = World::of(&[("services/arena", SERVICE), ("backends/arena/a", "{}")]);
    assert_eq!(refused(&compiled), [("backends/arena/a", "address", false)]);
    assert!(compiled.table.backends.is_empty());
}

#[test]
fn a_deleted_document_is_gone_with_its_last_good_version() {
    let (mut world, _) = World::of(&whole());
    world.change(&[("backends/arena/a", Some("{}"))]);
    let compiled = world.change(&[("backends/arena/a", None)]);
    assert!(compiled.table.backends.is_empty() && !compiled.last_good.contains_key("backends/arena/a"));
    let compiled = world.change(&[("backends/arena/a", Some("{}"))]);
    assert_eq!(refused(&compiled), [("backends/arena/a", "address", false)]);
}

#[test]
fn the_order_of_writes_does_not_matter() {
    let mut documents = whole();
    let (_, all_at_once) = World::of(&documents);
    documents.reverse();
    let mut world = World::default();
    let compiled: Vec<_> = documents.iter().map(|&(key, text)| world.change(&[(key, Some(text))])).collect();
    assert_eq!(refused(&compiled[0]), [("routes/public", "service", false)]);
    assert_eq!(refused(&compiled[2]), []);
    assert_eq!(compiled[2].table.routes, all_at_once.table.routes);
    assert_eq!(compiled[2].table.backends, all_at_once.table.backends);
}

#[test]
fn a_route_comes_back_with_its_service() {
    let (mut world, before) = World::of(&whole());
    let without = world.change(&[("services/arena", None)]);
    assert_eq!(refused(&without), [("routes/public", "service", false)]);
    assert!(without.table.routes.is_empty());
    assert_eq!(warned(&without), ["backends/arena/a"]);
    // A bad write meanwhile: the version that was in force once is still the one to fall back to.
    world.change(&[("routes/public", Some("{"))]);
    let back = world.change(&[("services/arena", Some(SERVICE))]);
    assert_eq!(refused(&back), [("routes/public", "document", true)]);
    assert_eq!(back.table.routes, before.table.routes);
}

#[test]
fn of_two_routes_that_tie_the_one_in_force_stays() {
    let (mut world, before) = World::of(&whole());
    // A smaller key and the same place.
    let tie = world.change(&[("routes/another", Some(ROUTE))]);
    assert_eq!(refused(&tie), [("routes/another", "listener", false)]);
    assert!(tie.refused[0].expected.contains("routes/public"), "{}", tie.refused[0]);
    assert_eq!(tie.table.routes, before.table.routes);
    // A newer version of the one in force doesn't lose the place.
    let newer = world.change(&[("routes/public", Some(r#"{"listener": "game", "service": "arena"}"#))]);
    assert_eq!(refused(&newer), [("routes/another", "listener", false)]);
    // Nor does a bad one.
    let bad = world.change(&[("routes/public", Some("{}"))]);
    assert_eq!(refused(&bad), [("routes/another", "listener", false), ("routes/public", "listener", true)]);
    let freed = world.change(&[("routes/public", None)]);
    assert_eq!(refused(&freed), []);
    assert!(freed.table.routes.contains_key("another"));
}

#[test]
fn a_route_that_moves_onto_anothers_place_stays_where_it_was() {
    let (mut world, _) = World::of(&whole());
    let vip = |sni: &str| format!(r#"{{"listener": "game", "service": "arena", "sni": "{sni}"}}"#);
    world.change(&[("routes/vip", Some(&vip("vip.example")))]);
    let tie = world.change(&[("routes/vip", Some(r#"{"listener": "game", "service": "arena"}"#))]);
    assert_eq!(refused(&tie), [("routes/vip", "listener", true)]);
    assert_eq!(tie.table.routes["vip"].matches.sni.as_deref(), Some("vip.example"));
    // The place that it was about to leave is still its own.
    let newcomer = world.change(&[("routes/aaa", Some(&vip("vip.example")))]);
    assert_eq!(refused(&newcomer), [("routes/aaa", "listener", false), ("routes/vip", "listener", true)]);
}

#[test]
fn two_routes_swap_their_places_in_one_change() {
    let (mut world, _) = World::of(&whole());
    let vip = r#"{"listener": "game", "service": "arena", "sni": "vip.example"}"#;
    world.change(&[("routes/vip", Some(vip))]);
    let swapped = world.change(&[("routes/vip", Some(ROUTE)), ("routes/public", Some(vip))]);
    assert_eq!(refused(&swapped), []);
    assert!(swapped.table.routes["public"].matches.sni.is_some());
}

#[test]
fn a_newcomers_tie_is_settled_by_revision_then_key() {
    let (_, compiled) = World::of(&[("services/arena", SERVICE), ("routes/b", ROUTE), ("routes/a", ROUTE)]);
    assert_eq!(refused(&compiled), [("routes/b", "listener", false)]);
}

#[test]
fn what_can_hardly_be_meant_is_a_warning() {
    let (mut world, _) = World::of(&whole());
    let compiled = world.change(&[
        ("drains/arena/z", Some("{}")),
        ("backends/lobby/a", Some(BACKEND)),
        ("rollouts/arena", Some(r#"{"from": "1.4", "to": "1.5"}"#)),
        (
            "routes/public",
            Some(r#"{"listener": "game", "service": "arena", "versions": {"1.4": 9, "1.5": 1, "1.6": 0}}"#),
        ),
    ]);
    assert_eq!(refused(&compiled), []);
    assert_eq!(warned(&compiled), ["backends/lobby/a", "drains/arena/z", "routes/public", "rollouts/arena"]);
    assert!(compiled.warnings[2].text.contains("versions.1.5"), "{:?}", compiled.warnings[2]);
    assert_eq!(compiled.warnings[3].text, "to: no backend of services/arena has version 1.5");
    assert_eq!(compiled.table.drains.len(), 1, "it counts as soon as the backend is there");
}

#[test]
fn a_key_of_no_known_shape_is_refused() {
    let (_, compiled) = World::of(&[("service/arena", SERVICE), ("routes/-public", ROUTE)]);
    assert_eq!(refused(&compiled), [("routes/-public", "key", false), ("service/arena", "key", false)]);
}

proptest::proptest! {
    /// Any damage to a valid document is applied or refused with a reason; nothing else is touched.
    #[test]
    fn a_mutated_document_is_applied_or_refused_with_a_reason(
        which in 0usize..3,
        at in 0usize..200,
        cut in 0usize..8,
        splice in "[ -~]{0,8}",
    ) {
        let (mut world, before) = World::of(&whole());
        let (key, text) = whole()[which];
        let (start, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let mutated = format!("{}{splice}{}", &text[..start], &text[end..]);
        let after = world.change(&[(key, Some(&mutated))]);
        for refusal in &after.refused {
            let named = !refusal.field.is_empty() && !refusal.expected.is_empty();
            proptest::prop_assert!(named, "{refusal}");
        }
        if after.refused.iter().any(|refusal| refusal.key == key) {
            proptest::prop_assert_eq!(&after.table.services, &before.table.services);
            proptest::prop_assert_eq!(&after.table.backends, &before.table.backends);
            proptest::prop_assert_eq!(&after.table.routes, &before.table.routes);
        } else {
            let applied = &after.last_good[key].raw;
            proptest::prop_assert_eq!(&**applied, mutated.as_bytes());
        }
    }
}

const NEXT: (&str, &str) = ("services/arena-next", SERVICE);

fn mirrored_to(shadow: &str) -> String {
    SERVICE.replace("}}", &format!(r#"}}, "mirror": {{"service": "{shadow}", "percent": 10}}}}"#))
}

fn shadow_of<'a>(compiled: &'a Compiled, service: &str) -> Option<&'a str> {
    compiled.table.services[service].mirror.as_deref().map(|mirror| &*mirror.service)
}

#[test]
fn a_mirror_needs_a_service_that_is_there_and_cuts_its_stream_the_same_way() {
    let (mut world, before) = World::of(&[whole(), vec![NEXT]].concat());
    let good = world.change(&[("services/arena", Some(&mirrored_to("arena-next")))]);
    assert_eq!((refused(&good), shadow_of(&good, "arena")), (vec![], Some("arena-next")));
    // A new version whose shadow isn't there: the last good one is in force.
    let bad = world.change(&[("services/arena", Some(&mirrored_to("nowhere")))]);
    assert_eq!(refused(&bad), [("services/arena", "mirror.service", true)]);
    assert_eq!(bad.refused[0].value, "nowhere");
    assert_eq!(bad.table.services, good.table.services);
    let mended = world.change(&[("services/arena", Some(&mirrored_to("arena-next")))]);
    assert_eq!(refused(&mended), []);
    // Its shadow changes: its players keep their service, and it is told what is missing.
    let lines = r#"{"protocol": "link", "framing": {"kind": "lines"}}"#;
    for change in [Some(lines), None] {
        let after = world.change(&[("services/arena-next", change)]);
        assert_eq!(refused(&after), [("services/arena", "mirror.service", true)]);
        assert!(after.refused[0].expected.ends_with("in force without its mirror"), "{}", after.refused[0]);
        assert_eq!(after.table.services["arena"], before.table.services["arena"]);
        assert_eq!(after.table.routes, before.table.routes);
    }
    let back = world.change(&[("services/arena-next", Some(SERVICE))]);
    assert_eq!((refused(&back), shadow_of(&back, "arena")), (vec![], Some("arena-next")));
}

#[test]
fn services_may_mirror_each_other_since_no_mirror_is_mirrored() {
    let (_, both) = World::of(&[
        ("services/arena", &mirrored_to("arena-next")),
        ("services/arena-next", &mirrored_to("arena")),
    ]);
    assert_eq!(refused(&both), []);
    assert_eq!(
        (shadow_of(&both, "arena"), shadow_of(&both, "arena-next")),
        (Some("arena-next"), Some("arena"))
    );
}
