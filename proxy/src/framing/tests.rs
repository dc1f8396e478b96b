//! Promises of framing as a whole; each family's shapes are in the submodules.
