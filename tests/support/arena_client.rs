//! A client of the sample game that keeps no manners: it sends as fast as it is let, and reads when it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::scene::SOON;

/// Small enough that what isn't read waits in the proxy, not in the kernel; and so large that it doesn't.
const NARROW_BYTES: usize = 4096;
const WIDE_BYTES: usize = 200 * 1024;
/// How long one try to send may take.
const TRY: Duration = Duration::from_millis(100);
const KIND_INPUT: u8 = 1;
const KIND_REPLY: u8 = 2;

pub struct ArenaClient {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Seq of the last input.
    sent: u64,
    /// Seq of the last reply.
    replied: u64,
}

impl ArenaClient {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(address, WIDE_BYTES)
    }

    /// One whose kernel takes hardly anything that it doesn't read.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        Self::over(address, NARROW_BYTES)
    }

    fn over(address: SocketAddr, receive_buffer_bytes: usize) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(receive_buffer_bytes).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self { stream, inbox: Vec::new(), sent: 0, replied: 0 }
    }

    pub fn try_clone(&self) -> Self {
        let stream = self.stream.try_clone().unwrap();
        Self { stream, inbox: Vec::new(), sent: self.sent, replied: self.replied }
    }

    /// Sends the next input; waits as long as that takes.
    pub fn send(&mut self, size: usize) {
        let input = self.next_input(size);
        self.stream.set_write_timeout(Some(SOON)).unwrap();
        self.stream.write_all(&input).unwrap();
    }

    /// Sends inputs, and tries again when the proxy takes none, until it closes the connection or `enough`.
    pub fn flood(&mut self, size: usize, mut enough: impl FnMut() -> bool) {
        self.stream.set_write_timeout(Some(TRY)).unwrap();
        while !enough() {
            let input = self.next_input(size);
            let mut rest = &input[..];
            while !rest.is_empty() && !enough() {
                match self.stream.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => return,
                }
            }
        }
    }

    fn next_input(&mut self, size: usize) -> Vec<u8> {
        self.sent += 1;
        let mut input = u32::try_from(size).unwrap().to_be_bytes().to_vec();
        input.push(KIND_INPUT);
        input.extend(7u64.to_be_bytes());
        input.extend(self.sent.to_be_bytes());
        input.extend(0u64.to_be_bytes());
        input.resize(4 + size, 0);
        input
    }

    /// Reads replies up to that one, which must come one after the other; ticks may come between. `false`: the
    /// connection ended first.
    pub fn read_replies(&mut self, up_to: u64) -> bool {
        let mut chunk = [0; 64 * 1024];
        while self.replied < up_to {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.inbox.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("reply {} doesn't come: {error}", self.replied + 1),
            }
            self.take_replies();
        }
        true
    }

    fn take_replies(&mut self) {
        let mut at = 0;
        while let Some(prefix) = self.inbox[at..].first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = self.inbox.get(at + 4..at + 4 + length) else { break };
            if frame[0] == KIND_REPLY {
                let seq = u64::from_be_bytes(frame[1..9].try_into().unwrap());
                assert_eq!(seq, self.replied + 1, "a reply was lost, repeated or reordered");
                self.replied = seq;
            }
            at += 4 + length;
        }
        self.inbox.drain(..at);
    }
}
