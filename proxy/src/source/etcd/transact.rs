//! All documents at once: read as they stand, written in one transaction that no concurrent writer can slip under.
//!
//! etcd takes 128 operations in a transaction unless told otherwise, on each of its levels and on the levels together.
//! A folder of some thousand keys is written as transactions inside a transaction, which is one to etcd: one revision,
//! all or nothing. Only comparisons must stand at the top: one that fails further inside undoes nothing outside.

use std::collections::{BTreeMap, BTreeSet};

use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::connect::{connect, within};
use super::follow::{MAX_MESSAGE_BYTES, key, unsigned};
use super::{EtcdError, EtcdWriter, config_prefix};
use crate::routing::Documents;
use crate::routing::documents::MAX_DOCUMENTS;
use crate::source::write::{Committed, Listing, Transaction, Write};

/// etcd's own bound on the operations of a transaction, unless it is started with `--max-txn-ops`.
const MAX_OPERATIONS: usize = 128;

impl EtcdWriter {
    /// All documents as they stand now.
    ///
    /// # Errors
    /// etcd can't be reached, or has more keys than a table may have.
    pub async fn read(&self) -> Result<Listing, EtcdError> {
        let client = connect(&self.config).await?;
        let prefix = config_prefix(&self.config);
        let mut reader = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
        let listing = reader.get(prefix.as_str(), Some(GetOptions::new().with_prefix()));
        let response = within("list", self.config.request_timeout, listing).await?;
        if response.kvs().len() > MAX_DOCUMENTS {
            return Err(EtcdError::TooMany(response.kvs().len()));
        }
        let mut documents = Documents::default();
        for kv in response.kvs() {
            let revision = unsigned(kv.mod_revision());
            documents.put_as(&key(kv, &prefix), kv.value(), revision, kv.lease() != 0);
        }
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok(Listing { documents, revision: unsigned(revision) })
    }

    /// Makes all writes in one transaction, if every key is still what it was.
    ///
    /// # Errors
    /// etcd can't be reached: then they are made or not.
    pub async fn commit(&self, transaction: &Transaction) -> Result<Committed, EtcdError> {
        let prefix = config_prefix(&self.config);
        let client = connect(&self.config).await?;
        let mut writer = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
        let committing = writer.txn(request(&prefix, transaction));
        let response = match within("transaction", self.config.request_timeout, committing).await {
            Ok(response) => response,
            Err(error) => return refusal(&error).ok_or(error),
        };
        if response.succeeded() {
            let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            return Ok(Committed::At(unsigned(revision)));
        }
        Ok(Committed::Changed(changed(&response, &prefix, transaction)))
    }
}

/// etcd's definite no; anything else may have been written.
fn refusal(error: &EtcdError) -> Option<Committed> {
    /// gRPC's codes: invalid argument, permission denied, resource exhausted, failed precondition, unauthenticated.
    const NO: [i32; 5] = [3, 7, 8, 9, 16];
    let EtcdError::Client(etcd_client::Error::GRpcStatus(status)) = error else { return None };
    let says = |text: &str| status.message().contains(text);
    if says("too many operations") {
        Some(Committed::TooMany)
    } else if says("request is too large") || says("larger than max") {
        Some(Committed::TooLarge)
    } else {
        NO.contains(&i32::from(status.code())).then(|| Committed::Refused(error.to_string()))
    }
}

