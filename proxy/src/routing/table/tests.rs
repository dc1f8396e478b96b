//! Which route a client gets.

use super::*;

type Written<'a> = (&'a str, Option<&'a str>, Option<(&'a str, u8)>);

fn table(routes: &[Written<'_>]) -> Table {
    let mut table = Table::empty();
    for &(name, sni, source) in routes {
        let route = Route {
            name: name.into(),
            listener: "game".into(),
            service: "arena".into(),
            versions: BTreeMap::new(),
            prefer: Prefer::None,
            matches: RouteMatch {
                sni: sni.map(Into::into),
                source: source.map(|(base, length)| (base.parse().unwrap(), length)),
            },
        };
        table.routes.insert(name.to_owned(), Arc::new(route));
    }
    table
}

fn found<'a>(table: &'a Table, sni: Option<&str>, source: &str) -> Option<&'a str> {
    table.route("game", sni, source.parse().unwrap()).map(|route| &*route.name)
}

#[test]
fn the_most_exact_server_name_wins_then_the_longest_network() {
    let table = table(&[
        ("any", None, None),
        ("office", None, Some(("10.0.0.0", 8))),
        ("floor", None, Some(("10.1.0.0", 16))),
        ("wild", Some("*.example.com"), None),
        ("wilder", Some("*.play.example.com"), None),
        ("exact", Some("eu.play.example.com"), None),
        ("exact-office", Some("eu.play.example.com"), Some(("10.0.0.0", 8))),
        ("six", None, Some(("2001:db8::", 32))),
    ]);
    for (sni, source, name) in [
        (None, "192.0.2.1", "any"),
        (None, "10.2.0.1", "office"),
        (None, "10.1.0.1", "floor"),
        (None, "::ffff:10.1.0.1", "floor"),
        (None, "2001:db8::1", "six"),
        (None, "2001:db9::1", "any"),
        (Some("other.org"), "10.1.0.1", "floor"),
        (Some("a.example.com"), "10.1.0.1", "wild"),
        (Some("a.b.example.com"), "192.0.2.1", "wild"),
        (Some("example.com"), "192.0.2.1", "any"),
        (Some("us.Play.Example.com"), "192.0.2.1", "wilder"),
        (Some("EU.play.example.com."), "192.0.2.1", "exact"),
        (Some("eu.play.example.com"), "10.9.9.9", "exact-office"),
    ] {
        assert_eq!(found(&table, sni, source), Some(name), "{sni:?} {source}");
    }
}

#[test]
fn a_client_that_no_route_matches_gets_none() {
    let table = table(&[("v4", None, Some(("0.0.0.0", 0))), ("named", Some("a.example"), None)]);
    assert_eq!(found(&table, None, "2001:db8::1"), None);
    assert_eq!(found(&table, None, "192.0.2.1"), Some("v4"));
    assert_eq!(table.route("other", None, "192.0.2.1".parse().unwrap()), None);
}
