//! End to end, with real processes: each file keeps one promise to the operator or the player.

mod admin;
mod etcd;
mod etcd_compaction;
mod etcd_outage;
mod support;
mod trace;
