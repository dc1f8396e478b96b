//! End to end, with real processes: each file keeps one promise to the operator or the player.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod etcd;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod support;
#[cfg(test)]
mod weights;
