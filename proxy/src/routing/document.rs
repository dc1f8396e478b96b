//! The JSON documents, as typed and as checked.
