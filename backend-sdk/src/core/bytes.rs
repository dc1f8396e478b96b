//! Reading the SDK's own bytes, each length checked before it is used.

use std::time::{Duration, SystemTime};

/// Why bytes can't be read. Their writer is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BytesError {
    #[error("{field} needs {expected} bytes, {left} are left")]
    Truncated { field: &'static str, expected: usize, left: usize },
    #[error("{field} should be {expected}, is {got}")]
    Value { field: &'static str, expected: u64, got: u64 },
}

pub(crate) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn slice(&mut self, field: &'static str, expected: usize) -> Result<&'a [u8], BytesError> {
        let left = self.rest.len();
        let (slice, rest) =
            self.rest.split_at_checked(expected).ok_or(BytesError::Truncated { field, expected, left })?;
        self.rest = rest;
        Ok(slice)
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], BytesError> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(field, N)?);
        Ok(array)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, BytesError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, BytesError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, BytesError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, BytesError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub fn time(&mut self, field: &'static str) -> Result<SystemTime, BytesError> {
        self.u64(field).map(time_of)
    }
}

pub(crate) fn expect(field: &'static str, expected: u64, got: u64) -> Result<(), BytesError> {
    if got == expected { Ok(()) } else { Err(BytesError::Value { field, expected, got }) }
}

/// Nanoseconds of Unix time, up to the year 2554.
pub(crate) fn nanos_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

pub(crate) fn time_of(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}
