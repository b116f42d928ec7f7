use super::*;
use crate::clock::UtcMillis;
use crate::event::vehicle::{Adapter, Readiness, VinCheck};
use crate::vehicle::protocol::Protocol;
use uuid::Uuid;

pub(super) fn bundle() -> Bundle {
    Bundle::load(std::path::Path::new("firmware-protocols")).unwrap()
}

pub(super) fn record(told: &[(&str, &str, &str)]) -> ScanRecord {
    ScanRecord {
        visit: Uuid::nil(),
        link: "bay-1".parse().unwrap(),
        adapter: Adapter { identity: "ELM327 v1.5".into(), firmware: None, voltage_v: Some(12.6) },
        protocol: Protocol::Can11At500,
        started_at: UtcMillis(0),
        duration_ms: 1,
        told: told
            .iter()
            .map(|(request, ecu, payload)| Told {
                request: Request::parse(request).unwrap(),
                ecu: EcuAddress((*ecu).into()),
                payload: hex::decode(payload.replace(' ', "")).unwrap(),
            })
            .collect(),
        groups: crate::vehicle::j1939::Told::default(),
        errors: Vec::new(),
        broke_off: None,
    }
}

/// One ECU with nothing wrong: readiness complete, long since cleared.
pub(super) const HEALTHY: [(&str, &str, &str); 6] = [
    ("0100", "7E8", "41 00 BE 3E A8 13"),
    ("0101", "7E8", "41 01 00 07 65 00"),
    ("010C", "7E8", "41 0C 0C B2"),
    ("0130", "7E8", "41 30 28"),
    ("0131", "7E8", "41 31 03 2C"),
    ("03", "7E8", "43 00"),
];

#[test]
fn a_healthy_car_is_assessable() {
    let report = build(&record(&HEALTHY), &bundle());
    assert!(report.assessable, "{:?}", report.not_assessable_because);
    assert!(report.inspection.ready);
    assert_eq!(report.engine_running, Some(true));
    assert_eq!((report.warmups_since_clear, report.distance_since_clear_km), (Some(40), Some(812)));
    assert_eq!(report.powertrain, Powertrain::Ice);
    assert_eq!((report.vin, report.vin_check), (None, VinCheck::Missing));
    assert_eq!(report.odometer_km, None, "not given is absent, never zero");
    assert_eq!(report.ecus[0].readiness["catalyst"], Readiness::Complete);
    assert_eq!(report.ecus[0].readiness["secondary_air"], Readiness::Unsupported);
    assert_eq!(report.ecus[0].mil, Some(false));
}

#[test]
fn what_makes_a_car_not_assessable() {
    // (name, change: request and payload, reasons)
    for (name, request, payload, expected) in [
        ("few warm-ups", "0130", "41 30 01", &["codes-cleared-recently"][..]),
        ("few kilometres", "0131", "41 31 00 05", &["codes-cleared-recently"]),
        ("monitor incomplete", "0101", "41 01 00 07 65 01", &["monitor-incomplete:catalyst"]),
    ] {
        let mut told = HEALTHY.to_vec();
        told.iter_mut().filter(|t| t.0 == request).for_each(|t| t.2 = payload);
        let report = build(&record(&told), &bundle());
        assert_eq!(report.not_assessable_because, expected, "{name}");
        assert!(!report.assessable, "{name}");
    }
    let report = build(&record(&[("010C", "7E8", "41 0C 0C B2")]), &bundle());
    assert_eq!(report.not_assessable_because, ["readiness-unknown", "codes-unknown"]);
}

