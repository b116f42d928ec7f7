//! The way from a command to the running daemon: which control socket, and
//! what a failure means as an exit status. What does not live here: the
//! protocol (that is `api::client`) and any command.

use super::{Exit, Global};
use crate::api::client::{Client, ClientError};
use crate::config;
use crate::config::tables::ApiTable;

/// Reaches the daemon at the control socket of the configuration; the usual
/// socket when there is no configuration at the usual place.
///
/// # Errors
/// The configuration's errors, or [`ClientError`]; [`exit_of`] tells the exit status.
pub async fn connect(global: &Global) -> anyhow::Result<Client> {
    let table = if global.config.exists() {
        config::load(&global.config).map_err(NotLoaded)?.api
    } else {
        ApiTable::default()
    };
    let client = Client::connect(table.control_socket).await?;
    Ok(client.with_locale(global.language()))
}

/// The configuration that names the socket is not valid.
#[derive(Debug, thiserror::Error)]
#[error("{}; `baygate check` shows everything that is wrong", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct NotLoaded(pub Vec<config::ConfigError>);

/// The exit status of contract §1 for an error that came from talking to the daemon.
#[must_use]
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if error.downcast_ref::<NotLoaded>().is_some() {
        return Exit::Usage;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NotRunning { .. }) => Exit::Device,
        Some(ClientError::Permission { .. }) => Exit::Refused,
        Some(ClientError::Refused { status, .. }) => match status {
            400 | 404 | 413 | 415 | 422 => Exit::Usage,
            401 | 403 | 409 | 429 => Exit::Refused,
            // The daemon is there, the device behind it is not.
            502 => Exit::Device,
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

/// Prints an error on standard error and gives its exit status.
#[must_use]
pub fn report(error: &anyhow::Error) -> Exit {
    eprintln!("baygate: {}", told(error));
    exit_of(error)
}

/// The error and its causes, each said once: many of ours name their cause themselves.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            let joint = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{joint}{cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_contracts_exit_statuses() {
        let refused = |status| ClientError::Refused { status, code: "x".into(), detail: "x".into() };
        let socket = || "/run/baygate/control.sock".into();
        // (error, exit)
        let cases: [(anyhow::Error, Exit); 6] = [
            (ClientError::NotRunning { socket: socket() }.into(), Exit::Device),
            (ClientError::Permission { socket: socket() }.into(), Exit::Refused),
            (refused(403).into(), Exit::Refused),
            (refused(404).into(), Exit::Usage),
            (refused(502).into(), Exit::Device),
            (NotLoaded(Vec::new()).into(), Exit::Usage),
        ];
        for (error, exit) in cases {
            assert_eq!(exit_of(&error), exit, "{error}");
        }
        let described = anyhow::Error::from(refused(404)).context("while asking");
        assert_eq!(told(&described), "while asking: x (x)");
        assert_eq!(
            told(&anyhow::anyhow!("disk full").context("a.db: disk full; free some")),
            "a.db: disk full; free some"
        );
        assert_eq!(exit_of(&described), Exit::Usage);
    }
}
