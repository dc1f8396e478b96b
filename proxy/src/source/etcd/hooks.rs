//! Orders of hooks as keys. An alert comes again and again, and to several proxies at once: each order is one transaction
//! that holds only if nothing has changed since it was decided, so that doing it twice is doing it once, and what an
//! operator has written is never written over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse};
use serde_json::Value;

use super::connect::{connect, within};
use super::{EtcdError, config_prefix};
use crate::config::Etcd;
use crate::hooks::share::Share;
use crate::hooks::{Deed, Mark, Outcome};
use crate::routing::BackendId;
use crate::routing::document::ejection::written;
use crate::routing::document::{Document, Key, RawDrain, RawEjection};
use crate::routing::table::{EjectionOrder, RolloutOrder, TakeOutOrder};

/// Somebody else wrote in between: it is decided anew, so often.
const TRIES: usize = 8;

/// The deeds of one request, over one connection.
pub struct EtcdHooks {
    config: Arc<Etcd>,
    /// Once there is something to do, for as long as it works.
    client: Option<Client>,
}

impl EtcdHooks {
    #[must_use]
    pub fn new(config: Arc<Etcd>) -> Self {
        Self { config, client: None }
    }

    /// Does it, if what it was decided by still holds. Safe to repeat.
    ///
    /// # Errors
    /// etcd can't be reached, so that others needn't be tried. What it refuses is an outcome.
    pub async fn carry_out(&mut self, deed: &Deed) -> Result<Outcome, EtcdError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.config).await?,
        };
        let outcome = match self.try_out(&mut client, deed).await {
            Err(error) if error.is_away() => return Err(error),
            Err(error) => Outcome::Failed(format!("the store of documents didn't take it: {error}")),
            Ok(outcome) => outcome,
        };
        self.client = Some(client);
        Ok(outcome)
    }

    async fn try_out(&self, client: &mut Client, deed: &Deed) -> Result<Outcome, EtcdError> {
        for _ in 0..TRIES {
            let done = match deed {
                Deed::TakeOut { backend, order, mark, share } => {
                    self.take_out(client, backend, *order, mark, share).await?
                }
                Deed::PutBack { backend, order, mark } => {
                    self.put_back(client, backend, *order, mark).await?
                }
                Deed::Abort { service, version, mark } => {
                    self.abort(client, service, version.as_deref(), mark).await?
                }
            };
            if let Some(outcome) = done {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Failed(format!("others changed the keys {TRIES} times meanwhile")))
    }

    /// `None`: something has changed since it was looked at.
    async fn take_out(
        &self,
        client: &mut Client,
        backend: &BackendId,
        order: TakeOutOrder,
        mark: &Mark,
        share: &Share,
    ) -> Result<Option<Outcome>, EtcdError> {
        let key = key_of(backend, order);
        let path = self.path(&key);
        let orders = ["drains", "ejections"].map(|kind| self.path(format!("{kind}/{}/", backend.service)));
        // Of an ejection it matters whether it is over.
        let options = [GetOptions::new().with_prefix().with_keys_only(), GetOptions::new().with_prefix()];
        let below = orders.iter().zip(options);
        let mut reads = vec![TxnOp::get(path.as_str(), None)];
        reads.extend(below.map(|(prefix, options)| TxnOp::get(prefix.as_str(), Some(options))));
        let looked = self.transact(client, Txn::new().and_then(reads)).await?;
        let revision = looked.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut answers = looked.op_responses().into_iter().map(kvs);
        if let Some(standing) = answers.next().unwrap_or_default().first() {
            return Ok(Some(stands(&key, standing.value(), SystemTime::now())));
        }
        let found: Vec<_> = answers.flatten().collect();
        let found = found.iter().map(|kv| (kv.key(), kv.value()));
        if let Err(why) = share.allows(&backend.name, &ordered(found, &orders, SystemTime::now())) {
            return Ok(Some(Outcome::Refused(why)));
        }
        let (document, options) = self.document(client, order, mark).await?;
        // No order of this service has come since the look: two alerts can't both take the last that may go.
        let mut unchanged = vec![Compare::create_revision(path.as_str(), CompareOp::Equal, 0)];
        unchanged.extend(orders.iter().map(|prefix| {
            Compare::mod_revision(prefix.as_str(), CompareOp::Less, revision + 1).with_prefix()
        }));
        let put = TxnOp::put(path.as_str(), document, options);
        let written = self.transact(client, Txn::new().when(unchanged).and_then([put])).await?;
        Ok(written.succeeded().then(|| Outcome::Done(key.to_string())))
    }

    async fn document(
        &self,
        client: &mut Client,
        order: TakeOutOrder,
        mark: &Mark,
    ) -> Result<(String, Option<PutOptions>), EtcdError> {
        let reason = mark.reason.clone();
        match order {
            TakeOutOrder::Drain { deadline } => {
                let deadline_s = deadline.map(|deadline| deadline.as_secs());
                let raw = RawDrain { deadline_s, reason, ..RawDrain::default() };
                Ok((serde_json::to_string(&raw).unwrap_or_default(), None))
            }
            TakeOutOrder::Eject { time } => {
                let until = time.map(|time| written(SystemTime::now() + time));
                let value = serde_json::to_string(&RawEjection { reason, until }).unwrap_or_default();
                let Some(time) = time else { return Ok((value, None)) };
                let lease = self.lease(client, time).await?;
                Ok((value, Some(PutOptions::new().with_lease(lease))))
            }
        }
    }

    async fn lease(&self, client: &mut Client, time: Duration) -> Result<i64, EtcdError> {
        let ttl = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let granting = client.lease_grant(ttl, None);
        within("lease grant", self.config.request_timeout, granting).await.map(|lease| lease.id())
    }

    async fn put_back(
        &self,
        client: &mut Client,
        backend: &BackendId,
        order: TakeOutOrder,
        mark: &Mark,
    ) -> Result<Option<Outcome>, EtcdError> {
        let key = key_of(backend, order);
        let path = self.path(&key);
        let Some(standing) = self.get(client, &path).await? else {
            return Ok(Some(Outcome::Already(format!("there is no {key}"))));
        };
        let is_own = reason_of(&standing).is_some_and(|reason| mark.is_on(&reason));
        if !is_own || standing.version() != 1 {
            return Ok(Some(Outcome::Kept(format!("{key} isn't as this hook wrote it"))));
        }
        let unchanged = Compare::mod_revision(path.as_str(), CompareOp::Equal, standing.mod_revision());
        let delete = TxnOp::delete(path.as_str(), None);
        let deleted = self.transact(client, Txn::new().when([unchanged]).and_then([delete])).await?;
        Ok(deleted.succeeded().then(|| Outcome::Undone(key.to_string())))
    }

    async fn abort(
        &self,
        client: &mut Client,
        service: &Arc<str>,
        version: Option<&str>,
        mark: &Mark,
    ) -> Result<Option<Outcome>, EtcdError> {
        let key = Key::Rollout(Arc::clone(service));
        let path = self.path(&key);
        let Some(standing) = self.get(client, &path).await? else {
            return Ok(Some(Outcome::Refused(format!("there is no {key}"))));
        };
        let plan = match Document::parse(&key, standing.value()) {
            Ok(Document::Rollout(plan)) => plan,
            Ok(_) => return Ok(Some(Outcome::Refused(format!("{key} is no rollout")))),
            Err(error) => return Ok(Some(Outcome::Refused(format!("{key} is invalid: {error}")))),
        };
        if plan.order == RolloutOrder::Abort {
            return Ok(Some(Outcome::Already(format!("{key} is ordered to abort: {:?}", plan.reason))));
        }
        if let Some(version) = version.filter(|version| **version != *plan.to) {
            let version = crate::routing::document::excerpt(version);
            let why = format!("the alert is of version {version}, {key} is to {}", plan.to);
            return Ok(Some(Outcome::Refused(why)));
        }
        // Whatever else the operator wrote stays as it is.
        let mut document: Value = serde_json::from_slice(standing.value()).unwrap_or_default();
        document["order"] = "abort".into();
        document["reason"] = mark.reason.as_str().into();
        let unchanged = Compare::mod_revision(path.as_str(), CompareOp::Equal, standing.mod_revision());
        let put = TxnOp::put(path.as_str(), document.to_string(), None);
        let written = self.transact(client, Txn::new().when([unchanged]).and_then([put])).await?;
        Ok(written.succeeded().then(|| Outcome::Done(format!("{key}: order abort"))))
    }

    async fn get(&self, client: &mut Client, path: &str) -> Result<Option<KeyValue>, EtcdError> {
        let getting = client.get(path, None);
        let found = within("get", self.config.request_timeout, getting).await?;
        Ok(found.kvs().first().cloned())
    }

    async fn transact(&self, client: &mut Client, txn: Txn) -> Result<etcd_client::TxnResponse, EtcdError> {
        within("a hook's order", self.config.request_timeout, client.txn(txn)).await
    }

    fn path(&self, key: impl std::fmt::Display) -> String {
        format!("{}{key}", config_prefix(&self.config))
    }
}

