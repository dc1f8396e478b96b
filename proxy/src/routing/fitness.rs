//! Which backends get no new sessions for now, and why: an immutable snapshot beside the table. Workers read it; the
//! control plane swaps it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::table::BackendId;

/// Who isn't named is fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fitness {
    unfit: BTreeMap<BackendId, Vec<Unfit>>,
}

/// One reason why a backend is unfit; each is lifted alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub cause: UnfitCause,
    /// In words.
    pub reason: String,
    pub since: SystemTime,
    /// When it is over by itself.
    pub until: Option<SystemTime>,
}

/// Public: the `cause` label of `holdfast_unfit_backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum UnfitCause {
    /// It fails its checks.
    Check,
    /// It treats its sessions worse than others do.
    Outlier,
    /// An `ejections/` key.
    Order,
}

impl UnfitCause {
    pub const ALL: [Self; 3] = [Self::Check, Self::Outlier, Self::Order];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Outlier => "outlier",
            Self::Order => "order",
        }
    }
}

impl Fitness {
    pub fn add(&mut self, backend: &BackendId, unfit: Unfit) {
        self.unfit.entry(backend.clone()).or_default().push(unfit);
    }

    #[must_use]
    pub fn is_fit(&self, backend: &BackendId) -> bool {
        !self.unfit.contains_key(backend)
    }

    /// Why it is unfit; empty: it is fit.
    #[must_use]
    pub fn of(&self, backend: &BackendId) -> &[Unfit] {
        self.unfit.get(backend).map_or(&[], Vec::as_slice)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&BackendId, &Unfit)> {
        self.unfit.iter().flat_map(|(backend, causes)| causes.iter().map(move |unfit| (backend, unfit)))
    }

    /// What `self` says of a backend that `other` doesn't, cause by cause.
    pub fn beyond<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a BackendId, &'a Unfit)> {
        self.iter()
            .filter(|(backend, unfit)| other.of(backend).iter().all(|known| known.cause != unfit.cause))
    }
}
