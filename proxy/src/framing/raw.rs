//! A framing as people write it in a service's document, and the check that makes a [`Framing`] of it.
//!
//! Every field of every kind stands here as an option, so that a wrong or misplaced one is an error with its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::length::{LengthParts, Order, Width};
use super::{Framing, LengthFraming, LineFraming, VarintFraming};
use crate::config::FieldError;

/// `max_bytes` where a document doesn't say.
pub const DEFAULT_MAX_BYTES: u64 = 64 * 1024;
/// The largest `max_bytes`: a session must be able to hold a whole frame both ways.
pub const MAX_BYTES_LIMIT: u64 = 16 * 1024 * 1024;
/// The largest `offset` and `adjust` (either sign).
const HEADER_LIMIT: u64 = 1024;
/// The longest delimiter.
const DELIMITER_LIMIT: usize = 16;

/// The `framing` of a service's document, as typed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFraming {
    /// What tells where a frame ends: a `length` field of fixed width; a `varint` length, as protobuf's
    /// `writeDelimitedTo` makes it; a delimiter (`lines`).
    #[schemars(extend("enum" = ["length", "varint", "lines"]))]
    pub kind: String,
    /// The largest frame, as the backend sees it.
    #[schemars(range(min = 1, max = MAX_BYTES_LIMIT), extend("default" = DEFAULT_MAX_BYTES))]
    pub max_bytes: Option<u64>,
    /// Kind `length`: bytes of the length field.
    #[schemars(extend("enum" = [1, 2, 3, 4, 8], "default" = 4))]
    pub width: Option<u64>,
    /// Kind `length`: byte order of the length field.
    #[schemars(extend("enum" = ["big", "little"], "default" = "big"))]
    pub order: Option<String>,
    /// Kind `length`: bytes before the length field; above 0 only with `keep_header`.
    #[schemars(range(max = HEADER_LIMIT), extend("default" = 0))]
    pub offset: Option<u64>,
    /// Kind `length`: what the length counts: `body`, all that follows the length field; `all`, the whole frame with its
    /// header.
    #[schemars(extend("enum" = ["body", "all"], "default" = "body"))]
    pub counts: Option<String>,
    /// Kind `length`: added to the length read, for what `counts` can't say (netty's `lengthAdjustment`).
    #[schemars(range(min = -1024, max = 1024), extend("default" = 0))]
    pub adjust: Option<i64>,
    /// Kinds `length` and `varint`: the header travels to the backend, and the backend writes it.
    #[schemars(extend("default" = false))]
    pub keep_header: Option<bool>,
    /// Kind `lines`: what ends a frame, 1 to 16 bytes.
    #[schemars(length(min = 1, max = DELIMITER_LIMIT), extend("default" = "\n"))]
    pub delimiter: Option<String>,
    /// Kind `lines`: the delimiter travels to the backend, and the backend writes it.
    #[schemars(extend("default" = false))]
    pub keep_delimiter: Option<bool>,
    /// Kind `lines`: one `\r` before the delimiter is dropped.
    #[schemars(extend("default" = false))]
    pub strip_cr: Option<bool>,
}

impl RawFraming {
    /// # Errors
    /// The first field that can't be used; paths begin with `framing.`.
    pub fn check(&self) -> Result<Framing, FieldError> {
        let framing = match self.kind.as_str() {
            "length" => self.check_length().map(Framing::Length),
            "varint" => self.check_varint().map(Framing::Varint),
            "lines" => self.check_lines().map(Framing::Lines),
            other => Err(FieldError::new("kind", quoted(other), "\"length\", \"varint\" or \"lines\"")),
        };
        framing.map_err(|error| error.under("framing"))
    }

    fn check_length(&self) -> Result<LengthFraming, FieldError> {
        self.refuse_line_fields()?;
        let parts = self.length_parts()?;
        if parts.offset > 0 && !parts.keep_header {
            let why = format!(
                "true, because the {} bytes before the length field can't be made anew for a server frame",
                parts.offset
            );
            return Err(FieldError::new("keep_header", false, why));
        }
        LengthFraming::new(&parts).ok_or_else(|| {
            let why = "room for the smallest frame that offset, width, counts and adjust allow";
            FieldError::new("max_bytes", parts.max_bytes, why)
        })
    }

