//! Adapters that do all they can to be sent something else, and adapters whose rate is not known.

use std::sync::Arc;
use std::time::Duration;

use baygate::config::tables::Poll;

use super::list::judge;
use super::vehicle_bay::dongle::{Dongle, good};
use super::vehicle_bay::{Bay, open_store};

/// Adapters that do all they can to be sent something else.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_adapters() {
    type Script = fn(&str) -> Vec<u8>;
    let scripts: [(&str, Script); 9] = [
        ("says nothing", |_| Vec::new()),
        ("garbage", |_| vec![0xFE, 0x81, b'\r', 0x99]),
        ("? to everything", |_| b"?\r\r>".to_vec()),
        ("echoes and stops", |command| format!("{command}\rSTOPPED\r\r>").into_bytes()),
        ("restarts at every request", |command| match command.as_bytes() {
            [b'0', ..] => b"\r\rELM327 v1.5\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("asks to wait for ever", |command| match command.as_bytes() {
            [b'0', _, ..] => b"7E8037F0178\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("names itself after commands", |command| match command {
            "ATI" | "AT@1" | "STDI" => b"04\r14FFFFFF\rATPP0CSV23\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("promises every PID and every code", |command| match command {
            c if c.starts_with("01") && c.len() <= 5 => {
                format!("7E80641{}FFFFFFFF\r\r>", &c[2..4]).into_bytes()
            }
            c if c.starts_with("09") => {
                b"7E8101449020130340D303400\r7E8210D30340D30340D\r7E82230340D30340D30\r\r>".to_vec()
            }
            "03" | "07" | "0A" => b"7E8064302FFFF0404\r\r>".to_vec(),
            _ => good(command).into_bytes(),
        }),
        ("half a reply, then silence", |command| match command {
            "0100" => b"7E806".to_vec(),
            _ => good(command).into_bytes(),
        }),
    ];
    let mut jobs = Vec::new();
    for (name, script) in scripts {
        jobs.push(tokio::spawn(async move {
            let dir = tempfile::tempdir().unwrap();
            let store = open_store(dir.path());
            let dongle = Dongle::on_tcp(Arc::new(script)).await;
            let bay = Bay::start(&store, "bay-1", &dongle.link, Poll::Auto);
            // Whether a scan ends well with such an adapter is another test's business.
            let _ = tokio::time::timeout(Duration::from_secs(15), bay.scan()).await;
            bay.stop().await;
            let heard = dongle.heard.lock().unwrap().clone();
            assert!(!heard.is_empty(), "{name}");
            assert_eq!(judge(name, &heard), [""; 0]);
        }));
    }
    for job in jobs {
        job.await.unwrap();
    }
}

/// The search for the rate writes to an adapter that reads something else, and answers nonsense.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_searched_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    // The last but one that is tried.
    let answers = Arc::new(|command: &str| good(command).into_bytes());
    let dongle = Dongle::on_pty_at(57_600, dir.path(), answers);
    let (link, _) = dongle.link.split_once('?').unwrap();
    let bay = Bay::start(&store, "bay-1", link, Poll::Auto);
    bay.nth("vehicle.report", 1).await;
    bay.stop().await;
    let heard = dongle.heard.lock().unwrap().clone();
    assert_eq!(judge("a rate that is searched for", &heard), [""; 0]);
}