#[test]
fn codes_are_joined_over_the_lists_and_kept_by_ecu() {
    let mut told = HEALTHY.to_vec();
    told.retain(|t| t.0 != "03");
    told.extend([
        ("0101", "7E9", "41 01 00 04 00 00"),
        ("03", "7E8", "43 01 04 20"),
        ("03", "7E9", "43 00"),
        ("07", "7E8", "47 02 04 20 03 01"),
        ("07", "7E9", "47 01 07 00"),
        ("0A", "7E8", "4A 01 04 20"),
        ("020200", "7E8", "42 02 00 04 20"),
        ("020C00", "7E8", "42 0C 00 25 80"),
    ]);
    let report = build(&record(&told), &bundle());
    let engine = &report.ecus[0];
    let listed: Vec<_> = engine.dtcs.iter().map(|dtc| (dtc.code.as_str(), dtc.state.clone())).collect();
    use DtcState::{Confirmed, Pending, Permanent};
    assert_eq!(listed, [("P0301", vec![Pending]), ("P0420", vec![Confirmed, Pending, Permanent])]);
    assert!(engine.dtcs[1].text.is_some());
    assert_eq!(report.ecus[1].dtcs[0].code, "P0700");
    assert_eq!(engine.freeze_frames[0].code, "P0420");
    let frozen = &engine.freeze_frames[0].values[0];
    assert_eq!((frozen.pid.as_str(), frozen.value.as_f64()), ("020C", Some(2400.0)));
    assert_eq!(report.inspection.blocking, ["dtc-confirmed", "dtc-permanent"]);
}

#[test]
fn what_this_cycle_uds_and_controls_add() {
    let mut told = HEALTHY.to_vec();
    told.extend([
        ("07", "7E8", "47 01 04 20"),
        ("0141", "7E8", "41 41 00 07 65 04"),
        ("19020D", "7E8", "59 02 FF 04 20 11 08 92 34 13 08"),
        ("19020D", "7E9", "59 02 FF"),
    ]);
    let mut record = record(&told);
    for (base, payload) in [(0x00, "48 00 80 00 00 01"), (0x20, "48 20 40 00 00 00")] {
        let request = Request::control_support(base).unwrap();
        let payload = hex::decode(payload.replace(' ', "")).unwrap();
        record.told.push(Told { request, ecu: EcuAddress("7E8".into()), payload });
    }
    let report = build(&record, &bundle());
    let engine = &report.ecus[0];
    assert_eq!(engine.controls, ["01", "22"]);
    assert_eq!(engine.readiness_this_cycle["evap"], Readiness::Incomplete);
    assert_eq!(engine.readiness["evap"], Readiness::Complete);
    use DtcState::{Confirmed, Pending};
    let listed: Vec<_> =
        engine.dtcs.iter().map(|c| (c.code.as_str(), c.source.as_str(), c.state.clone())).collect();
    assert_eq!(listed, [("P0420", "obd", vec![Confirmed, Pending]), ("B1234", "uds", vec![Confirmed])]);
    // The check reads P0420 as J1979 and UDS together have it, and B1234 not at all.
    assert_eq!(report.inspection.blocking, ["dtc-confirmed"]);
    record.told.retain(|told| told.payload != [0x47, 0x01, 0x04, 0x20]);
    assert_eq!(build(&record, &bundle()).inspection.blocking, [""; 0]);
}

#[test]
fn a_report_always_fits_an_event() {
    let codes: String = (1..=255_u16).map(|n| format!("{:04X}", 0x0300 + n)).collect();
    let payload = format!("43FF{codes}");
    let mut told = HEALTHY.to_vec();
    let ecus = ["7E8", "7E9", "7EA", "7EB", "7EC", "7ED", "7EE", "7EF"];
    told.extend(ecus.map(|ecu| ("03", ecu, payload.as_str())));
    let report = build(&record(&told), &bundle());
    assert!(serde_json::to_vec(&report).unwrap().len() < crate::event::MAX_EVENT_BYTES);
    assert!(report.errors.iter().any(|error| error.error.contains("too large")));
}

