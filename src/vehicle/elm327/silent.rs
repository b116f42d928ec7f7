//! A dongle on a link that only listens. What lives here: having it confirm that it sends nothing
//! while it listens (`ATCSM1`), and from then on reading only. What does not: listening to the bus
//! through it (`ATMA`), which is not on the gate's list: of such a link only bytes are counted.
//!
//! Source: ELM327 data sheet v2.x, "CSM0 and CSM1": with silent monitoring on, the chip acknowledges
//! no frame of a CAN bus that it listens to. Chips before v1.4b answer `?`.

use super::contact::contact;
use super::port::{Port, PortError, Reply};
use super::reply::{Line, classify};
use crate::config::values::Transport;
use crate::vehicle::elm327::adapter::AT_LIMIT;
use crate::vehicle::error::AdapterError;
use crate::vehicle::gate::{AtCommand, Outgoing};

/// A dongle that said that it is silent.
pub struct SilentDongle {
    port: Port,
}

impl SilentDongle {
    /// Opens the link and has the adapter confirm its silence.
    ///
    /// # Errors
    /// [`AdapterError::NotListenOnly`] when it does not, and what opening says.
    pub async fn open(transport: &Transport) -> Result<Self, AdapterError> {
        let (mut port, _) = contact(transport, None, None).await?;
        prove(&mut port).await?;
        Ok(Self { port })
    }

    /// Bytes that came; nobody keeps them. Safe to cancel.
    ///
    /// # Errors
    /// [`AdapterError::Restarting`]: after a restart its silence has to be proven again.
    pub async fn hear(&mut self) -> Result<usize, AdapterError> {
        self.port.listen().await.map_err(|error| match error {
            PortError::Gone(error) => AdapterError::Gone(error.to_string()),
            PortError::Restarted => AdapterError::Restarting,
            error => AdapterError::Garbled(error.to_string()),
        })
    }
}

/// `OK` and nothing else is a proof.
async fn prove(port: &mut Port) -> Result<(), AdapterError> {
    let said = match port.exchange(Outgoing::At(AtCommand::SilentMonitoring), AT_LIMIT).await {
        Ok(Reply { lines, .. }) if lines.iter().map(|line| classify(line)).eq([Line::Ok]) => return Ok(()),
        Ok(Reply { lines, .. }) => format!("it answers {:?} to ATCSM1", lines.join(" ")),
        Err(PortError::Gone(error)) => return Err(AdapterError::Gone(error.to_string())),
        Err(PortError::Restarted) => return Err(AdapterError::Restarting),
        Err(error) => format!("no answer to ATCSM1: {error}"),
    };
    Err(AdapterError::NotListenOnly(said))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What becomes of a listener whose adapter answers `ATCSM1` with this, and says that later.
    async fn listens(answer: &str, later: &str) -> Result<usize, AdapterError> {
        // One that takes the answer for a proof listens on, and hears nothing for ever.
        let told = tokio::time::timeout(Duration::from_secs(20), told(answer, later)).await;
        told.unwrap_or_else(|_| panic!("{answer:?} was taken for a proof"))
    }

    async fn told(answer: &str, later: &str) -> Result<usize, AdapterError> {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut port = Port::new(Box::new(ours), None);
        let adapter = async {
            let mut command = [0; 7];
            theirs.read_exact(&mut command).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            assert_eq!(&command, b"ATCSM1\r");
        };
        let (proven, ()) = tokio::join!(prove(&mut port), adapter);
        proven?;
        theirs.write_all(later.as_bytes()).await.unwrap();
        let mut dongle = SilentDongle { port };
        let heard = dongle.hear().await;
        drop(dongle);
        let mut more = Vec::new();
        theirs.read_to_end(&mut more).await.unwrap();
        assert_eq!(more, b"", "a listener writes nothing");
        heard
    }

    #[tokio::test]
    async fn only_ok_is_a_proof() {
        assert_eq!(listens("ATCSM1\rOK\r\r>", "7E8").await.unwrap(), 3);
        for answer in ["?\r\r>", "\r\r>", "OK\r?\r\r>", "ELM327 v1.5\r\r>", "OK", "CAN ERROR\r\r>"] {
            let error = listens(answer, "").await.unwrap_err();
            assert!(matches!(error, AdapterError::NotListenOnly(_)), "{answer:?}: {error}");
        }
    }

    #[tokio::test]
    async fn after_a_restart_it_is_proven_no_longer() {
        let error = listens("OK\r\r>", "\r\rELM327 v1.5\r\r>").await.unwrap_err();
        assert!(matches!(error, AdapterError::Restarting), "{error}");
    }
}
