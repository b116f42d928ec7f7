//! `baygate demo`: the whole product on simulated devices and an embedded MQTT
//! broker, through the same code as `run`. What lives here: the stage
//! ([`stage`]), the script ([`script`]) and the story printed ([`story`]). What
//! does not: any way of working that `run` does not have.

mod files;
mod member;
mod script;
mod stage;
mod story;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::values::Locale;

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// End by itself after this; `None`: when told.
    pub lasting: Option<Duration>,
    /// Where the local HTTP listens; `None`: the usual port, or any when that is taken.
    pub listen: Option<SocketAddr>,
    /// Where the demo keeps its files; `None`: a folder of this user's in the temporary folder.
    pub dir: Option<PathBuf>,
    /// Language of the story.
    pub locale: Locale,
    /// The story as JSON Lines.
    pub json: bool,
}

/// Runs the demo until `stop` or its time is over.
///
/// # Errors
/// When the stage cannot be set (a port in use, no pty) or the gateway fails.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    if let Some(lasting) = options.lasting {
        let over = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasting).await;
            over.cancel();
        });
    }
    let story = story::Story::begin(options.locale, options.json);
    let stage = stage::Stage::set(&options).await?;
    stage.play(story, stop).await
}
