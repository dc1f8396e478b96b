//! A way to a server that can be cut and mended, slow, or break off.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// Forwards connections until it is cut; while it is, none gets through.
pub struct Forwarder {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

#[derive(Default)]
struct Way {
    is_cut: bool,
    /// So late is everything in each direction.
    delay: Duration,
    /// A connection is reset when the server has said so many bytes on it.
    breaks_after: Option<u64>,
    /// Connections that came so far.
    knocks: u64,
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

    /// New connections are taken, and none breaks off.
    pub fn mend(&self) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        (way.is_cut, way.breaks_after) = (false, None);
    }

    /// New connections are taken, and each is reset when the server has said so many bytes on it.
    pub fn break_after(&self, bytes: u64) {
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        (way.is_cut, way.breaks_after) = (false, Some(bytes));
    }

    /// Everything comes so much later from now on, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).delay = delay;
    }

    /// Connections that were tried so far.
    pub fn knocks(&self) -> u64 {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).knocks
    }
}

fn forward(client: TcpStream, target: SocketAddr, shared: &Arc<Mutex<Way>>) -> io::Result<()> {
    let mut way = shared.lock().unwrap_or_else(PoisonError::into_inner);
    way.knocks += 1;
    if way.is_cut {
        return client.shutdown(Shutdown::Both);
    }
    let server = TcpStream::connect(target)?;
    for (from, to, is_answer) in [(&client, &server, false), (&server, &client, true)] {
        from.set_nodelay(true)?;
        way.open.push(from.try_clone()?);
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let shared = shared.clone();
        thread::spawn(move || {
            // Either end may go at any time: that ends the other; a cut resets both first.
            let _ = pass_on(&from, &to, is_answer, &shared);
            let _whole = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, is_answer: bool, way: &Mutex<Way>) -> io::Result<()> {
    let mut bytes = [0; 16 * 1024];
    let mut passed = 0;
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        let (delay, breaks_after) = {
            let way = way.lock().unwrap_or_else(PoisonError::into_inner);
            (way.delay, way.breaks_after.filter(|_| is_answer))
        };
        // What is late on purpose, is.
        thread::sleep(delay);
        let left = breaks_after
            .map_or(usize::MAX, |bound| usize::try_from(bound.saturating_sub(passed)).unwrap_or(usize::MAX));
        to.write_all(&bytes[..count.min(left)])?;
        if count > left {
            rustix::net::connect_unspec(from)?;
            rustix::net::connect_unspec(to)?;
            return Ok(());
        }
        passed += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Instant;

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

    #[test]
    fn answers_break_off_where_they_are_to_and_come_late() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Forwarder::start(server.local_addr().unwrap()).unwrap();
        way.break_after(3);
        way.delay(Duration::from_millis(20));
        let mut client = TcpStream::connect(way.address()).unwrap();
        let mut served = server.accept().unwrap().0;
        let begun = Instant::now();
        served.write_all(b"four").unwrap();
        let mut said = Vec::new();
        // How it ends depends on what was read before the reset.
        let _ = client.read_to_end(&mut said);
        assert!(b"fou".starts_with(&said), "{said:?}");
        assert!(begun.elapsed() >= Duration::from_millis(20) && way.knocks() == 1);
    }
}
