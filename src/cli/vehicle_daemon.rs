//! `scan` and `watch` of a configured link: the daemon owns it, so it is asked.

use std::io::IsTerminal;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, interval, sleep};

use super::report::{figure, with_unit};
use super::scan::spinner;
use super::watch::{Shown, signal_name, wanted_to_end};
use super::{Exit, Global, daemon};
use crate::api::client::{Client, ClientError, Method};
use crate::api::sse::SseEvent;
use crate::config::values::Locale;
use crate::event::vehicle::SignalWindow;
use crate::ident::DeviceId;
use crate::protocols::Bundle;
use crate::vehicle::telemetry::LIVE_PIDS;

/// A scan that the daemon could not answer at once is followed so long.
const FOLLOW: Duration = Duration::from_secs(120);
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Windows of 10 s in a row without what is sampled: twice the longest pause of a car that stands.
const MOST_PASSED: usize = 60;
/// Of the picture of `watch`.
const REDRAW: Duration = Duration::from_secs(1);

/// Asks the daemon for a scan: the report with its warnings, or the exit status when there
/// is none, the reason being told.
pub(super) async fn scan(id: &DeviceId, global: &Global) -> Result<Value, Exit> {
    let words =
        format!("{id} · {}", global.language().pick("守护进程正在读取车辆", "the daemon reads the car"));
    let bar = spinner(words);
    let asked = async {
        let client = daemon::connect(global).await?;
        Ok(ask(&client, id, global.language()).await?)
    };
    let asked = asked.await;
    bar.finish_and_clear();
    asked.map_err(|error| refused(&error))
}

async fn ask(client: &Client, id: &DeviceId, locale: Locale) -> Result<Value, ClientError> {
    let answer = client.request(Method::POST, &format!("/v1/vehicles/{id}/scan"), None).await?;
    let Some(location) = answer.location.clone().filter(|_| answer.status == 202) else {
        return answer.accepted();
    };
    let until = Instant::now() + FOLLOW;
    loop {
        let row = client.request(Method::GET, &location, None).await?.accepted()?;
        let outcome = row.get("outcome").cloned().unwrap_or_default();
        match row.get("state").and_then(Value::as_str) {
            Some("done") => return Ok(outcome),
            Some("failed") => return Err(failed(&outcome, locale)),
            _ if Instant::now() >= until => {
                return Err(ClientError::Refused {
                    status: 504,
                    code: "scan-slow".into(),
                    detail: format!("the scan takes longer than {} s; look at {location}", FOLLOW.as_secs()),
                });
            }
            _ => sleep(FOLLOW_EVERY).await,
        }
    }
}

fn failed(outcome: &Value, locale: Locale) -> ClientError {
    let text = |pointer: &str| outcome.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    ClientError::Refused {
        status: 502,
        code: text("/code").unwrap_or_else(|| "device-failed".into()),
        detail: text(locale.pick("/text/zh", "/text/en"))
            .unwrap_or_else(|| "the vehicle link could not do it".into()),
    }
}

/// What the car or the adapter could not do is the device's exit status; a link that sends nothing by
/// configuration is policy.
fn refused(error: &anyhow::Error) -> Exit {
    let usual = daemon::report(error);
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { code, .. }) if code == "listen-only" => Exit::Refused,
        Some(ClientError::Refused { status: 502 | 504, .. }) => Exit::Device,
        _ => usual,
    }
}

/// Prints the telemetry windows of a configured link as they are committed: the signals
/// that are `wanted`, all when that is empty.
///
/// # Errors
/// Only when a window cannot be printed.
pub(super) async fn watch(
    id: &DeviceId,
    rounds: Option<u64>,
    wanted: &[String],
    bundle: &Bundle,
    global: &Global,
) -> anyhow::Result<Exit> {
    let opened = async {
        let client = daemon::connect(global).await?;
        Ok(client.events("class=telemetry").await?)
    };
    let events = match opened.await {
        Ok(events) => events,
        Err(error) => return Ok(refused(&error)),
    };
    let zh = format!("{id} 由守护进程轮询，约每 10 秒一组数据；没有车时没有数据，按 Ctrl-C 结束");
    let en =
        format!("{id} is polled by the daemon: values about every 10 s, none without a car; Ctrl-C ends");
    let waiting = global.language().pick(&zh, &en);
    let mut shown = Shown::begin(id.to_string(), waiting, global);
    if !global.json && shown.screen.is_none() && std::io::stderr().is_terminal() {
        eprintln!("{waiting}");
    }
    let followed = follow(id, rounds, wanted, bundle, global, events, &mut shown).await;
    // The terminal is given back before anything is said on it.
    shown.end(bundle);
    match followed {
        Ok(()) => Ok(Exit::Done),
        Err(Stopped::Refused(error)) => Ok(refused(&error)),
        Err(Stopped::NotPolled) => {
            let zh = format!("{id} 的轮询中没有 {}；守护进程只轮询部分 PID", wanted.join("、"));
            let en =
                format!("{id} is not polled for {}; the daemon chooses what it polls", wanted.join(", "));
            eprintln!("{}", global.language().pick(&zh, &en));
            Ok(Exit::Failed)
        }
    }
}