fn key_of(backend: &BackendId, order: TakeOutOrder) -> Key {
    match order {
        TakeOutOrder::Drain { .. } => Key::Drain(backend.clone()),
        TakeOutOrder::Eject { .. } => Key::Ejection(backend.clone()),
    }
}

fn kvs(response: TxnOpResponse) -> Vec<KeyValue> {
    match response {
        TxnOpResponse::Get(mut found) => found.take_kvs(),
        _ => Vec::new(),
    }
}

/// What a key that stands is to a hook that wants it: its order, given already, or in the way of one.
fn stands(key: &Key, value: &[u8], now: SystemTime) -> Outcome {
    let refused = |why: String| Outcome::Refused(format!("{key} stands in the way: {why}; delete it"));
    let reason = match Document::parse(key, value) {
        Ok(Document::Drain(order)) if order.instance.is_some() => {
            return refused("it is for one run (instance) of the backend alone".to_owned());
        }
        Ok(Document::Ejection(order)) if is_over(&order, now) => {
            let until = order.until.map(written).unwrap_or_default();
            return refused(format!("it ended at {until}"));
        }
        Ok(Document::Drain(order)) => order.reason.clone(),
        Ok(Document::Ejection(order)) => order.reason.clone(),
        Ok(_) => return refused("it is no such order".to_owned()),
        Err(error) => return refused(format!("it is invalid ({error})")),
    };
    Outcome::Already(format!("{key} stands: {reason:?}"))
}

