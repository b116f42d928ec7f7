//! Files and answers that users and cars bring may hold anything: whatever it is, the
//! parsers refuse it or read it, and decoding goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/seed.rs"]
mod seed;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use baygate::clock::UtcMillis;
use baygate::protocols::Bundle;
use baygate::vehicle::dbc::Database;
use baygate::vehicle::elm327::answer::interpret;
use baygate::vehicle::elm327::lines::LineReader;
use baygate::vehicle::elm327::port::Reply;
use baygate::vehicle::gate::{Request, Target};
use baygate::vehicle::monitor_test::{MonitorResults, older_bus_result, oxygen_sensor_result};
use baygate::vehicle::passive::Passive;
use baygate::vehicle::protocol::Protocol;
use baygate::vehicle::signal_set::SignalSet;
use baygate::vehicle::{decode_pid, obd};
use proptest::prelude::*;

const DBC: &str = r#"VERSION ""
NS_ :
	CM_
BS_:
BU_: ECM
BO_ 68 Engine: 8 ECM
 SG_ Speed M : 0|16@1+ (0.25,0) [0|16383] "rpm" X
 SG_ Coolant m3M : 23|8@0- (1,-40) [-40|215] "C" X
 SG_ Third m1 : 24|33@1+ (1E-5,0) [0|15] "" X
BO_ 2566844672 Pressure: 64 ECM
 SG_ Pressure : 480|32@1- (1,0) [0|0] "bar" X
VAL_ 68 Speed 0 "Park" 3 "Drive" ;
SIG_VALTYPE_ 2566844672 Pressure : 1;
SG_MUL_VAL_ 68 Third Coolant 1-5, 7-9;
"#;

const SET: &str = r#"{"commands":[
{"hdr":"7E0","rax":"7E8","cmd":{"22":"1E12"},"freq":1,"filter":{"from":2018,"years":[2010]},"signals":[
{"id":"A","fmt":{"bix":3,"len":13,"sign":true,"max":9,"mul":2,"div":3,"add":1,"nullmin":0,"unit":"scalar"}},
{"id":"B","fmt":{"len":8,"blsb":true,"map":{"1":{"description":"x","value":"y"}}}}]},
{"hdr":"DA10","rax":"10","pri":"14","eax":"07","tst":"F1","cmd":{"01":"0C"},"freq":0.5,"signals":[
{"id":"C","fmt":{"bix":90,"len":64,"max":1}}]}]}"#;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("firmware-protocols")).unwrap()
});

/// What adapters say, good and bad, in pieces that may follow in any order.
const SAID: &str = "(7E8|7E9|18 DA F1 10 |48 6B 10|03|06|1013|21|22|41|49|43|7F|78|0C|0B ED|[0-9A-F]{2}| |\\r|NO DATA|BUS INIT: ...|STOPPED|CAN ERROR|<DATA ERROR|ELM327 v1.5|\\?|[^>]){0,40}";

/// A text with some bytes changed, put in or taken out.
fn spoilt(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (0..text.len(), 0..4_u8, any::<u8>(), 0..40_usize);
    proptest::collection::vec(change, 0..6).prop_map(move |changes| {
        let mut bytes = text.as_bytes().to_vec();
        for (place, kind, byte, count) in changes {
            let place = place.min(bytes.len().saturating_sub(1));
            match kind {
                0 if !bytes.is_empty() => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.drain(place..(place + count).min(bytes.len()))),
                _ => {
                    let copy: Vec<u8> = bytes[place..(place + count).min(bytes.len())].to_vec();
                    bytes.splice(place..place, copy);
                }
            }
        }
        bytes
    })
}

/// What a unit that knows no address bytes reads of a frame (ISO 15765-2 §9.6): the beginning of
/// a message.
fn read_without_addresses(frame: &[u8]) -> &[u8] {
    match frame {
        [length @ 0x00..=0x0F, rest @ ..] => &rest[..rest.len().min(usize::from(*length))],
        [0x10..=0x1F, _, rest @ ..] => rest,
        _ => &[],
    }
}

