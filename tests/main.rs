//! End to end, with real processes: each file keeps one promise to the operator or the player.

mod etcd;
mod support;
