//! `baygate devices`: what is plugged in, each with the configuration lines that would use it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Exit, Global};
use crate::config::values::Locale;
use crate::link::holder_of;

/// Type of a CAN interface in `/sys/class/net/*/type` (ARPHRD_CAN, linux/if_arp.h).
const ARPHRD_CAN: &str = "280";

/// Lists serial ports, CAN interfaces, card readers and printers now present / 列出当前接入的设备
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples / 示例:
  baygate devices
  baygate devices --json")]
pub struct Args {}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A serial port: dongle, printer or reader.
    Serial,
    /// A CAN interface.
    Can,
    /// A card reader behind pcscd.
    Pcsc,
    /// A line printer.
    Printer,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// Node, interface or reader name.
    pub name: String,
    /// A path that stays the same over replugging.
    pub stable_path: Option<String>,
    /// Who has it open.
    pub held_by: Option<String>,
    /// The lines for the configuration.
    pub toml: String,
}

/// Where the system shows its devices; another place in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys/class`.
    pub sys_class: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { dev: "/dev".into(), sys_class: "/sys/class".into() }
    }
}

/// Runs the command.
///
/// # Errors
/// Only when the list cannot be written as JSON.
pub async fn run(_args: Args, global: &Global) -> anyhow::Result<Exit> {
    let locale = global.language();
    let (mut devices, readers) =
        tokio::task::spawn_blocking(|| (local(&Roots::default()), pcsc_readers())).await?;
    let trouble = match readers {
        Ok(readers) => {
            devices.extend(readers);
            None
        }
        Err(why) => Some(why),
    };
    if global.json {
        println!("{}", serde_json::to_string_pretty(&devices)?);
    } else {
        print!("{}", table(&devices, locale));
    }
    if let Some(why) = trouble {
        let zh = format!("未列出 PC/SC 读卡器：{why}；请安装并启动 pcscd");
        let en = format!("PC/SC readers not listed: {why}; install and start pcscd");
        eprintln!("{}", locale.pick(&zh, &en));
    }
    Ok(Exit::Done)
}

/// Serial ports, CAN interfaces and line printers.
#[must_use]
pub fn local(roots: &Roots) -> Vec<Device> {
    let mut devices = serial_ports(roots);
    devices.extend(can_interfaces(roots));
    devices.extend(line_printers(roots));
    number_ids(&mut devices);
    devices
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn serial_ports(roots: &Roots) -> Vec<Device> {
    let by_id = roots.dev.join("serial/by-id");
    let stable: Vec<(PathBuf, PathBuf)> = names_in(&by_id)
        .into_iter()
        .filter_map(|name| {
            let link = by_id.join(name);
            Some((fs::canonicalize(&link).ok()?, link))
        })
        .collect();
    names_in(&roots.dev)
        .into_iter()
        .filter(|name| is_pluggable(name) || is_real_uart(name, roots))
        .map(|name| {
            let node = roots.dev.join(&name);
            let found = fs::canonicalize(&node).ok();
            let stable_path = stable
                .iter()
                .find(|(target, _)| Some(target) == found.as_ref())
                .map(|(_, link)| link.display().to_string());
            let path = stable_path.clone().unwrap_or_else(|| node.display().to_string());
            Device {
                kind: Kind::Serial,
                name: node.display().to_string(),
                held_by: holder_of(&node),
                toml: format!("[[vehicle]]\nid = \"bay-N\"\nlink = \"elm327+serial://{path}\""),
                stable_path,
            }
        })
        .collect()
}

/// USB serial converters, modems, Bluetooth serial ports.
fn is_pluggable(name: &str) -> bool {
    ["ttyUSB", "ttyACM", "rfcomm", "ttyAMA"].iter().any(|prefix| name.starts_with(prefix))
}

/// `ttyS*` exist by the dozen without hardware: the kernel says `type` 0 (PORT_UNKNOWN) for those.
fn is_real_uart(name: &str, roots: &Roots) -> bool {
    name.starts_with("ttyS")
        && fs::read_to_string(roots.sys_class.join("tty").join(name).join("type"))
            .is_ok_and(|kind| kind.trim() != "0")
}

fn can_interfaces(roots: &Roots) -> Vec<Device> {
    let net = roots.sys_class.join("net");
    names_in(&net)
        .into_iter()
        .filter(|name| {
            fs::read_to_string(net.join(name).join("type")).is_ok_and(|kind| kind.trim() == ARPHRD_CAN)
        })
        .map(|name| Device {
            kind: Kind::Can,
            // A virtual one has no bit rate.
            toml: if net.join(&name).join("device").exists() {
                format!("[[vehicle]]\nid = \"bay-N\"\nlink = \"can://{name}?bitrate=500000\"")
            } else {
                format!("[[vehicle]]\nid = \"bay-N\"\nlink = \"can://{name}\"")
            },
            name,
            stable_path: None,
            held_by: None,
        })
        .collect()
}

fn line_printers(roots: &Roots) -> Vec<Device> {
    let usb = roots.dev.join("usb");
    names_in(&usb)
        .into_iter()
        .filter(|name| name.starts_with("lp"))
        .map(|name| {
            let node = usb.join(name).display().to_string();
            Device {
                kind: Kind::Printer,
                held_by: holder_of(Path::new(&node)),
                toml: format!(
                    "[[printer]]\nid = \"face-N\"\nkind = \"star-tcp300\"\nlink = \"lp://{node}\"\ntemplate = \"member-face.svg\""
                ),
                name: node,
                stable_path: None,
            }
        })
        .collect()
}

/// Readers that pcscd knows.
fn pcsc_readers() -> Result<Vec<Device>, pcsc::Error> {
    let context = pcsc::Context::establish(pcsc::Scope::User)?;
    let names = match context.list_readers_owned() {
        Ok(names) => names,
        Err(pcsc::Error::NoReadersAvailable) => Vec::new(),
        Err(error) => return Err(error),
    };
    let mut readers: Vec<Device> = names
        .iter()
        .map(|name| {
            let name = name.to_string_lossy().into_owned();
            Device {
                kind: Kind::Pcsc,
                toml: format!(
                    "[[reader]]\nid = \"counter-N\"\nkind = \"pcsc\"\nname = {}",
                    toml::Value::String(format!("{}*", model(&name)))
                ),
                name,
                stable_path: None,
                held_by: None,
            }
        })
        .collect();
    number_ids(&mut readers);
    Ok(readers)
}

/// pcscd appends slot and interface numbers, which change with the order of plugging.
fn model(name: &str) -> &str {
    let mut rest = name.trim();
    for _ in 0..2 {
        match rest.rsplit_once(' ') {
            Some((front, digits)) if digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                rest = front.trim_end();
            }
            _ => break,
        }
    }
    rest
}

