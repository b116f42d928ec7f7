//! The faults of a line, one by one, and how each of them must show.

use std::time::Duration;

use super::hq::Hq;
use crate::fault_proxy::{FaultProxy, Faults};
use crate::mqtt::{Shop, until};

/// The faults, one by one.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    Cut,
    End,
    HalfOpen,
    OnlyUp,
    OnlyDown,
    /// Half-open, and whatever is dialled anew is as dead.
    Mute,
    Slow,
    SwallowPubacks,
    ByteByByte,
}

impl Fault {
    pub const ALL: [Self; 9] = [
        Self::Cut,
        Self::End,
        Self::HalfOpen,
        Self::OnlyUp,
        Self::OnlyDown,
        Self::Mute,
        Self::Slow,
        Self::SwallowPubacks,
        Self::ByteByByte,
    ];

    pub fn begin(self, proxy: &FaultProxy) {
        let well = Faults::default();
        match self {
            Self::Cut => proxy.cut(),
            Self::End => proxy.end(),
            Self::HalfOpen => proxy.freeze(),
            Self::OnlyUp => proxy.set(Faults { drop_down: true, ..well }),
            Self::OnlyDown => proxy.set(Faults { drop_up: true, ..well }),
            Self::Mute => proxy.set(Faults { drop_up: true, drop_down: true, ..well }),
            Self::Slow => {
                proxy.set(Faults { bytes_per_s: Some(32_000), delay: Duration::from_millis(30), ..well })
            }
            Self::SwallowPubacks => proxy.set(Faults { swallow_pubacks: true, ..well }),
            Self::ByteByByte => proxy.set(Faults { byte_by_byte: true, ..well }),
        }
    }

    /// The broker is not heard while it lasts, and no connection ends by it.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::HalfOpen | Self::OnlyUp | Self::OnlyDown | Self::Mute | Self::SwallowPubacks)
    }

    /// A poor line is still a line.
    pub fn is_slowness(self) -> bool {
        matches!(self, Self::Slow | Self::ByteByByte)
    }

    /// Waits for what the fault must lead to, while it lasts.
    pub async fn shows(self, proxy: &FaultProxy, shop: &Shop, hq: &Hq, since: (u64, u64)) {
        let (connections, taken) = since;
        if self.is_slowness() {
            hq.collect(&format!("{self:?}"), taken + 60).await;
            return;
        }
        if self.is_silence() {
            let trouble = shop.await_trouble("no-answer").await;
            assert!(trouble.text.en.contains("no answer from the broker: "), "{self:?}: {trouble:?}");
        }
        until(&format!("{self:?}: dialled anew"), async || (proxy.accepted() > connections).then_some(()))
            .await;
    }
}
