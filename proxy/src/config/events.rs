//! `[events]`: where the proxy tells what happens.

use std::time::Duration;

use hyper::Uri;

use super::FieldError;
use super::reader::Section;
use super::token::TokenFile;

const WEBHOOK: &str = "http://HOST:PORT/PATH (https isn't spoken: put a forwarder beside the proxy)";

/// Where events go; nowhere by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// A JSON object a line.
    pub stdout: bool,
    pub webhook: Option<EventWebhook>,
    /// Events that may wait; the oldest are dropped for newer ones.
    pub queue: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventWebhook {
    /// `http://` with a host, and without a user.
    pub url: Uri,
    pub token: Option<TokenFile>,
    pub timeout: Duration,
}

impl Events {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let stdout = section.optional("stdout", "true or false", |value| value.as_bool());
        let url = section.optional("webhook", WEBHOOK, |value| value.as_str().and_then(url));
        let names_webhook = section.has("webhook");
        let token = TokenFile::read_key(&mut section);
        if token.is_some() && !names_webhook {
            section.refuse(FieldError::missing("webhook", "it beside token_file, which is sent there"));
        }
        let timeout = section.seconds("timeout_s", 5, 1..=60);
        let queue = usize::try_from(section.number("queue", 1024, 16..=65_536)).unwrap_or(usize::MAX);
        section.finish();
        let webhook = url.map(|url| EventWebhook { url, token, timeout });
        Self { stdout: stdout.unwrap_or(false), webhook, queue }
    }

    /// Whether anybody wants them.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.stdout || self.webhook.is_some()
    }
}

fn url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let authority = url.authority()?;
    let fits =
        url.scheme_str() == Some("http") && !authority.host().is_empty() && !authority.as_str().contains('@');
    fits.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_is_taken() {
        for good in ["http://127.0.0.1:9095/events", "http://events.example", "http://[::1]:80/"] {
            assert!(url(good).is_some(), "{good}");
        }
        for bad in
            ["https://events.example/", "/events", "http://user:pw@host/", "events.example:80", "ftp://a/"]
        {
            assert_eq!(url(bad), None, "{bad}");
        }
    }
}
