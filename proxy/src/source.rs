//! Where documents come from.
