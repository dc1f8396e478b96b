//! One connection's worth of following: list, then watch, until something goes wrong.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use etcd_client::{Client, GetOptions, KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::backoff::Backoff;
use super::connect::{connect, within};
use super::{EtcdError, config_prefix};
use crate::config::Etcd;
use crate::routing::Documents;
use crate::routing::documents::MAX_DOCUMENTS;
use crate::source::published::Publisher;

/// A list or one transaction may be larger than gRPC's usual 4 MiB.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// How often etcd is asked for a sign of life on the watch itself. HTTP/2 pings alone would have to be slower: etcd
/// takes more than one in five seconds for an attack.
const PROBE_PERIOD: Duration = Duration::from_secs(2);

/// Events that are already there are taken together, up to this many messages.
const MAX_BATCH: usize = 1_000;

/// A watch that lasted this long was a good one.
const SETTLED: Duration = Duration::from_secs(1);

/// Connects, lists and watches; comes back with the reason why that ended.
pub async fn follow(config: &Etcd, publisher: &mut Publisher, backoff: &mut Backoff) -> EtcdError {
    match list_and_watch(config, publisher, backoff).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn list_and_watch(
    config: &Etcd,
    publisher: &mut Publisher,
    backoff: &mut Backoff,
) -> Result<std::convert::Infallible, EtcdError> {
    let mut client = connect(config).await?;
    let prefix = config_prefix(config);
    let revision = list(config, &mut client, &prefix, publisher).await?;
    let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1).with_progress_notify();
    let mut watcher = client.watch_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let opening = watcher.watch(prefix.as_str(), Some(options));
    let mut stream = within("watch", config.request_timeout, opening).await?;
    let opened = Instant::now();
    let mut heard = Instant::now();
    let mut probe = interval(PROBE_PERIOD);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let silence = PROBE_PERIOD + config.keep_alive_timeout;
    loop {
        tokio::select! {
            message = stream.message() => {
                let first = open(message?)?;
                heard = Instant::now();
                take_batch(first, &mut stream, &prefix, publisher).await?;
                if opened.elapsed() >= SETTLED {
                    backoff.reset();
                }
            }
            () = sleep_until(heard + silence) => return Err(EtcdError::Silent(silence)),
            _ = probe.tick() => {
                within("progress", config.request_timeout, stream.request_progress()).await?;
            }
        }
    }
}

/// Puts everything below the prefix in force as one swap; says at which revision that was.
async fn list(
    config: &Etcd,
    client: &mut Client,
    prefix: &str,
    publisher: &mut Publisher,
) -> Result<i64, EtcdError> {
    let mut reader = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let options = GetOptions::new().with_prefix();
    let response = within("list", config.request_timeout, reader.get(prefix, Some(options))).await?;
    let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
    if response.kvs().len() > MAX_DOCUMENTS {
        return Err(EtcdError::TooMany(response.kvs().len()));
    }
    let listed: Vec<_> = response.kvs().iter().map(|kv| (key(kv, prefix), kv)).collect();
    publisher.apply(unsigned(revision), |documents| {
        let names: BTreeSet<&str> = listed.iter().map(|(key, _)| key.as_str()).collect();
        documents.retain(|key| names.contains(key));
        for (key, kv) in &listed {
            documents.put_as(key, kv.value(), unsigned(kv.mod_revision()), kv.lease() != 0);
        }
    });
    Ok(revision)
}

/// Applies a message, and those that are already there behind it, as one swap.
async fn take_batch(
    first: WatchResponse,
    stream: &mut WatchStream,
    prefix: &str,
    publisher: &mut Publisher,
) -> Result<(), EtcdError> {
    let mut batch = vec![first];
    let mut end = None;
    while batch.len() < MAX_BATCH {
        match ready_now(stream.message()).await {
            None => break,
            Some(Ok(message)) => match open(message) {
                Ok(message) => batch.push(message),
                Err(error) => end = Some(error),
            },
            Some(Err(error)) => end = Some(error.into()),
        }
        if end.is_some() {
            break;
        }
    }
    apply(&batch, prefix, publisher)?;
    end.map_or(Ok(()), Err)
}

fn apply(batch: &[WatchResponse], prefix: &str, publisher: &mut Publisher) -> Result<(), EtcdError> {
    let events = || batch.iter().flat_map(WatchResponse::events).filter_map(etcd_client::Event::kv);
    let Some(revision) = events().map(KeyValue::mod_revision).max() else {
        publisher.contact();
        return Ok(());
    };
    let most = publisher.documents().len() + events().count();
    if most > MAX_DOCUMENTS {
        return Err(EtcdError::TooMany(most));
    }
    publisher.apply(unsigned(revision), |documents| events().for_each(|kv| change(documents, kv, prefix)));
    Ok(())
}

fn change(documents: &mut Documents, kv: &KeyValue, prefix: &str) {
    let key = key(kv, prefix);
    // A deletion has no version; the event's type says the same, but not without a panic on an unknown one.
    if kv.version() == 0 {
        documents.remove(&key);
    } else {
        documents.put_as(&key, kv.value(), unsigned(kv.mod_revision()), kv.lease() != 0);
    }
}

/// What can end a watch in a message: etcd says so in an answer, not in an error.
fn open(message: Option<WatchResponse>) -> Result<WatchResponse, EtcdError> {
    let message = message.ok_or(EtcdError::Ended("watch"))?;
    if message.compact_revision() != 0 {
        return Err(EtcdError::Compacted(message.compact_revision()));
    }
    if message.canceled() {
        return Err(EtcdError::Cancelled(message.cancel_reason().to_owned()));
    }
    Ok(message)
}

/// The future's result if it is there already. Dropping an unfinished read of a stream loses nothing.
async fn ready_now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The key below the prefix. One that isn't UTF-8 becomes one that no document may have.
pub(super) fn key(kv: &KeyValue, prefix: &str) -> String {
    let key = kv.key();
    String::from_utf8_lossy(key.strip_prefix(prefix.as_bytes()).unwrap_or(key)).into_owned()
}

pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
