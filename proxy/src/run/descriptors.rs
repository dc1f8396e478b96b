//! How many sockets this process may hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Logs, listeners, links, control plane.
const OTHERS: u64 = 512;

/// Takes all that the system allows: the usual soft limit is for programs that use `select`.
pub fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(?current, ?maximum, %error, "the limit of open files can't be raised");
    }
    let sessions = u64::from(config.limits.max_sessions) * u64::from(config.proxy.workers);
    let open_files = getrlimit(Resource::Nofile).current;
    if open_files.is_some_and(|open_files| open_files < sessions + OTHERS) {
        tracing::warn!(
            open_files,
            sessions,
            "the limit of open files (ulimit -n) is below what limits.max_sessions sessions need"
        );
    }
}
