//! Everything that is wrong with a bootstrap file, at once.

use std::fmt;
use std::path::{Path, PathBuf};

use super::FieldError;

/// One wrong key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// From 1. `None`: the file can't be read, or a section is missing altogether.
    pub line: Option<usize>,
    pub error: FieldError,
}

/// Why a file isn't a configuration: at least one error, in the order of their lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: PathBuf,
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(file: &Path, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        Self { file: file.to_owned(), errors }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ConfigError { line, error }) in self.errors.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", self.file.display())?;
            line.map_or(Ok(()), |line| write!(f, "{line}:"))?;
            write!(f, " {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
