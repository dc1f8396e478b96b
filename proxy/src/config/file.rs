//! Small files, read whole, with a bound: a device or a slip in a path must not fill the memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is read: a long certificate chain is some 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What a file has to be, for errors.
pub(super) const EXPECTED: &str = "a readable file of at most 1 MiB";

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other("more than 1 MiB"));
    }
    Ok(bytes)
}

pub(super) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| io::Error::other("not UTF-8"))
}
