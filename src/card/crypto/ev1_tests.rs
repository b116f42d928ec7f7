//! The published exchanges with a DESFire EV1 (section "AES" of "DESFire EV1 Communication
//! Examples", Elmü 2016), and what a wrong bit does.

use super::super::unhex;
use super::*;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

fn key(text: &str) -> AesKey {
    AesKey::new(Zeroizing::new(unhex(text)))
}

fn session(text: &str) -> Session {
    Session { key: key(text), iv: [0; 16], reads: None }
}

const ZEROS: &str = "00000000000000000000000000000000";
const KEY_1: &str = "00102030405060708090A0B0B0A09080";
const KEY_2: &str = "10182028303840485058606870788088";

/// A published login.
struct Exchange {
    number: u8,
    key: &'static str,
    nonce: &'static str,
    challenge: &'static str,
    sent: &'static str,
    answered: &'static str,
    session: &'static str,
}

const EXCHANGES: [Exchange; 3] = [
    Exchange {
        number: 0,
        key: ZEROS,
        nonce: "F44B26F5686F3A391CD38EBD10772281",
        challenge: "B969FDFE56FD91FC9DE6F6F213B8FD1E",
        sent: "36AAD7DF6E436BA08D18613830A70D5AD43E3D3F4A8D47541EEE623A934E4774",
        answered: "800DB680BC146BD121D6578F2D2E2059",
        session: "F44B26F5C05DDD7110772281C4D066E8",
    },
    Exchange {
        number: 0,
        key: KEY_2,
        nonce: "90F7A201C4DB760538FF8A49EC63DECD",
        challenge: "3E2BE626C05E7798EE518355A751648E",
        sent: "FABF71BB0DC45B8F31BAEDDFF7F3439652D4094DF12C17EF0C94353E6D7770C8",
        answered: "1CE6C574E24923D404E18B6A240C1B08",
        session: "90F7A20191036845EC63DECD544B9931",
    },
    Exchange {
        number: 1,
        key: KEY_2,
        nonce: "40E7D27174CBA675E8EFBAB99C530E3D",
        challenge: "B351CB2465D4F33AC627FD6E87A168F2",
        sent: "044B6CAC343A0865895149649CA8DDE1F5AC4EC67BD208900AF02F049E05F0B0",
        answered: "A2EE144B1012FBEB7B2F11132D95A454",
        session: "40E7D271626FFBD49C530E3D304F5B17",
    },
];

fn begun(exchange: &Exchange) -> Login {
    Login { key: key(exchange.key), number: exchange.number, nonce: Zeroizing::new(unhex(exchange.nonce)) }
}

#[test]
fn logins_as_published() {
    for exchange in EXCHANGES {
        let login = begun(&exchange);
        assert_eq!(login.frame(), [0xAA, exchange.number]);
        let (challenged, frame) = login.challenged(&unhex(exchange.challenge));
        assert_eq!(hex::encode_upper(&frame), format!("AF{}", exchange.sent));
        let session = challenged.proven(&bytes(exchange.answered)).unwrap();
        assert_eq!(hex::encode_upper(session.key.expose()), exchange.session);
        assert_eq!(session.iv, [0; 16]);
    }
}

#[test]
fn the_card_must_answer_our_challenge() {
    for exchange in EXCHANGES {
        let answer = bytes(exchange.answered);
        for bit in 0..128 {
            let mut wrong = answer.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let (challenged, _) = begun(&exchange).challenged(&unhex(exchange.challenge));
            assert_eq!(challenged.proven(&wrong).err(), Some(NotProven), "bit {bit}");
        }
        for wrong in [&answer[..15], &[], &[answer.as_slice(), &[0; 16]].concat()] {
            let (challenged, _) = begun(&exchange).challenged(&unhex(exchange.challenge));
            assert_eq!(challenged.proven(wrong).err(), Some(NotProven), "{} bytes", wrong.len());
        }
    }
}

