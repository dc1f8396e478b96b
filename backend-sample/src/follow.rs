//! A file that may change while the game runs, and what it says.

use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// So often a file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Calls `set` with what the file says, now and at each change. It need not be there yet.
///
/// # Errors
/// The system has no thread for it.
pub fn follow<T>(file: PathBuf, set: impl Fn(T) + Send + 'static) -> std::io::Result<()>
where
    T: FromStr<Err: Display> + Debug,
{
    let mut seen = String::new();
    let mut look = move || {
        if let Ok(text) = std::fs::read_to_string(&file)
            && text != seen
        {
            match text.parse::<T>() {
                Ok(said) => {
                    tracing::info!(file = %file.display(), ?said, "changed");
                    set(said);
                }
                Err(bad) => tracing::error!(file = %file.display(), %bad, "all stays as it is"),
            }
            seen = text;
        }
    };
    // What stands there at the start holds for the first player, too.
    look();
    let go_on = move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            look();
        }
    };
    std::thread::Builder::new().name("follow".to_owned()).spawn(go_on).map(drop)
}
