//! The Star TCP300/TCP300II driver: one open connection to one printer. What
//! lives here: commands, their time limits, and the order that keeps one
//! customer's face off the next one's card. What does not: when a face is
//! printed and what happens after an error (`service`).
//!
//! What the printer speaks, what is from the maker's manual and what is assumed:
//! `docs/devices/star-tcp300.md`.

mod exchange;
pub mod frame;
pub mod status;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use self::exchange::{Exchange, Failure, Input, Step};
use self::frame::{ACK, Command, Decoder, NAK};
use self::status::{Sensors, Status};
use super::bitmap::Bitmap;
use crate::event::Text;
use crate::link::ByteStream;

/// Baud rate when the configuration names none: the factory setting.
pub const DEFAULT_BAUD: u32 = 9_600;

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For ACK, NAK or DLE (TCP300II manual p. 4: up to three seconds).
    pub acknowledge: Duration,
    /// For the response to a command that moves nothing (p. 64: 1 s), with room for a slow line.
    pub answer: Duration,
    /// For the response to a command that moves the card (p. 64: 6 s and more; the
    /// heads may have to warm up or cool down first).
    pub movement: Duration,
    /// Before a command answered DLE is sent again.
    pub busy_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            acknowledge: Duration::from_secs(3),
            answer: Duration::from_secs(2),
            movement: Duration::from_secs(30),
            busy_pause: Duration::from_millis(500),
        }
    }
}

/// Talking to the printer failed.
#[derive(Debug, thiserror::Error)]
pub enum Tcp300Error {
    /// The line broke.
    #[error("the connection to the printer broke: {0}; check the cable and the printer's power")]
    Link(#[from] std::io::Error),
    /// No answer.
    #[error(
        "the printer does not answer; check that it is on, its cable, and that `baud` is the printer's rate"
    )]
    Silent,
    /// NAK every time.
    #[error(
        "the printer refuses every transmission (NAK); check that `baud` is the printer's rate and the cable"
    )]
    Refused,
    /// Damaged responses every time.
    #[error("the printer's answers are garbled; check that `baud` is the printer's rate and the cable")]
    Garbled,
    /// DLE every time.
    #[error("the printer stays busy or withdraws the command (DLE); wait, or switch it off and on")]
    Busy,
    /// The printer reports an error.
    #[error("{}", .0.text().en)]
    Reports(Status),
    /// The status response has an unknown form.
    #[error("the printer's status {0:?} is not of a TCP300; check `kind` and `link` of this printer")]
    Strange(String),
}

impl Tcp300Error {
    /// Whether the connection must be opened again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !matches!(self, Self::Reports(_) | Self::Busy)
    }

    /// Stable code for `device.state`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Link(_) => "link-lost",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Garbled => "garbled",
            Self::Busy => "busy",
            Self::Reports(status) => status.reason(),
            Self::Strange(_) => "not-a-tcp300",
        }
    }

    /// For people: what is wrong and what to do.
    #[must_use]
    pub fn text(&self) -> Text {
        let zh = match self {
            Self::Link(source) => format!("与打印机的连接中断：{source}；请检查数据线和电源"),
            Self::Silent => "打印机没有应答，请检查电源、数据线和 baud 设置".into(),
            Self::Refused => "打印机拒收所有数据（NAK），请核对 baud 与打印机一致并检查数据线".into(),
            Self::Garbled => "打印机应答损坏，请核对 baud 与打印机一致并检查数据线".into(),
            Self::Busy => "打印机一直忙碌或不受理（DLE），请稍候或重新开机".into(),
            Self::Reports(status) => status.text().zh,
            Self::Strange(data) => format!("状态 {data:?} 不是 TCP300 的格式，请核对该打印机的 kind 与 link"),
        };
        Text::new(zh, self.to_string())
    }
}

/// A connected printer.
pub struct Tcp300<S> {
    link: S,
    timing: Timing,
    decoder: Decoder,
    /// Until it answers 4D with "invalid command": the line mode 43 is slower, but every firmware has it.
    knows_blocks: bool,
}

impl<S: ByteStream> Tcp300<S> {
    /// Takes an open connection and gets into step with the printer: it may still
    /// wait for the acknowledgement of a response to whoever spoke to it before,
    /// and discards everything else until then.
    ///
    /// # Errors
    /// [`Tcp300Error::Link`].
    pub async fn begin(mut link: S, timing: Timing) -> Result<Self, Tcp300Error> {
        link.write_all(&[ACK]).await?;
        link.flush().await?;
        Ok(Self { link, timing, decoder: Decoder::default(), knows_blocks: true })
    }

