//! The JSON documents: raw, as people write them, then checked, as the table holds them.
//!
//! A document is judged here by itself; what it must have in common with the others is judged by `compile`.
//! Every fault names the field, the value found there and what was expected instead.

pub mod accept;
pub mod backend;
pub mod balance;
pub mod drain;
pub mod ejection;
pub mod health;
pub mod hook;
pub mod key;
pub mod mirror;
pub mod rollout;
pub mod route;
pub mod schema;
pub mod service;
mod strict;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::config::FieldError;
use crate::routing::table::{Backend, DrainOrder, EjectionOrder, Hook, Rollout, Route, Service};

pub use accept::{Accept, RawAccept};
pub use backend::RawBackend;
pub use drain::RawDrain;
pub use ejection::RawEjection;
pub use hook::RawHook;
pub use key::Key;
pub use rollout::RawRollout;
pub use route::RawRoute;
pub use service::RawService;

/// Longer documents are refused unread. A service's is about 1 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Most of anything that is counted: sessions, moves per second.
const MAX_COUNT: u64 = 1_000_000;

/// A document that is right by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    Service(Arc<Service>),
    Backend(Arc<Backend>),
    Route(Arc<Route>),
    Drain(Arc<DrainOrder>),
    Ejection(Arc<EjectionOrder>),
    Rollout(Arc<Rollout>),
    Hook(Arc<Hook>),
    Accept(Arc<Accept>),
}

impl Document {
    /// Reads the document that stands under `key`.
    pub fn parse(key: &Key, bytes: &[u8]) -> Result<Self, FieldError> {
        Ok(match key {
            Key::Service(name) => {
                Self::Service(Arc::new(strict::read::<RawService>(bytes)?.check(name.clone())?))
            }
            Key::Backend(id) => {
                Self::Backend(Arc::new(strict::read::<RawBackend>(bytes)?.check(id.clone())?))
            }
            Key::Route(name) => Self::Route(Arc::new(strict::read::<RawRoute>(bytes)?.check(name.clone())?)),
            Key::Drain(id) => Self::Drain(Arc::new(strict::read::<RawDrain>(bytes)?.check(id.clone())?)),
            Key::Ejection(id) => {
                Self::Ejection(Arc::new(strict::read::<RawEjection>(bytes)?.check(id.clone())?))
            }
            Key::Rollout(service) => {
                Self::Rollout(Arc::new(strict::read::<RawRollout>(bytes)?.check(service.clone())?))
            }
            Key::Hook(name) => Self::Hook(Arc::new(strict::read::<RawHook>(bytes)?.check(name.clone())?)),
            Key::Accept(_) => Self::Accept(Arc::new(strict::read::<RawAccept>(bytes)?.check()?)),
        })
    }
}

/// The start of a text from outside, fit for a log line.
#[must_use]
pub fn excerpt(text: &str) -> String {
    strict::shorten(text)
}

/// A fault of one field.
fn fault(field: &str, value: impl std::fmt::Display, expected: impl Into<String>) -> FieldError {
    FieldError::new(field, value, expected)
}

/// `value`, if it lies in `range`.
fn within<T>(field: &str, value: T, range: std::ops::RangeInclusive<T>) -> Result<T, FieldError>
where
    T: PartialOrd + std::fmt::Display,
{
    if range.contains(&value) {
        return Ok(value);
    }
    Err(fault(field, value, format!("a number from {} to {}", range.start(), range.end())))
}

/// A number of things of which there is at least one.
fn count(field: &str, value: u64) -> Result<u32, FieldError> {
    let value = within(field, value, 1..=MAX_COUNT)?;
    Ok(u32::try_from(value).unwrap_or(u32::MAX))
}

/// Free text that ends up in logs and tables: short, one line.
fn line(field: &str, text: String, max_chars: usize) -> Result<String, FieldError> {
    if text.chars().count() <= max_chars && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(fault(
        field,
        strict::shown(&text),
        format!("at most {max_chars} characters, none of them a control character"),
    ))
}
