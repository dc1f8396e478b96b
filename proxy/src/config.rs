//! The bootstrap file, `holdfast.toml`: read once as typed, then checked into domain types that can't be wrong.

pub mod field_error;

pub use field_error::FieldError;
