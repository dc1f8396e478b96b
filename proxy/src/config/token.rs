//! A secret that two programs share, in a file of its own: read anew whenever it is needed, so that it may be renewed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::FieldError;
use super::reader::Section;
use super::tls;

const MAX_TOKEN_BYTES: usize = 4096;
const EXPECTED: &str = "a file with a token in it: one line of at most 4096 visible ASCII characters";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The key `token_file` of a section, if the file can be used.
    pub(super) fn read_key(section: &mut Section<'_>) -> Option<Self> {
        let file = Self(section.path("token_file")?);
        file.token().map_err(|error| section.refuse(error)).ok()?;
        Some(file)
    }

    #[cfg(test)]
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the token anew; a newline at its end isn't part of it.
    ///
    /// # Errors
    /// The file is missing, unreadable, or holds no token; the field is `token_file`.
    pub fn token(&self) -> Result<String, FieldError> {
        let bytes = tls::read_file("token_file", &self.0)?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        let token = text.trim_end_matches(['\r', '\n']);
        let fits = (1..=MAX_TOKEN_BYTES).contains(&token.len());
        if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(token.to_owned());
        }
        Err(FieldError::new("token_file", format_args!("{:?} (no token in it)", self.0), EXPECTED))
    }
}

impl fmt::Display for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}
