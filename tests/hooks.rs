//! An alert does by itself what an operator would have done, once, within bounds, and never over an operator's own
//! order; and what happens is told to who wants to know, whom nobody waits for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use holdfast_stage::http::{self, Answer};
use holdfast_stage::{Arena, ArenaSpec, EtcdBinary, Players, PlayersSpec, Proxy, Stage, free_address, until};
use serde_json::{Value, json};

use crate::support::fleet::{CONFIG, Fleet, sessions_on, wait_for_sessions};
use crate::support::play::{SOON, four_zeros, play};

/// Two proxies before some games of one service, and a rule for hot ones.
struct Theatre {
    fleet: Fleet,
    _arenas: Vec<Arena>,
    proxies: [Proxy; 2],
}

impl Theatre {
    fn open(stage: &Stage, arenas: &[&str], more: &str) -> Result<Self> {
        let fleet = Fleet::start(stage, EtcdBinary::Default)?;
        let arenas = arenas.iter().map(|name| fleet.arena(stage, name)).collect::<Result<Vec<_>>>()?;
        let start = |id: &str| Proxy::start(stage, &fleet.spec(id).more(more));
        let proxies = [start("host-a")?, start("host-b")?];
        let theatre = Self { fleet, _arenas: arenas, proxies };
        theatre.rule(
            "hot",
            &json!({"match": {"alertname": "ArenaHot"}, "action": "drain", "on_resolved": "undo"}),
        )?;
        Ok(theatre)
    }

    /// Writes a rule, and waits until both proxies go by it.
    fn rule(&self, name: &str, rule: &Value) -> Result<()> {
        self.fleet.put(&format!("hooks/{name}"), rule)?;
        let key = format!("hooks/{name}");
        until(&format!("{key} in force"), SOON, || {
            self.proxies.iter().all(|proxy| {
                let view = proxy.admin_json("/documents").unwrap_or_default();
                view["documents"].as_array().is_some_and(|all| all.iter().any(|one| one["key"] == *key))
            })
        })
    }

    fn post(&self, proxy: usize, alerts: &[Value]) -> Result<Answer> {
        http::post(&self.proxies[proxy].admin(), "/hooks/alertmanager", &payload(alerts))
    }

    /// What was done for the first alert.
    fn result(&self, proxy: usize, alert: &Value) -> Result<String> {
        let answer = self.post(proxy, std::slice::from_ref(alert))?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(answer.json()?["alerts"][0]["result"].as_str().context("a result")?.to_owned())
    }

    fn get(&self, key: &str) -> Result<String> {
        self.fleet.etcd.etcdctl(&["get", "--print-value-only", &format!("{CONFIG}/{key}")])
    }
}

fn payload(alerts: &[Value]) -> Value {
    json!({"version": "4", "groupKey": "{}", "status": "firing", "receiver": "holdfast", "alerts": alerts,
        "truncatedAlerts": 0})
}

fn hot(status: &str, backend: &str) -> Value {
    let name = backend.rsplit('/').next().unwrap_or_default();
    json!({"status": status, "labels": {"alertname": "ArenaHot", "backend": backend},
        "annotations": {"summary": "93 degrees"}, "startsAt": "2026-11-23T12:00:00Z", "fingerprint": format!("f0{name}")})
}