/// What is written, on the condition that nobody else wrote it; else, what stands there instead.
fn request(prefix: &str, Transaction { writes, listed_at }: &Transaction) -> Txn {
    let full = |write: &Write| format!("{prefix}{}", write.key);
    let number = |revision: u64| i64::try_from(revision).unwrap_or(i64::MAX);
    let unchanged =
        |write: &Write| Compare::mod_revision(full(write), CompareOp::Equal, number(write.expected));
    let operation = |write: &Write| match &write.value {
        // A registration stays under its registrar's lease.
        Some(value) if write.leased => {
            TxnOp::put(full(write), value.to_vec(), Some(PutOptions::new().with_ignore_lease()))
        }
        Some(value) => TxnOp::put(full(write), value.to_vec(), None),
        None => TxnOp::delete(full(write), None),
    };
    let operations: Vec<_> = writes.iter().map(operation).collect();
    let layout = Layout::of(writes);
    let compares: Vec<_> = match &layout {
        Layout::Flat => writes.iter().map(unchanged).collect(),
        Layout::Nested { kinds, .. } => {
            let written_since = |kind: &&str| {
                Compare::mod_revision(format!("{prefix}{kind}/"), CompareOp::Less, number(listed_at + 1))
                    .with_prefix()
            };
            let replaced = writes.iter().filter(|write| is_replaced(write)).map(unchanged);
            kinds.iter().map(written_since).chain(replaced).collect()
        }
    };
    let operations = match layout {
        Layout::Flat => operations,
        Layout::Nested { group, .. } => {
            let groups = operations.chunks(group);
            groups.map(|group| TxnOp::txn(Txn::new().and_then(group))).collect()
        }
    };
    let look = GetOptions::new().with_prefix().with_keys_only();
    Txn::new().when(compares).and_then(operations).or_else([TxnOp::get(prefix, Some(look))])
}

/// How the writes stand in the transaction.
#[derive(Debug, PartialEq, Eq)]
enum Layout<'a> {
    /// Each with a comparison of its own.
    Flat,
    /// In groups. Keys of these kinds that were written since are found by one comparison for each kind. It doesn't
    /// see those that were deleted, which only matters for keys that are replaced: they keep their own.
    Nested { group: usize, kinds: BTreeSet<&'a str> },
}

impl<'a> Layout<'a> {
    fn of(writes: &'a [Write]) -> Self {
        if writes.len() <= MAX_OPERATIONS {
            return Self::Flat;
        }
        let kinds: BTreeSet<_> = writes.iter().filter_map(|write| write.key.split('/').next()).collect();
        let compares = kinds.len() + writes.iter().filter(|write| is_replaced(write)).count();
        // What one level uses, those inside it can't.
        let mut levels = compares..MAX_OPERATIONS;
        match levels.find(|level| level * (MAX_OPERATIONS - level) >= writes.len()) {
            Some(level) => Self::Nested { group: MAX_OPERATIONS - level, kinds },
            // Only an etcd that was started for it takes so many.
            None => Self::Flat,
        }
    }
}

fn is_replaced(write: &Write) -> bool {
    write.value.is_some() && write.expected != 0
}

/// Keys that are to be written and aren't what they were; if it is none of them, what else is new.
fn changed(response: &TxnResponse, prefix: &str, transaction: &Transaction) -> Vec<String> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for response in response.op_responses() {
        if let TxnOpResponse::Get(listed) = response {
            found.extend(listed.kvs().iter().map(|kv| (key(kv, prefix), unsigned(kv.mod_revision()))));
        }
    }
    let is_other = |write: &&Write| found.get(&*write.key).copied().unwrap_or(0) != write.expected;
    let ours: Vec<_> =
        transaction.writes.iter().filter(is_other).map(|write| write.key.to_string()).collect();
    if ours.is_empty() {
        let new = found.into_iter().filter(|(_, revision)| *revision > transaction.listed_at);
        return new.map(|(key, _)| key).collect();
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(count: usize, replaced: usize) -> Vec<Write> {
        let write = |number: usize| Write {
            key: format!("backends/arena/{number}").into(),
            value: Some(b"{}".as_slice().into()),
            expected: u64::from(number < replaced),
            leased: false,
        };
        (0..count).map(write).collect()
    }

    #[test]
    fn more_keys_than_etcd_takes_on_one_level_stand_in_groups_that_fit() {
        assert_eq!(Layout::of(&writes(128, 128)), Layout::Flat);
        for (count, replaced) in [(129, 0), (2_200, 0), (2_200, 80), (4_096, 63), (200, 125)] {
            let writes = writes(count, replaced);
            let Layout::Nested { group, kinds } = Layout::of(&writes) else {
                panic!("{count} keys, {replaced} of them replaced, fit");
            };
            let level = writes.chunks(group).count().max(kinds.len() + replaced);
            assert!(level + group <= MAX_OPERATIONS, "{count}, {replaced}: {level} and {group} inside");
        }
        for (count, replaced) in [(4_097, 0), (2_200, 120), (129, 128)] {
            assert_eq!(Layout::of(&writes(count, replaced)), Layout::Flat, "{count}, {replaced}");
        }
    }
}
