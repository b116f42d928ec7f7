//! The shipped rules hold what their vectors say; a bad rule file is refused with
//! its place; a rule that runs away is stopped and disturbs no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use baygate::clock::UtcMillis;
use baygate::event::vehicle::{DtcState, Powertrain, RequestError};
use baygate::maintenance::{Evaluation, FailureKind, Limits, Rules, evaluate, verify_vectors};

mod reports;
use reports::{dtc, report, value};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules")
}

fn raised(evaluation: &Evaluation) -> Vec<&str> {
    evaluation.raised.iter().map(|raised| raised.rule.as_str()).collect()
}

#[test]
fn the_shipped_rules_load_and_their_vectors_pass() {
    let rules = Rules::load(&shipped()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>());
    });
    assert!(rules.len() >= 20, "{}", rules.len());
    assert!(verify_vectors(&rules).unwrap() >= rules.len() * 3);
    for id in [
        "dtc-confirmed",
        "dtc-pending",
        "dtc-permanent",
        "codes-cleared-recently",
        "battery-low",
        "battery-critical",
        "charging-low",
        "coolant-overheat",
        "thermostat",
        "fuel-trim-long-bank-1",
        "misfire",
        "catalyst",
    ] {
        assert!(rules.iter().any(|rule| rule.id == id), "{id}");
    }
}

#[test]
fn every_shipped_text_is_there_in_both_languages_and_in_its_language() {
    for rule in Rules::load(&shipped()).unwrap().iter() {
        for text in [&rule.title, &rule.advice] {
            let chinese = |text: &str| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(chinese(&text.zh), "{}: {}", rule.id, text.zh);
            assert!(!text.en.trim().is_empty() && !chinese(&text.en), "{}: {}", rule.id, text.en);
        }
    }
}

#[test]
fn a_report_gives_warnings_with_evidence_and_filled_texts() {
    let rules = Rules::load(&shipped()).unwrap();
    let mut car = report();
    car.ecus[0].dtcs =
        vec![dtc("P0420", &[DtcState::Confirmed, DtcState::Permanent]), dtc("P0171", &[DtcState::Pending])];
    car.ecus[0].values = vec![
        value("fuel_system_1_status", "closed-loop"),
        value("coolant_temperature", 121.0),
        value("long_fuel_trim_bank_1", 18.75),
        value("control_module_voltage", 14.1),
    ];
    let evaluation = evaluate(&rules, &car, UtcMillis(7));
    assert_eq!(evaluation.failures, []);
    assert_eq!(
        raised(&evaluation),
        [
            "dtc-confirmed",
            "dtc-pending",
            "dtc-permanent",
            "catalyst",
            "mixture-codes",
            "coolant-overheat",
            "fuel-trim-long-bank-1"
        ]
    );
    let hot = evaluation.raised.iter().find(|raised| raised.rule == "coolant-overheat").unwrap();
    assert_eq!(hot.title.en, "Coolant is too hot: 121 °C");
    assert_eq!(hot.title.zh, "冷却液温度过高：121 °C");
    // The engine speed was not given: it is left out of the evidence.
    assert_eq!(hot.evidence.len(), 1);
    assert_eq!((hot.evidence[0].value.as_f64(), hot.evidence[0].time), (Some(121.0), UtcMillis(7)));
    assert!(evaluation.cleared.contains(&"charging-low".to_owned()));
    assert!(
        evaluation
            .unknown
            .iter()
            .any(|unknown| unknown.rule == "fuel-level-low" && unknown.why.contains("fuel_level"))
    );
}

#[test]
fn what_the_car_did_not_tell_neither_raises_nor_clears() {
    let rules = Rules::load(&shipped()).unwrap();
    let mut silent = report();
    silent.ecus.clear();
    silent.adapter.voltage_v = None;
    silent.engine_running = None;
    silent.powertrain = Powertrain::Unknown;
    silent.distance_since_clear_km = None;
    silent.warmups_since_clear = None;
    silent.time_since_clear_min = None;
    let evaluation = evaluate(&rules, &silent, UtcMillis(0));
    assert_eq!(raised(&evaluation), [""; 0]);
    assert_eq!((evaluation.cleared.len(), evaluation.failures.len()), (0, 0));
    assert_eq!(evaluation.unknown.len(), rules.len());

    // An ECU that refused service 03 has not told that it has no codes.
    let mut refused = report();
    refused.errors = vec![RequestError { request: "03".into(), error: "no data".into() }];
    let evaluation = evaluate(&rules, &refused, UtcMillis(0));
    assert!(!evaluation.cleared.contains(&"dtc-confirmed".to_owned()));
    assert!(evaluation.cleared.contains(&"dtc-pending".to_owned()));
}

