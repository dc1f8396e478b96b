//! End to end, with real processes: each file keeps one promise to the operator or the player.

#[cfg(test)]
mod drain;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod support;
