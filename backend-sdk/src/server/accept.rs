//! Accepting links: a connection becomes a link when its HELLO has come in time and can be answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use holdfast_protocol::message::{Hello, Rule};
use holdfast_protocol::{Message, PROTOCOL_VERSION, decode_first};
use tokio::sync::Semaphore;

use super::link::{Link, LinkError};
use super::peers::{NewLink, OwnedHello, Peers, Shared};
use super::stream::Listener;
use crate::core::Fault;
use crate::game::Game;

/// Connections that may be between accept and HELLO.
const MAX_GREETING: usize = 256;
/// A wait after an accept that failed, doubled each time up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// Accepts until the server stops.
pub(super) async fn accept<G: Game>(shared: Arc<Shared<G>>, listener: Listener) {
    let greeting = Arc::new(Semaphore::new(MAX_GREETING));
    let mut backoff = FIRST_BACKOFF;
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &greeting) => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((link, permit)) => {
                backoff = FIRST_BACKOFF;
                let shared_too = Arc::clone(&shared);
                shared.tasks.spawn(async move {
                    tokio::select! {
                        () = greet(&shared_too, link) => {}
                        () = shared_too.stop.cancelled() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
            }
        }
    }
}

async fn next(
    listener: &Listener,
    greeting: &Arc<Semaphore>,
) -> io::Result<(Link, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(greeting).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((Link::new(stream, address), permit))
}

async fn greet<G: Game>(shared: &Arc<Shared<G>>, mut link: Link) {
    let deadline = shared.settings.hello_deadline;
    let outcome = tokio::time::timeout(deadline, read_hello(shared, &mut link)).await.unwrap_or_else(|_| {
        Err(Fault::new(Rule::Handshake, format!("no HELLO within {} ms", deadline.as_millis())).into())
    });
    let refused = match outcome {
        Ok(hello) => Peers::hand_over(shared, NewLink { link, hello })
            .err()
            .map(|refused| (refused.link.link, LinkError::from(refused.fault))),
        Err(error) => Some((link, error)),
    };
    if let Some((mut link, error)) = refused {
        if error.is_closed() {
            // A port check, or a proxy that thought better of it.
            tracing::debug!(address = link.address, reason = %error, "closed before HELLO");
        } else {
            tracing::warn!(address = link.address, reason = %error, "link refused");
        }
        error.fault().iter().for_each(|fault| link.say_fault(fault));
    }
}

async fn read_hello<G: Game>(shared: &Shared<G>, link: &mut Link) -> Result<OwnedHello, LinkError> {
    let max = shared.settings.max_message_bytes();
    loop {
        link.ready().await?;
        if !link.read()? {
            continue;
        }
        let Some((message, length)) = decode_first(link.unread(), max)? else { continue };
        let Message::Hello(hello) = message else {
            return Err(Fault::new(Rule::Handshake, "the first message must be HELLO").into());
        };
        check(&hello, shared.settings.service.as_deref())?;
        let hello = OwnedHello::of(&hello);
        link.consume(length);
        return Ok(hello);
    }
}

fn check(hello: &Hello<'_>, service: Option<&str>) -> Result<(), Fault> {
    let (min, max) = (hello.min_version, hello.max_version);
    if !(min..=max).contains(&PROTOCOL_VERSION) {
        let text = format!("the proxy speaks versions {min} to {max}, this backend {PROTOCOL_VERSION}");
        return Err(Fault::new(Rule::Version, text));
    }
    match service {
        Some(service) if service != hello.service => {
            let text =
                format!("the link is for service {:?}, this backend serves {service:?}", hello.service);
            Err(Fault::new(Rule::Service, text))
        }
        _ => Ok(()),
    }
}
