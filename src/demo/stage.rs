//! The stage: broker, headquarters and simulated devices around a real gateway,
//! and the loop that turns what happens into the story.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::member::{self, Issuer};
use super::story::Story;
use super::{Options, files, script};
use crate::api::client::{Client, Method};
use crate::config::pushed::Pushed;
use crate::config::{self, Config, ConfigError};
use crate::event::Class;
use crate::gateway::Gateway;
use crate::ident::{Epoch, Seq};
use crate::sim::broker::{self, EmbeddedBroker};
use crate::sim::card::CardSim;
use crate::sim::headquarters::{self, Received, Verdict};
use crate::sim::printer::{PrinterProfile, PrinterSim};
use crate::sim::vehicle::{Profile, VehicleSim};
use crate::store::outbox::ClassCursor;
use crate::store::{Offset, Store};

/// Everything on stage that can be pulled out.
pub struct Props {
    /// The dongle with its car.
    pub vehicle: VehicleSim,
    /// The dongle was pulled by hand.
    pub dongle_pulled: bool,
    /// The card in the field.
    pub card: Option<CardSim>,
    /// Where a card connects.
    pub reader: SocketAddr,
    /// The reader was pulled by hand.
    pub reader_pulled: bool,
    /// The card printer.
    pub printer: PrinterSim,
    /// The printer was pulled by hand.
    pub printer_pulled: bool,
    /// The broker; none while it is pulled.
    pub broker: Option<EmbeddedBroker>,
    /// Where it listens.
    pub broker_at: SocketAddr,
}

/// The stage, set.
pub struct Stage {
    dir: PathBuf,
    config: Config,
    props: Arc<Mutex<Props>>,
    issuer: Arc<Issuer>,
    received: mpsc::Receiver<Received>,
    headquarters_stop: CancellationToken,
}

impl Stage {
    /// Starts broker, headquarters and simulated devices, and writes the configuration.
    pub async fn set(options: &Options) -> anyhow::Result<Self> {
        let dir = options.dir.clone().unwrap_or_else(files::usual_dir);
        files::prepare(&dir)?;
        let issuer = Arc::new(Issuer::open(&dir)?);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let broker = broker::start(any).await?;
        let broker_at = broker.address();
        let headquarters_stop = CancellationToken::new();
        let (seen, received) = mpsc::channel(1024);
        let hq = headquarters::Options { broker: broker_at, root: "baygate/v1".into(), acknowledge: true };
        let (journal, hq_stop) = (dir.join("headquarters.journal"), headquarters_stop.clone());
        tokio::spawn(async move {
            if let Err(error) = headquarters::serve_journaled(hq, &journal, seen, hq_stop).await {
                tracing::error!(%error, journal = %journal.display(), "headquarters has no journal");
            }
        });
        let vehicle = VehicleSim::spawn_pty(Profile::default(), Some(dir.join("obd-dongle"))).await?;
        let clerk =
            PrinterProfile { folder: Some(dir.join("faces")), attended: true, ..PrinterProfile::default() };
        let printer = PrinterSim::spawn_pty(clerk, Some(dir.join("card-printer"))).await?;
        let reader = free_port().await?;
        let listen = match options.listen {
            Some(listen) => listen,
            None => usual_or_any().await,
        };
        let text = configuration(&dir, broker_at, reader, listen, options);
        let config = config::parse(Path::new("the demo's configuration"), &text).map_err(|errors| {
            anyhow!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })?;
        let props = Props {
            vehicle,
            dongle_pulled: false,
            card: None,
            reader,
            reader_pulled: false,
            printer,
            printer_pulled: false,
            broker: Some(broker),
            broker_at,
        };
        Ok(Self { dir, config, props: Arc::new(Mutex::new(props)), issuer, received, headquarters_stop })
    }

