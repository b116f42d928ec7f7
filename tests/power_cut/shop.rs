//! The machine's side: a shop with the real daemon on a disk that will lose its
//! power. First what is left of the last run is looked at, then there is load.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use baygate::api::client::{Client, Method};
use baygate::store::inspect::Inspection;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::words::{Fact, Job, Plan, Word};
use super::{card_keys, faces, load, sales};

/// The emulated machine is slow, and so may its host be.
const LONG: Duration = Duration::from_secs(240);
const DISK: &str = "/data";
const CREDENTIALS: &str = "/tmp/credentials";
/// The youngest jobs are asked for again by their keys; each is a whole request.
const KEYS: usize = 12;
/// Sales likewise: more than there are from one cut to the next.
const SALES: usize = 60;

/// Tells the host: one line, one write.
pub fn say(word: &Word) {
    let line = serde_json::to_string(word).unwrap() + "\n";
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

pub struct Shop {
    pub plan: Plan,
    config: PathBuf,
}

impl Shop {
    pub fn open(plan: Plan) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let config = PathBuf::from("/tmp/baygate.toml");
        let text = format!(
            "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\nlocale = \"en\"\ndata_dir = \"{DISK}/store\"\n\
             firmware_protocols = \"{root}/firmware-protocols\"\nshare_dir = \"{root}/config\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\ncontrol_socket = \"/run/control.sock\"\n\
             [mqtt]\nurl = \"mqtt://10.0.2.2:{}\"\nconfirm = \"headquarters\"\n{}",
            plan.broker_port,
            load::DEVICES
        );
        std::fs::write(&config, text).unwrap();
        std::fs::create_dir_all(CREDENTIALS).unwrap();
        std::fs::write(Path::new(CREDENTIALS).join("card-keys"), card_keys::credential()).unwrap();
        Self { plan, config }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.plan.program);
        command.args(words).arg("--config").arg(&self.config).env("BAYGATE_LOG", "info").kill_on_drop(true);
        command.env("CREDENTIALS_DIRECTORY", CREDENTIALS);
        command
    }

    /// `baygate buffer verify`, then the whole log by `baygate buffer export`.
    pub async fn look(&self) -> Vec<Value> {
        let verified = self.command(&["buffer", "verify", "--json"]).output().await.unwrap();
        let text = [verified.stdout, verified.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
        say(&Word::Verified(verified.status.success(), text.concat()));
        let mut export = self.command(&["buffer", "export"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(export.stdout.take().unwrap()).lines();
        let mut events = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            say(&Word::Logged(Fact::of(&line)));
            events.push(serde_json::from_str(&line).unwrap());
        }
        let ended = export.wait().await.unwrap();
        if !ended.success() {
            say(&Word::Wrong(format!("export: {ended}")));
        }
        say(&Word::LogEnds);
        events
    }

    /// Starts the daemon and waits until it is ready.
    pub async fn daemon(&self) -> Option<Child> {
        say(&Word::Starting);
        let mut daemon = self.command(&["run"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{line}");
            if line.contains("baygate is running") {
                tokio::spawn(async move {
                    while let Ok(Some(line)) = lines.next_line().await {
                        eprintln!("{line}");
                    }
                });
                return Some(daemon);
            }
            said.push_str(&line);
        }
        say(&Word::Wrong(format!("the daemon does not start: {said}")));
        None
    }

    pub async fn client(&self) -> Client {
        let begun = Instant::now();
        loop {
            match Client::connect("/run/control.sock").await {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < LONG, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What callers were told besides events: jobs, keys, tokens.
    pub async fn ask_again(&self, client: &Client, data: &Path) {
        let inspection = Inspection::open(data).unwrap();
        let (by_key, by_row) = self.plan.jobs.split_at(KEYS.min(self.plan.jobs.len()));
        for job in by_row {
            match inspection.reader().print_job(job.job.parse().unwrap()) {
                Ok(Some(row)) => say(&Word::Again(Job { key: job.key.clone(), job: row.job.to_string() })),
                other => say(&Word::Again(Job { key: job.key.clone(), job: format!("{other:?}") })),
            }
        }
        for job in by_key {
            match load::print(client, &job.key).await {
                Ok(again) => say(&Word::Again(again)),
                Err(refused) => say(&Word::Wrong(format!("key {}: {refused}", job.key))),
            }
        }
        for sale in self.plan.sales.iter().take(SALES) {
            match sales::ask(client, &sale.key).await {
                Ok(again) => say(&Word::SaleAgain(again)),
                Err(refused) => say(&Word::Wrong(format!("sale {}: {refused}", sale.key))),
            }
        }
        let list = client.request(Method::GET, "/v1/tokens", None).await.unwrap().accepted().unwrap();
        let live = list["tokens"].as_array().unwrap().iter().filter(|token| token["revoked_at"].is_null());
        say(&Word::LiveTokens(live.map(|token| token["id"].as_str().unwrap().to_owned()).collect()));
    }

    async fn unsent(&self) -> u64 {
        let status = self.command(&["buffer", "status", "--json"]).output().await.unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        status["classes"].as_array().unwrap().iter().map(|class| class["unsent_rows"].as_u64().unwrap()).sum()
    }

    /// Everything goes to headquarters, then the daemon is stopped.
    async fn settle(&self, mut daemon: Child) {
        let begun = Instant::now();
        loop {
            let unsent = self.unsent().await;
            if unsent == 0 {
                break say(&Word::Delivered);
            }
            if begun.elapsed() > LONG {
                break say(&Word::Wrong(format!("{unsent} events are not delivered")));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let begun = Instant::now();
        kill(Pid::from_raw(i32::try_from(daemon.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
        let status = tokio::time::timeout(LONG, daemon.wait()).await.unwrap().unwrap();
        say(&Word::Stopped(status.code(), u64::try_from(begun.elapsed().as_millis()).unwrap()));
    }
}

/// One boot, from the look at what is left to the next cut.
pub async fn run(plan: &Path) {
    let plan = std::fs::read(plan).unwrap();
    let shop = Shop::open(serde_json::from_slice(&plan).unwrap());
    let data = Path::new(DISK).join("store");
    let is_there = data.join("baygate.db").exists();
    if is_there && shop.plan.look_first {
        let events = shop.look().await;
        faces::check(&events, Some(&data));
    }
    let Some(mut daemon) = shop.daemon().await else { return };
    say(&Word::Ready);
    if is_there && !shop.plan.look_first {
        let events = shop.look().await;
        faces::check(&events, None);
    }
    faces::nothing_salvaged(&data);
    let client = shop.client().await;
    shop.ask_again(&client, &data).await;
    say(&Word::Checked);
    if shop.plan.load {
        tokio::select! {
            ended = daemon.wait() => say(&Word::Wrong(format!("the daemon ended: {ended:?}"))),
            () = load::run(&shop.plan, &client) => {}
        }
    } else {
        shop.settle(daemon).await;
    }
}
