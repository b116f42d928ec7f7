//! `baygate print`: draws a face without printer and daemon, hands a job to the
//! daemon, and tells where one stands.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Exit, Global, daemon};
use crate::api::client::{Client, Method};
use crate::config;
use crate::printer::bitmap::Canvas;
use crate::printer::{FaceError, Faces, faces};

/// How often a job is asked about with `--wait`.
const TICK: Duration = Duration::from_millis(500);
/// The largest data file, in bytes.
const MAX_DATA_BYTES: u64 = 64 * 1024;

/// Arguments of `baygate print`.
#[derive(Debug, clap::Args)]
#[command(about = "Draw, print and follow card faces / 卡面的生成、打印与查询")]
#[command(after_help = "Examples / 示例:
  baygate print render --template member-face.svg --data card.json --out face.png
  baygate print send --printer face-1 --data card.json --wait")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Draw a face into a PNG; needs neither printer nor daemon / 生成卡面图片
    #[command(
        after_help = "Example:\n  baygate print render --template member-face.svg --data card.json --out face.png"
    )]
    Render(Render),
    /// Queue a face at a printer of the running daemon / 提交打印
    #[command(after_help = "Example:\n  baygate print send --printer face-1 --data card.json --wait")]
    Send(Send),
    /// Where a job stands / 查询打印任务
    #[command(after_help = "Example:\n  baygate print status 0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3")]
    Status(Status),
}

#[derive(Debug, clap::Args)]
struct Render {
    /// The SVG template: a file, or the name of one of the installation / SVG 模板文件，或已安装模板的名称
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
    /// The fields as a JSON object; `-`: standard input / 字段 JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The picture to write / 输出图片
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder of fonts; default: of the configuration, else beside the template / 字体目录
    #[arg(long, value_name = "DIR")]
    fonts: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Send {
    /// A printer of the configuration / 打印机
    #[arg(long)]
    printer: String,
    /// The fields as a JSON object; `-`: standard input / 字段 JSON
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// A template of the installation; default: the printer's / 模板
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// The card whose face it is / 卡号
    #[arg(long)]
    card_no: Option<String>,
    /// Asking twice with the same key prints once / 幂等键
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until the job is done, failed or cancelled / 等待完成
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, clap::Args)]
struct Status {
    /// The job, as `print send` printed it / 任务编号
    job: Uuid,
    /// Wait until the job is done, failed or cancelled / 等待完成
    #[arg(long)]
    wait: bool,
}

/// Runs `baygate print`.
///
/// # Errors
/// None: what goes wrong is printed and is the exit status.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let ran = match args.command {
        Command::Render(args) => render(&args, global),
        Command::Send(args) => send(args, global).await,
        Command::Status(args) => status(&args, global).await,
    };
    Ok(ran.unwrap_or_else(|error| match error.downcast_ref::<FaceError>() {
        Some(fault) => {
            let text = fault.text();
            eprintln!("baygate: {}", global.language().pick(&text.zh, &text.en));
            Exit::Usage
        }
        None if error.downcast_ref::<BadData>().is_some() => {
            eprintln!("baygate: {error:#}");
            Exit::Usage
        }
        None => daemon::report(&error),
    }))
}

/// The data file is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}: {what}; give a JSON object such as {{\"card_no\":\"8800004200001234\",\"points\":120,\"offer\":\"…\",\"qr\":\"https://…\"}}"
)]
struct BadData {
    file: String,
    what: String,
}

fn render(args: &Render, global: &Global) -> anyhow::Result<Exit> {
    let fields = read_data(&args.data)?;
    let path = template_file(&args.template, global);
    let template = faces::read_template(&path)?;
    let fonts = args.fonts.clone().unwrap_or_else(|| fonts_folder(&path, global));
    let face = Faces::of(PathBuf::new(), fonts).draw(&template, &fields, Canvas::TCP300)?;
    std::fs::write(&args.out, face.to_png()?)
        .with_context(|| format!("{} cannot be written; check the folder", args.out.display()))?;
    let Canvas { width, height } = face.canvas();
    if global.json {
        let sha256 = hex::encode_upper(Sha256::digest(face.bytes()));
        println!("{}", json!({"out": args.out, "width": width, "height": height, "dots_sha256": sha256}));
    } else {
        let done = global.language().pick("已生成", "written");
        println!("{done}: {} ({width} × {height})", args.out.display());
    }
    Ok(Exit::Done)
}

/// The file itself; for a bare name that is no file here, the template of the installation.
fn template_file(template: &Path, global: &Global) -> PathBuf {
    let bare = template.file_name().is_some_and(|name| name == template.as_os_str());
    if !bare || template.exists() {
        return template.to_owned();
    }
    let installed = share_dirs(global).into_iter().map(|share| share.join("templates").join(template));
    installed.into_iter().find(|path| path.is_file()).unwrap_or_else(|| template.to_owned())
}

/// Where the shared files are: of the configuration, of the installation, of a source tree.
fn share_dirs(global: &Global) -> Vec<PathBuf> {
    let configured = global.config.exists().then(|| config::load(&global.config).ok()).flatten();
    let known = ["/usr/share/baygate", "config"].map(PathBuf::from);
    configured.map(|config| config.gateway.share_dir).into_iter().chain(known).collect()
}

/// The configuration's fonts, those beside the template, or those of a source tree.
fn fonts_folder(template: &Path, global: &Global) -> PathBuf {
    let configured = global.config.exists().then(|| config::load(&global.config).ok()).flatten();
    let beside = template.parent().map(|folder| folder.join("../fonts"));
    configured
        .map(|config| config.gateway.share_dir.join("fonts"))
        .into_iter()
        .chain(beside)
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| PathBuf::from("config/fonts"))
}

