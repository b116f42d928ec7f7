//! What can go wrong between the gateway and a car, each with a stable code and
//! what to do about it in both languages.

use crate::event::Text;
use crate::event::device::DeviceStatus;
use crate::link::LinkError;
use crate::link::can::InterfaceError;
use crate::store::StoreError;

/// The adapter cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// It cannot be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It went away.
    #[error("the adapter went away ({0}); plug it in again")]
    Gone(String),
    /// It opened and says nothing.
    #[error(
        "the adapter does not answer; check that it is plugged into the car, paired, and the `baud` of its link (leave `baud` out to have it found)"
    )]
    Silent,
    /// Bytes come and make no sense.
    #[error(
        "the adapter sends garbage ({0}); check the `baud` of its link, or whether this is an ELM327 adapter at all"
    )]
    Garbled(String),
    /// It answers, but as nothing we know.
    #[error(
        "the device answers but is no usable ELM327 ({0}); use another adapter, or check the link's address"
    )]
    NotElm(String),
    /// A reply made no sense; the adapter goes on.
    #[error(
        "the adapter's reply to {0} makes no sense; if it happens often, check plug and cable, or replace the adapter"
    )]
    Spoilt(String),
    /// What it read is not what was typed.
    #[error(
        "the line to the adapter loses characters ({0} never came back whole, and was not sent to the car); check plug, cable and the `baud` of its link"
    )]
    Misheard(String),
    /// It stopped in the middle of a reply and came back.
    #[error(
        "the adapter stopped in the middle of its reply to {0}; if it happens often, replace the adapter"
    )]
    HalfReply(String),
    /// It stopped and did not come back.
    #[error(
        "the adapter hangs since {0}; it is opened anew, pull it out and plug it in again if it stays so"
    )]
    Hung(String),
    /// The CAN interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// Everything on the bus is an error.
    #[error(
        "{bus} was left at once: at {tried} bit/s everything on the bus is an error, a wrong rate disturbs the car; write bitrate=500000 or bitrate=250000 into the link"
    )]
    WrongBitRate {
        /// Interface or adapter.
        bus: String,
        /// The rate, or `?`.
        tried: String,
    },
    /// A rate that no car answers OBD at.
    #[error(
        "{bus} is at {bitrate} bit/s: OBD is asked at 500000 or 250000 alone (ISO 15765-4), and a wrong rate disturbs the car; write one of them into the link, or poll = \"listen-only\" to hear this bus"
    )]
    NotObdRate {
        /// Interface or adapter.
        bus: String,
        /// As set up.
        bitrate: u32,
    },
    /// The controller left the bus.
    #[error(
        "{0} went off the bus after too many errors; check bit rate and wiring; it comes back by itself where bitrate= stands in the link, else by hand: ip link set {0} type can restart"
    )]
    BusOff(String),
    /// What is to listen only might send.
    #[error(
        "listen-only cannot be proven ({0}); the link stays closed: use another adapter, or poll = \"on-request\""
    )]
    NotListenOnly(String),
    /// Not an slcan adapter.
    #[error(
        "the device is no usable slcan adapter ({0}); check the link's address and the adapter's firmware"
    )]
    NotSlcan(String),
    /// An slcan adapter is no longer on the bus, or hangs.
    #[error(
        "{0} is no longer on the bus: it restarted or hangs; it is opened anew; if it happens often, check its plug and supply"
    )]
    Unjoined(String),
    /// It restarts again and again.
    #[error("the adapter restarts again and again; check its plug and the car's battery")]
    Restarting,
}

