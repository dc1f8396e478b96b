//! `holdfast check`: what is wrong with files, as one report for people and for scripts.

mod documents;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::Exit;
use crate::config::{Config, ConfigErrors, FieldError, Source};

/// Checks a config (with the folder of documents that it names), a document or a folder of documents; prints the
/// report.
#[must_use]
pub fn command(path: &Path, json: bool) -> Exit {
    let report = Report::of(path);
    if json {
        println!("{}", report.json())
    } else {
        println!("{report}")
    }
    if report.is_ok() { Exit::Done } else { Exit::Failed }
}

/// What was looked at, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every file that was read, right or wrong.
    pub files: Vec<PathBuf>,
    pub problems: Vec<Problem>,
}

/// One field that is wrong, or suspicious.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    /// From 1, where it is known.
    pub line: Option<usize>,
    pub field: String,
    pub value: String,
    /// Empty where `value` says it all.
    pub expected: String,
}

/// An error keeps a file or document from being used; a warning doesn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Report {
    /// Checks whatever stands at `path`.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.is_dir() {
            return Self::of_folder(path);
        }
        if path.extension().is_some_and(|extension| extension == "json") {
            return Self::of_document(path);
        }
        let (mut report, config) = Self::of_config(path);
        if let Some(Config { source: Source::Files { path }, .. }) = config {
            report.merge(Self::of_folder(&path));
        }
        report
    }

    /// Checks a bootstrap file, with the certificates, keys and passwords that it names. The configuration is there
    /// if it can be used.
    #[must_use]
    pub fn of_config(path: &Path) -> (Self, Option<Config>) {
        let mut report = Self { files: vec![path.to_owned()], problems: Vec::new() };
        match Config::load(path) {
            Ok(config) => (report, Some(config)),
            Err(ConfigErrors { file, errors }) => {
                for found in errors {
                    report.add(Severity::Error, &file, found.line, found.error);
                }
                (report, None)
            }
        }
    }

    /// Adds one problem of `file`.
    pub fn add(&mut self, severity: Severity, file: &Path, line: Option<usize>, error: FieldError) {
        let FieldError { field, value, expected } = error;
        self.problems.push(Problem { severity, file: file.to_owned(), line, field, value, expected });
    }

    /// Adds what is suspicious about a document as a whole.
    pub fn warn(&mut self, file: &Path, text: &str) {
        self.add(Severity::Warning, file, None, FieldError::new("document", text, ""));
    }

    /// Adds what another report found.
    pub fn merge(&mut self, other: Self) {
        self.files.extend(other.files);
        self.problems.extend(other.problems);
    }

    /// Whether everything can be used: no errors; warnings may be.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems.iter().filter(|problem| problem.severity == severity).count()
    }

    /// One JSON object: `ok`, `files`, `problems`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "ok": self.is_ok(), "files": self.files, "problems": self.problems })
    }
}

/// A line a problem, then a line that sums up.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let verdict = if self.is_ok() { "ok" } else { "refused" };
        let counted =
            |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let files = counted(self.files.len(), "file");
        let errors = counted(self.count(Severity::Error), "error");
        let warnings = counted(self.count(Severity::Warning), "warning");
        write!(f, "{verdict}: {files}, {errors}, {warnings}")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        self.line.map_or(Ok(()), |line| write!(f, "{line}:"))?;
        let warning = if self.severity == Severity::Warning { " warning:" } else { "" };
        if self.expected.is_empty() {
            return write!(f, "{warning} {}", self.value);
        }
        write!(f, "{warning} {}: got {}, expected {}", self.field, self.value, self.expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report_of(text: &str) -> (Report, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holdfast.toml");
        std::fs::write(&path, text).unwrap();
        (Report::of_config(&path).0, path)
    }

    #[test]
    fn a_good_file_gives_ok() {
        let text = "proxy.id = \"a\"\netcd.endpoints = [\"http://127.0.0.1:2379\"]\n\
                    [[listener]]\nname = \"game\"\nbind = \"127.0.0.1:7000\"\n";
        let (report, path) = report_of(text);
        assert_eq!(report.to_string(), "ok: 1 file, 0 errors, 0 warnings");
        assert_eq!(report.json(), serde_json::json!({ "ok": true, "files": [path], "problems": [] }));
    }

    #[test]
    fn a_bad_file_gives_each_problem_in_text_and_json() {
        let text = "proxy.id = \"a\"\nproxy.workers = 0\netcd.endpoints = [\"http://127.0.0.1:2379\"]\n\
                    [[listener]]\nname = \"game\"\n";
        let (report, path) = report_of(text);
        let file = path.display();
        let expected = format!(
            "{file}:2: proxy.workers: got 0, expected 1 to 256\n\
             {file}:4: listener.game.bind: got nothing, expected ip:port\n\
             refused: 1 file, 2 errors, 0 warnings"
        );
        assert_eq!(report.to_string(), expected);
        let json = report.json();
        assert_eq!(json["ok"], false);
        let first = serde_json::json!({
            "severity": "error", "file": path, "line": 2,
            "field": "proxy.workers", "value": "0", "expected": "1 to 256",
        });
        assert_eq!(json["problems"][0], first);
    }

    #[test]
    fn a_missing_file_is_a_problem_like_any_other() {
        let (report, config) = Report::of_config(Path::new("nowhere/holdfast.toml"));
        assert!(config.is_none() && !report.is_ok());
        assert!(report.to_string().starts_with("nowhere/holdfast.toml: file: got No such file"), "{report}");
    }

    #[test]
    fn a_warning_alone_is_still_ok() {
        let mut report = Report::default();
        let error = FieldError::new("versions.1.5", 5, "a backend of that version: there is none");
        report.add(Severity::Warning, Path::new("routes/public.json"), None, error);
        let expected = "routes/public.json: warning: versions.1.5: got 5, expected a backend of that version: there \
                        is none\nok: 0 files, 0 errors, 1 warning";
        assert_eq!((report.is_ok(), report.to_string()), (true, expected.into()));
    }
}