#[test]
fn an_alert_drains_a_backend_once_however_often_it_comes_and_its_end_lifts_that() {
    play("hooks", |stage| {
        let theatre = Theatre::open(stage, &["a", "b"], "")?;
        let spec = PlayersSpec::new(theatre.proxies.iter().map(Proxy::address), 40);
        let players = Players::start(stage, &spec)?;
        let on_b =
            || theatre.proxies.iter().map(|proxy| sessions_on(proxy, "arena/b").unwrap_or(0)).sum::<u64>();
        until("some are on b", SOON, || on_b() > 0)?;
        let firing = hot("firing", "arena/b");
        ensure!(theatre.result(0, &firing)? == "done");
        let written = theatre.get("drains/arena/b")?;
        ensure!(written.contains("hook hot: ArenaHot f0b: 93 degrees"), "{written}");
        ensure!(theatre.result(0, &firing)? == "already" && theatre.result(1, &firing)? == "already");
        ensure!(theatre.get("drains/arena/b")? == written, "it was written again");
        until("nobody is left on b", SOON, || on_b() == 0)?;
        let resolved = hot("resolved", "arena/b");
        ensure!(theatre.result(1, &resolved)? == "undone" && theatre.result(0, &resolved)? == "already");
        ensure!(theatre.get("drains/arena/b")?.is_empty());
        ensure!(
            theatre.proxies[0].metric("holdfast_hooks_total", "action=\"drain\",result=\"done\"")? == 1.0
        );
        four_zeros(players).map(drop)
    });
}

#[test]
fn what_an_operator_ordered_or_changed_is_left_alone() {
    play("hooks-operator", |stage| {
        let theatre = Theatre::open(stage, &["a", "b", "c", "d"], "")?;
        theatre.fleet.put("drains/arena/a", &json!({"reason": "new disk"}))?;
        ensure!(theatre.result(0, &hot("firing", "arena/a"))? == "already");
        ensure!(theatre.result(0, &hot("resolved", "arena/a"))? == "kept");
        ensure!(theatre.get("drains/arena/a")?.contains("new disk"));
        // One that a hook began and an operator has made his own.
        ensure!(theatre.result(0, &hot("firing", "arena/b"))? == "done");
        let taken: Value = serde_json::from_str(&theatre.get("drains/arena/b")?)?;
        theatre.fleet.put("drains/arena/b", &taken)?;
        ensure!(theatre.result(1, &hot("resolved", "arena/b"))? == "kept");
        ensure!(!theatre.get("drains/arena/b")?.is_empty());
        Ok(())
    });
}

#[test]
fn however_many_alerts_come_at_once_no_more_than_the_share_is_drained() {
    play("hooks-share", |stage| {
        let names = ["a", "b", "c", "d"];
        let theatre = Theatre::open(stage, &names, "")?;
        let alerts: Vec<_> = names.iter().map(|name| hot("firing", &format!("arena/{name}"))).collect();
        let reversed: Vec<_> = alerts.iter().rev().cloned().collect();
        let (theatre, alerts, reversed) = (&theatre, &alerts, &reversed);
        // Both at the same time, each from another end.
        let answers = std::thread::scope(|scope| {
            let other = scope.spawn(|| theatre.post(1, reversed));
            let one = theatre.post(0, alerts);
            [one, other.join().expect("it doesn't panic")]
        });
        for answer in answers {
            let answer = answer?;
            ensure!(answer.status == 200 && answer.body.contains("more than 50 %"), "{answer:?}");
        }
        let keys =
            theatre.fleet.etcd.etcdctl(&["get", "--prefix", "--keys-only", &format!("{CONFIG}/drains/")])?;
        ensure!(keys.split_whitespace().count() == 2, "{keys}");
        Ok(())
    });
}

