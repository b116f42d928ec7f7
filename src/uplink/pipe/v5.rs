//! MQTT 5 through `rumqttc-v5-next`: options, the pump, and its errors as faults.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, ConnAckProperties, ConnectProperties, ConnectReturnCode,
    ConnectionError, DisconnectReasonCode, Event, EventLoop, IncomingPacketSizeLimit, LastWill, MqttOptions,
    NetworkOptions, Packet as Control, PersistedAckMode, PersistedSession, PublishOptions, PublishProperties,
    PublishResult, QoS, SessionStore, SessionStoreError, SessionStoreKey, StateError, SubscribeFilterInput,
    SubscribeReasonCode,
};
use tokio::sync::mpsc;

use super::{
    Dial, Ear, IN_ONE_WRITE, Incoming, Notice, Packet, PipeEvent, RECEIVE_MAXIMUM, Receipt, SESSION_EXPIRY_S,
    gone, sniff,
};
use crate::config::tables::MqttVersion;
use crate::event::CONTENT_TYPE;
use crate::uplink::fault::Fault;
use crate::uplink::session::{Limits, Outcome, Token};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

/// The library takes up a session that the broker kept only where it finds its
/// own half. Ours is always empty, because the log is the only truth: unsettled
/// publishes are read from it again.
#[derive(Debug)]
struct EmptyHalf {
    max_in_flight: u16,
}

impl SessionStore for EmptyHalf {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            outgoing_inflight_upper_limit: Some(self.max_in_flight),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(std::future::ready(Ok(Some(session))))
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

pub(super) fn open(dial: Dial, capacity: usize) -> (AsyncClient, EventLoop) {
    let host = dial.url.host;
    let mut options = MqttOptions::new(dial.client_id, (host.clone(), dial.url.port));
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(SESSION_EXPIRY_S);
    properties.receive_maximum = Some(RECEIVE_MAXIMUM);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    // One publish more than the window: the `state` goes beside it.
    let in_flight = dial.max_in_flight.saturating_add(1);
    options
        .set_connect_properties(properties)
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(dial.max_packet_bytes))
        .set_keep_alive(u16::try_from(dial.keep_alive.as_secs()).unwrap_or(u16::MAX))
        .set_clean_start(false)
        .set_broker_session_resume_policy(BrokerSessionResumePolicy::Strict)
        .set_session_store(EmptyHalf { max_in_flight: in_flight })
        .set_connect_timeout(dial.connect_timeout)
        .set_outgoing_inflight_upper_limit(in_flight)
        .set_ack_mode(AckMode::Manual)
        .set_max_request_batch(IN_ONE_WRITE)
        .set_network_options(network)
        .set_last_will(LastWill::new(dial.will_topic, dial.will, QoS::AtLeastOnce, true, None));
    match (dial.username, dial.password) {
        (Some(user), Some(password)) => options.set_credentials(user, password),
        (Some(user), None) => options.set_username(user),
        (None, Some(password)) => options.set_password(password),
        (None, None) => &mut options,
    };
    let tls = dial.tls;
    options.set_socket_connector(move |address, network| {
        sniff::dial(address, network, host.clone(), tls.clone(), MqttVersion::V5)
    });
    AsyncClient::builder(options).capacity(capacity).build()
}

/// What the broker allows and asks. A limit of zero is not allowed to it (§3.2.2.3.3, §3.2.2.3.6).
fn welcome(granted: Option<&ConnAckProperties>) -> PipeEvent {
    let Some(granted) = granted else {
        return PipeEvent::Connected { limits: Limits::default(), pingless: false };
    };
    let (receive_maximum, max_packet) = (granted.receive_max, granted.max_packet_size);
    if receive_maximum == Some(0) || max_packet == Some(0) {
        return PipeEvent::Lost(Fault::Garbage("CONNACK with a limit of zero".into()));
    }
    let pingless = granted.server_keep_alive == Some(0);
    PipeEvent::Connected { limits: Limits { receive_maximum, max_packet }, pingless }
}

/// Pings may come more often than the broker asks (§3.1.2.10). Without them a dead
/// line would look like a quiet one, and a quiet one like a dead one.
fn keep_pinging(options: &mut MqttOptions, ours: Duration, granted: Option<&ConnAckProperties>) {
    let asked = granted.and_then(|granted| granted.server_keep_alive);
    if asked.is_some_and(|asked| Duration::from_secs(asked.into()) > ours) {
        options.set_keep_alive(u16::try_from(ours.as_secs()).unwrap_or(u16::MAX));
    }
}