async fn send(args: Send, global: &Global) -> anyhow::Result<Exit> {
    let mut wanted = json!({"printer": args.printer, "fields": read_data(&args.data)?});
    for (name, value) in [("template", args.template), ("card_no", args.card_no)] {
        if let (Some(members), Some(value)) = (wanted.as_object_mut(), value) {
            members.insert(name.to_owned(), Value::String(value));
        }
    }
    let client = daemon::connect(global).await?;
    let key = args.idempotency_key.as_deref();
    let queued =
        client.request_with_key(Method::POST, "/v1/print-jobs", Some(&wanted), key).await?.accepted()?;
    if !args.wait {
        show(&queued, global);
        return Ok(Exit::Done);
    }
    let job = queued.get("job").and_then(Value::as_str).context("the daemon queued a job without an id")?;
    follow(&client, job, global).await
}

async fn status(args: &Status, global: &Global) -> anyhow::Result<Exit> {
    let client = daemon::connect(global).await?;
    if args.wait {
        return follow(&client, &args.job.to_string(), global).await;
    }
    let view = ask(&client, &args.job.to_string()).await?;
    show(&view, global);
    Ok(exit_of(&view))
}

async fn ask(client: &Client, job: &str) -> anyhow::Result<Value> {
    Ok(client.request(Method::GET, &format!("/v1/print-jobs/{job}"), None).await?.accepted()?)
}

/// Shows every change until the job is over. JSON: only the end.
async fn follow(client: &Client, job: &str, global: &Global) -> anyhow::Result<Exit> {
    let mut shown = Value::Null;
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let view = ask(client, job).await?;
        let over = matches!(state_of(&view), "done" | "failed" | "cancelled");
        if over || (!global.json && changed(&view, &shown)) {
            show(&view, global);
        }
        if over {
            return Ok(exit_of(&view));
        }
        shown = view;
    }
}

fn changed(view: &Value, shown: &Value) -> bool {
    ["state", "error"].iter().any(|member| view.get(member) != shown.get(member))
}

fn state_of(view: &Value) -> &str {
    view.get("state").and_then(Value::as_str).unwrap_or("")
}

/// A job that ended without a face is a failure.
fn exit_of(view: &Value) -> Exit {
    if matches!(state_of(view), "failed" | "cancelled") { Exit::Failed } else { Exit::Done }
}

fn show(view: &Value, global: &Global) {
    if global.json {
        println!("{view}");
        return;
    }
    let text = |member: &str| view.get(member).and_then(Value::as_str).unwrap_or("");
    let (zh, en) = match state_of(view) {
        "queued" => ("排队中", "queued"),
        "waiting-card" => ("等待插卡", "waiting for the card"),
        "printing" => ("打印中", "printing"),
        "done" => ("已完成", "done"),
        "failed" => ("失败", "failed"),
        "cancelled" => ("已取消", "cancelled"),
        other => (other, other),
    };
    let mut line = format!("{}  {}  {}", text("job"), text("printer"), global.language().pick(zh, en));
    for more in [text("error"), text("output")].iter().filter(|more| !more.is_empty()) {
        line.push_str("  ");
        line.push_str(more);
    }
    println!("{line}");
}

fn read_data(path: &Path) -> anyhow::Result<Value> {
    let bad = |what: String| BadData { file: path.display().to_string(), what };
    let mut text = String::new();
    let reader: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| bad(error.to_string()))?)
    };
    reader.take(MAX_DATA_BYTES + 1).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_DATA_BYTES {
        return Err(bad("larger than 64 KiB".into()).into());
    }
    let data: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if data.is_object() { Ok(data) } else { Err(bad("not a JSON object".into()).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> Global {
        Global { config: "/nonexistent/baygate.toml".into(), json: true, locale: None }
    }

    fn shipped(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
    }

    async fn rendered(template: PathBuf, data: &str) -> (Exit, Option<Vec<u8>>) {
        let dir = tempfile::tempdir().unwrap();
        let (input, out) = (dir.path().join("data.json"), dir.path().join("face.png"));
        std::fs::write(&input, data).unwrap();
        let render = Render { template, data: input, out: out.clone(), fonts: None };
        let exit = run(Args { command: Command::Render(render) }, &global()).await.unwrap();
        (exit, std::fs::read(out).ok())
    }

    #[tokio::test]
    async fn render_needs_no_daemon_and_finds_the_fonts_beside_the_template() {
        let template = shipped("templates/member-face.svg");
        let good = r#"{"card_no":"88","points":1,"offer":"优惠","qr":"x"}"#;
        let (exit, picture) = rendered(template.clone(), good).await;
        assert_eq!(exit, Exit::Done);
        assert!(picture.unwrap().starts_with(b"\x89PNG"));
        for bad in ["{", "[]", r#"{"card_no":"88"}"#] {
            assert_eq!(rendered(template.clone(), bad).await, (Exit::Usage, None), "{bad}");
        }
        assert_eq!(rendered(shipped("templates/none.svg"), good).await, (Exit::Usage, None));
    }

    #[tokio::test]
    async fn a_daemon_that_does_not_run_is_exit_3() {
        let status = Status { job: Uuid::nil(), wait: false };
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("baygate.toml");
        let socket = dir.path().join("none.sock");
        let text = format!(
            "[gateway]\nstore = \"s\"\nid = \"g\"\n[api]\ncontrol_socket = \"{}\"\n",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let global = Global { config, json: false, locale: None };
        let exit = run(Args { command: Command::Status(status) }, &global).await.unwrap();
        assert_eq!(exit, Exit::Device);
    }
}