/// A whole session as published, command by command: each depends on all before it.
#[test]
fn a_session_as_published() {
    let mut session = session("40E7D271626FFBD49C530E3D304F5B17");
    let counting = |from: u8, to: u8| (from..to).collect::<Vec<u8>>();
    // (name, instruction, header, data, the command's CMAC, answer, its CMAC)
    let cases = [
        (
            "CreateStdDataFile",
            0xCD,
            "05001100500000",
            vec![],
            "F23B0368578C65AD705C52AFE76261B6",
            vec![],
            "A75316AD1596B95374EEF55FB7FA00EC",
        ),
        (
            "GetFileIDs",
            0x6F,
            "",
            vec![],
            "F69B3BADA99A58AA2BD736662E32D4B0",
            vec![5],
            "2D5FF67FFEC9D2D36087211588EAC2D7",
        ),
        (
            "GetFileSettings",
            0xF5,
            "05",
            vec![],
            "6365D3B198DCA84043DF6DF8FE76DFD6",
            bytes("00001100500000"),
            "2AAC7517024E09DC452857D5D56FD213",
        ),
        (
            "WriteData",
            0x3D,
            "05000000340000",
            counting(0, 0x34),
            "5F7BCA269F97495C64BCFB3DB41449CA",
            vec![],
            "765C9DAA50ECB62F59BACA81F2EF80F9",
        ),
        (
            "WriteData, the rest",
            0x3D,
            "053400001C0000",
            counting(0x34, 0x50),
            "EDF32CB90997155F8C0A15BBCA118DA1",
            vec![],
            "3E0AED986B8B0F37F64D79B911A5A6C9",
        ),
        (
            "ReadData",
            0xBD,
            "05000000300000",
            vec![],
            "433303AB3CFFA758BF7EB16FFEC47A70",
            counting(0, 0x30),
            "4C65F1F842262BAC65FFBF61CF71FD06",
        ),
    ];
    for (name, instruction, header, data, sent_mac, answered, answer_mac) in cases {
        let frame = session.command(Protection::Plain, instruction, &bytes(header), &data);
        assert_eq!(frame, [&[instruction], bytes(header).as_slice(), &data].concat(), "{name}");
        assert_eq!(hex::encode_upper(session.iv), sent_mac, "{name}");
        let answer = [answered.as_slice(), &bytes(answer_mac)[..8]].concat();
        assert_eq!(session.answer(0x00, &answer).as_deref(), Ok(&answered), "{name}");
        assert_eq!(hex::encode_upper(session.iv), answer_mac, "{name}");
    }
}

#[test]
fn key_changes_as_published() {
    let mut of_key_0 = session("F44B26F5C05DDD7110772281C4D066E8");
    assert_eq!(
        hex::encode_upper(of_key_0.change_key(0, &key(KEY_1), 0x10, None)),
        "C400E9F85E219496C2B58C1090DC3935FAE9E840CF61B383D9531946256B1F110C10",
        "the session's own key"
    );
    let mut asked = session("90F7A20191036845EC63DECD544B9931");
    assert_eq!(asked.command(Protection::Mac, 0x64, &[0], &[]), [0x64, 0x00]);
    assert_eq!(hex::encode_upper(asked.iv), "257FC538618A944A3A20967B6F314348");
    assert_eq!(asked.answer(0x00, &bytes("108A8FA36F55CD210D")).as_deref(), Ok(&vec![0x10]));
    assert_eq!(
        hex::encode_upper(asked.change_key(0, &key(ZEROS), 0x00, None)),
        "C400635375E4919F8AF2E9E86B1C1BA55B0C0807EAF484D7A7EF6E0C3084160F5A61",
        "behind another command"
    );
    let mut other = session("C2A1E47BD8100044FE6D00A74D7AB17C");
    assert_eq!(
        hex::encode_upper(other.change_key(1, &key(KEY_1), 0x10, Some(&key(ZEROS)))),
        "C401E7ECCB6BD1CA64BC161A12B1C024F714303374 08C8A87EACAB7A1FF18951FCA3".replace(' ', ""),
        "another key than the session's"
    );
    assert_eq!(other.answer(0x00, &bytes("2128D3CD9C9ACFFF")).as_deref(), Ok(&vec![]));
    assert_eq!(
        hex::encode_upper(other.change_key(1, &key(KEY_2), 0x10, Some(&key(KEY_1)))),
        "C4012841938C40A4BC2C33064482FEADA5F43EC535D34255B0286C2352CD173863C7"
    );
    assert_eq!(other.answer(0x00, &bytes("CAF3BF0B2836E9DE")).as_deref(), Ok(&vec![]));
    assert_eq!(hex::encode_upper(other.iv), "CAF3BF0B2836E9DE80B1FD6FB45E9380");
}

/// M. Roland, Stack Overflow 23637322: the CRC covers command, header and data, and zeros fill up.
#[test]
fn what_is_enciphered_carries_a_crc_of_all() {
    let (header, data) = (bytes("00000000100000"), bytes("23000000000000081234567800000000"));
    let frame = session(KEY_1).command(Protection::Full, 0x3D, &header, &data);
    assert_eq!(&frame[..8], [&[0x3D], header.as_slice()].concat());
    let (blocks, []) = frame[8..].as_chunks::<16>() else { panic!("{} bytes", frame.len()) };
    let mut plain = blocks.to_vec();
    key(KEY_1).decrypt_chain(&[0; 16], &mut plain);
    assert_eq!(plain.as_flattened(), [data, bytes("30D20700 000000000000000000000000")].concat());
}

