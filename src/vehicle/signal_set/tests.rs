use super::*;

/// A set in the public schema's form, written for these tests.
const SET: &str = r#"{
  "diagnosticLevel": "03",
  "commands": [
    {"hdr": "7E0", "cmd": {"01": "05"}, "freq": 5, "signals": [
      {"id": "ECT", "path": "Engine", "name": "Coolant", "suggestedMetric": "engineCoolantTemperature",
       "fmt": {"len": 8, "min": -40, "max": 215, "add": -40, "unit": "celsius"}}]},
    {"hdr": "7E0", "rax": "7E8", "cmd": {"22": "1E12"}, "freq": 1, "filter": {"to": 2017}, "signals": [
      {"id": "GEAR_OLD", "name": "Gear", "fmt": {"len": 8, "map": {"1": {"description": "1st", "value": "1"}}}}]},
    {"hdr": "7E0", "rax": "7E8", "cmd": {"22": "1E12"}, "freq": 1, "filter": {"from": 2018}, "signals": [
      {"id": "GEAR", "name": "Gear", "fmt": {"len": 8, "map": {"1": {"description": "1st", "value": "1"}}}}]},
    {"hdr": "DA10", "rax": "10", "pri": "14", "cmd": {"22": "DA2C"}, "freq": 1, "signals": [
      {"id": "P", "name": "P", "fmt": {"bix": 8, "len": 16, "max": 70000, "unit": "scalar"}}]},
    {"hdr": "6F1", "rax": "607", "eax": "07", "tst": "F1", "fcm1": true, "cmd": {"22": "DDBC"}, "freq": 1, "signals": [
      {"id": "SOC", "name": "SOC", "fmt": {"len": 16, "max": 100, "div": 10, "unit": "percent"}},
      {"id": "SOC_MAX", "name": "SOC", "fmt": {"bix": 16, "len": 16, "max": 100, "div": 10, "unit": "percent"}}]},
    {"hdr": "7E4", "rax": "7EC", "cmd": {"22": "0101"}, "freq": 1, "signals": [
      {"id": "LAST", "name": "Last", "fmt": {"bix": 88, "len": 8, "max": 255, "unit": "scalar"}},
      {"id": "BEYOND", "name": "Beyond", "fmt": {"bix": 96, "len": 8, "max": 255, "unit": "scalar"}}]}
  ]
}"#;

fn decode(name: &str, response: &str) -> Option<Vec<(String, Value)>> {
    let set = SignalSet::from_json(SET.as_bytes()).unwrap();
    let signals = set.command(name)?.decode(response);
    Some(signals.into_iter().map(|(id, value)| (id.to_owned(), value)).collect())
}

fn number(id: &str, value: f64) -> Option<Vec<(String, Value)>> {
    Some(vec![(id.to_owned(), Value::Number(value))])
}

#[test]
fn single_frames() {
    // The contract's own example, §6.
    assert_eq!(decode("7E0.0105", "7E803410578"), number("ECT", 80.0));
    assert_eq!(decode("7e0.0105", "7E8 03 41 05 78 AA AA"), number("ECT", 80.0));
    assert_eq!(decode("7E0.0105", "7E803410C78"), Some(vec![]), "another identifier");
    assert_eq!(decode("7E0.0105", "7E8037F0111"), Some(vec![]), "a refusal");
    assert_eq!(decode("7E0.0105", "no frame\n"), Some(vec![]));
    assert_eq!(decode("7E0.0106", "7E803410678"), None);
}

#[test]
fn another_unit_does_not_answer_for_the_one_asked() {
    assert_eq!(decode("7E0.0105", "7E90341051E\n7E803410578\n7EA0341051E"), number("ECT", 80.0));
    assert_eq!(decode("7E0.0105", "7E90341051E"), number("ECT", -10.0), "nobody else answered");
    assert_eq!(decode("7E0.7E8.221E12|f=2018-", "7E904621E1201"), Some(vec![]));
}

#[test]
fn years_choose_among_commands_of_one_name() {
    let gear = |id: &str| Some(vec![(id.to_owned(), Value::Text("1".into()))]);
    assert_eq!(decode("7E0.7E8.221E12|f=2018-", "7E804621E1201"), gear("GEAR"));
    assert_eq!(decode("7E0.7E8.221E12|f=-2017", "7E804621E1201"), gear("GEAR_OLD"));
}

