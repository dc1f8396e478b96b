//! Which proxy of the cluster a group comes through: asked before a group is formed here, by a channel that nobody
//! waits at. No answer in time counts as leave to form it: that players play comes first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_protocol::GroupId;
use tokio::sync::{mpsc, oneshot};

use super::super::slot::SessionKey;
use super::super::{Worker, with_worker};
use super::directory::Directory;
use crate::telemetry::counters::ClaimResult;

/// Questions that may wait for whoever answers; one more is taken as unanswered.
const QUESTIONS: usize = 1024;
/// Who answers has a deadline of its own, and a shorter one.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// Whose a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Mine,
    /// It comes through the proxy of that id.
    Foreign(Arc<str>),
    /// Nobody knows now.
    Unanswered,
}

/// May this proxy form that group? Dropped, it is unanswered.
#[derive(Debug)]
pub struct Question {
    pub group: GroupId,
    pub asked: Instant,
    pub answer: oneshot::Sender<Answer>,
}

/// The place where questions are answered.
#[derive(Debug)]
pub struct Inquiry {
    pub directory: Arc<Directory>,
    pub questions: mpsc::Receiver<Question>,
}

/// A directory whose groups are claimed in the cluster, and where that is done.
#[must_use]
pub fn in_cluster() -> Inquiry {
    let (sender, questions) = mpsc::channel(QUESTIONS);
    Inquiry { directory: Arc::new(Directory::in_cluster(sender)), questions }
}

/// Groups of this worker whose claim isn't answered, and the sessions that wait for that, in the order in which they
/// came.
#[derive(Debug, Default)]
pub struct Unsettled {
    waiting: HashMap<GroupId, Vec<SessionKey>>,
    complained: Option<Instant>,
}

impl Worker {
    /// The session comes into a group that lives on this worker, or is to.
    pub(super) fn enter_here(&mut self, key: SessionKey, group: GroupId) {
        // Its claim stands for as long as it has a slot.
        if self.groups.contains_key(&group) {
            return self.embark(key, group);
        }
        let Some(slot) = self.slots.get_mut(key) else { return self.forget_unformed(group) };
        slot.seat.company.wanted = Some(group);
        let most = slot.session.service().limits.max_group_members as usize;
        if let Some(waiting) = self.unsettled.waiting.get_mut(&group) {
            if waiting.len() >= most {
                return self.go_alone(key, "the group is full: limits.max_group_members".into());
            }
            return waiting.push(key);
        }
        let Some(answer) = self.hub.config.groups.ask(group, self.hub.now) else {
            // There is no cluster.
            self.count_claim(ClaimResult::Unanswered);
            self.embark(key, group);
            return self.forget_unformed(group);
        };
        self.unsettled.waiting.insert(group, vec![key]);
        tokio::spawn(async move {
            let answer = tokio::time::timeout(LONGEST_WAIT, answer).await;
            let answer = answer.ok().and_then(Result::ok).unwrap_or(Answer::Unanswered);
            with_worker(|worker| worker.claim_is_settled(group, &answer));
        });
    }

    fn claim_is_settled(&mut self, group: GroupId, answer: &Answer) {
        let waiting = self.unsettled.waiting.remove(&group).unwrap_or_default();
        self.count_claim(match answer {
            Answer::Mine => ClaimResult::Mine,
            Answer::Foreign(_) => ClaimResult::Foreign,
            Answer::Unanswered => ClaimResult::Unanswered,
        });
        if *answer == Answer::Unanswered {
            self.complain_of_silence(group);
        }
        for key in waiting {
            match answer {
                Answer::Foreign(proxy) => {
                    self.go_alone(key, format!("the group comes through another proxy: {proxy}").into());
                }
                Answer::Mine | Answer::Unanswered => self.embark(key, group),
            }
        }
        self.forget_unformed(group);
    }

    /// Nobody of those who wanted in came in.
    fn forget_unformed(&self, group: GroupId) {
        if !self.groups.contains_key(&group) && !self.unsettled.waiting.contains_key(&group) {
            self.hub.config.groups.release(group, self.hub.config.index);
        }
    }

    fn count_claim(&self, result: ClaimResult) {
        self.hub.counters.group_claims[result as usize].add(1);
    }

    fn complain_of_silence(&mut self, group: GroupId) {
        let now = self.hub.now;
        let complained = &mut self.unsettled.complained;
        if complained.is_none_or(|last| now.saturating_duration_since(last) >= COMPLAIN_EVERY) {
            *complained = Some(now);
            tracing::warn!(%group, "group formed without a claim: etcd doesn't say whether another proxy has it");
        }
    }
}