/// `bay-N` becomes `bay-1`, `bay-2` …
fn number_ids(devices: &mut [Device]) {
    for prefix in ["bay-", "face-", "counter-"] {
        let placeholder = format!("\"{prefix}N\"");
        let mut number = 0;
        for device in devices.iter_mut().filter(|device| device.toml.contains(&placeholder)) {
            number += 1;
            device.toml = device.toml.replace(&placeholder, &format!("\"{prefix}{number}\""));
        }
    }
}

fn table(devices: &[Device], locale: Locale) -> String {
    if devices.is_empty() {
        let none = locale.pick(
            "没有找到串口、CAN 接口、读卡器或打印机；请插上设备后重试",
            "no serial port, CAN interface, reader or printer found; plug one in and try again",
        );
        return format!("{none}\n");
    }
    let mut out = String::new();
    for device in devices {
        let kind = match device.kind {
            Kind::Serial => locale.pick("串口", "serial port"),
            Kind::Can => locale.pick("CAN 接口", "CAN interface"),
            Kind::Pcsc => locale.pick("读卡器", "card reader"),
            Kind::Printer => locale.pick("打印机", "printer"),
        };
        out.push_str(&format!("{kind}  {}\n", device.name));
        if let Some(path) = &device.stable_path {
            out.push_str(&format!("  = {path}\n"));
        }
        if let Some(holder) = &device.held_by {
            out.push_str(&format!("  {} {holder}\n", locale.pick("占用：", "held by")));
        }
        for line in device.toml.lines() {
            out.push_str(&format!("    {line}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up `/dev` and `/sys/class`.
    fn roots(dir: &Path) -> Roots {
        let roots = Roots { dev: dir.join("dev"), sys_class: dir.join("sys") };
        for folder in
            ["dev/serial/by-id", "dev/usb", "sys/net/can0", "sys/net/eth0", "sys/tty/ttyS0", "sys/tty/ttyS1"]
        {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        for (file, text) in [
            ("dev/ttyUSB0", ""),
            ("dev/ttyACM0", ""),
            ("dev/ttyS0", ""),
            ("dev/ttyS1", ""),
            ("dev/tty1", ""),
            ("dev/usb/lp0", ""),
            ("sys/net/can0/type", "280\n"),
            ("sys/net/eth0/type", "1\n"),
            ("sys/tty/ttyS0/type", "4\n"),
            ("sys/tty/ttyS1/type", "0\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        std::os::unix::fs::symlink("../../ttyUSB0", dir.join("dev/serial/by-id/usb-1a86_USB_Serial-if00"))
            .unwrap();
        roots
    }

    #[test]
    fn what_is_plugged_in_with_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let devices = local(&roots(dir.path()));
        let short = |device: &Device| device.name.rsplit('/').next().unwrap_or_default().to_owned();
        let names: Vec<String> = devices.iter().map(short).collect();
        assert_eq!(names, ["ttyACM0", "ttyS0", "ttyUSB0", "can0", "lp0"]);
        let usb = &devices[2];
        assert!(usb.stable_path.as_deref().unwrap().ends_with("usb-1a86_USB_Serial-if00"));
        assert!(usb.toml.contains("by-id") && usb.toml.contains("\"bay-3\""), "{}", usb.toml);
        for locale in [Locale::ZhCn, Locale::En] {
            assert!(table(&devices, locale).contains("[[vehicle]]"));
        }
    }

    #[test]
    fn the_lines_are_a_valid_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let devices = local(&roots(dir.path()));
        let lines: Vec<&str> = devices.iter().map(|device| device.toml.as_str()).collect();
        let text =
            format!("[gateway]\nstore = \"S\"\nid = \"g\"\ndata_dir = \"/tmp/x\"\n{}", lines.join("\n"));
        let config = crate::config::parse("t.toml".as_ref(), &text).unwrap();
        assert_eq!((config.vehicles.len(), config.printers.len()), (4, 1));
    }

    #[test]
    fn reader_names_without_slot_numbers() {
        for (name, expected) in [
            ("ACS ACR122U PICC Interface 00 00", "ACS ACR122U PICC Interface"),
            ("Virtual PCD 00 01", "Virtual PCD"),
            ("Reader", "Reader"),
        ] {
            assert_eq!(model(name), expected);
        }
    }
}