    /// Runs the gateway and tells the story until `stop`.
    pub async fn play(mut self, mut story: Story, stop: CancellationToken) -> anyhow::Result<()> {
        let control = self.config.api.control_socket.clone();
        let gateway = Gateway::build(self.config.clone()).await?;
        let (store, api, health) = (gateway.store(), gateway.api_addr(), gateway.health());
        let mut log = Log::after(&store).await?;
        let earlier = store.read(|reader| reader.last_sequence()).await?;
        story.begins_after(earlier, &self.dir);
        let gateway_stop = CancellationToken::new();
        let (_keep, reloads) = mpsc::channel(1);
        let unchanged = self.config.clone();
        let reload = move |pushed: Option<&Pushed>| match pushed {
            None => Ok(unchanged.clone()),
            Some(_) => Err(vec![ConfigError::whole("demo", "the demo keeps its own rules", None)]),
        };
        let mut running = tokio::spawn(gateway.run(reload, reloads, gateway_stop.clone()));
        let client = Client::connect(control).await?;
        let open = store.read(|reader| reader.open_visits()).await?;
        let still_here = open.into_iter().find_map(|visit| visit.vin);
        // Not in the call: the borrow would last until the answer and hold up every commit.
        let epoch = store.head().borrow().epoch;
        self.tell_where_to_look(&story, api, &client, epoch).await?;
        let script =
            tokio::spawn(script::play(Arc::clone(&self.props), Arc::clone(&self.issuer), client, still_here));
        let mut typed = BufReader::new(tokio::io::stdin()).lines();
        let mut typing = true;
        let mut head = store.head();
        let mut faces = 0;
        let mut look = tokio::time::interval(Duration::from_millis(250));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                ended = &mut running => {
                    script.abort();
                    return Ok(ended??);
                }
                changed = head.changed() => {
                    changed.context("the store is closed")?;
                    log.advance(&store, &mut story).await?;
                    self.show_faces(&story, &mut faces).await;
                }
                _ = look.tick() => story.troubles(&health.troubles()),
                Some(received) = self.received.recv() => told(&mut story, &received),
                line = typed.next_line(), if typing => match line {
                    Ok(Some(line)) => pull(&self.props, line.trim(), &story).await,
                    _ => typing = false,
                },
            }
        }
        script.abort();
        self.finish(&store, &mut log, &mut story).await?;
        gateway_stop.cancel();
        running.await??;
        self.headquarters_stop.cancel();
        story.end(head.borrow().epoch);
        Ok(())
    }

    /// Names the picture of every face that came out of the printer since the last look.
    async fn show_faces(&self, story: &Story, shown: &mut usize) {
        let faces = self.props.lock().await.printer.faces();
        for path in faces.iter().skip(*shown).filter_map(|face| face.path.as_ref()) {
            story.note(
                &format!("卡面已印出：{}", path.display()),
                &format!("face on the card: {}", path.display()),
            );
        }
        *shown = faces.len();
    }

    /// Gives what is on its way a moment to arrive.
    async fn finish(&mut self, store: &Store, log: &mut Log, story: &mut Story) -> anyhow::Result<()> {
        let arrived = async {
            let mut head = store.head();
            loop {
                log.advance(store, story).await?;
                let counts = story.counts();
                if counts.acknowledged >= counts.committed {
                    return Ok::<_, anyhow::Error>(());
                }
                tokio::select! {
                    changed = head.changed() => changed.context("the store is closed")?,
                    Some(received) = self.received.recv() => told(story, &received),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(3), arrived).await.unwrap_or(Ok(()))
    }

    async fn tell_where_to_look(
        &self,
        story: &Story,
        api: SocketAddr,
        client: &Client,
        epoch: Epoch,
    ) -> anyhow::Result<()> {
        let body = json!({"name": "demo", "scopes": ["read", "print", "vehicle"]});
        let token = client.request(Method::POST, "/v1/tokens", Some(&body)).await?;
        let token = token.body.get("token").and_then(|token| token.as_str()).unwrap_or("?").to_owned();
        let broker = self.props.lock().await.broker_at;
        let dir = self.dir.display();
        for (zh, en, what) in [
            ("文件夹", "folder", format!("{dir}")),
            (
                "事件流",
                "event stream",
                format!(
                    "curl -N -H 'Authorization: Bearer {token}' 'http://{api}/v1/events?after={epoch}/0'"
                ),
            ),
            ("就绪状态", "readiness", format!("curl http://{api}/readyz")),
            ("总部所见", "what HQ sees", format!("mosquitto_sub -p {} -t 'baygate/v1/#' -v", broker.port())),
            ("拔插", "pull and replug", "broker | dongle | reader | printer + Enter".into()),
        ] {
            story.note(&format!("{zh}：{what}"), &format!("{en}: {what}"));
        }
        Ok(())
    }
}

fn told(story: &mut Story, received: &Received) {
    let sequence =
        received.event.get("sequence").and_then(|text| text.as_str()).and_then(|text| text.parse().ok());
    if let Some(sequence) = sequence {
        story.received(Seq(sequence), received.verdict != Verdict::Duplicate, &received.topic);
    }
}

/// Where the story has read the log, and what it knows to be delivered.
struct Log {
    position: Offset,
    waiting: BTreeMap<Class, Vec<(ClassCursor, Seq)>>,
}

impl Log {
    async fn after(store: &Store) -> anyhow::Result<Self> {
        Ok(Self { position: store.head().borrow().last, waiting: BTreeMap::new() })
    }

    async fn advance(&mut self, store: &Store, story: &mut Story) -> anyhow::Result<()> {
        let after = self.position;
        let (events, delivered) = store
            .read(move |reader| {
                let delivered = Class::ALL
                    .into_iter()
                    .map(|class| Ok((class, reader.delivered(class)?)))
                    .collect::<Result<Vec<_>, crate::store::StoreError>>()?;
                Ok((reader.events_after(after, 200)?, delivered))
            })
            .await?;
        for logged in events {
            self.position = logged.offset;
            story.committed(&logged.event);
            self.waiting.entry(logged.event.class).or_default().push((logged.cursor, logged.event.sequence));
        }
        for (class, to) in delivered {
            if let Some(waiting) = self.waiting.get_mut(&class) {
                let (done, rest): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|(cursor, _)| *cursor <= to);
                *waiting = rest;
                let done: Vec<Seq> = done.into_iter().map(|(_, sequence)| sequence).collect();
                story.acknowledged(class, &done);
            }
        }
        Ok(())
    }
}

