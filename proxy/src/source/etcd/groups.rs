//! Groups as claims of this proxy, one key each, held by the lease of the status key: a group's members come through
//! one proxy. Questions are answered in their order, many in one transaction; none waits longer than half a second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use holdfast_protocol::GroupId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::EtcdError;
use super::connect::within;
use crate::config::Etcd;
use crate::worker::groups::claims::{Answer, Inquiry, Question};

/// Players wait with the question.
const PATIENCE: Duration = Duration::from_millis(500);
/// An etcd that didn't answer isn't asked again for so long.
const REST: Duration = Duration::from_secs(1);
/// Keys of one transaction: etcd takes 128 operations.
const BATCH: usize = 64;
/// Ended groups whose keys couldn't be deleted yet. More are left to the lease.
const MAX_ENDED: usize = 65_536;

/// The connection and the lease under which this proxy's keys stand now.
#[derive(Clone)]
pub struct Held {
    pub client: Client,
    pub lease: i64,
}

/// The value of `status/groups/<id>`. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupDocument {
    /// The proxy through which its members come.
    pub proxy: String,
}

/// Answers this proxy's questions.
pub struct Registrar {
    config: Arc<Etcd>,
    proxy: Arc<str>,
    value: String,
    inquiry: Inquiry,
    held: watch::Receiver<Option<Held>>,
    /// Live groups that are still to be claimed under a new lease.
    again: Vec<GroupId>,
    ended: BTreeSet<GroupId>,
    rests_until: Option<Instant>,
}

impl Registrar {
    pub fn new(
        config: Arc<Etcd>,
        proxy: Arc<str>,
        inquiry: Inquiry,
        held: watch::Receiver<Option<Held>>,
    ) -> Self {
        let document = GroupDocument { proxy: proxy.to_string() };
        let value = serde_json::to_string(&document).unwrap_or_default();
        Self {
            config,
            proxy,
            value,
            inquiry,
            held,
            again: Vec::new(),
            ended: BTreeSet::new(),
            rests_until: None,
        }
    }

