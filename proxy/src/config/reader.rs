//! Reads typed values out of TOML tables, and collects what is wrong with them.
//!
//! A derived deserializer stops at the first error and names no value; an operator wants all of them, each with its
//! line, key, value and what was expected. A value that can't be used is reported and read as missing.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ConfigError, FieldError};

/// The longest value that is repeated in an error.
const MAX_SHOWN_CHARS: usize = 80;

/// One file being read.
pub(super) struct Reader<'t> {
    text: &'t str,
    /// Relative paths start here.
    folder: &'t Path,
    errors: RefCell<Vec<ConfigError>>,
}

/// One table of the file: each key is asked for once, and what nobody asked for is unknown.
pub(super) struct Section<'r> {
    reader: &'r Reader<'r>,
    /// Dotted; empty at the root.
    path: String,
    line: Option<usize>,
    table: Option<&'r DeTable<'r>>,
    asked: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str, folder: &'t Path) -> Self {
        Self { text, folder, errors: RefCell::default() }
    }

    pub(super) fn root<'r>(&'r self, table: &'r DeTable<'r>) -> Section<'r> {
        Section { reader: self, path: String::new(), line: None, table: Some(table), asked: Vec::new() }
    }

    /// Text that isn't TOML at all.
    pub(super) fn refuse_syntax(&self, error: &toml::de::Error) {
        let start = error.span().map_or(0, |span| span.start);
        let line = self.line(start);
        let got = self.text.lines().nth(line - 1).unwrap_or_default().trim();
        let expected = format!("valid TOML ({})", error.message());
        self.refuse(Some(line), FieldError::new("syntax", shortened(&format!("{got:?}")), expected));
    }

    pub(super) fn refuse(&self, line: Option<usize>, error: FieldError) {
        self.errors.borrow_mut().push(ConfigError { line, error });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }
}

impl<'r> Section<'r> {
    /// Whether the file has this section.
    pub(super) fn is_there(&self) -> bool {
        self.table.is_some()
    }

    /// A table under this one; if it isn't there, all its keys are missing.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'r> {
        let found = self.ask(key);
        let table = found.and_then(|value| match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.wrong(key, "a table");
                None
            }
        });
        let line = found.map(|value| self.reader.line(value.span().start));
        Section { reader: self.reader, path: self.path_of(key), line, table, asked: Vec::new() }
    }

    /// The tables of an array of tables, each with its number in its path until it says its name.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'r>> {
        let Some(value) = self.ask(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(key, format!("tables, each under [[{key}]]"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Section {
                    reader: self.reader,
                    path: format!("{}[{index}]", self.path_of(key)),
                    line: Some(self.reader.line(item.span().start)),
                    table: Some(table),
                    asked: Vec::new(),
                }),
                _ => self.wrong(key, format!("tables, each under [[{key}]]")),
            }
        }
        sections
    }

    /// From here on errors name this section so.
    pub(super) fn rename(&mut self, path: String) {
        self.path = path;
    }

    /// A value that `convert` takes; `expected` says which those are.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        expected: impl Display,
        convert: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.ask(key)?;
        let converted = convert(value.get_ref());
        if converted.is_none() {
            self.wrong(key, expected);
        }
        converted
    }

    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        expected: impl Display,
        convert: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.asked.push(key);
            self.reader.refuse(self.line, FieldError::missing(self.path_of(key), expected.to_string()));
            return None;
        }
        self.optional(key, expected, convert)
    }

    pub(super) fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let expected = format!("{} to {}", range.start(), range.end());
        let number = self.optional(key, expected, |value| {
            let integer = value.as_integer()?;
            u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|number| range.contains(number))
        });
        number.unwrap_or(default)
    }

    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_secs(self.number(key, default, range))
    }

    /// A path; a relative one starts at the file's folder.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let folder = self.reader.folder;
        self.optional(key, "a path", |value| path_text(value).map(|path| folder.join(path)))
    }

    pub(super) fn required_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let folder = self.reader.folder;
        self.required(key, "a path", |value| path_text(value).map(|path| folder.join(path)))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reports a key whose value is well-formed and wrong all the same.
    pub(super) fn wrong(&self, key: &str, expected: impl Display) {
        let shown = self.find(key).map_or_else(|| "nothing".to_owned(), |value| show(value.get_ref()));
        self.refuse(FieldError::new(key, shown, expected.to_string()));
    }

    /// Reports an error whose field is a key of this section.
    pub(super) fn refuse(&self, error: FieldError) {
        let line = self.find(&error.field).map(|value| self.reader.line(value.span().start)).or(self.line);
        let error = if self.path.is_empty() { error } else { error.under(&self.path) };
        self.reader.refuse(line, error);
    }

    /// Reports every key that nobody asked for. Its value isn't shown: it may be a secret in the wrong place.
    pub(super) fn finish(self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            if !self.asked.contains(&&**key.get_ref()) {
                let field = self.path_of(key.get_ref());
                let expected = format!("one of {}", self.asked.join(", "));
                let line = self.reader.line(key.span().start);
                self.reader.refuse(Some(line), FieldError::new(field, "an unknown key", expected));
            }
        }
    }

    fn ask(&mut self, key: &'static str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.asked.push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.table?.get(key)
    }

    /// A key with the path of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A text that says a `T`.
pub(super) fn parsed<T: FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// A text that `fits`.
pub(super) fn text_that(fits: impl Fn(&str) -> bool) -> impl FnOnce(&DeValue<'_>) -> Option<String> {
    move |value| value.as_str().filter(|text| fits(text)).map(str::to_owned)
}

fn path_text<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'))
}

fn show(value: &DeValue<'_>) -> String {
    shortened(&match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(array) => {
            let items: Vec<String> = array.iter().map(|item| show(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(_) => "a table".to_owned(),
    })
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
