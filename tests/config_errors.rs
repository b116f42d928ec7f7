//! A wrong configuration is refused with file, line, column and what to do; a
//! folder is merged in name order, and what headquarters pushed comes last.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use baygate::config::{self, Config};

const HEAD: &str = "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\n";

fn parse(text: &str) -> Result<Config, Vec<String>> {
    config::parse(Path::new("baygate.toml"), text)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn every_mistake_points_at_its_place_and_says_what_to_do() {
    // (what is wrong, text, start of the message, what it must also say)
    let head = |rest: &str| format!("{HEAD}{rest}");
    let cases = [
        (
            "unknown key",
            "[gateway]\nstor = \"x\"\n".into(),
            "baygate.toml:2:1: unknown field",
            "did you mean `store`?",
        ),
        ("unknown table", head("[mqt]\n"), "baygate.toml:4:2: unknown field", "did you mean `mqtt`?"),
        ("bad store", "[gateway]\nstore = \"a/b\"\nid = \"g\"\n".into(), "baygate.toml:2:9:", "A-Z a-z 0-9"),
        (
            "reserved store",
            "[gateway]\nstore = \"all\"\nid = \"g\"\n".into(),
            "baygate.toml:2:9:",
            "reserved",
        ),
        (
            "store missing",
            "[gateway]\nid = \"g\"\n".into(),
            "baygate.toml: [gateway] store is missing",
            "add `store",
        ),
        ("not TOML", "[gateway\n".into(), "baygate.toml:1:", ""),
        (
            "bad duration",
            head("[mqtt]\nurl = \"mqtt://h\"\nconfirm_timeout = \"soon\"\n"),
            "baygate.toml:6:19:",
            "5m",
        ),
        ("bad url", head("[mqtt]\nurl = \"http://h\"\n"), "baygate.toml:5:7:", "mqtts://"),
        ("password in url", head("[mqtt]\nurl = \"mqtt://u:p@h\"\n"), "baygate.toml:5:7:", "mqtt-password"),
        (
            "bad version",
            head("[mqtt]\nurl = \"mqtt://h\"\nversion = \"4\"\n"),
            "baygate.toml:6:11: unknown variant",
            "5, 3.1.1",
        ),
        (
            "topic root",
            head("[mqtt]\nurl = \"mqtt://h\"\nroot = \"a/#\"\n"),
            "baygate.toml:6:8:",
            "without #",
        ),
        ("window 0", head("[mqtt]\nurl = \"mqtt://h\"\nmax_in_flight = 0\n"), "baygate.toml:6:17:", "64"),
        (
            "small packets",
            head("[mqtt]\nurl = \"mqtt://h\"\nmax_packet_bytes = 1000\n"),
            "baygate.toml:6:20:",
            "131072",
        ),
        (
            "plain http outside",
            head("[api]\nlisten = \"0.0.0.0:8480\"\n"),
            "baygate.toml:5:10:",
            "tls = \"auto\"",
        ),
        ("files without file", head("[api]\ntls = \"files\"\n"), "baygate.toml: [api]", "api-tls-key"),
        (
            "ledger limit",
            head("[buffer.classes]\nledger = { keep = \"1GiB\" }\n"),
            "baygate.toml:",
            "never trimmed",
        ),
        (
            "unknown class",
            head("[buffer.classes]\ntelemetri = { keep = \"1GiB\" }\n"),
            "baygate.toml:5:1:",
            "telemetry",
        ),
        ("bad size", head("[buffer]\nmax_bytes = \"much\"\n"), "baygate.toml:5:13:", "4GiB"),
        (
            "time zone",
            "[gateway]\nstore = \"s\"\nid = \"g\"\ntimezone = \"Asia/Shangai\"\n".into(),
            "baygate.toml:4:12:",
            "tzdata",
        ),
        (
            "pcsc without name",
            head("[[reader]]\nid = \"r\"\nkind = \"pcsc\"\n"),
            "baygate.toml:4:1:",
            "name = ",
        ),
        (
            "vpcd without listen",
            head("[[reader]]\nid = \"r\"\nkind = \"vpcd\"\n"),
            "baygate.toml:4:1:",
            "listen = ",
        ),
        (
            "em4100 without link",
            head("[[reader]]\nid = \"r\"\nkind = \"em4100\"\n"),
            "baygate.toml:4:1:",
            "link = ",
        ),
        (
            "pn532 behind pcscd",
            head("[[reader]]\nid = \"r\"\nkind = \"pn532\"\nname = \"ACS*\"\nlink = \"tcp://h:1\"\n"),
            "baygate.toml:4:1:",
            "link = ",
        ),
        (
            "wedge without device",
            head("[[reader]]\nid = \"r\"\nkind = \"wedge\"\nlink = \"tcp://h:1\"\n"),
            "baygate.toml:4:1:",
            "device = ",
        ),
        (
            "a keyboard by its number",
            head("[[reader]]\nid = \"r\"\nkind = \"wedge\"\ndevice = \"/dev/input/event3\"\n"),
            "baygate.toml:4:1:",
            "by-id/",
        ),
        (
            "lights of a chip that has none",
            head("[[reader]]\nid = \"r\"\nkind = \"pn532\"\nlink = \"tcp://h:1\"\nfeedback = \"acr122\"\n"),
            "baygate.toml:4:1:",
            "`feedback`",
        ),
        (
            "lights of a security module",
            head(
                "[[reader]]\nid = \"r\"\nkind = \"pcsc\"\nname = \"A*\"\nrole = \"sam\"\nfeedback = \"off\"\n",
            ),
            "baygate.toml:4:1:",
            "`feedback`",
        ),
        (
            "a device elsewhere",
            head(
                "[[reader]]\nid = \"r\"\nkind = \"em4100\"\nlink = \"tcp://h:1\"\ndevice = \"/dev/input/event0\"\n",
            ),
            "baygate.toml:4:1:",
            "link = ",
        ),
        (
            "em4100 on a folder",
            head("[[reader]]\nid = \"r\"\nkind = \"em4100\"\nlink = \"file:///tmp\"\n"),
            "baygate.toml:4:1:",
            "link = ",
        ),
        (
            "em4100 as a security module",
            head("[[reader]]\nid = \"r\"\nkind = \"em4100\"\nlink = \"tcp://h:1\"\nrole = \"sam\"\n"),
            "baygate.toml:4:1:",
            "link = ",
        ),
        (
            "same id twice",
            head(
                "[[vehicle]]\nid = \"b\"\nlink = \"elm327+tcp://h:1\"\n[[vehicle]]\nid = \"b\"\nlink = \"elm327+tcp://h:2\"\n",
            ),
            "baygate.toml:7:1:",
            "own id",
        ),
        (
            "bad link",
            head("[[vehicle]]\nid = \"b\"\nlink = \"elm327+serial://dev/x\"\n"),
            "baygate.toml:6:8:",
            "three slashes",
        ),
        (
            "png on serial",
            head("[[printer]]\nid = \"p\"\nkind = \"png\"\nlink = \"serial:///dev/x\"\n"),
            "baygate.toml:4:1:",
            "file:///",
        ),
        (
            "till to nothing",
            head(
                "[[reader]]\nid = \"counter-1\"\nkind = \"pcsc\"\nname = \"*\"\n[[till]]\nid = \"t\"\nreader = \"counter-l\"\n",
            ),
            "baygate.toml:8:1:",
            "did you mean \"counter-1\"?",
        ),
    ];
    for (what, text, start, also) in cases {
        let text: String = text;
        let errors = parse(&text).expect_err(what);
        assert!(errors.iter().any(|e| e.starts_with(start) && e.contains(also)), "{what}: {errors:#?}");
    }
}

#[test]
fn the_contracts_example_is_taken() {
    let text = r#"
[gateway]
store = "SH-0042"
id = "gw-1"
data_dir = "/var/lib/baygate"
locale = "zh-CN"
timezone = "Asia/Shanghai"
business_day_start = "04:00"
firmware_protocols = "/usr/share/baygate/firmware-protocols"

[mqtt]
url = "mqtts://mqtt.example.com:8883"
version = "5"
root = "baygate/v1"
username = "gw-1"
confirm = "broker"
confirm_timeout = "5m"
max_in_flight = 64
max_in_flight_bytes = "128KiB"
max_packet_bytes = 131072
replay_per_s = 0

[buffer]
max_bytes = "4GiB"
[buffer.classes]
telemetry = { keep = "1GiB", keep_delivered = "1d" }

[api]
listen = "127.0.0.1:8480"
control_socket = "/run/baygate/control.sock"
tls = "off"
allowed_origins = []
allowed_hosts = []

[[reader]]
id = "counter-1"
kind = "pcsc"
name = "ACS ACR122U*"
role = "card"

[[printer]]
id = "face-1"
kind = "star-tcp300"
link = "serial:///dev/ttyUSB2?baud=9600"
reader = "counter-1"
template = "member-face.svg"

[[till]]
id = "till-1"
reader = "counter-1"
printer = "face-1"
print_on = ["transaction"]

[[vehicle]]
id = "bay-1"
link = "elm327+tcp://192.168.0.10:35000"
dbc = []
signals = []
poll = "auto"
"#;
    let config = parse(text).unwrap();
    let mqtt = config.mqtt.as_ref().unwrap();
    assert_eq!(mqtt.client_id, "baygate-SH-0042-gw-1");
    assert_eq!(mqtt.max_in_flight_bytes, 128 * 1024);
    assert_eq!(config.till_of_reader(&"counter-1".parse().unwrap()).unwrap().id.as_str(), "till-1");
}

#[test]
fn the_shipped_configuration_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/baygate.toml");
    assert!(config::load(&path).is_ok());
}