    /// Answers until shutdown. The keys then go with the lease.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let is_behind = !self.again.is_empty() || !self.ended.is_empty();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = self.held.changed() => match changed {
                    Ok(()) => self.lease_changed(),
                    Err(_) => return,
                },
                question = self.inquiry.questions.recv() => match question {
                    Some(question) => self.answer(question).await,
                    None => return,
                },
                () = std::future::ready(()), if !self.again.is_empty() && self.may_ask() => {
                    self.claim_again().await;
                }
                () = self.inquiry.directory.one_ended() => {}
                () = tokio::time::sleep(REST), if is_behind => {}
            }
            self.delete_ended().await;
        }
    }

    /// What was claimed goes with the old lease.
    fn lease_changed(&mut self) {
        self.rests_until = None;
        self.again = match *self.held.borrow() {
            Some(_) => self.inquiry.directory.groups(),
            None => Vec::new(),
        };
    }

    fn may_ask(&self) -> bool {
        self.held.borrow().is_some() && self.rests_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Answers that question, and those that have come meanwhile.
    async fn answer(&mut self, first: Question) {
        let last = first.asked + PATIENCE;
        let mut askers: BTreeMap<GroupId, Vec<Question>> = BTreeMap::new();
        let mut next = Some(first);
        while let Some(question) = next {
            askers.entry(question.group).or_default().push(question);
            next = if askers.len() < BATCH { self.inquiry.questions.try_recv().ok() } else { None };
        }
        let patience = last.saturating_duration_since(Instant::now());
        if patience.is_zero() || !self.may_ask() {
            // Dropped, they are unanswered.
            return;
        }
        let groups: Vec<_> = askers.keys().copied().collect();
        let mut answers = self.claim(&groups, patience).await;
        for (group, askers) in askers {
            let answer = answers.remove(&group).unwrap_or(Answer::Unanswered);
            for question in askers {
                // Who asked may have given up.
                let _ = question.answer.send(answer.clone());
            }
        }
    }

    /// Live groups are claimed under the new lease, those too that were formed while etcd was away.
    async fn claim_again(&mut self) {
        let rest = self.again.len().saturating_sub(BATCH);
        let mut groups = self.again.split_off(rest);
        groups.retain(|group| self.inquiry.directory.contains(*group));
        let answers = self.claim(&groups, PATIENCE).await;
        for group in groups {
            match answers.get(&group) {
                Some(Answer::Mine) => {}
                Some(Answer::Foreign(proxy)) => {
                    warn!(%group, %proxy, "the group comes through another proxy as well");
                }
                Some(Answer::Unanswered) | None => self.again.push(group),
            }
        }
        if self.again.is_empty() {
            info!("the claims of live groups stand again");
        }
    }

    /// Whose those groups are; ours from here on, where they were nobody's.
    async fn claim(&mut self, groups: &[GroupId], patience: Duration) -> BTreeMap<GroupId, Answer> {
        let Some(held) = self.held.borrow().clone() else { return BTreeMap::new() };
        let mut answers = BTreeMap::new();
        match within("group claims", patience, self.try_claim(held, groups, &mut answers)).await {
            Ok(()) => {}
            Err(error) => self.etcd_failed(&error),
        }
        answers
    }

    async fn try_claim(
        &self,
        mut held: Held,
        groups: &[GroupId],
        answers: &mut BTreeMap<GroupId, Answer>,
    ) -> Result<(), EtcdError> {
        let claims: Vec<_> = groups.iter().map(|group| self.create(*group, held.lease)).collect();
        let response = held.client.txn(Txn::new().and_then(claims)).await?;
        let mut inherited = Vec::new();
        for (group, outcome) in groups.iter().zip(outcomes(&response)) {
            match outcome {
                Outcome::Written => drop(answers.insert(*group, Answer::Mine)),
                Outcome::Found { proxy, lease, .. } if proxy == *self.proxy && lease == held.lease => {
                    answers.insert(*group, Answer::Mine);
                }
                // Of an earlier run, or of an earlier lease: whoever wrote it is gone.
                Outcome::Found { proxy, revision, .. } if proxy == *self.proxy => {
                    inherited.push((*group, revision));
                }
                Outcome::Found { proxy, .. } => {
                    drop(answers.insert(*group, Answer::Foreign(proxy.into())));
                }
                Outcome::Changed => {}
            }
        }
        if inherited.is_empty() {
            return Ok(());
        }
        let takes: Vec<_> =
            inherited.iter().map(|(group, revision)| self.inherit(*group, *revision, held.lease)).collect();
        let response = held.client.txn(Txn::new().and_then(takes)).await?;
        for ((group, _), outcome) in inherited.into_iter().zip(outcomes(&response)) {
            if matches!(outcome, Outcome::Written) {
                answers.insert(group, Answer::Mine);
            }
        }
        Ok(())
    }

    fn key(&self, group: GroupId) -> String {
        format!("{}/status/groups/{group}", self.config.root)
    }

    fn put(&self, key: &str, lease: i64) -> TxnOp {
        TxnOp::put(key, self.value.as_str(), Some(PutOptions::new().with_lease(lease)))
    }

    /// Makes the key; where there is one, says whose it is.
    fn create(&self, group: GroupId, lease: i64) -> TxnOp {
        let key = self.key(group);
        let claim = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
            .and_then([self.put(&key, lease)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        TxnOp::txn(claim)
    }

    fn inherit(&self, group: GroupId, revision: i64, lease: i64) -> TxnOp {
        let key = self.key(group);
        let claim = Txn::new()
            .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)])
            .and_then([self.put(&key, lease)]);
        TxnOp::txn(claim)
    }

    /// The claims of groups that are over end, if they are ours; tried again until etcd has heard it.
    async fn delete_ended(&mut self) {
        for group in self.inquiry.directory.take_ended() {
            if self.ended.len() < MAX_ENDED {
                self.ended.insert(group);
            }
        }
        // One that has been formed again has a claim again, or is about to.
        self.ended.retain(|group| !self.inquiry.directory.contains(*group));
        let batch: Vec<_> = self.ended.iter().copied().take(BATCH).collect();
        let held = self.held.borrow().clone();
        let Some(mut held) = held.filter(|_| !batch.is_empty() && self.may_ask()) else { return };
        let deletes: Vec<_> = batch.iter().map(|group| self.delete(*group)).collect();
        let deleting = held.client.txn(Txn::new().and_then(deletes));
        match within("end of group claims", PATIENCE, deleting).await {
            Ok(_) => self.ended.retain(|group| !batch.contains(group)),
            Err(error) => self.etcd_failed(&error),
        }
    }

    fn delete(&self, group: GroupId) -> TxnOp {
        let key = self.key(group);
        let end = Txn::new()
            .when([Compare::value(key.as_str(), CompareOp::Equal, self.value.as_str())])
            .and_then([TxnOp::delete(key.as_str(), None)]);
        TxnOp::txn(end)
    }

    fn etcd_failed(&mut self, error: &EtcdError) {
        debug!(%error, "groups can't be claimed for a moment");
        self.rests_until = Some(Instant::now() + REST);
    }
}

/// What came of one key.
enum Outcome {
    Written,
    Found { proxy: String, lease: i64, revision: i64 },
    Changed,
}

fn outcomes(response: &TxnResponse) -> impl Iterator<Item = Outcome> + use<> {
    response.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Txn(one) => outcome(&one),
        _ => Outcome::Changed,
    })
}

fn outcome(response: &TxnResponse) -> Outcome {
    if response.succeeded() {
        return Outcome::Written;
    }
    let found = response.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(found) => found.kvs().first().cloned(),
        _ => None,
    });
    let Some(kv) = found else { return Outcome::Changed };
    let document = serde_json::from_slice::<GroupDocument>(kv.value());
    let proxy = document.map_or_else(|_| "unknown".to_owned(), |document| document.proxy);
    Outcome::Found { proxy, lease: kv.lease(), revision: kv.mod_revision() }
}