enum Stopped {
    Refused(anyhow::Error),
    /// The windows have none of the wanted signals.
    NotPolled,
}

async fn follow(
    id: &DeviceId,
    rounds: Option<u64>,
    wanted: &[String],
    bundle: &Bundle,
    global: &Global,
    events: impl Stream<Item = Result<SseEvent, ClientError>>,
    shown: &mut Shown,
) -> Result<(), Stopped> {
    tokio::pin!(events);
    let (mut printed, mut passed) = (0, 0);
    let most_passed = if is_sampled(wanted, bundle) { MOST_PASSED } else { 0 };
    let ending = wanted_to_end(shown.screen.is_some());
    tokio::pin!(ending);
    // The clock goes on between two windows, and the picture follows the terminal's size.
    let mut redraw = interval(REDRAW);
    while rounds.is_none_or(|rounds| printed < rounds) {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut ending => return Ok(()),
            _ = redraw.tick() => match shown.draw(bundle) {
                Ok(()) => continue,
                Err(_) => return Ok(()),
            },
        };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(Stopped::Refused(error.into())),
            None => return Ok(()),
        };
        let envelope: Value = serde_json::from_str(&event.data).unwrap_or_default();
        let Some(data) = envelope.get("data").filter(|data| data["link"] == id.as_str()) else { continue };
        let data = match only(data, wanted) {
            Some(data) => data,
            // In this window the car was not asked, or said nothing; or it is another part of the window.
            None if passed < most_passed => {
                passed += 1;
                continue;
            }
            None => return Err(Stopped::NotPolled),
        };
        passed = 0;
        if shown.screen.is_some() {
            let signals: Vec<SignalWindow> =
                serde_json::from_value(data.get("signals").cloned().unwrap_or_default()).unwrap_or_default();
            if shown.window(&signals, bundle).is_err() {
                return Ok(());
            }
        } else {
            print_window(&data, bundle, global);
        }
        printed += 1;
    }
    Ok(())
}

/// Whether one of the wanted signals is what cars are asked for, now and then.
fn is_sampled(wanted: &[String], bundle: &Bundle) -> bool {
    let rows = LIVE_PIDS.iter().filter_map(|pid| bundle.pids.get(0x01, *pid));
    rows.flat_map(|row| &row.signals).any(|signal| wanted.contains(&signal.name))
}

/// The window with the wanted signals alone; nothing when it has none of them.
fn only(data: &Value, wanted: &[String]) -> Option<Value> {
    let mut data = data.clone();
    let signals = data.get_mut("signals")?.as_array_mut()?;
    signals.retain(|signal| {
        wanted.is_empty() || wanted.iter().any(|name| signal["name"].as_str() == Some(name))
    });
    (wanted.is_empty() || !signals.is_empty()).then_some(data)
}

fn print_window(data: &Value, bundle: &Bundle, global: &Global) {
    if global.json {
        println!("{data}");
        return;
    }
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("").to_owned();
    let signals = data["signals"].as_array().cloned().unwrap_or_default();
    let shown: Vec<String> = signals
        .iter()
        .map(|signal| {
            let name = signal_name(bundle, "", &text(signal, "name"), global.language());
            format!("{name} {}", with_unit(&figure(&signal["last"]), &text(signal, "unit")))
        })
        .collect();
    println!("{}  {}", text(data, "to"), shown.join(" · "));
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use serde_json::json;

    use super::*;

    /// A window of an engine that is off, or one half of a large window, ends nothing.
    #[tokio::test]
    async fn a_window_without_what_is_wanted_is_passed_by() {
        let bundle = Bundle::load(std::path::Path::new("firmware-protocols")).unwrap();
        let global = Global { config: "none.toml".into(), json: true, locale: Some(Locale::En) };
        let window = |signal: &str| {
            let data = json!({"data": {"link": "bay-1", "signals": [{"name": signal, "last": 1}]}});
            Ok(SseEvent { data: data.to_string(), ..SseEvent::default() })
        };
        let never = ["Body.Door"; MOST_PASSED + 1];
        for (wanted, signals, not_polled) in [
            ("engine_speed", &["Body.Door", "engine_speed"][..], false),
            ("engine_speed", &never[1..], false),
            ("engine_speed", &never, true),
            ("fuel_level", &["engine_speed"], true),
            ("Body.Door", &["Body.Door"], false),
        ] {
            let id: DeviceId = "bay-1".parse().unwrap();
            let mut shown = Shown::begin("bay-1".into(), "", &global);
            let events = stream::iter(signals.iter().map(|signal| window(signal)));
            let wanted = [wanted.to_owned()];
            let followed = follow(&id, Some(1), &wanted, &bundle, &global, events, &mut shown).await;
            assert_eq!(matches!(followed, Err(Stopped::NotPolled)), not_polled, "{wanted:?} {signals:?}");
            assert!(not_polled || followed.is_ok());
        }
    }
}
