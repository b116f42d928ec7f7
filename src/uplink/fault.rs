//! What can be wrong between us and the broker, each with a stable code and a
//! text for people that says what to do. Nothing here ends the uplink: it
//! backs off and tries again.

use std::io;

use super::pipe::sniff::Stranger;
use crate::config::credentials::CredentialError;
use crate::event::Text;
use crate::health::Trouble;

/// A fault on the line to headquarters. `Display` is English, for logs; [`Fault::text`] is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The name does not resolve.
    #[error("host name not found: {0}; check mqtt.url and the box's DNS server")]
    NameNotFound(String),
    /// Nobody listens there.
    #[error("broker not reachable: {0}; check mqtt.url, the network and the firewall")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer from the broker: {0}; check the line and the broker's load")]
    Silent(&'static str),
    /// The line went away.
    #[error("connection lost: {0}; it is tried again, check the line if this repeats")]
    Lost(String),
    /// User or password.
    #[error("broker refused user or password; check mqtt.username and the credential mqtt-password")]
    BadCredentials,
    /// This client may not connect.
    #[error("broker does not let this client in; ask headquarters to allow this client id and user")]
    NotAuthorised,
    /// The broker does not speak our version.
    #[error(
        "broker does not speak this MQTT version; set mqtt.version to the other one (\"5\" or \"3.1.1\")"
    )]
    WrongVersion,
    /// The client id.
    #[error("broker refused the client id; set mqtt.client_id to what headquarters registered")]
    ClientId,
    /// Overload, maintenance, quota, ban.
    #[error("broker is not serving us now: {0}; if it stays, ask headquarters")]
    NotServing(String),
    /// The certificate's issuer.
    #[error("broker's certificate is signed by nobody we trust; set mqtt.ca_file to the CA of the broker")]
    UnknownIssuer,
    /// The certificate's name.
    #[error("broker's certificate is for another name; mqtt.url must use the name in the certificate: {0}")]
    WrongName(String),
    /// The certificate's time.
    #[error("broker's certificate is not valid now; renew it, or correct this box's clock")]
    CertificateTime,
    /// The broker wants another client certificate.
    #[error(
        "broker refused our certificate: {0}; check mqtt.client_cert_file and the credential mqtt-client-key"
    )]
    OurCertificate(String),
    /// Other TLS trouble.
    #[error("no encrypted connection: {0}; check that mqtt.url has the right scheme (mqtts://) and port")]
    Tls(String),
    /// A file or credential that the connection needs.
    #[error("{0}")]
    Setup(String),
    /// Not MQTT, or broken MQTT.
    #[error("what answers does not speak proper MQTT: {0}; check host and port of mqtt.url")]
    Garbage(String),
    /// The broker's packet limit leaves no room for `state`.
    #[error(
        "broker takes no packet over {limit} bytes, and our state needs {bytes}; ask headquarters to raise its limit"
    )]
    PacketLimit {
        /// What it takes.
        limit: u32,
        /// What `state` needs.
        bytes: u32,
    },
    /// The broker sent a packet over our limit.
    #[error(
        "broker sent a packet of {0} bytes, over mqtt.max_packet_bytes; remove that message (a retained one?) or raise the limit"
    )]
    Oversize(usize),
    /// The broker closes the connection at one event, each time.
    #[error(
        "broker closes the connection at an event of {bytes} bytes on {topic}, each time; that class waits, the others go on: if its packet limit is lower, set mqtt.max_packet_bytes to it; if publishing there is not allowed, ask headquarters"
    )]
    HangsUp {
        /// The topic's class part, `event/CLASS`.
        topic: String,
        /// The size of its packet.
        bytes: u64,
    },
    /// Somebody else connected with our identity.
    #[error("another connection took over our identity; two gateways use one mqtt.client_id: a cloned disk?")]
    TakenOver,
    /// The broker takes nothing from us on a topic.
    #[error("broker refuses {topic} with reason code 0x{code:02X}; {}", advice(*.code).en)]
    Refused {
        /// The topic's class part, `event/CLASS`.
        topic: String,
        /// MQTT 5 §3.4.2.1.
        code: u8,
    },
    /// Subscriptions that were not granted.
    #[error(
        "broker does not let us subscribe to {0}; ask headquarters to allow it, or commands and acknowledgements stay out"
    )]
    NotSubscribed(String),
    /// The local database does not take what the uplink has to note.
    #[error("the local database refused a note of the uplink: {0}")]
    Store(String),
}