#[test]
fn what_drives_the_car_without_its_fuel_type() {
    // (masks: 0C is bit 0x00100000 of the first, 5B bit 0x20 of the third; expected)
    for (first, third, expected) in [
        ("41 00 00 10 00 01", "41 40 00 00 00 00", Powertrain::Ice),
        ("41 00 00 10 00 01", "41 40 00 00 00 20", Powertrain::Hybrid),
        ("41 00 00 00 00 01", "41 40 00 00 00 20", Powertrain::Bev),
        ("41 00 00 00 00 01", "41 40 00 00 00 00", Powertrain::Unknown),
    ] {
        let told = [("0100", "7E8", first), ("0120", "7E8", "41 20 00 00 00 01"), ("0140", "7E8", third)];
        let report = build(&record(&told), &bundle());
        assert_eq!(report.powertrain, expected, "{first} {third}");
        assert_eq!(report.engine_running, None, "no engine speed was given");
    }
}

#[test]
fn every_freeze_frame_stands_with_its_own_code_and_values() {
    let mut told = HEALTHY.to_vec();
    told.retain(|t| t.0 != "03");
    told.extend([
        ("03", "7E8", "43 02 04 20 03 01"),
        ("020200", "7E8", "42 02 00 04 20"),
        ("020C00", "7E8", "42 0C 00 25 80"),
        ("020201", "7E8", "42 02 01 03 01"),
        ("020C01", "7E8", "42 0C 01 0C B2"),
        ("020202", "7E8", "42 02 02 00 00"),
        // Another unit has a frame 1 too, and a late answer to frame 0 is not frame 2.
        ("020201", "7E9", "42 02 01 07 00"),
        ("020202", "7E9", "42 02 00 07 00"),
    ]);
    let record = record(&told);
    let report = build(&record, &bundle());
    let frames = |ecu: usize| -> Vec<(&str, Option<f64>)> {
        let frames = report.ecus[ecu].freeze_frames.iter();
        frames.map(|f| (f.code.as_str(), f.values.first().and_then(|v| v.value.as_f64()))).collect()
    };
    assert_eq!(frames(0), [("P0420", Some(2400.0)), ("P0301", Some(812.5))]);
    assert_eq!(frames(1), [("P0700", None)]);
}

#[test]
fn what_the_annual_check_would_say() {
    type Change<'a> = (&'a str, &'a str);
    type Case<'a> = (&'a str, &'a [Change<'a>], &'a [&'a str], &'a [&'a str]);
    let all_done = ("0101", "41 01 00 07 65 00");
    // (name, changed answers, what blocks, what is only noted besides the missing calibration)
    let cases: [Case<'_>; 7] = [
        ("healthy", &[all_done], &[], &[]),
        (
            "lamp and code",
            &[("0101", "41 01 81 07 65 00"), ("03", "43 01 04 20")],
            &["mil-on", "dtc-confirmed"],
            &[],
        ),
        ("pending", &[("07", "47 01 04 20")], &[], &["dtc-pending"]),
        ("permanent", &[("0A", "4A 01 04 20")], &["dtc-permanent"], &[]),
        (
            "two incomplete pass",
            &[("0101", "41 01 00 07 65 05")],
            &[],
            &["monitor-incomplete:catalyst", "monitor-incomplete:evap"],
        ),
        (
            "three do not",
            &[("0101", "41 01 00 07 65 25")],
            &["monitor-incomplete:catalyst", "monitor-incomplete:evap", "monitor-incomplete:oxygen_sensor"],
            &[],
        ),
        ("cleared a moment ago", &[("0130", "41 30 00")], &[], &["codes-cleared-recently"]),
    ];
    for (name, changes, blocking, notes) in cases {
        let mut told = HEALTHY.to_vec();
        for (request, payload) in changes {
            told.retain(|t| t.0 != *request);
            told.push((request, "7E8", payload));
        }
        let inspection = build(&record(&told), &bundle()).inspection;
        assert_eq!(inspection.blocking, blocking, "{name}");
        assert_eq!(inspection.ready, blocking.is_empty(), "{name}");
        let noted: Vec<&str> =
            inspection.notes.iter().map(String::as_str).filter(|note| !note.ends_with("-unknown")).collect();
        assert_eq!(noted, notes, "{name}");
    }
    let mut nothing = record(&[("010C", "7E8", "41 0C 0C B2")]);
    nothing.broke_off = Some("car-silent".into());
    let report = build(&nothing, &bundle());
    assert_eq!(report.inspection.blocking, ["communication-failed", "readiness-unknown", "codes-unknown"]);
    assert_eq!(report.not_assessable_because, ["readiness-unknown", "codes-unknown", "scan-incomplete"]);
}