/// What the user typed: a part is pulled, or plugged back in.
async fn pull(props: &Mutex<Props>, what: &str, story: &Story) {
    let mut props = props.lock().await;
    let now_pulled = match what {
        "broker" => match props.broker.take() {
            Some(broker) => {
                broker.stop().await;
                true
            }
            None => {
                match broker::start(props.broker_at).await {
                    Ok(broker) => props.broker = Some(broker),
                    Err(error) => story.note(&error.to_string(), &error.to_string()),
                }
                false
            }
        },
        "dongle" => {
            props.dongle_pulled = !props.dongle_pulled;
            if props.dongle_pulled {
                props.vehicle.vanish().await
            } else {
                props.vehicle.return_().await
            }
            props.dongle_pulled
        }
        "printer" => {
            props.printer_pulled = !props.printer_pulled;
            if props.printer_pulled {
                props.printer.vanish().await
            } else {
                props.printer.return_().await
            }
            props.printer_pulled
        }
        "reader" => {
            props.reader_pulled = !props.reader_pulled;
            if props.reader_pulled {
                props.card = None;
            }
            props.reader_pulled
        }
        "" => return,
        other => {
            let known = "broker, dongle, reader, printer";
            story.note(
                &format!("不认识 {other:?}；可以输入：{known}"),
                &format!("{other:?} is not on stage; type one of: {known}"),
            );
            return;
        }
    };
    if now_pulled {
        story.note(&format!("拔掉了 {what}"), &format!("{what} pulled out"));
    } else {
        let (zh, en) =
            ("；网关会自行恢复连接，最多约半分钟", "; the gateway finds it by itself, within half a minute");
        story.note(&format!("{what} 已插回{zh}"), &format!("{what} plugged back in{en}"));
    }
}

async fn free_port() -> std::io::Result<SocketAddr> {
    tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()
}

/// The usual port, or any when another program has it.
async fn usual_or_any() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 8480));
    match tokio::net::TcpListener::bind(usual).await {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// The same tables that a shop writes.
fn configuration(
    dir: &Path,
    broker: SocketAddr,
    reader: SocketAddr,
    listen: SocketAddr,
    options: &Options,
) -> String {
    let path = |name: &str| toml::Value::from(dir.join(name).to_string_lossy().into_owned());
    let link = |scheme: &str, name: &str| {
        toml::Value::from(format!("{scheme}://{}?baud=38400", dir.join(name).to_string_lossy()))
    };
    let locale = options.locale.pick("zh-CN", "en");
    format!(
        r#"
[gateway]
store = "{store}"
id = "gw-1"
data_dir = {data}
locale = "{locale}"
firmware_protocols = {protocols}
share_dir = {share}
credentials_dir = {credentials}

[mqtt]
url = "mqtt://{broker}"
confirm = "headquarters"

[api]
listen = "{listen}"
control_socket = {control}

[[reader]]
id = "counter-1"
kind = "vpcd"
listen = "{reader}"

[[printer]]
id = "face-1"
kind = "star-tcp300"
link = {printer}
reader = "counter-1"

[[till]]
id = "till-1"
reader = "counter-1"
printer = "face-1"

[[vehicle]]
id = "bay-1"
link = {dongle}
"#,
        store = member::STORE,
        credentials = path(member::CREDENTIALS),
        data = path("data"),
        protocols = path("firmware-protocols"),
        share = path("share"),
        control = path("control.sock"),
        printer = link("serial", "card-printer"),
        dongle = link("elm327+serial", "obd-dongle"),
    )
}
