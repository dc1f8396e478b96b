//! A wire between a proxy and a backend that a test can cut, while both processes live on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub struct Forwarder {
    address: SocketAddr,
    wires: Arc<Mutex<Vec<TcpStream>>>,
    over: Arc<AtomicBool>,
}

impl Forwarder {
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (target, all, is_over) = (target.to_owned(), wires.clone(), over.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                // A target that isn't there: the near end is closed, as a broken wire would be.
                if let Ok(far) = TcpStream::connect(&target) {
                    let mut all = all.lock().unwrap();
                    all.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                    join(near, far);
                }
            }
        });
        Self { address, wires, over }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection, with whatever is on its way; new ones are taken at once.
    pub fn cut(&self) -> usize {
        let wires = std::mem::take(&mut *self.wires.lock().unwrap());
        for wire in &wires {
            // It may have ended by itself.
            let _ = wire.shutdown(Shutdown::Both);
        }
        wires.len()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.cut();
        // Wakes the listener's thread; if it is gone, all is done.
        let _ = TcpStream::connect(self.address);
    }
}

fn join(near: TcpStream, far: TcpStream) {
    for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
        std::thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            while let Ok(count) = from.read(&mut chunk)
                && count > 0
                && to.write_all(&chunk[..count]).is_ok()
            {}
            // Either end may be gone already.
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
