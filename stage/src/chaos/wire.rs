//! The way between the proxies and one game, which can be cut: every connection on it is reset, in the middle of a
//! message if that is where it happens to be.

use std::net::SocketAddr;
use std::sync::mpsc as answers;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use crate::free_address;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub struct Wire {
    address: SocketAddr,
    orders: UnboundedSender<Order>,
}

enum Order {
    /// The game is there, or it isn't; then connections are refused, as the system would without this wire.
    Up(bool),
    /// One connection, or all; the answer is how many there were.
    Cut { pick: Option<u64>, cut: answers::Sender<usize> },
}

impl Wire {
    /// A thread of its own, which ends with this value.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let address = free_address()?;
        let (orders, taken) = unbounded_channel();
        let (ready, bound) = answers::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await;
                let listens = listener.is_ok();
                // Whoever waits for the answer is there.
                let _ = ready.send(listener.as_ref().map(drop).map_err(ToString::to_string));
                if listens {
                    serve(address, target, listener.ok(), taken).await;
                }
            });
        });
        let answer = bound.recv_timeout(ANSWER_WITHIN).context("the wire's listener")?;
        answer.map_err(|error| anyhow::anyhow!("{address}: {error}"))?;
        Ok(Self { address, orders })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_up(&self, up: bool) {
        // The thread lives as long as this value.
        let _ = self.orders.send(Order::Up(up));
    }

    /// Resets one connection, or all of them; returns how many.
    pub fn cut(&self, pick: Option<u64>) -> Result<usize> {
        let (cut, answer) = answers::channel();
        self.orders.send(Order::Cut { pick, cut }).ok().context("the wire's thread has ended")?;
        answer.recv_timeout(ANSWER_WITHIN).context("cutting the wire")
    }
}

async fn serve(
    address: SocketAddr,
    target: SocketAddr,
    mut listener: Option<TcpListener>,
    mut orders: UnboundedReceiver<Order>,
) {
    let mut links = JoinSet::new();
    let mut cutters: Vec<AbortHandle> = Vec::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Up(false)) => listener = None,
                // The port is below those that the system gives away: nobody else has taken it.
                Some(Order::Up(true)) => listener = TcpListener::bind(address).await.ok().or(listener),
                Some(Order::Cut { pick, cut }) => {
                    // Nobody has to wait for the answer.
                    let _ = cut.send(reset(&mut cutters, pick));
                }
            },
            client = accept(listener.as_ref()) => cutters.push(links.spawn(forward(client, target))),
            Some(_) = links.join_next() => {}
        }
        cutters.retain(|cutter| !cutter.is_finished());
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // A client that has gone again is none.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

fn reset(cutters: &mut Vec<AbortHandle>, pick: Option<u64>) -> usize {
    let chosen = match pick {
        Some(pick) if !cutters.is_empty() => {
            let index = pick % cutters.len() as u64;
            vec![cutters.swap_remove(index as usize)]
        }
        _ => std::mem::take(cutters),
    };
    chosen.iter().for_each(AbortHandle::abort);
    chosen.len()
}

async fn forward(client: TcpStream, target: SocketAddr) {
    let mut client = Resets(client);
    let Ok(server) = TcpStream::connect(target).await else { return };
    let mut server = Resets(server);
    for side in [&client.0, &server.0] {
        // It may be closed already: then the copy ends at once.
        let _ = side.set_nodelay(true);
    }
    // However it ends, both ends see it: a reset, or the reset after an orderly end, which nobody sees any more.
    let _ = copy_bidirectional(&mut client.0, &mut server.0).await;
}

/// Is reset when it is dropped: what is under way then is lost.
struct Resets(TcpStream);

impl Drop for Resets {
    fn drop(&mut self) {
        // On a socket that is closed already there is nothing to reset.
        let _ = self.0.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_cut_resets_both_ends_and_a_wire_that_is_down_refuses() {
        let game = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::start(game.local_addr().unwrap()).unwrap();
        let mut proxy = TcpStream::connect(wire.address()).unwrap();
        let (mut there, _) = game.accept().unwrap();
        proxy.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        there.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");

        assert_eq!(wire.cut(Some(7)).unwrap(), 1);
        for end in [&mut proxy, &mut there] {
            assert_eq!(end.read(&mut bytes).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(wire.cut(None).unwrap(), 0);

        wire.set_up(false);
        // Orders are taken in their order.
        wire.cut(None).unwrap();
        // A process that another test starts at this moment holds the listener's copy until it is on its own.
        let refused = || TcpStream::connect(wire.address()).err();
        let error = crate::wait::until_some("a refusal", Duration::from_secs(10), || Ok(refused())).unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        wire.set_up(true);
        wire.cut(None).unwrap();
        TcpStream::connect(wire.address()).unwrap();
    }
}