/// A session that asked for so many bytes of file 2.
fn reading(length: usize) -> Session {
    let mut session = session(KEY_1);
    let header = [2, 0, 0, 0, u8::try_from(length).unwrap(), 0, 0];
    assert_eq!(session.command(Protection::Full, 0xBD, &header, &[]), [&[0xBD], &header[..]].concat());
    session
}

/// What the card would answer with.
fn enciphered(data: &[u8], fill: &[u8]) -> Vec<u8> {
    let crc = crc32(&[data, &[0x00]].concat()).to_le_bytes();
    reading(data.len()).encipher(&[data, &crc, fill].concat())
}

fn deciphered(length: usize, answer: &[u8], status: u8) -> Result<Vec<u8>, Forged> {
    reading(length).answer(status, answer).map(|data| data.to_vec())
}

#[test]
fn a_changed_answer_is_refused() {
    let data: Vec<u8> = (0..56).collect();
    let answer = enciphered(&data, &[]);
    assert_eq!(deciphered(56, &answer, 0x00), Ok(data));
    for bit in 0..8 * answer.len() {
        let mut wrong = answer.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(deciphered(56, &wrong, 0x00), Err(Forged), "bit {bit}");
    }
    for (name, wrong) in [("cut", &answer[..48]), ("cut in a block", &answer[..63]), ("nothing", &[])] {
        assert_eq!(deciphered(56, wrong, 0x00), Err(Forged), "{name}");
    }
    assert_eq!(deciphered(56, &answer, 0xAE), Err(Forged), "another status");
    let mac = bytes("2128D3CD9C9ACFFF");
    for bit in 0..64 {
        let mut wrong = mac.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut other = session("C2A1E47BD8100044FE6D00A74D7AB17C");
        let _ = other.change_key(1, &key(KEY_1), 0x10, Some(&key(ZEROS)));
        assert_eq!(other.answer(0x00, &wrong), Err(Forged), "bit {bit}");
    }
}

/// A CRC that begins with 00 is right for one byte more, too: only the length tells.
#[test]
fn an_answer_is_as_long_as_was_asked() {
    let check = |data: &[u8]| crc32(&[data, &[0]].concat()).to_le_bytes();
    let data = (0u32..).map(u32::to_le_bytes).find(|data| check(data)[0] == 0).unwrap();
    let plain = [data, check(&data), [0; 4], [0; 4]].concat();
    assert_eq!(unpadded(&plain, 4, 0x00), Some(&data[..]));
    assert_eq!(unpadded(&plain, 5, 0x00), Some(&plain[..5]), "as if the file said so");
    for length in [0, 3, 6, 12, 13, usize::MAX] {
        assert_eq!(unpadded(&plain, length, 0x00), None, "{length}");
    }
}

#[test]
fn a_session_shows_nothing_of_itself() {
    let [exchange, ..] = EXCHANGES;
    let login = begun(&exchange);
    assert_eq!(format!("{login:?}"), "Login { key_number: 0, .. }");
    let (challenged, _) = login.challenged(&unhex(exchange.challenge));
    assert_eq!(format!("{challenged:?}"), "Challenged { key_number: 0, .. }");
    assert_eq!(format!("{:?}", session(KEY_1)), "Session { .. }");
}

proptest::proptest! {
    #![proptest_config(crate::seed::cases(256))]

    /// Whatever was read, of any length and however it is filled up, comes back as it was.
    #[test]
    fn what_is_read_comes_back(data in proptest::collection::vec(0u8.., 1..80), marked: bool) {
        let fill: &[u8] = if marked { &[0x80] } else { &[] };
        let answer = enciphered(&data, fill);
        proptest::prop_assert_eq!(deciphered(data.len(), &answer, 0x00), Ok(data));
    }

    #[test]
    fn no_answer_makes_a_session_panic(body in proptest::collection::vec(0u8.., 0..200), status: u8, reads: bool) {
        let mut one = if reads { reading(body.len() / 2) } else { session(KEY_1) };
        proptest::prop_assert!(one.answer(status, &body).is_err());
    }

    #[test]
    fn no_answer_makes_a_login_panic(body: Vec<u8>, challenge: [u8; 16]) {
        for exchange in EXCHANGES {
            let (challenged, _) = begun(&exchange).challenged(&challenge);
            proptest::prop_assert!(challenged.proven(&body).is_err());
        }
    }
}