/// A file with one rule, `when` as given.
fn one_rule(id: &str, when: &str) -> String {
    format!(
        r#"[[rule]]
id = "{id}"
version = 1
severity = "info"
confidence = "measured"
title = {{ zh = "测试", en = "Test {{x}}" }}
advice = {{ zh = "测试", en = "Test" }}
when = '{when}'
[[rule.evidence]]
name = "x"
value = 'car.x'
[[rule.vector]]
expect = "raise"
car = {{ x = 2 }}
[[rule.vector]]
expect = "clear"
car = {{ x = 0 }}
[[rule.vector]]
expect = "unknown"
car = {{ y = 0 }}
"#
    )
}

fn parse(text: &str) -> Result<Rules, Vec<String>> {
    Rules::parse(&[("rules/test.toml".into(), text.to_owned())])
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[test]
fn a_bad_rule_says_where_and_what_to_do() {
    let good = one_rule("test", "car.x > 1");
    assert!(parse(&good).is_ok());
    for (from, to, place, hint) in [
        ("car.x > 1", "car.x >", "test.toml:8:16: expression", "asks `car`"),
        ("car.x > 1", "loop { }", "test.toml:8:9: expression", "loops"),
        ("car.x > 1", "eval(\"1\")", "test.toml:8:9: expression", "functions are not part"),
        ("car.x > 1", "if car.x > 1 { true } else { false }", "test.toml:8:9: expression", ""),
        ("'car.x > 1'", "\"\"\"\ncar.x\n  > ;\"\"\"", "test.toml:10:5: expression", ""),
        (
            "car.x > 1",
            "car.z > 1",
            "test.toml:12:1: rule \"test\" gives unknown (the car did not tell z)",
            "pids.toml",
        ),
        ("car.x > 1", "car.x", "gives fails (expression-wrong: gives 2", "correct the rule"),
        ("car.x > 1", "car.hass(\"x\")", "expression-wrong: Function not found: hass", ""),
        ("car.x > 1", "car.count(\"confirmd\") > 0", "\"confirmd\" is no list of codes", ""),
        (
            "severity = \"info\"",
            "severity = \"urgent\"",
            "test.toml:4:12: unknown variant `urgent`",
            "known here: info, advise, soon, stop",
        ),
        ("confidence =", "confidense =", "unknown field `confidense`", "did you mean `confidence`?"),
        ("id = \"test\"", "id = \"Test!\"", "test.toml:2:6: rule id \"Test!\" is not valid", "a-z"),
        (
            "zh = \"测试\", en = \"Test {x}\"",
            "zh = \"\", en = \"Test {x}\"",
            "test.toml:6:9: a text is empty",
            "both zh and en",
        ),
        ("Test {x}", "Test {y}", "{y} is not evidence", "[[rule.evidence]]"),
        (
            "expect = \"clear\"",
            "expect = \"raise\"",
            "has no vector that expects \"clear\"",
            "one that clears",
        ),
        ("car = { x = 2 }", "car = { x = [2] }", "neither number, text nor truth", ""),
        ("[[rule]]", "[[rule", "test.toml:1:", ""),
    ] {
        assert!(good.contains(from), "{from}");
        let errors = parse(&good.replacen(from, to, 1)).unwrap_err();
        assert!(
            errors.iter().any(|error| error.starts_with("rules/test.toml:")
                && error.contains(place)
                && error.contains(hint)),
            "{from} -> {to}: {errors:#?}"
        );
    }
    let twice = parse(&format!("{good}{good}")).unwrap_err();
    assert!(
        twice.iter().any(|error| error.contains("test.toml:22:6: rule \"test\" stands twice")),
        "{twice:?}"
    );
}

#[test]
fn a_folder_is_refused_as_a_whole_with_every_error() {
    let dir = tempfile::tempdir().unwrap();
    let errors = Rules::load(dir.path()).unwrap_err();
    assert!(errors[0].to_string().contains("holds no rules"), "{errors:?}");
    std::fs::write(dir.path().join("a.toml"), one_rule("a", "car.x > 1")).unwrap();
    assert_eq!(Rules::load(dir.path()).unwrap().len(), 1);
    std::fs::write(dir.path().join("b.toml"), one_rule("b", "car.x >")).unwrap();
    std::fs::write(dir.path().join("c.toml"), one_rule("c", ")")).unwrap();
    std::fs::write(dir.path().join("d.toml"), [0xFF, 0xFE]).unwrap();
    let errors = Rules::load(dir.path()).unwrap_err();
    let files: Vec<String> =
        errors.iter().map(|e| e.file.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(files, ["d.toml", "b.toml", "c.toml"]);
    assert!(Rules::load(Path::new("/nonexistent")).unwrap_err()[0].to_string().contains("gateway.share_dir"));
}

/// An expression of 3,375 terms, nested so that it stays within the depth limit.
fn expensive() -> String {
    let or = |term: &str| format!("({})", vec![term; 15].join(" || "));
    or(&or(&or("car.has(\"never\")")))
}

#[test]
fn a_runaway_rule_is_stopped_by_steps_and_the_others_go_on() {
    // Cheap for its vectors, thousands of steps for a car with a high x.
    let long = expensive();
    let runaway = one_rule("runaway", &format!("car.x > 1 && (car.x < 3 || {long})"));
    let rules = parse(&format!("{runaway}{}", one_rule("calm", "car.x > 1"))).unwrap();
    let mut car = report();
    car.ecus[0].values = vec![value("x", 5)];
    let evaluation = evaluate(&rules, &car, UtcMillis(0));
    assert_eq!(raised(&evaluation), ["calm"]);
    assert_eq!(evaluation.failures.len(), 1);
    assert_eq!(
        (evaluation.failures[0].rule.as_str(), evaluation.failures[0].kind),
        ("runaway", FailureKind::Steps)
    );
    assert!(evaluation.cleared.is_empty());
}

#[test]
fn a_rule_is_stopped_by_time() {
    let long = expensive();
    let rules = parse(&one_rule("slow", &format!("car.x > 1 && (car.x < 3 || {long})"))).unwrap();
    // No step limit to speak of: only the clock can end this.
    let rules = rules.with_limits(Limits { operations: u64::MAX, time: Duration::from_micros(20) });
    let mut car = report();
    car.ecus[0].values = vec![value("x", 5)];
    let evaluation = evaluate(&rules, &car, UtcMillis(0));
    assert_eq!(evaluation.failures.len(), 1, "{evaluation:?}");
    assert_eq!(evaluation.failures[0].kind, FailureKind::Time);
}

#[test]
fn a_machine_that_pauses_makes_no_rule_wrong() {
    let rules = parse(&one_rule("calm", "car.x > 1")).unwrap();
    // Every evaluation is over its time at once, as on a box that stands still in between.
    let limits = Limits { time: Duration::ZERO, ..rules.limits() };
    let rules = rules.with_limits(limits);
    assert!(verify_vectors(&rules).unwrap() > 0);
}

#[test]
fn hostile_expressions_are_refused_without_harm() {
    let deep = [
        "(".repeat(100_000),
        "!".repeat(100_000) + "true",
        "-".repeat(100_000) + "1",
        "[".repeat(100_000),
        format!("car{}", ".x".repeat(100_000)),
        "1 + ".repeat(100_000) + "1",
        "#{a: ".repeat(10_000),
        "`${`${`${1}`}`}`".repeat(1_000),
        format!("\"{}\" == \"\"", "a".repeat(1_000_000)),
        "while true {}".to_owned(),
        "(|| 1)()".to_owned(),
        "let x = 1".to_owned(),
        "import \"x\"".to_owned(),
        "{ let x = 1; x > 0 }".to_owned(),
    ];
    for when in deep {
        let errors = parse(&one_rule("test", &when)).unwrap_err();
        assert!(errors[0].starts_with("rules/test.toml:"), "{}", errors[0]);
    }
}
