use proptest::prelude::*;

use super::*;
use crate::vehicle::protocol::EcuAddress;

fn report(change: impl FnOnce(&mut serde_json::Value)) -> VehicleReport {
    let mut report = serde_json::json!({
        "visit": "00000000-0000-0000-0000-000000000000", "vin_check": "ok", "link": "bay-1",
        "adapter": {"identity": "ELM327 v1.5", "firmware": null, "voltage_v": 12.4},
        "protocol": "iso15765-4-11bit-500k", "powertrain": "ice", "engine_running": false,
        "started_at": "2026-11-22T08:00:00.000Z", "duration_ms": 2140,
        "ecus": [{"address": "7E8", "name": "ECM", "mil": true, "dtc_count": 1,
            "dtcs": [{"code": "P0420", "state": ["confirmed"], "source": "obd", "status_raw": null}],
            "freeze_frames": [{"code": "P0420", "values": []}],
            "readiness": {"misfire": "complete", "catalyst": "incomplete", "evap": "unsupported"},
            "values": [{"pid": "010C", "name": "engine_speed", "value": 0.0, "unit": "rpm"}],
            "monitor_tests": [], "iupr": [], "calibration_ids": [], "cvns": []}],
        "distance_since_clear_km": 812, "assessable": false, "not_assessable_because": [],
        "inspection": {"ready": false, "blocking": []}, "errors": []
    });
    change(&mut report);
    serde_json::from_value(report).unwrap()
}

#[test]
fn it_may_be_asked_for_ten_minutes_after_a_report() {
    let saved = report(|_| {});
    let began = saved.started_at.0;
    for (name, later_ms, change, expected) in [
        ("at once", 0, "", Ok(())),
        ("in time", 600_000, "", Ok(())),
        ("late", 600_001, "", Err(Refusal::ReportOld)),
        ("the clock was set back", -1, "", Err(Refusal::ReportOld)),
        ("the engine ran", 1000, "runs", Err(Refusal::EngineRuns(812.5))),
    ] {
        let saved = report(|report| {
            if change == "runs" {
                report["ecus"][0]["values"][0]["value"] = 812.5.into();
            }
        });
        assert_eq!(may_ask(&saved, UtcMillis(began + later_ms)), expected, "{name}");
    }
}

#[test]
fn what_must_be_true_just_before() {
    let off = Before { volts: Some(12.4), rpm: vec![0.0], ..Before::default() };
    for (name, before, expected) in [
        ("engine off", off.clone(), Ok(())),
        ("no voltage pin", Before { volts: None, ..off.clone() }, Ok(())),
        ("a charger is connected", Before { volts: Some(14.2), ..off.clone() }, Ok(())),
        ("turning slowly", Before { rpm: vec![0.0, 0.25], ..off.clone() }, Err(Refusal::EngineRuns(0.25))),
        ("nobody tells", Before { rpm: vec![], ..off.clone() }, Err(Refusal::EngineUnknown)),
        (
            "an electric car",
            Before { rpm: vec![], powertrain: Powertrain::Bev, speed_km_h: Some(0.0), ..off.clone() },
            Ok(()),
        ),
        (
            "an electric car on its way",
            Before { rpm: vec![], powertrain: Powertrain::Bev, speed_km_h: Some(3.0), ..off.clone() },
            Err(Refusal::Moving(3.0)),
        ),
        ("a weak battery", Before { volts: Some(11.2), ..off.clone() }, Err(Refusal::BatteryLow(11.2))),
        (
            "a lithium battery that is nearly empty",
            Before { chemistry: Chemistry::Lfp, ..off },
            Err(Refusal::BatteryLow(12.4)),
        ),
    ] {
        assert_eq!(may_clear(&before), expected, "{name}");
    }
}

#[test]
fn what_is_lost_is_said_with_its_figures() {
    let text = what_is_lost(&report(|_| {}));
    for (words, told) in [
        (["1 code(s) (P0420)", "1 freeze frame", "1 completed readiness", "now 812 km"], &text.en),
        (["故障码 1 个(P0420)", "冻结帧 1 个", "监测 1 项", "现为 812 公里"], &text.zh),
    ] {
        for word in words {
            assert!(told.contains(word), "{word}: {told}");
        }
    }
    let many = report(|report| {
        let code = report["ecus"][0]["dtcs"][0].clone();
        let list = (0..14).map(|n| {
            let mut code = code.clone();
            code["code"] = format!("P03{n:02}").into();
            code
        });
        report["ecus"][0]["dtcs"] = list.collect();
    });
    assert!(what_is_lost(&many).en.contains("P0309) and 4 more"), "{}", what_is_lost(&many).en);
}

#[test]
fn which_service() {
    assert_eq!(way(&report(|_| {})), Way::Obd);
    assert_eq!(way(&report(|report| report["ecus"][0]["dtcs"][0]["source"] = "uds".into())), Way::Uds);
    assert_eq!(way(&report(|report| report["ecus"][0]["dtcs"] = serde_json::json!([]))), Way::Obd);
    assert_eq!(way(&report(|report| report["ecus"] = serde_json::json!([]))), Way::Uds);
}

proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Never "cleared" without a unit that said so.
    #[test]
    fn cleared_only_by_word(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..6), uds in any::<bool>()) {
        let way = if uds { Way::Uds } else { Way::Obd };
        let messages: Vec<Message> = payloads.into_iter().zip(0_u8..).map(|(payload, n)| {
            Message { sender: EcuAddress(format!("7E{n:X}")), payload }
        }).collect();
        let said_so = messages.iter().any(|m| m.payload.first() == Some(&(way.service() | 0x40)));
        let answer = ClearAnswer::sort(&Assembled { messages, broken: vec![] }, way, None);
        prop_assert_eq!(matches!(answer.outcome(), ClearOutcome::Cleared | ClearOutcome::Partly), said_so);
    }
}
