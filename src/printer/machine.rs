//! The drivers behind one face: what every kind of printer can do for the
//! service. A new kind is one more arm here.

use std::time::Duration;

use uuid::Uuid;

use super::bitmap::{Bitmap, Canvas};
use super::png::PngPrinter;
use super::star_tcp300::status::Card;
use super::star_tcp300::{DEFAULT_BAUD, Tcp300, Timing};
use super::trouble::Trouble;
use crate::config::tables::{PrinterKind, PrinterTable};
use crate::config::values::Transport;
use crate::event::Text;
use crate::event::device::DeviceStatus;
use crate::link::{self, ByteStream};

/// How often a printer is looked at while nothing is printed.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(2);

/// An open printer.
pub(super) enum Machine {
    Star(Tcp300<Box<dyn ByteStream>>),
    Png(PngPrinter),
}

impl Machine {
    pub(super) async fn open(table: &PrinterTable) -> Result<Self, Trouble> {
        match (table.kind, &table.link.0) {
            (PrinterKind::Png, Transport::Folder { path }) => {
                let path = path.clone();
                blocking(move || PngPrinter::open(&path)).await.map(Self::Png)
            }
            (PrinterKind::StarTcp300, transport) => {
                let baud = match transport {
                    Transport::Serial { baud: None, .. } => Some(DEFAULT_BAUD),
                    _ => None,
                };
                let stream = link::open(transport, baud).await?;
                Ok(Self::Star(Tcp300::begin(stream, Timing::default()).await?))
            }
            (PrinterKind::Png, other) => Err(Trouble {
                status: DeviceStatus::Failed,
                reason: "link-unfit",
                text: Text::new(
                    format!("png 打印机不能使用 {other}，请写 file:///文件夹"),
                    format!("a png printer cannot use {other}; write file:///FOLDER"),
                ),
                lost: true,
            }),
        }
    }

    pub(super) fn canvas(&self) -> Canvas {
        // The picture printer stands in for the card printer: same dots.
        Canvas::TCP300
    }

    /// Whether a card has to be put in.
    pub(super) fn takes_cards(&self) -> bool {
        matches!(self, Self::Star(_))
    }

    /// Whether it could print now; where the card is.
    pub(super) async fn look(&mut self) -> Result<Card, Trouble> {
        match self {
            Self::Star(printer) => {
                let sensors = printer.sensors().await?;
                if sensors.cover_open { Err(Trouble::cover_open()) } else { Ok(sensors.card) }
            }
            Self::Png(printer) => {
                let printer = printer.clone();
                blocking(move || printer.check()).await.map(|()| Card::Present)
            }
        }
    }

    /// Brings the face into the printer.
    pub(super) async fn load(&mut self, face: &Bitmap) -> Result<(), Trouble> {
        match self {
            Self::Star(printer) => Ok(printer.load(face).await?),
            Self::Png(_) => Ok(()),
        }
    }

    /// Takes the face out of the printer's memory again.
    pub(super) async fn forget(&mut self) -> Result<(), Trouble> {
        match self {
            Self::Star(printer) => Ok(printer.clear().await?),
            Self::Png(_) => Ok(()),
        }
    }

    /// Prints what was loaded; where the picture is, for printers that write files.
    pub(super) async fn print(&mut self, job: Uuid, face: &Bitmap) -> Result<Option<String>, Trouble> {
        match self {
            Self::Star(printer) => {
                printer.print().await?;
                Ok(None)
            }
            Self::Png(printer) => {
                let (printer, face) = (printer.clone(), face.clone());
                let path = blocking(move || printer.print(job, &face)).await?;
                Ok(Some(path.display().to_string()))
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Trouble {
            status: DeviceStatus::Failed,
            reason: "internal",
            text: Text::new(
                format!("内部错误：{error}"),
                format!("internal error: {error}; please report it"),
            ),
            lost: true,
        })
    })
}
