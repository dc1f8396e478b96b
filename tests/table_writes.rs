//! What an operator writes through a proxy: judged before, written whole or not at all, and never over somebody else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast::config::Etcd as EtcdConfig;
use holdfast::routing::edit::Edit;
use holdfast::source::etcd::EtcdWriter;
use holdfast::source::write::{Committed, Listing, Transaction};
use holdfast_stage::{Etcd, EtcdBinary, Proxy, Stage, until};
use serde_json::{Value, json};

use crate::support::fleet::{CONFIG, Fleet, on_both_etcds};
use crate::support::play::{SOON, play};
use crate::support::program::{Said, holdfast};

on_both_etcds! {
    a_document_is_judged_before_it_is_written,
    a_folder_is_applied_whole_and_rolled_back_whole,
    nobody_is_overwritten_unseen,
    thousands_of_documents_are_one_revision,
    what_etcd_does_not_take_at_once_is_said_with_the_way_out,
    what_a_live_proxy_cannot_read_is_not_written,
}

/// A fleet of one proxy, and a folder to apply.
struct Desk {
    fleet: Fleet,
    proxy: Proxy,
    folder: PathBuf,
}

impl Desk {
    /// Two backends are listed, at which nobody is.
    fn start(stage: &Stage, fleet: Fleet, id: &str) -> Result<Self> {
        for name in ["a", "b"] {
            fleet.put(&format!("backends/arena/{name}"), &backend(100))?;
        }
        let proxy = fleet.proxy(stage, id)?;
        let desk = Self { fleet, proxy, folder: stage.path().join("routing") };
        until("the documents are in force", SOON, || desk.listed("").is_ok_and(|count| count == 4))?;
        Ok(desk)
    }

    fn table(&self, arguments: &[&str]) -> Result<Said> {
        holdfast(&self.proxy.admin(), &[&["table"], arguments].concat())
    }

    /// What it prints; it must end with this code.
    fn ends(&self, code: i32, arguments: &[&str]) -> Result<String> {
        let said = self.table(arguments)?;
        ensure!(said.code == code, "table {arguments:?}: {said:?}");
        Ok(said.stdout + &said.stderr)
    }

    fn listed(&self, prefix: &str) -> Result<usize> {
        Ok(self.ends(0, &["list", prefix])?.lines().count() - 1)
    }

    fn folder(&self) -> &str {
        self.folder.to_str().unwrap_or_default()
    }