    fn length_parts(&self) -> Result<LengthParts, FieldError> {
        let width = self.width.unwrap_or(4);
        let adjust = self.adjust.unwrap_or(0);
        if adjust.unsigned_abs() > HEADER_LIMIT {
            return Err(FieldError::new("adjust", adjust, format!("-{HEADER_LIMIT} to {HEADER_LIMIT}")));
        }
        Ok(LengthParts {
            width: Width::from_bytes(width)
                .ok_or_else(|| FieldError::new("width", width, "1, 2, 3, 4 or 8"))?,
            order: match self.order.as_deref() {
                None | Some("big") => Order::Big,
                Some("little") => Order::Little,
                Some(other) => return Err(FieldError::new("order", quoted(other), "\"big\" or \"little\"")),
            },
            offset: in_range("offset", self.offset.unwrap_or(0), 0, HEADER_LIMIT)?,
            counts_all: match self.counts.as_deref() {
                None | Some("body") => false,
                Some("all") => true,
                Some(other) => return Err(FieldError::new("counts", quoted(other), "\"body\" or \"all\"")),
            },
            adjust,
            keep_header: self.keep_header.unwrap_or(false),
            max_bytes: self.max_bytes()?,
        })
    }

    fn check_varint(&self) -> Result<VarintFraming, FieldError> {
        self.refuse_length_fields()?;
        self.refuse_line_fields()?;
        Ok(VarintFraming::new(self.max_bytes()?, self.keep_header.unwrap_or(false)))
    }

    fn check_lines(&self) -> Result<LineFraming, FieldError> {
        self.refuse_length_fields()?;
        self.refuse("keep_header", self.keep_header)?;
        let delimiter = self.delimiter.as_deref().unwrap_or("\n").as_bytes();
        let keep = self.keep_delimiter.unwrap_or(false);
        let strip_cr = self.strip_cr.unwrap_or(false);
        if delimiter.is_empty() || delimiter.len() > DELIMITER_LIMIT {
            let got = format!("{} bytes", delimiter.len());
            return Err(FieldError::new("delimiter", got, format!("1 to {DELIMITER_LIMIT} bytes")));
        }
        if keep && strip_cr {
            let why = "false, because keep_delimiter passes the end of the line on as it is";
            return Err(FieldError::new("strip_cr", true, why));
        }
        if strip_cr && delimiter.contains(&b'\r') {
            let why = "false, because the delimiter has a \\r of its own";
            return Err(FieldError::new("strip_cr", true, why));
        }
        let max_bytes = self.max_bytes()?;
        if keep && max_bytes < delimiter.len() {
            return Err(FieldError::new("max_bytes", max_bytes, "room for the delimiter, which is kept"));
        }
        Ok(LineFraming::new(delimiter, keep, strip_cr, max_bytes))
    }

    fn max_bytes(&self) -> Result<usize, FieldError> {
        in_range("max_bytes", self.max_bytes.unwrap_or(DEFAULT_MAX_BYTES), 1, MAX_BYTES_LIMIT)
    }

    fn refuse_length_fields(&self) -> Result<(), FieldError> {
        self.refuse("width", self.width)?;
        self.refuse("order", self.order.as_deref().map(quoted))?;
        self.refuse("offset", self.offset)?;
        self.refuse("counts", self.counts.as_deref().map(quoted))?;
        self.refuse("adjust", self.adjust)
    }

    fn refuse_line_fields(&self) -> Result<(), FieldError> {
        self.refuse("delimiter", self.delimiter.as_deref().map(quoted))?;
        self.refuse("keep_delimiter", self.keep_delimiter)?;
        self.refuse("strip_cr", self.strip_cr)
    }

    /// A field of another kind would be ignored in silence: say so instead.
    fn refuse(&self, field: &str, value: Option<impl std::fmt::Display>) -> Result<(), FieldError> {
        match value {
            None => Ok(()),
            Some(value) => {
                let why = format!("nothing, because kind {} has no such field", quoted(&self.kind));
                Err(FieldError::new(field, value, why))
            }
        }
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn in_range(field: &str, value: u64, min: u64, max: u64) -> Result<usize, FieldError> {
    let wrong = || FieldError::new(field, value, format!("{min} to {max}"));
    if value < min || value > max {
        return Err(wrong());
    }
    usize::try_from(value).map_err(|_| wrong())
}
