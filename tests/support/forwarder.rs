//! A way to a server that can be cut and mended.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;

/// Forwards connections until it is cut; while it is, none gets through.
pub struct Forwarder {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

#[derive(Default)]
struct Way {
    is_cut: bool,
    /// Both ends of every connection so far.
    open: Vec<TcpStream>,
}

impl Forwarder {
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let way = Arc::new(Mutex::new(Way::default()));
        let shared = way.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // A connection that can't be made is closed: its client sees that.
                let _ = forward(client, target, &shared);
            }
        });
        Ok(Self { address, way })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection, and every one that comes.
    pub fn cut(&self) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.is_cut = true;
        for stream in way.open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends every connection; new ones are taken at once.
    pub fn blink(&self) {
        self.cut();
        self.mend();
    }

    pub fn mend(&self) {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).is_cut = false;
    }
}

fn forward(client: TcpStream, target: SocketAddr, way: &Mutex<Way>) -> io::Result<()> {
    let mut way = way.lock().unwrap_or_else(PoisonError::into_inner);
    if way.is_cut {
        return client.shutdown(Shutdown::Both);
    }
    let server = TcpStream::connect(target)?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        way.open.push(from.try_clone()?);
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            // Either end may go at any time: that ends the other.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
