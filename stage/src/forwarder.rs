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
        // Ends with this process.
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

    /// Resets every connection, whose bytes under way are gone, and ends every one that comes.
    pub fn cut(&self) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.is_cut = true;
        for stream in way.open.drain(..) {
            // It may have ended by itself.
            let _ = rustix::net::connect_unspec(&stream);
        }
    }

    /// Resets every connection; new ones are taken at once.
    pub fn blink(&self) {
        self.cut();
        self.mend();
    }

    pub fn mend(&self) {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).is_cut = false;
    }
}

fn forward(client: TcpStream, target: SocketAddr, shared: &Arc<Mutex<Way>>) -> io::Result<()> {
    let mut way = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if way.is_cut {
        return client.shutdown(Shutdown::Both);
    }
    let server = TcpStream::connect(target)?;
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.set_nodelay(true)?;
        way.open.push(from.try_clone()?);
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        let shared = shared.clone();
        thread::spawn(move || {
            // Either end may go at any time: that ends the other; a cut resets both first.
            let _ = io::copy(&mut from, &mut to);
            let _whole = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use super::*;

    #[test]
    fn bytes_go_through_until_it_is_cut_and_again_when_it_is_mended() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Forwarder::start(server.local_addr().unwrap()).unwrap();
        let connect = || {
            let client = TcpStream::connect(way.address()).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            (client, server.accept().unwrap().0)
        };
        let (mut client, mut served) = connect();
        let mut byte = [0];
        served.write_all(b"x").unwrap();
        client.read_exact(&mut byte).unwrap();
        way.cut();
        for end in [&mut client, &mut served] {
            assert_eq!(end.read(&mut byte).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
        let mut refused = TcpStream::connect(way.address()).unwrap();
        assert_eq!(refused.read(&mut byte).unwrap_or(0), 0, "nothing comes through while it is cut");
        way.mend();
        let (mut client, mut served) = connect();
        client.write_all(b"y").unwrap();
        served.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
    }
}
