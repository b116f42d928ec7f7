//! Any payload as an answer of services 19 and 22, by itself and as a part of a report.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use baygate::protocols::Bundle;
use baygate::vehicle::Maxima;
use baygate::vehicle::gate::Request;
use baygate::vehicle::protocol::EcuAddress;
use baygate::vehicle::report::Told;
use baygate::vehicle::uds::read::EMISSIONS;
use baygate::vehicle::uds::{answer, refusal, report};
use libfuzzer_sys::fuzz_target;

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware-protocols");
    Bundle::load(&folder).expect("the shipped tables are right")
});

fuzz_target!(|data: &[u8]| {
    let Some((&choice, payload)) = data.split_first() else { return };
    let lists = [
        answer::dtcs(payload),
        answer::wwh_dtcs(payload, EMISSIONS),
        answer::wwh_permanent(payload, EMISSIONS),
        answer::by_readiness(payload, EMISSIONS, choice),
    ];
    for list in lists.into_iter().flatten() {
        assert!(list.codes.len() * 4 <= payload.len());
        let _ = answer::is_ready(&list);
    }
    let _ = (answer::extended(payload), refusal::of(payload), refusal::for_errors(choice));
    if let Ok(detail) = answer::snapshots(payload, |did| Some(usize::from(did % 9))) {
        let held = detail.records.iter().map(|r| r.rest.len() + r.values.iter().map(|(_, v)| v.len()).sum::<usize>());
        assert!(held.sum::<usize>() <= payload.len());
    }
    let did = u16::from_be_bytes([0xF1, choice]);
    assert!(answer::data(payload, did).is_ok_and(|data| data.len() + 3 == payload.len()) || !payload.starts_with(&[0x62, 0xF1, choice]));
    let ecu = EcuAddress("7E8".into());
    let requests = [
        Request::dtcs_by_status(0x0D),
        Request::wwh_dtcs(EMISSIONS, 0x0D, 0x1E),
        Request::wwh_permanent_dtcs(EMISSIONS),
        Request::dtc_record(false, [0x04, 0x20, 0x00], 0xFF),
        Request::data_by_identifier(0xF187),
    ];
    let told: Vec<Told> = requests
        .into_iter()
        .map(|request| Told { request, ecu: ecu.clone(), payload: payload.to_vec() })
        .collect();
    let codes = report::codes(&told, &ecu, Some("honda"), &BUNDLE);
    let _ = report::join(codes.clone(), codes);
    let _ = (report::snapshots(&told, &ecu, &Maxima::default(), &BUNDLE), report::identification(&told, &ecu));
});
