//! `baygate decode`: recorded traffic in, values out, without device or daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Every kind of line that decoding depends on; written for this test.
const DBC: &str = r#"VERSION ""

NS_ :
	CM_
	VAL_

BS_:

BU_: ECM TCM

BO_ 68 Engine: 8 ECM
 SG_ Speed : 0|16@1+ (0.25,0) [0|16383] "rpm" TCM
 SG_ Coolant : 23|8@0- (1,-40) [-40|215] "C" TCM
 SG_ Gear : 24|4@1+ (1,0) [0|15] "" TCM

BO_ 2566844672 Pressure: 8 ECM
 SG_ Pressure : 0|32@1- (1,0) [0|0] "bar" TCM

BO_ 100 Mux: 8 ECM
 SG_ Page M : 0|8@1+ (1,0) [0|0] "" TCM
 SG_ A m0 : 8|8@1+ (1,0) [0|0] "" TCM
 SG_ Sub m1M : 8|8@1+ (1,0) [0|0] "" TCM
 SG_ B m2 : 16|8@1+ (1,0) [0|0] "" TCM

BO_ 101 Long: 64 ECM
 SG_ Last : 504|8@1+ (1,0) [0|0] "" TCM
 SG_ Whole : 0|64@1+ (1,0) [0|0] "" TCM

CM_ SG_ 68 Gear "the gear;
over two lines";
VAL_ 68 Gear 0 "Park" 3 "Drive" ;
SIG_VALTYPE_ 2566844672 Pressure : 1;
SG_MUL_VAL_ 100 A Page 0-0, 5-7;
SG_MUL_VAL_ 100 Sub Page 1-1;
SG_MUL_VAL_ 100 B Sub 2-3;
"#;

fn decode(arguments: &[&str], input: &str, folder: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_baygate"))
        .args(["--locale", "en", "decode"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn folder_with(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

#[test]
fn a_candump_log_becomes_values() {
    let folder = folder_with("car.dbc", DBC);
    let log = "\
(1436509052.249713) can0 044#A00FB403
(1436509052.249800) can1 18FEF100#0000803F
(1436509053.000000) can0 7FF#00
(1436509053.000001) can0 044#R
(1436509053.000002) can0 20000004#0000000000000000
rubbish
(1436509053.000003) can0 044#A00F
(1436509053.000004) can0 065##1FFFFFFFFFFFFFFFF000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000002A
";
    let output = decode(&["--dbc", "car.dbc"], log, folder.path());
    assert!(output.status.success());
    // By hand: 0x0FA0 · 0.25, 0xB4 as two's complement − 40, the text of 3.
    assert_eq!(
        lines(&output),
        [
            json!({"time": 1436509052.249713, "interface": "can0", "id": 68, "message": "Engine",
                   "signals": {"Speed": 1000.0, "Coolant": -116, "Gear": 3}, "labels": {"Gear": "Drive"}}),
            json!({"time": 1436509052.2498, "interface": "can1", "id": 0x18FE_F100, "message": "Pressure",
                   "signals": {"Pressure": 1.0}, "labels": {}}),
            json!({"time": 1436509053.000003, "interface": "can0", "id": 68, "message": "Engine",
                   "signals": {"Speed": 1000.0}, "labels": {}}),
            json!({"time": 1436509053.000004, "interface": "can0", "id": 101, "message": "Long",
                   "signals": {"Last": 42, "Whole": 18_446_744_073_709_551_615_u64}, "labels": {}}),
        ]
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("decoded 4 frames; 1 not in the database; 2 remote or error frames"), "{said}");
    assert!(said.contains("1 lines are not of candump's form, the first is line 6"), "{said}");
}

#[test]
fn multiplexed_signals_appear_only_when_selected() {
    let folder = folder_with("car.dbc", DBC);
    let log: String = ["0009", "0609", "010209", "010409", "0909"]
        .iter()
        .map(|data| format!("(1.0) c 064#{data}\n"))
        .collect();
    let signals: Vec<Value> = lines(&decode(&["--dbc", "car.dbc"], &log, folder.path()))
        .into_iter()
        .map(|line| line["signals"].clone())
        .collect();
    assert_eq!(
        signals,
        [
            json!({"Page": 0, "A": 9}),
            json!({"Page": 6, "A": 9}),
            json!({"Page": 1, "Sub": 2, "B": 9}),
            json!({"Page": 1, "Sub": 4}),
            json!({"Page": 9}),
        ]
    );
}

#[test]
fn a_garbled_database_is_refused_with_its_place() {
    for (text, place) in [
        ("BO_ 1 A: 8 X\n SG_ s : 0|8@2+ (1,0) [0|0] \"\" X\n", "line 2, column 14"),
        ("BO_ 1 A: 8 X\n SG_ s : 0|80@1+ (1,0) [0|0] \"\" X\n", "line 2, column 6"),
        ("BO_ 1 A: 8 X\n SG_ s m1 : 0|8@1+ (1,0) [0|0] \"\" X\n", "has no multiplexer"),
        ("BO_ 1 A: 8 X\nVAL_ 1 s 0 \"open", "does not end"),
        ("{\"commands\":[]}", "line 1, column 1"),
        ("", "line 1, column 1"),
    ] {
        let folder = folder_with("bad.dbc", text);
        let output = decode(&["--dbc", "bad.dbc"], "", folder.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("bad.dbc: ") && said.contains(place), "{text}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_file_that_is_no_log_fails() {
    let folder = folder_with("car.dbc", DBC);
    let output = decode(&["--dbc", "car.dbc"], "a,b,c\n1,2,3\n", folder.path());
    assert_eq!(output.status.code(), Some(1));
    let output = decode(&["--dbc", "car.dbc", "nothing.log"], "", folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing.log"));
}

/// The contract's example, §6, and the lines that give nothing.
#[test]
fn answers_become_signals() {
    let set = r#"{"commands":[{"hdr":"7E0","cmd":{"01":"05"},"freq":1,"signals":[
        {"id":"ECT","name":"Coolant","fmt":{"len":8,"min":-40,"max":215,"add":-40,"unit":"celsius"}}]}]}"#;
    let folder = folder_with("set.json", set);
    let input = "{\"id\":\"7E0.0105\",\"response\":\"7E803410578\"}\n\n{\"id\":\"7E0.0106\",\"response\":\"\"}\nrubbish\n";
    let output = decode(&["--signals", "set.json"], input, folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        lines(&output),
        [json!({"id": "7E0.0105", "signals": {"ECT": 80.0}}), json!({"id": "7E0.0106", "signals": {}})]
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("line 3: the signal set has no command 7E0.0106"), "{said}");
    assert!(said.contains("line 4: this is not"), "{said}");
    std::fs::write(folder.path().join("bad.json"), "{\n\"commands\": 1}").unwrap();
    let output = decode(&["--signals", "bad.json"], "", folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2"));
}
