//! What the sample tells proxies of its capacity and load: made up, and settable while it runs.

use std::str::FromStr;

use holdfast_backend::Load;

/// `capacity=800,load=250`: sessions, thousandths. What isn't named isn't told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fullness {
    pub capacity: Option<u32>,
    pub load_permille: Option<u16>,
}

/// What is wrong with the text of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: expected none, or a list of capacity=800, load=250 (thousandths)")]
pub struct BadFullness(String);

impl FromStr for Fullness {
    type Err = BadFullness;

    fn from_str(text: &str) -> Result<Self, BadFullness> {
        let mut fullness = Self::default();
        let parts = text.split([',', '\n', ' ']).filter(|part| !part.is_empty() && *part != "none");
        for part in parts {
            let bad = || BadFullness(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            match name {
                "capacity" => fullness.capacity = Some(value.parse().map_err(|_| bad())?),
                "load" => fullness.load_permille = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(bad()),
            }
        }
        Ok(fullness)
    }
}

impl Fullness {
    pub fn tell(self, load: &Load) {
        load.set_capacity(self.capacity.unwrap_or(0));
        match self.load_permille {
            Some(permille) => load.set_permille(permille),
            None => load.unset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_reads_as_it_is_written() {
        let both = Fullness { capacity: Some(800), load_permille: Some(250) };
        assert_eq!("capacity=800, load=250\n".parse(), Ok(both));
        assert_eq!("load=1200".parse(), Ok(Fullness { capacity: None, load_permille: Some(1200) }));
        assert_eq!("none".parse(), Ok(Fullness::default()));
        for bad in ["capacity", "load=x", "load=65536", "size=1"] {
            assert_eq!(bad.parse::<Fullness>(), Err(BadFullness(bad.to_owned())));
        }
    }
}
