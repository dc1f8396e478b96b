//! `holdfast rollout start`, `pause`, `resume`, `abort`, `promote`: an operator's night without editing a document.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Theatre, new_version};
use crate::support::play::{four_zeros, play};
use crate::support::program::{Said, holdfast};

const ROUTE: &str = "/holdfast/config/routes/public";

impl Theatre {
    /// Through the last proxy, so that any will do.
    fn say(&self, words: &[&str]) -> Result<Said> {
        let proxy = self.proxies.last().context("a proxy")?;
        holdfast(&proxy.admin(), &[&["rollout"], words].concat())
    }

    fn obeys(&self, words: &[&str]) -> Result<String> {
        let said = self.say(words)?;
        ensure!(said.code == 0, "{words:?}: {said:?}");
        Ok(said.stdout)
    }

    fn refuses(&self, words: &[&str], because: &str) -> Result<()> {
        let said = self.say(words)?;
        ensure!(said.code == 1 && said.stderr.contains(because), "{words:?}: {said:?}");
        Ok(())
    }

    fn route(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.fleet.etcd.etcdctl(&["get", ROUTE, "--print-value-only"])?)?)
    }

    /// Of the key's last change.
    fn revision_of(&self, key: &str) -> Result<u64> {
        let found: Value = serde_json::from_str(&self.fleet.etcd.etcdctl(&["get", key, "-w", "json"])?)?;
        found["kvs"][0]["mod_revision"].as_u64().context("a revision")
    }

    fn has_rollout_at(&self, revision: u64) -> Result<bool> {
        let at = format!("--rev={revision}");
        let found = self.fleet.etcd.etcdctl(&["get", "/holdfast/config/rollouts/arena", &at])?;
        Ok(!found.is_empty())
    }
}

#[test]
fn a_version_is_started_paused_resumed_and_promoted_by_one_word_each() {
    play("rollout-words", |stage| {
        let theatre = Theatre::open(stage, 2, new_version())?;
        let players = theatre.players(stage, 40)?;
        let plan = ["start", "arena", "--to", "1.5", "--steps", "50,100", "--interval", "1s"];
        let dry = theatre.say(&[&plan[..], &["--dry-run"]].concat())?;
        ensure!(dry.code == 5 && dry.stdout.contains("added rollouts/arena: from=1.4 to=1.5"), "{dry:?}");
        theatre.refuses(&["pause", "arena"], "there is no rollouts/arena")?;
        theatre.obeys(&[&plan[..], &["--reason", "hotfix"]].concat())?;
        theatre.wait_for("at its first step", |progress| progress["percent"] == 50)?;
        theatre.obeys(&["pause", "arena", "--reason", "lunch"])?;
        let paused = theatre.wait_state("paused")?;
        ensure!(paused["reason"] == "ordered: lunch", "{paused}");
        theatre.refuses(&plan, "rollouts/arena from 1.4 to 1.5 is paused: promote it or abort it first")?;
        theatre.refuses(&["promote", "arena"], "its last step isn't over: --now")?;
        theatre.obeys(&["resume", "arena"])?;
        theatre.wait_state("done")?;
        theatre.wait_on(&theatre.new, 40)?;
        let told = theatre.obeys(&["promote", "arena"])?;
        ensure!(told.contains("changed routes/public: versions"), "{told}");
        ensure!(theatre.route()?["versions"] == json!({"1.5": 100}), "{}", theatre.route()?);
        // Nobody ever saw the one without the other.
        let revision = theatre.revision_of(ROUTE)?;
        ensure!(
            theatre.has_rollout_at(revision - 1)? && !theatre.has_rollout_at(revision)?,
            "two transactions"
        );
        theatre.wait_on(&theatre.new, 40)?;
        four_zeros(players).map(drop)
    });
}

#[test]
fn a_word_aborts_and_another_begins_anew() {
    play("rollout-words", |stage| {
        let theatre = Theatre::open(stage, 1, new_version())?;
        let players = theatre.players(stage, 30)?;
        theatre.obeys(&["start", "arena", "--to", "1.5", "--steps", "100", "--interval", "1h"])?;
        theatre.wait_on(&theatre.new, 30)?;
        theatre.obeys(&["abort", "arena", "--reason", "matchmaking is broken"])?;
        let aborted = theatre.wait_state("aborted")?;
        ensure!(aborted["reason"] == "ordered: matchmaking is broken", "{aborted}");
        theatre.wait_on(&theatre.old, 30)?;
        theatre.refuses(&["abort", "arena"], "rollouts/arena is aborted already")?;
        theatre.refuses(&["resume", "arena"], "`holdfast rollout start` begins it anew")?;
        theatre.obeys(&["start", "arena", "--to", "1.5", "--steps", "100", "--interval", "1h"])?;
        theatre.wait_for("the next attempt", |progress| progress["attempt"] == 1)?;
        theatre.wait_on(&theatre.new, 30)?;
        four_zeros(players).map(drop)
    });
}
