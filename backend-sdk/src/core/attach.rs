//! ATTACH: who is taken, and who isn't and why.

use holdfast_protocol::codec::capability;
use holdfast_protocol::message::{
    Attach, AttachMode, AttachmentPhase, Credit, Recovery, Refused, Rule, Subject,
};
use holdfast_protocol::{Epoch, GroupId, Message};

use super::Peer;
use super::attachment::{Attachment, Loading, Next};
use super::envelope;
use super::fault::Fault;
use crate::context::Place;
use crate::game::Game;
use crate::population::{Headcount, PeerName};

/// A reason not to take a session: whether asking again may help, and what to tell the operator.
type Refusing = (bool, String);

impl<G: Game> Peer<G> {
    pub(super) fn attach(&mut self, attach: &Attach<'_>) {
        let subject = attach.subject;
        let existing = self.attachments.get(&subject).map(|had| (had.epoch(), had.link_phase()));
        if let Some((epoch, phase)) = existing {
            if epoch > attach.epoch {
                self.counts.stale += 1;
                return;
            }
            let is_loaded = phase != AttachmentPhase::Loading;
            if epoch == attach.epoch && attach.mode == AttachMode::Resume {
                if !is_loaded {
                    return self.fail(subject, &Fault::unexpected("ATTACH (resume)", "loading"));
                }
                return self.with(subject, |attachment, desk| attachment.resume(desk, attach));
            }
            if epoch == attach.epoch && matches!(phase, AttachmentPhase::Active | AttachmentPhase::Frozen) {
                let text = "ATTACH of an epoch that is attached already";
                return self.fail(subject, &Fault::new(Rule::Unexpected, text));
            }
            // An older one here is stale, and one of the same epoch begins anew: its answer was lost in a cut.
            self.remove(subject, Next::Forget);
        }
        let loading = match self.check(attach) {
            Ok(loading) => loading,
            Err((retry, reason)) => return self.refuse(subject, attach.epoch, retry, &reason),
        };
        let entered = match subject {
            Subject::Session(_) => Ok(self.population.enter()),
            Subject::Group(group) => {
                self.population.enter_group(group, &self.name).map_err(|peer| (group, peer))
            }
        };
        match entered {
            Ok(counted) => self.take(attach, loading, counted),
            Err((group, peer)) => self.turn_away(attach, group, &peer),
        }
    }

    /// A group that another peer has. Of the same proxy, that one is about to let it go. Another proxy that forms it
    /// would make two of it, wherever it asked next; one that has a state for it may find it free in a while.
    fn turn_away(&mut self, attach: &Attach<'_>, group: GroupId, peer: &PeerName) {
        let text = format!("group {group} is attached through {peer}");
        let is_new = attach.mode == AttachMode::Fresh && !attach.lost;
        if !is_new || peer.proxy == self.name.proxy {
            return self.refuse(attach.subject, attach.epoch, true, &text);
        }
        self.counts.faults += 1;
        tracing::warn!(%group, epoch = %attach.epoch, %peer, "group refused: it comes through another proxy");
        self.desk.say_fault(attach.subject, attach.epoch, &Fault::new(Rule::Group, text));
    }

    fn take(&mut self, attach: &Attach<'_>, loading: Loading, counted: Headcount) {
        let subject = attach.subject;
        let place = Place { subject, client: attach.client.into(), service: attach.service.into() };
        self.loading_bytes = self.loading_bytes.saturating_add(loading.total());
        let total = loading.total();
        let attachment = Attachment::new(attach, place, loading, counted);
        self.attachments.insert(subject, attachment);
        if attach.mode == AttachMode::Fresh {
            return self.open(subject);
        }
        let credit = self.desk.settings.state_credit_bytes;
        if total > credit {
            let epoch = attach.epoch;
            self.desk.say(&Message::Credit(Credit { subject, epoch, bytes: total - credit }));
        }
    }

    /// Whether the session can be taken, by what ATTACH says of it.
    fn check(&self, attach: &Attach<'_>) -> Result<Loading, Refusing> {
        let settings = &self.desk.settings;
        if attach.group.is_some() {
            return Err((false, "groups of several proxies aren't served".into()));
        }
        if matches!(attach.subject, Subject::Group(_)) {
            self.check_groups()?;
        }
        if self.attachments.len() >= settings.max_sessions {
            return Err((
                true,
                format!("{} sessions are the limit of a proxy worker", settings.max_sessions),
            ));
        }
        self.check_recovery(attach.recovery)?;
        match attach.mode {
            AttachMode::Fresh if attach.lost => Ok(Loading::Lost),
            AttachMode::Fresh => Ok(Loading::Fresh),
            AttachMode::Resume => Err((false, "no such attachment".into())),
            AttachMode::State => self.check_state(attach),
        }
    }

    fn check_groups(&self) -> Result<(), Refusing> {
        let has = self.desk.link.as_ref().map_or(0, |link| link.capabilities);
        if has & capability::GROUPS != 0 {
            return Ok(());
        }
        let why = if self.desk.settings.groups {
            "the link's capabilities lack them"
        } else {
            "the game has none (Builder::groups)"
        };
        Err((false, format!("groups aren't served: {why}")))
    }

    /// A level needs what both sides agreed on.
    fn check_recovery(&self, recovery: Recovery) -> Result<(), Refusing> {
        let has = self.desk.link.as_ref().map_or(0, |link| link.capabilities);
        if recovery.needs() & !has == 0 {
            return Ok(());
        }
        let why = if recovery.needs() & capability::DELTA != 0 && !self.desk.settings.deltas {
            "the game tells no changes (Builder::deltas)"
        } else {
            "the link's capabilities lack it"
        };
        Err((false, format!("recovery level {:?}: {why}", recovery.name())))
    }

    fn check_state(&self, attach: &Attach<'_>) -> Result<Loading, Refusing> {
        let settings = &self.desk.settings;
        let (total, max) = (attach.state_total_bytes, settings.max_state_bytes);
        if !settings.reads(attach.format) {
            let (format, reads) = (attach.format, settings.reads_list());
            return Err((false, format!("state format {format:?} isn't one of {reads:?}")));
        }
        if total > max {
            return Err((false, format!("state of {total} bytes, the limit is {max}")));
        }
        if total == 0 {
            return Err((
                false,
                format!("state of 0 bytes, an envelope has {} or more", envelope::MIN_BYTES),
            ));
        }
        if self.loading_bytes.saturating_add(total) > settings.max_loading_bytes {
            let (loading, max) = (self.loading_bytes, settings.max_loading_bytes);
            return Err((true, format!("{loading} bytes of state are being loaded, the limit is {max}")));
        }
        let total = usize::try_from(total).map_err(|_| (false, format!("state of {total} bytes")))?;
        Ok(Loading::state(total, attach))
    }

    pub(super) fn refuse(&mut self, subject: Subject, epoch: Epoch, retry: bool, reason: &str) {
        tracing::warn!(?subject, %epoch, retry, reason, "session refused");
        self.desk.say(&Message::Refused(Refused { subject, epoch, retry, reason }));
    }
}