/// `c=` is what OBDb's tool writes, `p=` what the contract has; `p=` is OBDb's word for a protocol.
#[test]
fn a_priority_has_two_letters_and_a_protocol_keeps_its_own() {
    let command = |more: &str, id: &str| {
        format!(
            r#"{{"hdr":"DA10","cmd":{{"01":"0C"}},"freq":1{more},"signals":[{{"id":"{id}","name":"","fmt":{{"len":8,"max":255,"unit":"scalar"}}}}]}}"#
        )
    };
    let commands =
        [command("", "USUAL"), command(r#","pri":"14""#, "LOW"), command(r#","proto":"9141-2""#, "KLINE")];
    let set = SignalSet::from_json(format!(r#"{{"commands":[{}]}}"#, commands.join(",")).as_bytes()).unwrap();
    for (options, id) in [("", "USUAL"), ("|c=14", "LOW"), ("|p=14", "LOW"), ("|p=9141-2", "KLINE")] {
        let found = set.command(&format!("DA10.010C{options}")).unwrap();
        assert_eq!(found.signals()[0].id, id, "{options}");
    }
    let names: Vec<_> = set.commands().iter().map(Command::to_string).collect();
    assert_eq!(names, ["DA10.010C", "DA10.010C|c=14", "DA10.010C|p=9141-2"]);
}

#[test]
fn long_answers_interleave() {
    let response = "7EC100F620101000102\n7ED100F620101FFFFFF\n7EC2103040506070809\n7ED21FFFFFFFFFFFFFF\n7EC220AFFFFFFFFFFFF";
    // 15 bytes: three of service and identifier, twelve of data: 00 01 … 09 0A FF.
    let expected = Some(vec![("LAST".into(), Value::Number(255.0))]);
    assert_eq!(decode("7E4.7EC.220101", response), expected);
    let lost = "7EC100F620101000102\n7EC220AFFFFFFFFFFFF";
    assert_eq!(decode("7E4.7EC.220101", lost), Some(vec![]), "a frame is missing");
}

#[test]
fn wide_and_extended_addresses() {
    assert_eq!(decode("DA10.10.22DA2C|c=14", "14DAF1100662DA2C001234"), number("P", 4660.0));
    assert_eq!(decode("DA10.10.22DA2C|c=14", "18DAF1100662DA2C001234"), Some(vec![]), "another priority");
    assert_eq!(decode("DA10.10.22DA2C|p=14", "14DAF1100662DA2C001234"), number("P", 4660.0));
    assert_eq!(
        decode("6F1.607.22DDBC|e=07,ta=F1,fc=1", "607F1100762DDBC01F4\n607F12103E8"),
        Some(vec![("SOC".into(), Value::Number(50.0)), ("SOC_MAX".into(), Value::Number(100.0))])
    );
}

#[test]
fn a_garbled_set_is_refused_with_its_place() {
    for (set, place) in [
        ("{\n \"commands\": [", "line 2"),
        ("{\"commands\":[\n{\"hdr\":\"7E\",\"cmd\":{\"01\":\"05\"},\"signals\":[]}]}", "line 2"),
        ("{\"commands\":[{\"hdr\":\"7E0\",\"cmd\":{},\"signals\":[]}]}", "one service"),
        ("{\"commands\":[{\"hdr\":\"7E0\",\"cmd\":{\"22\":\"1\"},\"signals\":[]}]}", "whole hex bytes"),
        ("{}", "commands"),
    ] {
        let error = SignalSet::from_json(set.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn every_key_is_kept() {
    let set = SignalSet::from_json(SET.as_bytes()).unwrap();
    let coolant = set.command("7E0.0105").unwrap();
    assert_eq!(coolant.every().as_secs(), 5);
    let signal = &coolant.signals()[0];
    assert_eq!((signal.name.as_str(), signal.path.as_str()), ("Coolant", "Engine"));
    assert_eq!((signal.metric.as_deref(), signal.fmt.unit()), (Some("engineCoolantTemperature"), "celsius"));
    for (freq, seconds) in [("0.25", 1), ("10", 10), ("1e9", 3600), ("-1", 3600)] {
        let text =
            format!(r#"{{"commands":[{{"hdr":"7E0","cmd":{{"22":"F190"}},"freq":{freq},"signals":[]}}]}}"#);
        assert_eq!(SignalSet::from_json(text.as_bytes()).unwrap().commands()[0].every().as_secs(), seconds);
    }
}

#[test]
fn only_what_the_gate_lets_through_is_asked() {
    use crate::vehicle::gate::{ExtendedAddress, PairedAddress, Target};
    let extended = |request: u32, unit: u8, tester: u8| {
        Target::Extended(ExtendedAddress::new(request, unit, tester).unwrap())
    };
    let paired = |request: u32, answer: u32| Target::Paired(PairedAddress::new(request, answer).unwrap());
    // (command, what is asked of whom, or why not)
    for (command, expected) in [
        (r#""hdr":"7E0","cmd":{"22":"1E12"}"#, Ok(("221E12", Target::Unit(0x7E0)))),
        (r#""hdr":"7DF","cmd":{"01":"0C"}"#, Ok(("010C", Target::Functional))),
        (r#""hdr":"7e4","cmd":{"21":"01"}"#, Ok(("2101", Target::Unit(0x7E4)))),
        (r#""hdr":"DA10","cmd":{"22":"F190"}"#, Ok(("22F190", Target::Unit(0x18DA_10F1)))),
        (r#""hdr":"DA10","pri":"14","cmd":{"22":"F190"}"#, Ok(("22F190", Target::Unit(0x14DA_10F1)))),
        (r#""hdr":"DA10","pri":"17","cmd":{"22":"F190"}"#, Err("17DA10F1 is no address of diagnosis")),
        (r#""hdr":"DA10","pri":"00","cmd":{"22":"F190"}"#, Err("00DA10F1 is no address of diagnosis")),
        (r#""hdr":"6F5","cmd":{"22":"F190"}"#, Err("6F5 is no address of diagnosis")),
        (r#""hdr":"7E8","cmd":{"22":"F190"}"#, Err("7E8 is no address of diagnosis")),
        (r#""hdr":"710","cmd":{"22":"2A0A"}"#, Ok(("222A0A", Target::Unit(0x710)))),
        (r#""hdr":"710","rax":"718","cmd":{"22":"2A0A"}"#, Ok(("222A0A", Target::Unit(0x710)))),
        (r#""hdr":"710","rax":"77A","cmd":{"22":"2A0A"}"#, Ok(("222A0A", paired(0x710, 0x77A)))),
        (r#""hdr":"745","rax":"765","cmd":{"21":"01"}"#, Ok(("2101", paired(0x745, 0x765)))),
        (r#""hdr":"DA10","rax":"10","cmd":{"22":"F190"}"#, Ok(("22F190", Target::Unit(0x18DA_10F1)))),
        (
            r#""hdr":"DA10","rax":"55","pri":"14","cmd":{"22":"F190"}"#,
            Ok(("22F190", paired(0x14DA_10F1, 0x14DA_F155))),
        ),
        (
            r#""hdr":"DA10","rax":"1EC60E80","cmd":{"22":"F190"}"#,
            Ok(("22F190", paired(0x18DA_10F1, 0x1EC6_0E80))),
        ),
        (r#""hdr":"710","rax":"77A","cmd":{"01":"0C"}"#, Err("give `eax`")),
        (r#""hdr":"710","rax":"710","cmd":{"22":"2A0A"}"#, Err("can answer on `rax` 710")),
        (r#""hdr":"710","rax":"7A","cmd":{"22":"2A0A"}"#, Err("can answer on `rax` 7A")),
        (r#""hdr":"DA10","rax":"77A","cmd":{"22":"2A0A"}"#, Err("can answer on `rax` 77A")),
        (r#""hdr":"DB33","cmd":{"01":"0C"}"#, Ok(("010C", Target::Functional))),
        (r#""hdr":"7E0","cmd":{"04":""}"#, Err("never sent")),
        (r#""hdr":"7E0","cmd":{"2E":"F19000"}"#, Err("never sent")),
        (r#""hdr":"7E0","cmd":{"14":"FFFFFF"}"#, Err("never sent")),
        (r#""hdr":"7E0","cmd":{"31":"0101"}"#, Err("never sent")),
        (r#""hdr":"7E0","cmd":{"10":"03"}"#, Err("never sent")),
        (r#""hdr":"7E0","cmd":{"22":"F1"}"#, Err("byte(s)")),
        (r#""hdr":"6F1","eax":"07","cmd":{"22":"DDBC"}"#, Ok(("22DDBC", extended(0x6F1, 0x07, 0xF1)))),
        (
            r#""hdr":"6F1","eax":"07","rax":"607","cmd":{"22":"DDBC"}"#,
            Ok(("22DDBC", extended(0x6F1, 0x07, 0xF1))),
        ),
        (r#""hdr":"750","eax":"2A","tst":"2A","cmd":{"21":"30"}"#, Ok(("2130", extended(0x750, 0x2A, 0x2A)))),
        (r#""hdr":"123","eax":"07","cmd":{"22":"DDBC"}"#, Err("extended addresses")),
        (r#""hdr":"DA10","eax":"07","cmd":{"22":"DDBC"}"#, Err("extended addresses")),
        (r#""hdr":"DA10","tst":"F0","cmd":{"22":"DDBC"}"#, Err("extended addresses")),
        (r#""hdr":"7E0","din":"1003","cmd":{"22":"DDBC"}"#, Err("around it")),
        (r#""hdr":"686A","cmd":{"01":"0C"}"#, Err("none of a CAN bus")),
        (r#""hdr":"800","cmd":{"01":"0C"}"#, Err("none of a CAN bus")),
    ] {
        let text = format!(r#"{{"commands":[{{{command},"freq":1,"signals":[]}}]}}"#);
        let set = SignalSet::from_json(text.as_bytes()).unwrap();
        let question = set.commands()[0].question();
        match (question, expected) {
            (Ok(asked), Ok((wanted, target))) => {
                assert_eq!((asked.to_string().as_str(), asked.target()), (wanted, target), "{command}");
            }
            (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{command}: {error}"),
            (question, _) => panic!("{command}: {question:?}"),
        }
    }
}

#[test]
fn a_set_says_whose_it_is() {
    let set = |vin: &str| SignalSet::from_json(format!(r#"{{"commands":[]{vin}}}"#).as_bytes()).unwrap();
    let car: Vin = "KMHL14JA5KA000001".parse().unwrap();
    for (vin, fits, unknown) in [
        ("", true, true),
        (r#","vin":[]"#, true, true),
        (r#","vin":["LSV*","KMH?14*"]"#, true, false),
        (r#","vin":["LSV*"]"#, false, false),
    ] {
        assert_eq!((set(vin).is_for(Some(&car)), set(vin).is_for(None)), (fits, unknown), "{vin}");
    }
}