/// An adapter that is gone before the last list of codes was read promises nobody a pass.
#[test]
fn a_scan_that_broke_off_early_foretells_no_pass() {
    let of = |request: &str, error: &str| RequestError { request: request.into(), error: error.into() };
    for (name, told, errors, blocks) in [
        ("before the last list", None, vec![], true),
        ("in the middle of it", None, vec![of("0A", "adapter-gone")], true),
        ("behind it", Some(("0A", "7E8", "4A 00")), vec![], false),
        ("a car without one", None, vec![of("0A", "no data"), of("0906", "adapter-gone")], false),
    ] {
        let mut record = record(&HEALTHY);
        record.told.extend(self::record(told.as_slice()).told);
        (record.errors, record.broke_off) = (errors, Some("adapter-gone".into()));
        let inspection = build(&record, &bundle()).inspection;
        assert_eq!(inspection.ready, !blocks, "{name}");
        let list = if blocks { &inspection.blocking } else { &inspection.notes };
        assert!(list.contains(&"scan-incomplete".to_owned()), "{name}: {inspection:?}");
    }
}

/// `docs/inspection.md`, row by row: engines that burn petrol and diesel, cars that burn nothing, and
/// the edges of what counts.
#[test]
fn the_annual_check_by_drive_by_unit_and_at_its_edges() {
    type Answer<'a> = (&'a str, &'a str, &'a str);
    type Case<'a> = (&'a str, &'a [Answer<'a>], &'a [&'a str], &'a [&'a str]);
    const DIESEL: [&str; 3] = [
        "monitor-incomplete:nmhc_catalyst",
        "monitor-incomplete:nox_aftertreatment",
        "monitor-incomplete:particulate_filter",
    ];
    const PETROL: [&str; 3] = [
        "monitor-incomplete:catalyst",
        "monitor-incomplete:heated_catalyst",
        "monitor-incomplete:oxygen_sensor_heater",
    ];
    let weak: [Answer<'_>; 2] = [("0101", "7E8", "41 01 81 07 65 25"), ("03", "7E8", "43 01 0A 9B")];
    // (name, changed or further answers, what blocks, what is only noted)
    let cases: [Case<'_>; 17] = [
        ("diesel, done", &[("0101", "7E8", "41 01 00 0F EB 00")], &[], &[]),
        ("diesel, two to go", &[("0101", "7E8", "41 01 00 0F EB 41")], &[], &[DIESEL[0], DIESEL[2]]),
        ("diesel, three to go", &[("0101", "7E8", "41 01 00 0F EB 43")], &DIESEL, &[]),
        ("the same bits of a petrol engine", &[("0101", "7E8", "41 01 00 07 EB 43")], &PETROL, &[]),
        ("what the car does not have", &[("0101", "7E8", "41 01 00 07 65 1A")], &[], &[]),
        (
            "continuous ones count too",
            &[("0101", "7E8", "41 01 00 77 65 00")],
            &[
                "monitor-incomplete:components",
                "monitor-incomplete:fuel_system",
                "monitor-incomplete:misfire",
            ],
            &[],
        ),
        (
            "the same monitor of two units counts once",
            &[("0101", "7E8", "41 01 00 07 65 05"), ("0101", "7E9", "41 01 00 04 01 01")],
            &[],
            &["monitor-incomplete:catalyst", "monitor-incomplete:evap"],
        ),
        (
            "two of one unit and one of another",
            &[("0101", "7E8", "41 01 00 07 65 05"), ("0101", "7E9", "41 01 00 44 00 00")],
            &["monitor-incomplete:catalyst", "monitor-incomplete:components", "monitor-incomplete:evap"],
            &[],
        ),
        ("the gearbox's lamp", &[("0101", "7E9", "41 01 80 04 00 00")], &["mil-on"], &[]),
        (
            "the gearbox's codes",
            &[("03", "7E9", "43 01 07 00"), ("07", "7E9", "47 01 07 00"), ("0A", "7E9", "4A 01 07 00")],
            &["dtc-confirmed", "dtc-permanent"],
            &["dtc-pending"],
        ),
        ("49 km", &[("0131", "7E8", "41 31 00 31")], &[], &["codes-cleared-recently"]),
        ("50 km", &[("0131", "7E8", "41 31 00 32")], &[], &[]),
        ("2 warm-ups", &[("0130", "7E8", "41 30 02")], &[], &["codes-cleared-recently"]),
        ("59 min", &[("014E", "7E8", "41 4E 00 3B")], &[], &["codes-cleared-recently"]),
        ("60 min, 3 warm-ups", &[("014E", "7E8", "41 4E 00 3C"), ("0130", "7E8", "41 30 03")], &[], &[]),
        (
            "a hybrid is checked",
            &[weak[0], weak[1], ("0151", "7E8", "41 51 11")],
            &[
                "mil-on",
                "dtc-confirmed",
                "monitor-incomplete:catalyst",
                "monitor-incomplete:evap",
                "monitor-incomplete:oxygen_sensor",
            ],
            &[],
        ),
        (
            "a battery car is not",
            &[weak[0], weak[1], ("0151", "7E8", "41 51 08")],
            &[],
            &[
                "no-emission-check",
                "mil-on",
                "dtc-confirmed",
                "monitor-incomplete:catalyst",
                "monitor-incomplete:evap",
                "monitor-incomplete:oxygen_sensor",
            ],
        ),
    ];
    for (name, answers, blocking, notes) in cases {
        let mut told = HEALTHY.to_vec();
        for (request, ecu, _) in answers {
            told.retain(|t| (t.0, t.1) != (*request, *ecu));
        }
        told.extend(answers);
        let inspection = build(&record(&told), &bundle()).inspection;
        assert_eq!(inspection.blocking, blocking, "{name}");
        assert_eq!(inspection.ready, blocking.is_empty(), "{name}");
        let noted: Vec<&str> =
            inspection.notes.iter().map(String::as_str).filter(|note| !note.ends_with("-unknown")).collect();
        assert_eq!(noted, notes, "{name}");
    }
}

