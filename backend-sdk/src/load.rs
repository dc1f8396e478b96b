//! [`Load`]: how many sessions a process is to have, and how full it is, as proxies are told while it runs.

use std::num::NonZeroU32;

use tokio::sync::watch;

/// The largest load that can be told, in thousandths.
const MAX_PERMILLE: u16 = u16::MAX - 1;

/// Tells the proxies a capacity and a load; clones tell the same. Setting either costs a short lock, from any thread;
/// the proxies hear of the latest at most four times a second.
///
/// Proxies send new sessions elsewhere when the capacity is reached. Where the service's document says `"by": "load"`,
/// they compare loads instead of numbers of sessions; and who is at 1,000 or above gets new ones only if all are.
/// Sessions that are here stay. An operator's own word on the capacity, in the backend's document, wins.
///
/// ```no_run
/// # use holdfast_backend::{Context, Game, Opening, Refusal, Session};
/// # struct Player;
/// # impl Session for Player {
/// #     fn frame(&mut self, _: &[u8], _: &mut Context<'_>) {}
/// #     fn snapshot(&self) -> Vec<u8> { Vec::new() }
/// # }
/// # struct Points;
/// # impl Game for Points {
/// #     type Session = Player;
/// #     fn open(&self, _: Opening<'_>, _: &mut Context<'_>) -> Result<Player, Refusal> { Ok(Player) }
/// # }
/// # fn busy_share_of_the_last_second() -> f64 { 0.25 }
/// use holdfast_backend::{Load, Server};
///
/// let load = Load::default();
/// let server = Server::builder(Points).listen("127.0.0.1:7100").load(&load).capacity(800);
/// std::thread::spawn(move || loop {
///     std::thread::sleep(std::time::Duration::from_secs(1));
///     load.set(busy_share_of_the_last_second());
/// });
/// server.run()?;
/// # Ok::<(), holdfast_backend::ServeError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Load {
    told: watch::Sender<Told>,
}

/// What is told; none: nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub capacity: Option<NonZeroU32>,
    pub load_permille: Option<u16>,
}

impl Load {
    /// Sessions (and groups) that the process is to have at most, over all proxies; 0: no bound is told.
    pub fn set_capacity(&self, sessions: u32) {
        self.change(|told| told.capacity = NonZeroU32::new(sessions));
    }

    /// How full the process is: 0.0 is idle, 1.0 full, more is overloaded. What counts is the game's choice: time of
    /// the processor, memory, lateness. Told in thousandths; below 0, or not a number: 0.
    pub fn set(&self, load: f64) {
        // `as` saturates, and makes 0 of what isn't a number.
        self.set_permille((load * 1000.0).round() as u16);
    }

    /// The same in thousandths, 65,534 at most.
    pub fn set_permille(&self, load: u16) {
        self.change(|told| told.load_permille = Some(load.min(MAX_PERMILLE)));
    }

    /// No load is told any more: sessions count again.
    pub fn unset(&self) {
        self.change(|told| told.load_permille = None);
    }

    fn change(&self, change: impl FnOnce(&mut Told)) {
        self.told.send_if_modified(|told| {
            let before = *told;
            change(told);
            *told != before
        });
    }

    pub(crate) fn told(&self) -> Told {
        *self.told.borrow()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_told_in_thousandths_whatever_it_is() {
        let load = Load::default();
        let told = |value| {
            load.set(value);
            load.told().load_permille
        };
        let told = [0.0, 0.25, 1.0, 1.5, -3.0, f64::NAN, 1e9].map(told);
        assert_eq!(told, [0, 250, 1000, 1500, 0, 0, 65_534].map(Some));
        load.unset();
        assert_eq!(load.told(), Told::default());
    }

    #[test]
    fn only_what_is_new_is_a_change_and_clones_tell_the_same() {
        let load = Load::default();
        let changes = load.changes();
        load.clone().set_capacity(0);
        assert!(!changes.has_changed().unwrap());
        load.clone().set_capacity(800);
        assert!(changes.has_changed().unwrap());
        assert_eq!(load.told().capacity, NonZeroU32::new(800));
    }
}