    fn write(&self, key: &str, text: &str) -> Result<String> {
        let path = self.folder.join(format!("{key}.json"));
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// Each document's key and the revision of its last change, as etcd has them.
    fn revisions(&self) -> Result<Vec<(String, u64)>> {
        let answer = self.fleet.etcd.etcdctl(&["get", CONFIG, "--prefix", "--keys-only", "-w", "fields"])?;
        let field = |name: &str| {
            let start = format!("\"{name}\" : ");
            let lines = answer.lines().filter_map(|line| line.strip_prefix(&*start).map(str::to_owned));
            lines.collect::<Vec<_>>()
        };
        let keys = field("Key");
        let short = keys.iter().map(|key| key.trim_matches('"').replace(&format!("{CONFIG}/"), ""));
        let revisions = field("ModRevision").into_iter().map(|text| text.parse().unwrap_or(0));
        Ok(short.zip(revisions).collect())
    }
}

fn backend(weight: u32) -> Value {
    json!({"address": "127.0.0.1:9", "version": "1.4", "weight": weight})
}

fn a_document_is_judged_before_it_is_written(binary: EtcdBinary) {
    play("table-put", |stage| {
        let desk = Desk::start(stage, Fleet::start(stage, binary)?, "p")?;
        let before = desk.revisions()?;
        let key = "backends/arena/c";
        for (text, told) in [
            (r#"{"address": "127.0.0.1:9", "version": "1.4", "weight": -1}"#, "weight: got -1"),
            (r#"{"address": "nowhere", "version": "1.4"}"#, "address: got \"nowhere\""),
            (r#"{"address": "127.0.0.1:9", "version": "1.4", "wait": 1}"#, "wait: got"),
            ("{", "got"),
        ] {
            let file = desk.write("bad", text)?;
            for arguments in [&["put", key, &file][..], &["put", key, &file, "--dry-run"]] {
                let answer = desk.ends(1, arguments)?;
                ensure!(answer.contains(&format!("{key}: ")) && answer.contains("expected"), "{answer}");
                ensure!(answer.replace('"', "").contains(&told.replace('"', "")), "{answer}");
            }
        }
        let file = desk.write("good", &backend(7).to_string())?;
        let answer = desk.ends(1, &["put", "backend/c", &file])?;
        ensure!(answer.contains("backends/<service>/<backend>"), "{answer}");
        let answer = desk.ends(5, &["put", key, &file, "--dry-run"])?;
        ensure!(
            answer.starts_with("added backends/arena/c: ") && answer.contains("1 key would be"),
            "{answer}"
        );
        ensure!(desk.revisions()? == before, "something is written");
        desk.ends(0, &["put", key, &file])?;
        ensure!(desk.listed("backends/")? == 3, "it is in force when the command ends");
        let answer = desk.ends(0, &["put", key, &file, "--dry-run"])?;
        ensure!(answer == "no change\n", "{answer}");
        let answer = desk.ends(1, &["delete", "services/arena"])?;
        ensure!(answer.contains("routes/public: service: got"), "{answer}");
        desk.ends(0, &["delete", key])?;
        ensure!(desk.listed("backends/")? == 2 && desk.revisions()? == before);
        let answer = desk.ends(1, &["delete", key])?;
        ensure!(answer.contains("there is no backends/arena/c"), "{answer}");
        Ok(())
    });
}

fn a_folder_is_applied_whole_and_rolled_back_whole(binary: EtcdBinary) {
    play("table-apply", |stage| {
        let desk = Desk::start(stage, Fleet::start(stage, binary)?, "p")?;
        desk.fleet.put("drains/arena/b", &json!({}))?;
        until("it is drained", SOON, || desk.listed("").is_ok_and(|count| count == 5))?;
        desk.ends(0, &["export", desk.folder(), "--all"])?;
        ensure!(desk.folder.join("drains/arena/b.json").exists());
        std::fs::remove_dir_all(&desk.folder)?;
        desk.ends(0, &["export", desk.folder()])?;
        let answer = desk.ends(0, &["apply", desk.folder(), "--prune", "--dry-run"])?;
        ensure!(answer == "no change\n", "what was exported is what is in force: {answer}");
        std::fs::remove_file(desk.folder.join("backends/arena/b.json"))?;
        // An order that somebody keeps in the folder isn't given again.
        ensure!(!desk.folder.join("drains").exists());
        desk.write("drains/arena/a", "{}")?;
        desk.write("backends/arena/c", &backend(5).to_string())?;
        desk.write("backends/arena/a", &backend(9).to_string())?;
        let before = desk.revisions()?;
        let wanted = [
            "changed backends/arena/a: weight 100 -> 9",
            "removed backends/arena/b",
            "added backends/arena/c",
        ];
        let answer = desk.ends(5, &["apply", desk.folder(), "--prune", "--dry-run"])?;
        ensure!(wanted.iter().all(|line| answer.contains(line)) && desk.revisions()? == before, "{answer}");
        let tables = || desk.proxy.admin_json("/tables").map(|view| view["tables"].clone());
        let newest = || Ok::<_, anyhow::Error>(tables()?.as_array().and_then(|all| all.last().cloned()));
        until("the table is on disk", SOON, || {
            let number = newest().ok().flatten().and_then(|table| table["number"].as_u64()).unwrap_or(0);
            desk.ends(0, &["diff", &number.to_string()]).is_ok_and(|text| text == "no difference\n")
        })?;
        let table = newest()?.context("a table")?;
        desk.ends(0, &["apply", desk.folder(), "--prune"])?;
        let after = desk.revisions()?;
        let of = |key: &str| after.iter().find(|(found, _)| found == key).map(|(_, revision)| *revision);
        ensure!(
            of("backends/arena/a").is_some() && of("backends/arena/a") == of("backends/arena/c"),
            "{after:?}"
        );
        ensure!(
            of("backends/arena/b").is_none()
                && of("drains/arena/b").is_some()
                && of("drains/arena/a").is_none(),
            "orders stay: {after:?}"
        );
        ensure!(
            after.iter().all(|known| known.0.starts_with("backends/") || before.contains(known)),
            "{after:?}"
        );
        for named in [format!("t{}", table["number"]), format!("r{}", table["revision"])] {
            let answer = desk.ends(5, &["rollback", &named, "--dry-run"])?;
            ensure!(answer.contains("changed backends/arena/a: weight 9 -> 100"), "{answer}");
        }
        desk.ends(0, &["rollback", &format!("r{}", table["revision"])])?;
        ensure!(desk.ends(0, &["diff", &table["number"].to_string()])? == "no difference\n");
        let back = desk.revisions()?;
        let newest: Vec<_> = back.iter().filter(|known| !after.contains(known)).map(|(_, at)| *at).collect();
        ensure!(newest.len() == 2 && newest[0] == newest[1], "one revision: {back:?}");
        let answer = desk.ends(1, &["rollback", "r1"])?;
        ensure!(answer.contains("there is no table of revision 1 in the history; it has 1 to "), "{answer}");
        Ok(())
    });
}

/// The way to etcd that the proxy writes by, without the proxy: what comes between reading and writing is chosen.
struct Writer {
    runtime: tokio::runtime::Runtime,
    writer: EtcdWriter,
}

impl Writer {
    fn new(fleet: &Fleet) -> Result<Self> {
        let second = Duration::from_secs(1);
        let config = EtcdConfig {
            endpoints: vec![fleet.etcd.endpoint()],
            root: "/holdfast".to_owned(),
            login: None,
            tls: None,
            connect_timeout: second,
            request_timeout: 5 * second,
            keep_alive: 5 * second,
            keep_alive_timeout: second,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, writer: EtcdWriter::new(Arc::new(config)) })
    }

    fn read(&self) -> Result<Listing> {
        Ok(self.runtime.block_on(self.writer.read())?)
    }

    fn commit(&self, listing: &Listing, edit: Edit) -> Result<Committed> {
        Ok(self.runtime.block_on(self.writer.commit(&Transaction::new(listing, edit)))?)
    }
}

/// Puts under these keys, and under so many others that are new.
fn puts(keys: &[&str], others: usize) -> Edit {
    let text: Arc<[u8]> = backend(1).to_string().into_bytes().into();
    let others = (0..others).map(|number| format!("backends/other/{number}"));
    let keys = keys.iter().map(|key| (*key).to_owned()).chain(others);
    Edit(keys.map(|key| (key.into(), Some(text.clone()))).collect())
}

fn nobody_is_overwritten_unseen(binary: EtcdBinary) {
    play("table-race", |stage| {
        let fleet = Fleet::start(stage, binary)?;
        let writer = Writer::new(&fleet)?;
        let keys = ["backends/arena/a", "backends/arena/b"];
        for others in [0, 300] {
            fleet.put(keys[0], &backend(100))?;
            // Written, deleted and made by somebody else, between the look and the write.
            let meanwhile: [(&str, &dyn Fn() -> Result<()>); 3] = [
                (keys[0], &|| fleet.put(keys[0], &backend(50))),
                (keys[0], &|| fleet.delete(keys[0])),
                (keys[1], &|| fleet.put(keys[1], &backend(3))),
            ];
            for (key, act) in meanwhile {
                let listing = writer.read()?;
                act()?;
                let before = writer.read()?.revision;
                let committed = writer.commit(&listing, puts(&keys, others))?;
                ensure!(committed == Committed::Changed(vec![key.to_owned()]), "{others}: {committed:?}");
                ensure!(writer.read()?.revision == before, "something is written");
            }
            let listing = writer.read()?;
            // A deletion of what somebody else has changed, too.
            fleet.put(keys[1], &backend(4))?;
            let mut edit = puts(&keys[..1], others);
            edit.0.insert(keys[1].into(), None);
            let committed = writer.commit(&listing, edit)?;
            ensure!(committed == Committed::Changed(vec![keys[1].to_owned()]), "{others}: {committed:?}");
            let listing = writer.read()?;
            let Committed::At(revision) = writer.commit(&listing, puts(&keys, others))? else {
                anyhow::bail!("nobody came between");
            };
            ensure!(revision == listing.revision + 1, "one revision");
            fleet.etcd.etcdctl(&["del", "--prefix", &format!("{CONFIG}/backends/")])?;
        }
        Ok(())
    });
}

fn thousands_of_documents_are_one_revision(binary: EtcdBinary) {
    play("table-large", |stage| {
        let desk = Desk::start(stage, Fleet::start(stage, binary)?, "p")?;
        desk.ends(0, &["export", desk.folder()])?;
        let service = desk.ends(0, &["get", "services/arena"])?;
        for number in 0..200 {
            desk.write(&format!("services/s{number}"), &service)?;
            for name in 0..10 {
                desk.write(&format!("backends/s{number}/b{name}"), &backend(100).to_string())?;
            }
        }
        let answer = desk.ends(0, &["apply", desk.folder()])?;
        ensure!(answer.contains("2200 keys written"), "{}", answer.lines().last().unwrap_or_default());
        ensure!(desk.listed("")? == 2_204);
        let revisions = desk.revisions()?;
        let newest = revisions.iter().map(|(_, revision)| *revision).max();
        let of_newest = revisions.iter().filter(|(_, revision)| Some(*revision) == newest).count();
        ensure!(of_newest == 2_200, "{of_newest} in one revision");
        ensure!(desk.ends(0, &["apply", desk.folder(), "--dry-run"])? == "no change\n");
        Ok(())
    });
}

fn what_etcd_does_not_take_at_once_is_said_with_the_way_out(binary: EtcdBinary) {
    play("table-bounds", |stage| {
        let started_for_more = ["--max-txn-ops=1000".to_owned()];
        // Another etcd is another fleet: to the proxy of the first one its emptiness would be a slip.
        for (id, flags) in [("p", &[][..]), ("q", &started_for_more)] {
            let fleet = Fleet { etcd: Etcd::start_with(stage, binary, flags)? };
            fleet.seed()?;
            let desk = Desk::start(stage, fleet, id)?;
            for weight in [100, 50] {
                for number in 0..200 {
                    desk.write(&format!("backends/arena/x{number}"), &backend(weight).to_string())?;
                }
                let is_first = weight == 100;
                let code = if is_first || !flags.is_empty() { 0 } else { 1 };
                let answer = desk.ends(code, &["apply", desk.folder()])?;
                ensure!(code == 0 || answer.contains("--max-txn-ops=200"), "{answer}");
            }
            let before = desk.revisions()?;
            let padded = format!("{}{}", backend(7), " ".repeat(20_000));
            (0..100)
                .try_for_each(|number| desk.write(&format!("backends/arena/x{number}"), &padded).map(drop))?;
            (100..200).try_for_each(|number| {
                std::fs::remove_file(desk.folder.join(format!("backends/arena/x{number}.json")))
            })?;
            let answer = desk.ends(1, &["apply", desk.folder()])?;
            ensure!(answer.contains("larger --max-request-bytes") && desk.revisions()? == before, "{answer}");
            std::fs::remove_dir_all(&desk.folder)?;
        }
        Ok(())
    });
}

fn what_a_live_proxy_cannot_read_is_not_written(binary: EtcdBinary) {
    play("table-levels", |stage| {
        let desk = Desk::start(stage, Fleet::start(stage, binary)?, "p")?;
        let old = json!({"id": "old", "instance": "0", "schema": 1, "revision": 1, "sessions": 0,
            "parked": 0, "applied": 1, "drains": [], "refused": [], "warnings": []});
        let key = "/holdfast/status/proxies/old";
        desk.fleet.etcd.put(key, &old.to_string())?;
        let file = desk.write("ejection", "{}")?;
        for arguments in
            [&["put", "ejections/arena/a", &file][..], &["put", "ejections/arena/a", &file, "--dry-run"]]
        {
            let answer = desk.ends(1, arguments)?;
            let told = "ejections/arena/a: document: got {}, expected nothing that proxy old can't read: it reads \
                        documents up to schema level 1, this is of level 2; upgrade it first";
            ensure!(answer.contains(told), "{answer}");
        }
        // What it can read is written all the same.
        let file = desk.write("backend", &backend(7).to_string())?;
        desk.ends(0, &["put", "backends/arena/a", &file])?;
        desk.fleet.etcd.delete(key)?;
        let file = desk.write("ejection", "{}")?;
        desk.ends(0, &["put", "ejections/arena/a", &file]).map(drop)
    });
}
