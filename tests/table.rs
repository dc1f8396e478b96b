//! What is in force can be read, kept and compared, and so can what was before.

use anyhow::{Result, ensure};
use holdfast_stage::{Documents, Proxy, ProxySpec, Stage, arena_service, until};
use serde_json::{Value, json};

use crate::support::play::{SOON, play};
use crate::support::program::{Said, holdfast};

/// A proxy with a table of three documents, and nobody behind it.
struct Scene {
    documents: Documents,
    proxy: Proxy,
}

impl Scene {
    fn start(stage: &Stage) -> Result<Self> {
        let documents = Documents::folder(stage)?;
        documents.put("services/arena", &arena_service(&json!({})))?;
        documents.put("backends/arena/a", &json!({"address": "127.0.0.1:9", "version": "1.4"}))?;
        documents.put("routes/public", &route(95))?;
        let proxy = Proxy::start(stage, &ProxySpec::new("p", &documents))?;
        let scene = Self { documents, proxy };
        scene.wait_for_tables(1)?;
        Ok(scene)
    }

    fn table(&self, arguments: &[&str]) -> Result<Said> {
        holdfast(&self.proxy.admin(), &[&["table"], arguments].concat())
    }

    fn said(&self, arguments: &[&str]) -> Result<String> {
        let said = self.table(arguments)?;
        ensure!(said.code == 0, "table {arguments:?}: {said:?}");
        Ok(said.stdout)
    }

    fn tables(&self) -> Result<Vec<Value>> {
        Ok(self.proxy.admin_json("/tables")?["tables"].as_array().cloned().unwrap_or_default())
    }

    /// The history on disk is at most a second behind.
    fn wait_for_tables(&self, count: usize) -> Result<()> {
        until("the history has the table", SOON, || self.tables().is_ok_and(|tables| tables.len() == count))
    }
}

fn route(share: u32) -> Value {
    json!({"listener": "game", "service": "arena", "versions": {"1.4": share, "1.5": 100 - share}})
}

#[test]
fn a_change_can_be_seen_and_compared_with_what_was_before_it() {
    play("table-history", |stage| {
        let mut scene = Scene::start(stage)?;
        ensure!(scene.said(&["diff", "1"])? == "no difference\n");
        scene.documents.put("routes/public", &route(50))?;
        scene.wait_for_tables(2)?;
        let change = "changed routes/public: versions 1.4=95,1.5=5 -> 1.4=50,1.5=50\n";
        ensure!(scene.said(&["diff", "1"])? == change && scene.said(&["diff", "1", "2"])? == change);
        let back = scene.said(&["diff", "2", "1", "--json"])?;
        let back: Value = serde_json::from_str(&back)?;
        ensure!(back["changes"] == json!(["changed routes/public: versions 1.4=50,1.5=50 -> 1.4=95,1.5=5"]));
        let history = scene.said(&["history"])?;
        ensure!(history.lines().count() == 3 && history.starts_with("TABLE  REVISION"), "{history}");
        // A bad document changes nothing, here neither.
        scene.documents.put("routes/public", &json!({"listener": "game"}))?;
        until("the document is refused", SOON, || {
            scene.proxy.metric("holdfast_refused_documents", "").is_ok_and(|refused| refused == 1.0)
        })?;
        ensure!(scene.said(&["diff", "2"])? == "no difference\n");
        // A restart has it all, and adds nothing.
        scene.documents.put("routes/public", &route(50))?;
        scene.proxy.process().kill()?;
        scene.proxy.start_again()?;
        ensure!(scene.tables()?.len() == 2 && scene.said(&["diff", "1"])? == change);
        Ok(())
    });
}

#[test]
fn documents_come_out_as_they_were_written() {
    play("table-export", |stage| {
        let scene = Scene::start(stage)?;
        let list = scene.said(&["list"])?;
        let keys: Vec<_> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
        ensure!(keys == ["backends/arena/a", "routes/public", "services/arena"], "{list}");
        ensure!(scene.said(&["list", "backends/"])?.lines().count() == 2);
        let text = scene.said(&["get", "routes/public"])?;
        ensure!(serde_json::from_str::<Value>(&text)? == route(95), "{text}");
        let folder = stage.path().join("exported");
        let folder = folder.to_str().unwrap_or_default();
        scene.said(&["export", folder])?;
        let checked = holdfast(&scene.proxy.admin(), &["check", folder])?;
        ensure!(checked.code == 0, "{checked:?}");
        ensure!(scene.said(&["diff", "now", folder])? == "no difference\n");
        std::fs::write(
            format!("{folder}/backends/arena/b.json"),
            r#"{"address": "127.0.0.1:8", "version": "1.5"}"#,
        )?;
        let diff = scene.said(&["diff", "now", folder])?;
        ensure!(diff.starts_with("added backends/arena/b: address=127.0.0.1:8 version=1.5"), "{diff}");
        Ok(())
    });
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    play("table-errors", |stage| {
        let scene = Scene::start(stage)?;
        for (arguments, expected) in [
            (
                &["get", "backends/arena/x"][..],
                "there is no backends/arena/x; of backends there are backends/arena/a",
            ),
            (&["list", "--table", "7"], "there is no table 7 in the history; it has 1 to 1"),
            (&["diff", "7"], "there is no table 7 in the history"),
            (&["diff", "now", "/nowhere"], "/nowhere"),
        ] {
            let said = scene.table(arguments)?;
            ensure!(said.code == 1 && said.stderr.contains(expected), "{arguments:?}: {said:?}");
        }
        Ok(())
    });
}
