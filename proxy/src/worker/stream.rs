//! The sockets that a worker holds: a client's (plain or TLS) and a link's (TCP or Unix).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// Any socket of the worker: bytes in, bytes out, whatever carries them.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }

    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    /// Pushes what the stream itself holds back (TLS records) to the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }

    /// Whether the peer is known to be gone, without reading what it has sent.
    pub fn is_hung_up(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
            Self::Unix(_) => return false,
        };
        !matches!(socket.take_error(), Ok(None))
    }
}

/// Bytes on their way out, and how many of them the socket has.
#[derive(Debug, Default)]
pub struct Outbox {
    pub bytes: Vec<u8>,
    written: usize,
    /// The stream has taken all, and holds some of it back itself.
    flushing: bool,
}

impl Outbox {
    /// Nothing waits, not even in the stream itself.
    pub fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && !self.flushing
    }

    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Writes as much as the socket takes. `Ready(Ok)`: all is out, and the buffer is empty.
    pub fn poll_out(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            match stream.poll_write(cx, &self.bytes[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.compact();
                    return Poll::Pending;
                }
            }
        }
        self.clear();
        let flushed = stream.poll_flush(cx);
        self.flushing = flushed.is_pending();
        flushed
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
        self.flushing = false;
    }

    fn compact(&mut self) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Waker;

    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    async fn tls_pair() -> (Stream, tokio_rustls::client::TlsStream<TcpStream>) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let dial = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, dialled) = tokio::join!(listener.accept(), dial);
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(accepted.unwrap().0),
            connector.connect("localhost".try_into().unwrap(), dialled.unwrap())
        );
        (Stream::Tls(Box::new(server.unwrap())), client.unwrap())
    }

    #[tokio::test]
    async fn what_a_tls_stream_holds_back_still_counts_as_waiting() {
        let (mut server, mut client) = tls_pair().await;
        let mut outbox = Outbox::default();
        let mut sent = 0;
        // Until the socket is full, and the stream keeps records for itself.
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            outbox.bytes.extend_from_slice(&[7; 1000]);
            sent += 1000;
            if outbox.poll_out(&mut server, &mut cx).is_pending() {
                break;
            }
        }
        assert!(!outbox.is_empty(), "nobody would come back for the rest");
        let read = async {
            let mut bytes = vec![0; sent];
            client.read_exact(&mut bytes).await.unwrap();
        };
        let write = poll_fn(|cx| outbox.poll_out(&mut server, cx));
        let both = async { tokio::join!(read, write) };
        tokio::time::timeout(std::time::Duration::from_secs(10), both).await.unwrap().1.unwrap();
        assert!(outbox.is_empty());
    }
}
