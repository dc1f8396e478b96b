//! `eject` and `uneject`.

use super::client::{Client, ClientError};
use super::{EjectArgs, Exit, UnejectArgs, output};
use crate::admin::view::{EjectAnswer, EjectRequest, UnejectRequest};

pub(super) async fn eject(client: &Client, args: EjectArgs, json: bool) -> Result<Exit, ClientError> {
    let request = EjectRequest {
        backend: args.backend,
        reason: args.reason,
        for_s: args.time.map(|time| time.as_secs()),
    };
    let answer: EjectAnswer = client.post("/eject", &request).await?;
    let until = answer.until.as_ref().map_or_else(String::new, |until| format!(" until {until}"));
    say(&answer, json, || {
        let EjectAnswer { backend, key, .. } = &answer;
        format!("{backend} gets no new sessions{until} (key {key})\nlift it: holdfast uneject {backend}\n")
    })
}

pub(super) async fn uneject(client: &Client, args: UnejectArgs, json: bool) -> Result<Exit, ClientError> {
    let answer: EjectAnswer = client.post("/uneject", &UnejectRequest { backend: args.backend }).await?;
    say(&answer, json, || match answer.changed {
        true => format!("{} is no longer ejected by key\n", answer.backend),
        false => format!("{} had no ejection key\n", answer.backend),
    })
}

fn say(answer: &EjectAnswer, json: bool, text: impl Fn() -> String) -> Result<Exit, ClientError> {
    if json {
        output::print_json(answer)?;
    } else {
        output::print(&text())?;
    }
    Ok(Exit::Done)
}
