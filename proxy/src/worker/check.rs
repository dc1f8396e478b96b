//! Checks over the link: a PING with a number of its own, which only the game's process can send back. The link is called
//! for it if there is none, and kept while it is checked.

use holdfast_protocol::message::{Message, Ping};
use tokio::sync::oneshot;

use super::Worker;
use super::link::LinkState;
use crate::routing::BackendId;
use crate::session::LinkId;

/// Those that wait for an answer. Who has given up is forgotten at the next.
#[derive(Debug, Default)]
pub struct Checks {
    last_nonce: u64,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Checks {
    /// The PONG has come; one that nobody has asked for (nonce 0) says nothing.
    pub fn answered(&mut self, nonce: u64) {
        for (_, answer) in self.waiting.extract_if(.., |(of, _)| *of == nonce && nonce > 0) {
            // Whoever asked may have given up meanwhile: then nobody misses it.
            let _ = answer.send(());
        }
    }
}

impl Worker {
    pub(super) fn check_link(&mut self, backend: &BackendId, answer: oneshot::Sender<()>) {
        let Some(id) = self.listed_link(backend) else { return };
        let checks = &mut self.hub.link_mut(id).checks;
        checks.waiting.retain(|(_, answer)| !answer.is_closed());
        checks.waiting.push((0, answer));
        // One that is dead is dialled at its own pace already.
        let is_idle = self.hub.link(id).state == LinkState::Idle;
        self.hub.keep_ahead(id);
        if is_idle {
            self.hub.demand(id);
        }
        self.ping_checks(id);
    }

    /// Asks for all that wait, if there is a link to ask on.
    pub(super) fn ping_checks(&mut self, id: LinkId) {
        let now = self.hub.now;
        let link = self.hub.link_mut(id);
        if !link.is_up() || link.checks.waiting.is_empty() {
            return;
        }
        // Those who waited for the link, or whose PING may be lost with the last one, are asked for with the latest.
        link.checks.last_nonce += 1;
        let nonce = link.checks.last_nonce;
        link.checks.waiting.iter_mut().for_each(|(of, _)| *of = nonce);
        link.pinged.get_or_insert(now);
        self.send_on_link(id, &Message::Ping(Ping { nonce }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_pong_answers_a_check() {
        let mut checks = Checks::default();
        let (answer, mut answered) = oneshot::channel();
        checks.waiting.push((7, answer));
        let (unsent, mut waits) = oneshot::channel();
        checks.waiting.push((0, unsent));
        for other in [0, 6, 8] {
            checks.answered(other);
            assert!(answered.try_recv().is_err());
        }
        checks.answered(7);
        assert_eq!((answered.try_recv(), checks.waiting.len()), (Ok(()), 1));
        assert!(waits.try_recv().is_err());
    }
}