impl AdapterError {
    /// Stable code for `device.state` and outcomes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Link(link) => link.reason(),
            Self::Gone(_) => "adapter-gone",
            Self::Silent => "adapter-silent",
            Self::Garbled(_) => "adapter-garbled",
            Self::NotElm(_) => "not-elm327",
            Self::Spoilt(_) => "reply-spoilt",
            Self::Misheard(_) => "line-loses-characters",
            Self::HalfReply(_) => "half-reply",
            Self::Hung(_) => "adapter-hung",
            Self::Unjoined(_) => "adapter-restarted",
            Self::Restarting => "adapter-restarting",
            Self::Interface(interface) => interface.reason(),
            Self::WrongBitRate { .. } => "wrong-bitrate",
            Self::NotObdRate { .. } => "not-obd-bitrate",
            Self::BusOff(_) => "bus-off",
            Self::NotListenOnly(_) => "not-listen-only",
            Self::NotSlcan(_) => "not-slcan",
        }
    }

    /// Whether the adapter is to be opened anew.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::HalfReply(_) | Self::Spoilt(_) | Self::Misheard(_))
    }

    /// The state of the link while this stands.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        match self {
            Self::Link(LinkError::Busy { .. } | LinkError::Denied { .. } | LinkError::Other { .. })
            | Self::NotElm(_)
            | Self::Silent => DeviceStatus::Failed,
            Self::Interface(InterfaceError::Missing { .. } | InterfaceError::Down { .. }) => {
                DeviceStatus::Absent
            }
            Self::Interface(_) | Self::NotListenOnly(_) | Self::NotSlcan(_) | Self::NotObdRate { .. } => {
                DeviceStatus::Failed
            }
            Self::WrongBitRate { .. } | Self::BusOff(_) => DeviceStatus::Degraded,
            Self::Link(_) | Self::Gone(_) => DeviceStatus::Absent,
            Self::Garbled(_)
            | Self::Spoilt(_)
            | Self::Misheard(_)
            | Self::HalfReply(_)
            | Self::Hung(_)
            | Self::Unjoined(_)
            | Self::Restarting => DeviceStatus::Degraded,
        }
    }

    /// For people, in both languages.
    #[must_use]
    pub fn text(&self) -> Text {
        let zh = match self {
            Self::Link(LinkError::Missing { path }) => {
                format!("没有 {}；请插上适配器，或运行 `baygate devices` 查看现有设备", path.display())
            }
            Self::Link(LinkError::Busy { path, holder }) => {
                format!("{} 被其他进程占用：{holder}；请停止该进程", path.display())
            }
            Self::Link(LinkError::Denied { path }) => {
                format!("无权打开 {}；请安装 udev 规则或把用户加入设备所属组", path.display())
            }
            Self::Link(LinkError::Unreachable { peer, source }) => {
                format!("无法连接 {peer}（{source}）；请检查电源、地址和网络")
            }
            Self::Link(LinkError::Other { what, source }) => format!("{what}：{source}"),
            Self::Gone(why) => format!("适配器已断开（{why}）；请重新插上"),
            Self::Silent => {
                "适配器无应答；请检查是否插在车上、是否已配对，以及 link 中的 baud（不写则自动探测）".into()
            }
            Self::Garbled(what) => {
                format!("适配器返回乱码（{what}）；请检查 link 中的 baud，或确认它是 ELM327 适配器")
            }
            Self::NotElm(what) => format!("该设备不是可用的 ELM327（{what}）；请更换适配器或检查地址"),
            Self::Spoilt(what) => {
                format!("适配器对 {what} 的应答无法识别；若经常发生请检查插头和线缆，或更换适配器")
            }
            Self::Misheard(what) => format!(
                "到适配器的线路丢失字符（{what} 未能完整读回，没有发送给车辆）；请检查插头、线缆和 link 中的 baud"
            ),
            Self::HalfReply(what) => format!("适配器对 {what} 的应答中断；若经常发生请更换适配器"),
            Self::Hung(what) => format!("适配器自 {what} 起无响应，正在重新打开；若持续请拔下重插"),
            Self::Interface(interface) => interface.zh(),
            Self::WrongBitRate { bus, tried } => format!(
                "已立即离开 {bus}：在 {tried} bit/s 下总线上全是错误，错误的速率会干扰车辆；请在 link 中写 bitrate=500000 或 bitrate=250000"
            ),
            Self::NotObdRate { bus, bitrate } => format!(
                "{bus} 的速率为 {bitrate} bit/s：OBD 只在 500000 或 250000 下询问（ISO 15765-4），错误的速率会干扰车辆；请在 link 中写这两者之一，或用 poll = \"listen-only\" 只听"
            ),
            Self::BusOff(bus) => format!(
                "{bus} 因错误过多已脱离总线（bus-off）；请检查速率和接线；link 中写有 bitrate= 时自动恢复，否则请执行：ip link set {bus} type can restart"
            ),
            Self::NotListenOnly(why) => {
                format!("无法证实只听模式（{why}），链路保持关闭；请更换适配器或改为 poll = \"on-request\"")
            }
            Self::NotSlcan(why) => {
                format!("该设备不是可用的 slcan 适配器（{why}）；请检查地址和适配器固件")
            }
            Self::Unjoined(name) => {
                format!("{name} 已不在总线上：适配器曾重启或无响应，正在重新打开；若经常发生请检查插头和供电")
            }
            Self::Restarting => "适配器反复重启；请检查插头和车辆电瓶".into(),
        };
        Text::new(zh, self.to_string())
    }
}

/// The vehicle service cannot go on; it is started again by its supervisor.
#[derive(Debug, thiserror::Error)]
pub enum VehicleError {
    /// The log did not take a fact.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fact could not be written as JSON.
    #[error("an event could not be written as JSON ({0}); this is a fault of the program, please report it")]
    Event(#[from] serde_json::Error),
}