    /// The sensors.
    ///
    /// # Errors
    /// [`Tcp300Error`].
    pub async fn sensors(&mut self) -> Result<Sensors, Tcp300Error> {
        let data = self.order(&Command::Status, self.timing.answer).await?;
        Sensors::read(&data).ok_or_else(|| Tcp300Error::Strange(String::from_utf8_lossy(&data).into_owned()))
    }

    /// Clears both buffers. They survive a print: without this the next customer
    /// gets the last one's face. 40 alone leaves the image on a TCP300.
    ///
    /// # Errors
    /// [`Tcp300Error`].
    pub async fn clear(&mut self) -> Result<(), Tcp300Error> {
        self.order(&Command::ClearPrintBuffer, self.timing.answer).await?;
        self.order(&Command::ClearImageBuffer, self.timing.answer).await?;
        Ok(())
    }

    /// Puts a face into the printer's memory, in place of whatever was there.
    ///
    /// # Errors
    /// [`Tcp300Error`]; then the memory holds anything, and [`Tcp300::load`] must be called again.
    pub async fn load(&mut self, face: &Bitmap) -> Result<(), Tcp300Error> {
        if self.knows_blocks {
            match self.send_image(&frame::blocks(face)).await {
                Err(Tcp300Error::Reports(Status::INVALID_COMMAND)) => self.knows_blocks = false,
                sent => return sent,
            }
        }
        self.send_image(&frame::lines(face)).await
    }

    async fn send_image(&mut self, image: &[Command]) -> Result<(), Tcp300Error> {
        self.clear().await?;
        for command in image {
            self.order(command, self.timing.answer).await?;
        }
        Ok(())
    }

    /// Erases the card, prints what is in the memory, moves the card into the exit.
    ///
    /// # Errors
    /// [`Tcp300Error`]; the card may carry the old face, none, or part of the new one.
    pub async fn print(&mut self) -> Result<(), Tcp300Error> {
        self.order(&Command::EraseAndPrint, self.timing.movement).await.map(|_| ())
    }

    /// Runs one exchange; the data of a normal response.
    async fn order(&mut self, command: &Command, limit: Duration) -> Result<Vec<u8>, Tcp300Error> {
        match self.exchange(command, limit).await? {
            (Status::NORMAL, data) => Ok(data),
            // Status data says for itself what is wrong.
            (_, data) if *command == Command::Status && Sensors::read(&data).is_some() => Ok(data),
            (status, _) => Err(Tcp300Error::Reports(status)),
        }
    }

    async fn exchange(
        &mut self,
        command: &Command,
        limit: Duration,
    ) -> Result<(Status, Vec<u8>), Tcp300Error> {
        let frame = command.encode();
        let mut exchange = Exchange::begin();
        self.decoder.reset();
        self.send(&frame).await?;
        let mut deadline = Instant::now() + self.timing.acknowledge;
        loop {
            let input = self.listen(deadline).await?;
            let was_working = exchange.is_working();
            let (next, step) = exchange.next(command.code(), input);
            exchange = next;
            if exchange.is_working() && !was_working {
                deadline = Instant::now() + limit;
            }
            match step {
                Step::Wait => {}
                Step::SendAgain | Step::SendLater | Step::AckStaleAndSendAgain => {
                    match step {
                        Step::SendLater => tokio::time::sleep(self.timing.busy_pause).await,
                        Step::AckStaleAndSendAgain => self.send(&[ACK]).await?,
                        _ => {}
                    }
                    self.send(&frame).await?;
                    deadline = Instant::now() + self.timing.acknowledge;
                }
                Step::AckStale => self.send(&[ACK]).await?,
                Step::AskAgain => self.send(&[NAK]).await?,
                Step::Done(status, data) => {
                    self.send(&[ACK]).await?;
                    return Ok((status, data));
                }
                Step::Fail(failure) => return Err(failure.into()),
            }
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Tcp300Error> {
        let sending = async {
            self.link.write_all(bytes).await?;
            self.link.flush().await
        };
        // A printer that is switched off may stop the line's flow for ever.
        tokio::time::timeout(self.timing.acknowledge, sending).await.map_err(|_| Tcp300Error::Silent)??;
        Ok(())
    }

    async fn listen(&mut self, deadline: Instant) -> Result<Input, Tcp300Error> {
        loop {
            let mut byte = [0];
            match timeout_at(deadline, self.link.read(&mut byte)).await {
                Err(_) => return Ok(Input::Silence),
                Ok(Ok(0)) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => read?,
            };
            let [byte] = byte;
            if let Some(reply) = self.decoder.push(byte) {
                return Ok(Input::Said(reply));
            }
        }
    }
}

impl From<Failure> for Tcp300Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused,
            Failure::Busy => Self::Busy,
            Failure::Silent => Self::Silent,
            Failure::Garbled => Self::Garbled,
        }
    }
}
