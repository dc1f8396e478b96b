//! Frames of a group's stream: each says which member it is of, or for.
//!
//! A group's client frames share one sequence, and so do its server frames: what the proxy gives a member's frame its
//! seq by is the order in which all the group's inputs are processed. Layout: `u8` kind, 16 bytes member, payload.

use crate::ids::{Seq, SessionId};

/// What an address adds to the frame that it stands before.
pub const ADDRESS_BYTES: usize = 17;

/// Largest piece of a member's state in one frame.
pub const PASSAGE_PART_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum AddressedKind {
    /// One application frame.
    Frame = 0,
    /// To the backend: the client has sent its last byte, and still listens. No payload.
    Half = 1,
    /// To the backend: the client is gone; to the proxy: the game ends this member's session. The payload is the reason.
    Close = 2,
    /// A piece of an [`Arrival`] (to the backend) or of a [`Departure`] (to the proxy); more follow.
    Part = 3,
    /// Its last piece: the member is in the group from here on, or no longer.
    Passage = 4,
}

impl AddressedKind {
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Frame),
            1 => Some(Self::Half),
            2 => Some(Self::Close),
            3 => Some(Self::Part),
            4 => Some(Self::Passage),
            _ => None,
        }
    }
}

/// One frame of a group's stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addressed<'a> {
    pub kind: AddressedKind,
    pub member: SessionId,
    pub payload: &'a [u8],
}

impl<'a> Addressed<'a> {
    #[must_use]
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let (head, payload) = frame.split_first_chunk::<ADDRESS_BYTES>()?;
        let kind = AddressedKind::from_number(head[0])?;
        let member = SessionId(*head[1..].first_chunk()?);
        Some(Self { kind, member, payload })
    }

    /// What stands before the payload.
    #[must_use]
    pub fn head(kind: AddressedKind, member: SessionId) -> [u8; ADDRESS_BYTES] {
        let mut head = [0; ADDRESS_BYTES];
        head[0] = kind as u8;
        head[1..].copy_from_slice(&member.0);
        head
    }
}

/// What a member comes with: the payloads of its parts, joined.
///
/// Layout, little-endian: `u64` when its session began, in microseconds of Unix time; client's address and the state's
/// format, each `u16` length and text; then the state to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival<'a> {
    pub opened_us: u64,
    /// As `ip:port`.
    pub client: &'a str,
    /// As the WELCOME of the state's writer named it.
    pub format: &'a str,
    /// The STATE(final) of the session that it was, as its writer sent it.
    pub state: &'a [u8],
}

impl<'a> Arrival<'a> {
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (opened_us, rest) = bytes.split_first_chunk()?;
        let (client, rest) = text(rest)?;
        let (format, state) = text(rest)?;
        Some(Self { opened_us: u64::from_le_bytes(*opened_us), client, format, state })
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(12 + self.client.len() + self.format.len() + self.state.len());
        bytes.extend_from_slice(&self.opened_us.to_le_bytes());
        for text in [self.client, self.format] {
            let end = text.floor_char_boundary(usize::from(u16::MAX));
            bytes.extend_from_slice(&u16::try_from(end).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend_from_slice(&text.as_bytes()[..end]);
        }
        bytes.extend_from_slice(self.state);
        bytes
    }
}

/// What a member leaves with: the payloads of its parts, joined.
///
/// Layout, little-endian: `u64` client seq, then the state to the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Departure<'a> {
    /// The group's client frame after which it left: frames of its own that come later in the group's stream are the
    /// first of the session that goes on alone.
    pub client_seq: Seq,
    /// With which it goes on: what a STATE(final) of it would be, in the format that the backend writes.
    pub state: &'a [u8],
}

impl<'a> Departure<'a> {
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (client_seq, state) = bytes.split_first_chunk()?;
        Some(Self { client_seq: Seq(u64::from_le_bytes(*client_seq)), state })
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.client_seq.0.to_le_bytes(), self.state].concat()
    }
}

/// The frames by which `bytes` (of an arrival or a departure) travel, without their heads.
pub fn parts(bytes: &[u8]) -> impl Iterator<Item = (AddressedKind, &[u8])> {
    let count = bytes.len().div_ceil(PASSAGE_PART_BYTES).max(1);
    (0..count).map(move |part| {
        let begin = part * PASSAGE_PART_BYTES;
        let end = bytes.len().min(begin + PASSAGE_PART_BYTES);
        let kind = if part + 1 == count { AddressedKind::Passage } else { AddressedKind::Part };
        (kind, &bytes[begin..end])
    })
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_addressed_reads_back(kind in 0..5_u8, member: [u8; 16], payload: Vec<u8>) {
            let kind = AddressedKind::from_number(kind).unwrap();
            let member = SessionId(member);
            let frame = [&Addressed::head(kind, member), payload.as_slice()].concat();
            prop_assert_eq!(Addressed::parse(&frame), Some(Addressed { kind, member, payload: &payload }));
            prop_assert_eq!(Addressed::parse(&frame[..ADDRESS_BYTES - 1]), None);
        }

        #[test]
        fn passages_read_back(opened_us: u64, client: String, format: String, state: Vec<u8>, seq: u64) {
            let arrival = Arrival { opened_us, client: &client, format: &format, state: &state };
            let bytes = arrival.to_bytes();
            prop_assert_eq!(Arrival::parse(&bytes), Some(arrival));
            let departure = Departure { client_seq: Seq(seq), state: &state };
            let bytes = departure.to_bytes();
            prop_assert_eq!(Departure::parse(&bytes), Some(departure));
        }

        #[test]
        fn no_bytes_make_the_readers_panic(bytes: Vec<u8>) {
            let _ = (Addressed::parse(&bytes), Arrival::parse(&bytes), Departure::parse(&bytes));
        }

        #[test]
        fn the_parts_are_the_whole(length in 0..3 * PASSAGE_PART_BYTES) {
            let whole: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let all: Vec<_> = parts(&whole).collect();
            let (last, before) = all.split_last().unwrap();
            prop_assert_eq!(last.0, AddressedKind::Passage);
            for (kind, part) in before {
                prop_assert_eq!((*kind, part.len()), (AddressedKind::Part, PASSAGE_PART_BYTES));
            }
            let joined: Vec<u8> = all.iter().flat_map(|(_, part)| part.iter().copied()).collect();
            prop_assert_eq!(joined, whole);
        }
    }
}
