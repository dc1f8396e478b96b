//! `register` and `withdraw`.

use super::client::{Client, ClientError};
use super::{Exit, output};
use crate::admin::view::{Registration, RegistrationState};

/// An order without particulars.
#[derive(Debug, serde::Serialize)]
struct Order {}

pub(super) async fn register(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let now: Registration = client.post("/register", &Order {}).await?;
    print(&now, RegistrationState::Registered, json)
}

pub(super) async fn withdraw(client: &Client, json: bool) -> Result<Exit, ClientError> {
    let now: Registration = client.post("/withdraw", &Order {}).await?;
    print(&now, RegistrationState::Withdrawn, json)
}

/// Anything but what was asked for, or a key that stays for a while, makes a script stop and look.
fn print(now: &Registration, wanted: RegistrationState, json: bool) -> Result<Exit, ClientError> {
    if json {
        output::print_json(now)?;
    } else {
        output::print(&format!("{}\n", registration_line(now)))?;
    }
    let done = now.state == wanted && now.reason.is_none();
    Ok(if done { Exit::Done } else { Exit::Failed })
}

/// How it is, in a line.
pub(super) fn registration_line(now: &Registration) -> String {
    let state = match now.state {
        RegistrationState::Waiting => "not registered yet",
        RegistrationState::Registered => "registered",
        RegistrationState::Held => "NOT registered: the key is somebody else's",
        RegistrationState::Away => "NOT renewed: etcd is away",
        RegistrationState::Withdrawn => "withdrawn",
    };
    match &now.reason {
        None => format!("{} {state}", now.backend),
        Some(reason) => format!("{} {state} ({reason})", now.backend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_a_line_that_says_why_it_is_not_one() {
        let now = |state, reason: Option<&str>| Registration {
            backend: "arena/a".to_owned(),
            state,
            reason: reason.map(str::to_owned),
        };
        assert_eq!(registration_line(&now(RegistrationState::Registered, None)), "arena/a registered");
        assert_eq!(
            registration_line(&now(RegistrationState::Held, Some("it has no lease"))),
            "arena/a NOT registered: the key is somebody else's (it has no lease)"
        );
    }
}
