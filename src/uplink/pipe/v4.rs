//! MQTT 3.1.1 through `rumqttc-v4-next`: options, the pump, and its errors as
//! faults. Refusals of a publish are invisible in this version.

use rumqttc_v4::{
    AckMode, AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, LastWill, MqttOptions,
    NetworkOptions, Packet as Control, PublishOptions, PublishResult, QoS, StateError, SubscribeFilterInput,
    SubscribeReasonCode,
};
use tokio::sync::mpsc;

use super::{Dial, Ear, IN_ONE_WRITE, Incoming, Notice, Packet, PipeEvent, Receipt, gone, sniff};
use crate::config::tables::MqttVersion;
use crate::uplink::fault::Fault;
use crate::uplink::session::{Limits, Outcome, Token};

pub(super) fn open(dial: Dial, capacity: usize) -> (AsyncClient, EventLoop) {
    let host = dial.url.host;
    let mut options = MqttOptions::new(dial.client_id, (host.clone(), dial.url.port));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(dial.connect_timeout.as_secs().max(1));
    let packet = usize::try_from(dial.max_packet_bytes).unwrap_or(usize::MAX);
    options
        .set_max_packet_size(packet, packet)
        .set_keep_alive(u16::try_from(dial.keep_alive.as_secs()).unwrap_or(u16::MAX))
        .set_ack_mode(AckMode::Manual)
        .set_max_request_batch(IN_ONE_WRITE)
        .set_last_will(LastWill::new(dial.will_topic, dial.will, QoS::AtLeastOnce, true));
    // One publish more than the window: the `state` goes beside it. Both only
    // fail on a zero limit or an empty client id, which the configuration excludes.
    if options.try_set_inflight(dial.max_in_flight.saturating_add(1)).is_err()
        || options.try_set_clean_session(false).is_err()
    {
        tracing::warn!("no persistent session: the client id is empty");
    }
    match (dial.username, dial.password) {
        (Some(user), Some(password)) => options.set_credentials(user, password),
        (Some(user), None) => options.set_username(user),
        // 3.1.1 has no password without a user name (§3.1.2.9).
        (None, _) => &mut options,
    };
    let tls = dial.tls;
    options.set_socket_connector(move |address, network| {
        sniff::dial(address, network, host.clone(), tls.clone(), MqttVersion::V311)
    });
    let (client, mut eventloop) = AsyncClient::builder(options).capacity(capacity).build();
    eventloop.set_network_options(network);
    (client, eventloop)
}

pub(super) async fn pump(mut eventloop: EventLoop, out: mpsc::Sender<PipeEvent>, ear: Ear) {
    let mut welcomed = false;
    loop {
        let event = match eventloop.poll().await {
            Ok(Event::Incoming(packet)) => {
                ear.hear();
                match packet {
                    Control::ConnAck(_) => {
                        welcomed = true;
                        PipeEvent::Connected { limits: Limits::default(), pingless: false }
                    }
                    Control::Publish(publish) => PipeEvent::Incoming(Incoming {
                        topic: String::from_utf8_lossy(publish.topic.as_ref()).into_owned(),
                        payload: publish.payload.clone(),
                        receipt: Receipt::V4(Box::new(publish)),
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
    let options = PublishOptions::at_least_once().retain(packet.retain);
    let notice =
        client.try_publish_tracked(packet.topic.to_string(), packet.payload, options).map_err(gone)?;
    Ok(Box::pin(async move {
        match notice.wait_async().await {
            Ok(PublishResult::Qos1(_)) => Some(PipeEvent::Settled { token, outcome: Outcome::Accepted }),
            Ok(_) => Some(PipeEvent::Lost(Fault::Garbage("PUBREC to a publish of QoS 1".into()))),
            // The connection is gone, which the pump reports.
            Err(_) => None,
        }
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
        ConnectionError::NetworkTimeout => Fault::Silent("no CONNACK in time"),
        ConnectionError::FlushTimeout => Fault::Silent("the broker takes no bytes"),
        ConnectionError::Io(error) => Fault::from_io(error),
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword => Fault::BadCredentials,
            // Mosquitto answers 5 to a wrong password in 3.1.1 as well.
            ConnectReturnCode::NotAuthorized => Fault::BadCredentials,
            ConnectReturnCode::RefusedProtocolVersion => Fault::WrongVersion,
            ConnectReturnCode::BadClientId => Fault::ClientId,
            other => Fault::NotServing(format!("{other:?}")),
        },
        ConnectionError::NotConnAck(_) => Fault::Garbage("no CONNACK".into()),
        ConnectionError::MqttState(StateError::Io(error)) => Fault::from_io(error),
        ConnectionError::MqttState(StateError::Deserialization(rumqttc_v4::Error::Io(error))) => {
            Fault::from_io(error)
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => Fault::Silent("no PINGRESP in time"),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Fault::Lost("closed by the broker".into())
        }
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc_v4::Error::PayloadSizeLimitExceeded(bytes),
        )) => Fault::Oversize(*bytes),
        ConnectionError::MqttState(other) => Fault::Garbage(other.to_string()),
        other => Fault::Lost(other.to_string()),
    }
}
