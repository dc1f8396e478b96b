//! A collector of spans that takes all and keeps none: what export costs the exporter, without Jaeger's own work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};

/// Takes OTLP over HTTP, for as long as this process lives.
pub struct Collector {
    address: SocketAddr,
}

impl Collector {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("an address for the collector")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // An exporter that hangs up has had its answers.
                std::thread::spawn(move || drop(serve(stream)));
            }
        });
        Ok(Self { address })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`; the protocol is `http/protobuf`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let (mut line, mut length) = (String::new(), 0);
    while requests.read_line(&mut line)? > 0 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            std::io::copy(&mut requests.by_ref().take(length), &mut std::io::sink())?;
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
            )?;
        }
        line.clear();
    }
    Ok(())
}
