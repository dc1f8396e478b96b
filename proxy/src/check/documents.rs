//! Documents as files: a folder is judged as the proxy would judge it, a single file by itself.

use std::path::{Path, PathBuf};

use super::{Report, Severity};
use crate::config::FieldError;
use crate::routing::document::{Document, Key};
use crate::routing::{Documents, LastGood, compile};
use crate::source::files::scan;

impl Report {
    /// Checks a folder that mirrors the keys, cross-checks included.
    #[must_use]
    pub fn of_folder(root: &Path) -> Self {
        let mut report = Self::default();
        let found = match scan(root) {
            Ok(found) => found,
            Err(error) => {
                report.add(
                    Severity::Error,
                    root,
                    None,
                    FieldError::new("folder", error, "a readable folder"),
                );
                return report;
            }
        };
        let mut documents = Documents::default();
        for (key, content) in &found {
            report.files.push(file_of(root, key));
            content.put(&mut documents, key, 1);
        }
        if found.is_empty() {
            report.warn(root, "no documents, such as services/arena.json");
        }
        let compiled = compile(&documents, &LastGood::default(), 1);
        for refusal in compiled.refused {
            let error = FieldError::new(&refusal.field, &refusal.value, refusal.expected);
            report.add(Severity::Error, &file_of(root, &refusal.key), None, error);
        }
        for warning in compiled.warnings {
            report.warn(&file_of(root, &warning.key), &warning.text);
        }
        report
    }

    /// Checks one document; its key is the end of its path, such as `services/arena.json`.
    #[must_use]
    pub fn of_document(path: &Path) -> Self {
        let mut report = Self { files: vec![path.to_owned()], problems: Vec::new() };
        let outcome = std::fs::read(path)
            .map_err(|error| FieldError::new("file", error, "a readable file"))
            .and_then(|bytes| Document::parse(&key_of(path)?, &bytes).map(|_| ()));
        if let Err(error) = outcome {
            report.add(Severity::Error, path, None, error);
        }
        report
    }
}

fn file_of(root: &Path, key: &str) -> PathBuf {
    root.join(format!("{key}.json"))
}

fn key_of(path: &Path) -> Result<Key, FieldError> {
    let stem = path.with_extension("");
    let parts: Vec<_> = stem.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let candidates = [3, 2].into_iter().filter_map(|count| parts.len().checked_sub(count));
    candidates.filter_map(|from| Key::parse(&parts[from..].join("/")).ok()).next().ok_or_else(|| {
        let expected = "a path that ends in services/NAME.json, backends/SERVICE/NAME.json, or another key with \
                        .json behind it";
        FieldError::new("file", path.display(), expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/documents")
    }

    #[test]
    fn the_sample_documents_are_right_and_fit_together() {
        let report = Report::of_folder(&samples());
        assert!(report.is_ok() && report.problems.is_empty() && report.files.len() >= 4, "{report}");
    }

    #[test]
    fn a_single_document_is_checked_under_the_key_its_path_ends_in() {
        let report = Report::of_document(&samples().join("services/arena.json"));
        assert!(report.is_ok(), "{report}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("backends/arena")).unwrap();
        let path = folder.path().join("backends/arena/a.json");
        std::fs::write(&path, r#"{"address": "10.0.0.5", "version": "1"}"#).unwrap();
        let text = Report::of_document(&path).to_string();
        assert!(text.contains("address: got") && text.contains("10.0.0.5"), "{text}");
        let stray = folder.path().join("stray.json");
        std::fs::write(&stray, "{}").unwrap();
        let text = Report::of_document(&stray).to_string();
        assert!(text.contains("expected a path that ends in services/NAME.json"), "{text}");
    }

    #[test]
    fn a_folder_reports_what_only_shows_between_documents() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("routes")).unwrap();
        std::fs::write(folder.path().join("routes/r.json"), r#"{"listener": "game", "service": "nowhere"}"#)
            .unwrap();
        let text = Report::of_folder(folder.path()).to_string();
        assert!(text.contains("service: got") && text.contains("nowhere"), "{text}");
    }
}