#[test]
fn software_that_is_not_what_it_says() {
    let with = |id: &str, cvn: &str| {
        let mut report = build(&record(&HEALTHY), &bundle());
        report.ecus[0].calibration_ids = vec![id.into()];
        report.ecus[0].cvns = vec![cvn.into()];
        report
    };
    // (id and CVN now, before: A and 11111111; what blocks, what is noted)
    for (id, cvn, blocks, noted) in [
        ("A", "11111111", None, None),
        ("A", "22222222", Some("cvn-changed:7E8"), None),
        ("B", "22222222", None, Some("calibration-changed:7E8")),
    ] {
        let mut report = with(id, cvn);
        inspection::compare_calibrations(&with("A", "11111111").ecus, &mut report);
        assert_eq!(report.inspection.blocking.first().map(String::as_str), blocks, "{id} {cvn}");
        assert_eq!(report.inspection.ready, blocks.is_none());
        let changed = report.inspection.notes.iter().find(|note| note.starts_with("calibration-changed"));
        assert_eq!(changed.map(String::as_str), noted, "{id} {cvn}");
    }
    let mut report = with("A", "22222222");
    report.powertrain = Powertrain::Bev;
    inspection::compare_calibrations(&with("A", "11111111").ecus, &mut report);
    assert!(report.inspection.ready && report.inspection.notes.contains(&"cvn-changed:7E8".into()));
}
