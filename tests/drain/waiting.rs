//! `drain --wait` tells the truth, and each end has an exit code of its own. Here documents are files: this proxy's
//! own count, and the backend's.

use holdfast_stage::{Arena, ArenaSpec, Documents, Players, PlayersSpec, Proxy, ProxySpec, arena_service};
use serde_json::{Value, json};

use crate::support::fleet::{sessions_on, wait_for_sessions};
use crate::support::play::{four_zeros, play};
use crate::support::program::holdfast;
use crate::support::scene::{Script, clean};

const WAIT: [&str; 4] = ["drain", "arena/a", "--local", "--wait"];

fn wait_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&WAIT[..], more].concat()
}

#[test]
fn an_empty_backend_is_exit_0_and_the_answer_says_by_whose_count() {
    let mut scene = Script::new("waiting").open();
    let players = scene.players(40);
    let said = scene.holdfast(&WAIT);
    assert_eq!((said.code, scene.sessions_on("a")), (Some(0), 0), "{said:?}");
    assert!(said.out.starts_with("arena/a is empty after "), "{said:?}");
    assert!(said.out.contains("this proxy has no session there, and the backend counts none"), "{said:?}");
    let said = scene.holdfast(&wait_with(&["--json"]));
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    let told = ["result", "state", "left", "attachments", "others"].map(|field| answer[field].clone());
    assert_eq!(told, [json!("done"), json!("empty"), json!(0), json!(0), json!(1)], "{answer}");
    scene.wait_settled("b", 40);
    clean(players);
}

#[test]
fn a_backend_that_this_proxy_never_called_is_asked_for_its_count() {
    let scene = Script::new("waiting").open();
    assert_eq!(scene.backend("a")["link"], "none");
    let said = scene.holdfast(&WAIT);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("the backend counts none"), "{said:?}");
}

#[test]
fn a_backend_that_is_gone_is_waited_for_no_longer() {
    let mut scene = Script::new("waiting").open();
    let players = scene.players(20);
    scene.arena("a").process().terminate().unwrap();
    let said = scene.holdfast(&WAIT);
    assert_eq!(said.code, Some(0), "{said:?}");
    scene.wait_settled("b", 20);
    clean(players);
}

#[test]
fn that_nobody_can_take_them_is_a_warning_at_once_and_exit_4_at_the_deadline() {
    let scene = Script::new("waiting").arenas([ArenaSpec::new("a")]).open();
    let players = scene.players(10);
    let said = scene.holdfast(&["drain", "arena/a", "--local"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.starts_with("warning: no other backend of arena takes sessions now"), "{said:?}");
    let said = scene.holdfast(&wait_with(&["--deadline", "1s"]));
    assert_eq!(said.code, Some(4), "{said:?}");
    assert_eq!(said.err.matches("warning: no other backend").count(), 1, "{said:?}");
    assert!(said.err.lines().next().unwrap().starts_with("warning: "), "before all else: {said:?}");
    assert!(
        said.out.contains("isn't empty at the deadline") && said.out.contains("10 sessions left"),
        "{said:?}"
    );
    clean(players);
}

#[test]
fn a_drain_that_is_lifted_meanwhile_is_exit_1() {
    let mut scene = Script::new("waiting").arenas([ArenaSpec::new("a")]).open();
    let players = scene.players(10);
    let admin = scene.proxy.admin();
    let waiting = std::thread::spawn(move || holdfast(&admin, &wait_with(&["--json"])).unwrap());
    scene.wait("the drain is in force", |scene| scene.backend("a")["drain"]["state"] == "stuck");
    assert_eq!(scene.holdfast(&["undrain", "arena/a", "--local"]).code, Some(0));
    let said = waiting.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&answer["result"], &answer["left"]), (&json!("lifted"), &json!(10)));
    scene.wait_settled("a", 10);
    clean(players);
}

/// Two proxies, one folder of documents, and players on `a` through both.
#[test]
fn the_sessions_of_another_proxy_show_in_the_backends_own_count() {
    play("waiting-two", |stage| {
        let documents = Documents::folder(stage)?;
        let (a, b) = (Arena::start(stage, ArenaSpec::new("a"))?, Arena::start(stage, ArenaSpec::new("b"))?);
        documents.put("services/arena", &arena_service(&json!({})))?;
        documents.put("routes/public", &json!({"listener": "game", "service": "arena"}))?;
        documents.put(&a.key(), &a.document())?;
        documents.put(&b.key(), &b.document())?;
        let p = Proxy::start(stage, &ProxySpec::new("p", &documents))?;
        let q = Proxy::start(stage, &ProxySpec::new("q", &documents))?;
        let players = Players::start(stage, &PlayersSpec::new([p.address(), q.address()], 40))?;
        let there = sessions_on(&q, "arena/a")?;
        assert!(there > 0);
        let said = holdfast(&p.admin(), &wait_with(&["--deadline", "1s"]))?;
        assert_eq!(said.code, 4, "{said:?}");
        assert!(said.stdout.contains(&format!("the backend to let go of {there}")), "{said:?}");
        wait_for_sessions(&p, "arena/b", 20)?;
        let said = holdfast(&q.admin(), &WAIT)?;
        assert_eq!(said.code, 0, "both have left: {said:?}");
        wait_for_sessions(&q, "arena/b", 20)?;
        four_zeros(players).map(drop)
    });
}