#[test]
fn a_folder_is_merged_in_name_order_and_pushed_files_come_last() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir_all(data.join("config.d")).unwrap();
    let conf = dir.path().join("conf");
    std::fs::create_dir(&conf).unwrap();
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    write(
        &conf.join("10-base.toml"),
        &format!(
            "{HEAD}data_dir = {data:?}\nlocale = \"zh-CN\"\n[mqtt]\nurl = \"mqtt://a\"\nmax_in_flight = 10\n"
        ),
    );
    write(
        &conf.join("20-site.toml"),
        "[gateway]\nlocale = \"en\"\n[mqtt]\nurl = \"mqtt://b\"\n[[vehicle]]\nid = \"b\"\nlink = \"elm327+tcp://h:1\"\n",
    );
    write(&conf.join("ignored.txt"), "not toml at all");
    write(
        &data.join("config.d/hq.toml"),
        "[[vehicle]]\nid = \"b\"\nlink = \"elm327+tcp://h:2\"\n[mqtt]\nmax_in_flight = 20\n",
    );
    let config = config::load(&conf).unwrap();
    let mqtt = config.mqtt.unwrap();
    assert_eq!((mqtt.url.host.as_str(), mqtt.max_in_flight), ("b", 20));
    assert_eq!(config.gateway.locale, config::values::Locale::En);
    assert_eq!(config.vehicles.len(), 1);
    assert_eq!(config.vehicles[0].link.to_string(), "elm327+tcp://h:2");

    write(&conf.join("30-bad.toml"), "[gateway]\nstor = 1\n");
    let errors = config::load(&conf).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains("30-bad.toml:2:1:"), "{}", errors[0]);
}