/// What to do about a reason code.
fn advice(code: u8) -> Text {
    match code {
        0x10 => Text::new(
            "总部没有订阅者，请确认总部系统在线",
            "nobody at headquarters subscribes: check that its system is up",
        ),
        0x87 => Text::new("请总部为该主题授予发布权限", "ask headquarters to allow publishing there"),
        0x95 => Text::new(
            "超出代理服务器的报文上限，事件已隔离（baygate buffer quarantine list）",
            "over the broker's packet limit, events are set aside: see `baygate buffer quarantine list`",
        ),
        0x90 | 0x99 => Text::new(
            "事件被判为无效并已隔离（baygate buffer quarantine list），请联系总部",
            "events are called invalid and set aside: see `baygate buffer quarantine list`, ask headquarters",
        ),
        0x97 => Text::new("超出代理服务器配额，请联系总部", "over the broker's quota: ask headquarters"),
        _ => Text::new("请查看代理服务器日志", "look into the broker's log"),
    }
}

impl Fault {
    /// Stable code, for `/readyz` and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameNotFound(_) => "name-not-found",
            Self::Unreachable(_) => "unreachable",
            Self::Silent(_) => "no-answer",
            Self::Lost(_) => "connection-lost",
            Self::BadCredentials => "bad-credentials",
            Self::NotAuthorised => "not-authorised",
            Self::WrongVersion => "wrong-protocol-version",
            Self::ClientId => "client-id-refused",
            Self::NotServing(_) => "not-serving",
            Self::UnknownIssuer => "certificate-unknown-issuer",
            Self::WrongName(_) => "certificate-wrong-name",
            Self::CertificateTime => "certificate-not-valid-now",
            Self::OurCertificate(_) => "client-certificate-refused",
            Self::Tls(_) => "tls",
            Self::Setup(_) => "setup",
            Self::Garbage(_) => "not-mqtt",
            Self::PacketLimit { .. } => "packet-limit",
            Self::Oversize(_) => "packet-oversize",
            Self::HangsUp { .. } => "hangs-up-at-event",
            Self::TakenOver => "duplicate-identity",
            Self::Refused { code: 0x10, .. } => "no-subscribers",
            Self::Refused { code: 0x87, .. } => "topic-not-authorised",
            Self::Refused { .. } => "refused",
            Self::NotSubscribed(_) => "subscription-refused",
            Self::Store(_) => "store",
        }
    }

    /// For people: what is wrong and what to do.
    #[must_use]
    pub fn text(&self) -> Text {
        Text { zh: self.chinese(), en: format!("Headquarters: {self}") }
    }

    fn chinese(&self) -> String {
        let text = match self {
            Self::NameNotFound(detail) => format!("找不到主机名（{detail}），请检查 mqtt.url 和本机 DNS"),
            Self::Unreachable(detail) => {
                format!("无法连接 MQTT 服务器（{detail}），请检查 mqtt.url、网络和防火墙")
            }
            Self::Silent(_) => "MQTT 服务器没有应答，请检查线路和服务器负载".into(),
            Self::Lost(detail) => format!("连接中断（{detail}），正在自动重连；若反复出现请检查线路"),
            Self::BadCredentials => "用户名或密码被拒绝，请检查 mqtt.username 和凭据 mqtt-password".into(),
            Self::NotAuthorised => "服务器不允许本客户端接入，请总部放行该客户端标识和用户".into(),
            Self::WrongVersion => {
                "服务器不支持此 MQTT 版本，请将 mqtt.version 改为另一个（\"5\" 或 \"3.1.1\"）".into()
            }
            Self::ClientId => "客户端标识被拒绝，请将 mqtt.client_id 设为总部登记的值".into(),
            Self::NotServing(detail) => format!("服务器暂不提供服务（{detail}），若持续请联系总部"),
            Self::UnknownIssuer => {
                "服务器证书的签发者不受信任，请将 mqtt.ca_file 设为服务器的 CA 证书".into()
            }
            Self::WrongName(_) => "服务器证书的名称不符，mqtt.url 必须使用证书中的名称".into(),
            Self::CertificateTime => "服务器证书当前无效，请更新证书或校正本机时钟".into(),
            Self::OurCertificate(_) => {
                "服务器拒绝本机证书，请检查 mqtt.client_cert_file 和凭据 mqtt-client-key".into()
            }
            Self::Tls(_) => "无法建立加密连接，请检查 mqtt.url 的协议（mqtts://）和端口".into(),
            Self::Setup(detail) => format!("连接设置不完整：{detail}"),
            Self::Garbage(_) => "对方应答不是正确的 MQTT，请检查 mqtt.url 的主机和端口".into(),
            Self::PacketLimit { limit, bytes } => {
                format!("服务器只接收 {limit} 字节以内的报文，而状态报文需要 {bytes} 字节，请总部调高上限")
            }
            Self::Oversize(bytes) => format!(
                "服务器发来 {bytes} 字节的报文，超过 mqtt.max_packet_bytes，请清除该（保留）消息或调高上限"
            ),
            Self::HangsUp { topic, bytes } => format!(
                "每次发送 {topic} 的一个 {bytes} 字节事件，服务器都会断开连接；该类别等待，其他类别继续。若其报文上限更低，请将 mqtt.max_packet_bytes 设为该值；若无发布权限，请联系总部"
            ),
            Self::TakenOver => {
                "另一连接使用了相同身份：两台网关使用同一 mqtt.client_id，是否克隆了磁盘？".into()
            }
            Self::Refused { topic, code } => {
                format!("服务器拒收 {topic}（原因码 0x{code:02X}）：{}", advice(*code).zh)
            }
            Self::NotSubscribed(topics) => {
                format!("服务器不允许订阅 {topics}，请总部授权，否则无法接收命令和确认")
            }
            Self::Store(detail) => format!("本地数据库未能记录上行状态：{detail}"),
        };
        format!("总部：{text}")
    }

    /// Before anybody answered in MQTT, a large packet is only noise.
    #[must_use]
    pub(super) fn told(self, welcomed: bool) -> Self {
        match self {
            Self::Oversize(bytes) if !welcomed => Self::Garbage(format!("a first packet of {bytes} bytes")),
            other => other,
        }
    }

    /// Whether the other side closed the connection, perhaps for what was under way on it.
    #[must_use]
    pub fn is_hang_up(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::NotServing(_) | Self::NotAuthorised)
    }

    /// As `/readyz` shows it. Headquarters being away never makes the store unready.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        Trouble { part: "uplink".into(), code: self.code().into(), text: self.text(), blocks_ready: false }
    }

    /// From an I/O error of the socket or, inside it, of TLS.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::from_tls(tls);
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Stranger>()) {
            Some(Stranger::OldBroker) => return Self::WrongVersion,
            Some(stranger) => return Self::Garbage(stranger.to_string()),
            None => {}
        }
        let detail = error.to_string();
        match error.kind() {
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable => Self::Unreachable(detail),
            io::ErrorKind::TimedOut => Self::Silent("the line timed out"),
            io::ErrorKind::InvalidData => Self::Tls(detail),
            _ if detail.contains("lookup address") || detail.contains("resolve") => {
                Self::NameNotFound(detail)
            }
            _ => Self::Lost(detail),
        }
    }

    /// From what rustls says.
    #[must_use]
    pub fn from_tls(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Bad;
        match error {
            rustls::Error::InvalidCertificate(bad) => match bad {
                Bad::UnknownIssuer | Bad::BadSignature => Self::UnknownIssuer,
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::WrongName(bad.to_string()),
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => Self::CertificateTime,
                // A self-signed certificate that is no CA, among others.
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => Self::UnknownIssuer,
                other => Self::Tls(other.to_string()),
            },
            rustls::Error::AlertReceived(alert) => {
                let name = format!("{alert:?}");
                if name.contains("ertificate") || name.contains("UnknownCA") || name.contains("AccessDenied")
                {
                    Self::OurCertificate(name)
                } else {
                    Self::Tls(format!("the broker answered {name}"))
                }
            }
            other => Self::Tls(other.to_string()),
        }
    }
}

impl From<CredentialError> for Fault {
    fn from(error: CredentialError) -> Self {
        Self::Setup(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_speaks_both_languages_and_blocks_nothing() {
        for fault in [
            Fault::BadCredentials,
            Fault::UnknownIssuer,
            Fault::WrongVersion,
            Fault::Refused { topic: "event/ledger".into(), code: 0x87 },
            Fault::Refused { topic: "event/ledger".into(), code: 0x10 },
            Fault::TakenOver,
            Fault::PacketLimit { limit: 60, bytes: 500 },
            Fault::Oversize(200_000),
            Fault::HangsUp { topic: "event/vehicle".into(), bytes: 5000 },
        ] {
            let trouble = fault.trouble();
            assert!(!trouble.blocks_ready && trouble.part == "uplink");
            assert!(trouble.text.zh.chars().any(|c| c > '\u{4e00}'), "{}", trouble.text.zh);
            assert!(!trouble.text.en.is_empty() && !trouble.code.is_empty());
        }
    }
}
