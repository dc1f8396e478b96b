//! End to end, with real processes: each file keeps one promise to the operator or the player.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod etcd_compaction;
#[cfg(test)]
mod etcd_outage;
#[cfg(test)]
mod etcd_secured;
#[cfg(test)]
mod etcd_trouble;
#[cfg(test)]
mod group_claims;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod health;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod load;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod mutations;
#[cfg(test)]
mod rebalance;
#[cfg(test)]
mod registration;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
mod rollout;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod slips;
#[cfg(test)]
mod support;
#[cfg(test)]
mod table;
#[cfg(test)]
mod table_writes;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod weights;