#[test]
fn an_alert_ejects_for_a_time_and_another_gives_a_rollout_up() {
    play("hooks-abort", |stage| {
        let theatre = Theatre::open(stage, &["old"], "")?;
        let new = Arena::start(stage, ArenaSpec::new("new").version("1.5"))?;
        theatre.fleet.put(
            "routes/public",
            &json!({"listener": "game", "service": "arena", "versions": {"1.4": 100}}),
        )?;
        theatre.fleet.put(&new.key(), &new.document())?;
        theatre.rule(
            "bad",
            &json!({"match": {"alertname": "Bad"}, "action": "abort", "version_label": "version"}),
        )?;
        theatre.rule("slow", &json!({"match": {"alertname": "Slow"}, "action": "eject", "for_s": 2}))?;
        let plan = json!({"from": "1.4", "to": "1.5", "steps": [50, 100], "interval_s": 60});
        theatre.fleet.put("rollouts/arena", &plan)?;
        let progress = "/holdfast/status/rollouts/arena";
        theatre.fleet.etcd.wait_for(progress, SOON, |text| text.contains("\"running\""))?;
        let alert = |name: &str, more: Value| {
            let mut labels = more;
            labels["alertname"] = name.into();
            json!({"status": "firing", "labels": labels, "fingerprint": "f1"})
        };
        let bad = |version: &str| alert("Bad", json!({"service": "arena", "version": version}));
        ensure!(theatre.result(0, &bad("1.4"))? == "refused", "it isn't the version that is rolled out");
        ensure!(theatre.result(0, &bad("1.5"))? == "done");
        ensure!(theatre.result(1, &bad("1.5"))? == "already");
        let written: Value = serde_json::from_str(&theatre.get("rollouts/arena")?)?;
        ensure!(written["order"] == "abort" && written["reason"] == "hook bad: Bad f1", "{written}");
        ensure!(written["interval_s"] == 60 && written["steps"] == json!([50, 100]), "{written}");
        theatre.fleet.etcd.wait_for(progress, SOON, |text| text.contains("\"aborted\""))?;
        let slow = alert("Slow", json!({"service": "arena", "backend": "new"}));
        ensure!(theatre.result(0, &slow)? == "done");
        ensure!(theatre.get("ejections/arena/new")?.contains("until"));
        until("it ends by itself", SOON, || {
            theatre.get("ejections/arena/new").is_ok_and(|text| text.is_empty())
        })
    });
}

#[test]
fn a_wrong_token_is_401_and_with_etcd_away_alerts_are_to_be_sent_again() {
    play("hooks-token", |stage| {
        let token = stage.write("token", "s3cret\n")?;
        let alerts = free_address()?;
        let fleet = Fleet::start(stage, EtcdBinary::Default)?;
        let _arenas = [fleet.arena(stage, "a")?, fleet.arena(stage, "b")?];
        let hooks = format!("[hooks]\nbind = \"{alerts}\"\ntoken_file = {token:?}\n");
        let etcd = "connect_timeout_s = 1\nrequest_timeout_s = 1\n";
        let proxy = Proxy::start(stage, &fleet.spec("host-a").more(&hooks).etcd(etcd))?;
        fleet.put("hooks/hot", &json!({"match": {"alertname": "ArenaHot"}, "action": "drain"}))?;
        until("the rule is in force", SOON, || {
            proxy.admin_json("/documents").is_ok_and(|all| all.to_string().contains("hooks/hot"))
        })?;
        let body = payload(&[hot("firing", "arena/a")]).to_string();
        ensure!(post_with(alerts, "guess", &body)?.starts_with("HTTP/1.1 401"));
        ensure!(http::post(&proxy.admin(), "/hooks/alertmanager", &json!({}))?.status == 401, "nor there");
        let mut fleet = fleet;
        fleet.etcd.kill()?;
        let away = post_with(alerts, "s3cret", &body)?;
        ensure!(away.starts_with("HTTP/1.1 503") && away.contains("\"failed\""), "{away}");
        fleet.etcd.start_again()?;
        until("it is done when it is sent again", SOON, || {
            post_with(alerts, "s3cret", &body).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
        })?;
        ensure!(
            fleet
                .etcd
                .etcdctl(&["get", "--prefix", "--keys-only", &format!("{CONFIG}/drains/")])?
                .contains("arena/a")
        );
        Ok(())
    });
}