pub(super) async fn pump(mut eventloop: EventLoop, out: mpsc::Sender<PipeEvent>, ear: Ear) {
    let keep_alive = eventloop.options.keep_alive();
    let mut welcomed = false;
    loop {
        let event = match eventloop.poll().await {
            Ok(Event::Incoming(packet)) => {
                ear.hear();
                match packet {
                    Control::ConnAck(connack) => {
                        welcomed = true;
                        // From here on the library would copy everything in flight at each
                        // step, for a checkpoint that nobody wants.
                        eventloop.options.clear_session_store();
                        let granted = connack.properties.as_ref();
                        keep_pinging(&mut eventloop.options, keep_alive, granted);
                        welcome(granted)
                    }
                    Control::Publish(publish) => PipeEvent::Incoming(Incoming {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        payload: publish.payload.clone(),
                        receipt: Receipt::V5(Box::new(publish)),
                    }),
                    _ => continue,
                }
            }
            Ok(_) => continue,
            Err(error) => PipeEvent::Lost(fault(&error).told(welcomed)),
        };
        let over = matches!(event, PipeEvent::Lost(_));
        if out.send(event).await.is_err() || over {
            return;
        }
    }
}

pub(super) fn publish(client: &AsyncClient, token: Token, packet: Packet) -> Result<Notice, Fault> {
    let content_type = if packet.retain { "application/json" } else { CONTENT_TYPE };
    let about = PublishProperties { content_type: Some(content_type.to_owned()), ..Default::default() };
    let options = PublishOptions::at_least_once().retain(packet.retain).properties(about);
    let notice =
        client.try_publish_tracked(packet.topic.to_string(), packet.payload, options).map_err(gone)?;
    Ok(Box::pin(async move {
        let outcome = match notice.wait_async().await {
            Ok(PublishResult::Qos1(ack)) if ack.reason == rumqttc::PubAckReason::Success => Outcome::Accepted,
            Ok(PublishResult::Qos1(ack)) => Outcome::Refused(ack.reason as u8),
            Err(rumqttc::PublishNoticeError::RetainNotSupported) => Outcome::Refused(0x9A),
            Ok(_) => {
                return Some(PipeEvent::Lost(Fault::Garbage("PUBREC to a publish of QoS 1".into())));
            }
            // The connection is gone, which the pump reports.
            Err(_) => return None,
        };
        Some(PipeEvent::Settled { token, outcome })
    }))
}

pub(super) fn subscribe(client: &AsyncClient, filters: &[String]) -> Result<Notice, Fault> {
    let wanted = filters.iter().map(|filter| SubscribeFilterInput::new(filter.clone(), QoS::AtLeastOnce));
    let notice = client.try_subscribe_many_tracked(wanted).map_err(gone)?;
    let filters = filters.to_vec();
    Ok(Box::pin(async move {
        let granted = notice.wait_async().await.ok()?.return_codes;
        let refused = filters
            .into_iter()
            .zip(granted)
            .filter(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_)))
            .map(|(filter, _)| filter);
        Some(PipeEvent::Subscribed { refused: refused.collect() })
    }))
}

fn fault(error: &ConnectionError) -> Fault {
    match error {
        ConnectionError::Timeout(_) => Fault::Silent("no CONNACK in time"),
        ConnectionError::Io(error) => Fault::from_io(error),
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::NotConnAck(_) => Fault::Garbage("no CONNACK".into()),
        ConnectionError::MqttState(error) => state_fault(error),
        other => Fault::Lost(other.to_string()),
    }
}

fn state_fault(error: &StateError) -> Fault {
    match error {
        StateError::Io(error) => Fault::from_io(error),
        StateError::Deserialization(rumqttc::Error::Io(error)) => Fault::from_io(error),
        StateError::AwaitPingResp => Fault::Silent("no PINGRESP in time"),
        StateError::ConnectionAborted => Fault::Lost("closed by the broker".into()),
        StateError::ConnFail { reason } => refused(*reason),
        StateError::OutgoingPacketTooLarge { pkt_size, max }
        | StateError::Deserialization(rumqttc::Error::OutgoingPacketTooLarge { pkt_size, max }) => {
            Fault::PacketLimit { limit: *max, bytes: *pkt_size }
        }
        StateError::IncomingPacketTooLarge { pkt_size, .. }
        | StateError::Deserialization(rumqttc::Error::PayloadSizeLimitExceeded { pkt_size, .. }) => {
            Fault::Oversize(*pkt_size)
        }
        StateError::ServerDisconnect { reason_code, .. } => match reason_code {
            DisconnectReasonCode::SessionTakenOver => Fault::TakenOver,
            DisconnectReasonCode::NotAuthorized => Fault::NotAuthorised,
            reason => Fault::NotServing(format!("DISCONNECT 0x{:02X} {reason:?}", *reason as u8)),
        },
        other => Fault::Garbage(other.to_string()),
    }
}

/// CONNACK reason codes (MQTT 5 §3.2.2.2).
fn refused(code: ConnectReturnCode) -> Fault {
    use ConnectReturnCode as Code;
    match code {
        Code::BadUserNamePassword => Fault::BadCredentials,
        Code::NotAuthorized | Code::Banned => Fault::NotAuthorised,
        Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => Fault::WrongVersion,
        Code::BadClientId | Code::ClientIdentifierNotValid => Fault::ClientId,
        other => Fault::NotServing(format!("{other:?}")),
    }
}