/// `rax` says where to listen, and changes neither whom nor what is asked.
#[test]
fn where_a_unit_answers_changes_no_question() {
    let question = |header: &str, service: &str, rax: &str| {
        let id = if service == "22" { "F187" } else { "0C" };
        let text = format!(
            r#"{{"commands":[{{"hdr":"{header}"{rax},"cmd":{{"{service}":"{id}"}},"signals":[]}}]}}"#
        );
        SignalSet::from_json(text.as_bytes()).unwrap().commands()[0].question()
    };
    let mut asked = 0;
    for header in
        (0x6F0..=0x7FF).map(|id| format!("{id:03X}")).chain(["DA10", "DB33", "DAFF"].map(str::to_owned))
    {
        for service in ["01", "09", "21", "22", "2E", "04"] {
            let plain = question(&header, service, "");
            for rax in ["000", "100", "6F1", "77A", "7E0", "7E8", "7FF", "800", "10", "1EC60E80", "FFFFFFFF"]
            {
                let Ok(paired) = question(&header, service, &format!(r#","rax":"{rax}""#)) else { continue };
                let plain = plain.as_ref().expect("asked without it, too");
                assert_eq!(paired.payload(), plain.payload());
                assert_eq!(paired.target().request_id(), plain.target().request_id());
                asked += 1;
            }
        }
    }
    assert!(asked > 1000, "{asked}");
}

/// Whatever header and address a file names: no unit of any kind reads more than a question.
#[test]
fn no_set_makes_a_clearing_of_a_read() {
    let headers =
        ["6F1", "700", "750", "7DE", "7DF", "7E0", "7E7", "7E8", "7F0", "7F7", "7F8", "DA10", "DB33"];
    let mut asked = 0;
    for header in headers {
        let commands = (0..=0xFF_u8).flat_map(|eax| {
            (1..=6).map(move |pids| {
                let pids = "0C0D05040F11".get(..pids * 2).unwrap();
                format!(r#"{{"hdr":"{header}","eax":"{eax:02X}","cmd":{{"01":"{pids}"}},"signals":[]}}"#)
            })
        });
        let text = format!(r#"{{"commands":[{}]}}"#, commands.collect::<Vec<_>>().join(","));
        for command in SignalSet::from_json(text.as_bytes()).unwrap().commands() {
            let Ok(request) = command.question() else { continue };
            let Target::Extended(address) = request.target() else { panic!("{:?}", request.target()) };
            // Who listens to BMW's tester has an address.
            if address.request_id() == 0x6F1 {
                continue;
            }
            asked += 1;
            let payload = request.payload();
            let mut frame = vec![address.unit(), payload.len() as u8];
            frame.extend(payload);
            frame.resize(8, 0);
            let read = read_without_addresses(&frame);
            assert!(matches!(read, [] | [0x01, ..]), "{header}: {frame:02X?} reads as {read:02X?}");
        }
    }
    assert!(asked > 1000, "{asked}");
}

fn frames() -> impl Strategy<Value = Vec<(u32, bool, Vec<u8>)>> {
    let id = prop_oneof![Just(68_u32), Just(0x18FE_F100), any::<u32>()];
    proptest::collection::vec((id, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..70)), 0..20)
}

proptest! {
    #![proptest_config(seed::cases(400))]

    #[test]
    fn databases(bytes in spoilt(DBC), frames in frames()) {
        match Database::from_bytes(&bytes) {
            Err(error) => prop_assert!(error.line > 0 && error.column > 0 && !error.reason.is_empty()),
            Ok(database) => {
                let mut passive = Passive::new(Arc::new(database));
                for (id, extended, data) in &frames {
                    passive.decode_frame(*id, *extended, data, UtcMillis(0));
                }
                for signal in passive.take().into_iter().flat_map(|taken| taken.signals) {
                    prop_assert!(signal.min <= signal.mean && signal.mean <= signal.max, "{signal:?}");
                    prop_assert!(signal.count > 0 && signal.min.is_finite() && signal.max.is_finite());
                }
            }
        }
    }

    #[test]
    fn signal_sets(bytes in spoilt(SET), answer in "([0-9A-Fa-f ]{0,40}\n?){0,4}", any_answer in ".{0,40}", year in any::<Option<u16>>()) {
        if let Ok(set) = SignalSet::from_json(&bytes) {
            for command in set.commands() {
                let _ = (command.decode(&answer), command.decode(&any_answer), command.years().fit(year));
                // Whatever the file says: what comes out of the gate is read-only.
                if let Ok(request) = command.question() {
                    prop_assert!([0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x09, 0x0A, 0x19, 0x21, 0x22].contains(&request.service()));
                }
                prop_assert!((1..=3600).contains(&command.every().as_secs()));
            }
        }
    }

    #[test]
    fn what_an_adapter_says(text in SAID, number in 1_u8..10, cut in 0_usize..80) {
        let bytes = text.as_bytes();
        let pieces = |parts: &[&[u8]]| {
            let (mut reader, mut pieces) = (LineReader::default(), Vec::new());
            parts.iter().for_each(|part| reader.push(part, &mut pieces));
            pieces
        };
        let (before, behind) = bytes.split_at(cut.min(bytes.len()));
        prop_assert_eq!(pieces(&[bytes]), pieces(&[before, behind]));

        let reply = Reply { lines: text.split('\r').map(str::to_owned).collect(), garbage: 0 };
        let protocol = Protocol::from_number(&number.to_string()).unwrap();
        for request in [Request::current(0x0C), Request::confirmed_codes(), Request::vehicle_info(0x02)] {
            let answer = interpret(&reply, request, protocol);
            prop_assert!(answer.messages.iter().all(|message| request.is_answered_by(&message.payload)));
        }
    }

    /// Every row of the tables reads any bytes or says what is wrong.
    #[test]
    fn answers_by_the_tables(data in proptest::collection::vec(any::<u8>(), 0..64), four in any::<[u8; 4]>()) {
        for row in BUNDLE.pids.iter() {
            let _ = decode_pid(row, &data);
        }
        let _ = (obd::MonitorStatus::read(four, &BUNDLE.readiness), obd::drive_cycle_readiness(four, &BUNDLE.readiness));
        let _ = (MonitorResults::from_can(&data, &BUNDLE), older_bus_result(&data), oxygen_sensor_result(&data, &BUNDLE));
    }
}