fn is_over(order: &EjectionOrder, now: SystemTime) -> bool {
    order.until.is_some_and(|until| until <= now)
}

/// The names of backends that stand below one of the prefixes, but for ejections that are over. Those of which no
/// value was read stand, too.
fn ordered<'a>(
    found: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    prefixes: &[String],
    now: SystemTime,
) -> BTreeSet<String> {
    let name = |(key, value): (&[u8], &[u8])| {
        let name = prefixes.iter().find_map(|prefix| key.strip_prefix(prefix.as_bytes()))?;
        let until = || serde_json::from_slice::<RawEjection>(value).ok()?.check(nobody()).ok();
        let name = String::from_utf8_lossy(name).into_owned();
        until().is_none_or(|order| !is_over(&order, now)).then_some(name)
    };
    found.filter_map(name).collect()
}

/// Of whom an ejection is doesn't matter to when it ends.
fn nobody() -> BackendId {
    BackendId { service: "".into(), name: "".into() }
}

fn reason_of(kv: &KeyValue) -> Option<String> {
    let document: Value = serde_json::from_slice(kv.value()).ok()?;
    document.get("reason")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-18T11:06:40Z
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
    }

    const OVER: &str = r#"{"reason": "slow disk", "until": "2026-11-18T11:06:40Z"}"#;
    const LASTS: &str = r#"{"reason": "slow disk", "until": "2026-11-18T11:06:41Z"}"#;

    fn stands_as(key: &str, value: &str) -> Outcome {
        stands(&Key::parse(key).unwrap(), value.as_bytes(), now())
    }

    #[test]
    fn an_order_in_force_is_given_already_and_a_dead_one_is_in_the_way() {
        let already = |key: &str| Outcome::Already(format!("{key} stands: \"slow disk\""));
        let drain = "drains/arena/a";
        assert_eq!(stands_as(drain, r#"{"reason": "slow disk"}"#), already(drain));
        let ejection = "ejections/arena/a";
        assert_eq!(stands_as(ejection, LASTS), already(ejection));
        assert_eq!(stands_as(ejection, r#"{"reason": "slow disk"}"#), already(ejection));
        let one_run = r#"{"instance": "0102030405060708090a0b0c0d0e0f10"}"#;
        for (key, value, why) in [
            (drain, one_run, "it is for one run (instance) of the backend alone"),
            (drain, r#"{"deadline_s": "soon"}"#, "it is invalid (deadline_s"),
            (ejection, OVER, "it ended at 2026-11-18T11:06:40Z"),
        ] {
            let Outcome::Refused(told) = stands_as(key, value) else { panic!("{value}") };
            assert!(told.starts_with(&format!("{key} stands in the way: {why}")), "{told}");
        }
    }

    #[test]
    fn ejections_that_are_over_keep_nobody_out() {
        let prefixes = ["/drains/arena/", "/ejections/arena/"].map(str::to_owned);
        let found: [(&[u8], &[u8]); 5] = [
            (b"/drains/arena/a", b""),
            (b"/ejections/arena/b", OVER.as_bytes()),
            (b"/ejections/arena/c", LASTS.as_bytes()),
            (b"/ejections/arena/d", b"{}"),
            (b"/ejections/arena/a", OVER.as_bytes()),
        ];
        let names: Vec<_> = ordered(found.into_iter(), &prefixes, now()).into_iter().collect();
        assert_eq!(names, ["a", "c", "d"]);
    }
}