fn post_with(address: SocketAddr, token: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    let length = body.len();
    write!(
        stream,
        "POST /hooks/alertmanager HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A request with all of its body.
fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length =
        head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// Takes posts of events, and keeps them in their order.
fn receiver() -> Result<(SocketAddr, Arc<Mutex<Vec<Value>>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let events = Arc::<Mutex<Vec<Value>>>::default();
    let takes = Arc::clone(&events);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut text, mut chunk) = (String::new(), [0; 4096]);
            while !is_whole(&text) {
                match stream.read(&mut chunk) {
                    Ok(read) if read > 0 => text.push_str(&String::from_utf8_lossy(&chunk[..read])),
                    _ => break,
                }
            }
            let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            if let Ok(Value::Object(body)) = serde_json::from_str(body) {
                takes.lock().unwrap().extend(body["events"].as_array().cloned().unwrap_or_default());
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    Ok((address, events))
}

#[test]
fn what_happens_is_told_in_its_order() {
    play("events", |stage| {
        let (address, events) = receiver()?;
        let theatre =
            Theatre::open(stage, &["a", "b"], &format!("[events]\nwebhook = \"http://{address}/\"\n"))?;
        let players = Players::start(stage, &PlayersSpec::new([theatre.proxies[0].address()], 20))?;
        until("some are on b", SOON, || sessions_on(&theatre.proxies[0], "arena/b").is_ok_and(|on| on > 0))?;
        theatre.result(0, &hot("firing", "arena/b"))?;
        wait_for_sessions(&theatre.proxies[0], "arena/b", 0)?;
        let of_host_a = || -> Vec<Value> {
            let all = events.lock().unwrap();
            all.iter().filter(|event| event["proxy"] == "host-a").cloned().collect()
        };
        let told = |kind: &str| of_host_a().iter().any(|event| event["kind"] == kind);
        until("its end is told", SOON, || told("drain_done"))?;
        theatre.result(0, &hot("resolved", "arena/b"))?;
        until("it is told to be lifted", SOON, || told("drain_ended"))?;
        theatre.fleet.put("ejections/arena/a", &json!({"reason": "slow disk"}))?;
        until("it is told to be ejected", SOON, || told("backend_ejected"))?;
        theatre.fleet.put("backends/arena/c", &json!({"address": "nowhere"}))?;
        until("it is told to be refused", SOON, || told("document_refused"))?;
        let wanted =
            ["hook", "drain_began", "drain_done", "drain_ended", "backend_ejected", "document_refused"];
        let of_b = of_host_a();
        let places: Vec<_> =
            wanted[1..].iter().map(|kind| of_b.iter().position(|event| event["kind"] == **kind)).collect();
        ensure!(places.is_sorted() && of_b.iter().any(|event| event["kind"] == wanted[0]), "{of_b:?}");
        let done = of_b.iter().find(|event| event["kind"] == "drain_done").context("it is there")?;
        ensure!(done["backend"] == "arena/b" && done["detail"]["moved"].as_u64() > Some(0), "{done}");
        ensure!(done["reason"].as_str().is_some_and(|reason| reason.starts_with("hook hot: ")), "{done}");
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_receiver_that_is_dead_or_mute_holds_nothing_up() {
    play("events-dead", |stage| {
        // It takes connections, as its kernel does, and never says a word.
        let mute = TcpListener::bind("127.0.0.1:0")?;
        let address = mute.local_addr()?;
        let more = format!("[events]\nwebhook = \"http://{address}/\"\nqueue = 16\ntimeout_s = 60\n");
        let theatre = Theatre::open(stage, &["a", "b"], &more)?;
        let players = Players::start(stage, &PlayersSpec::new([theatre.proxies[0].address()], 20))?;
        let weight = |weight: u32| {
            theatre.fleet.put(
                "routes/public",
                &json!({"listener": "game", "service": "arena",
            "versions": {"1.4": weight}}),
            )
        };
        let mut changes = 0;
        until("events are dropped", SOON * 2, || {
            changes += 1;
            let ejected = json!({"reason": format!("no. {changes}")});
            let _ = theatre.fleet.put("ejections/arena/b", &ejected).and_then(|()| weight(changes));
            let _ = theatre.fleet.delete("ejections/arena/b");
            theatre.proxies[0]
                .metric("holdfast_events_total", "result=\"dropped\"")
                .is_ok_and(|dropped| dropped > 0.0)
        })?;
        ensure!(theatre.result(0, &hot("firing", "arena/b"))? == "done");
        wait_for_sessions(&theatre.proxies[0], "arena/a", 20)?;
        drop(mute);
        four_zeros(players).map(drop)
    });
}
