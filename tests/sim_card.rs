//! The simulated card answers as a reader driver of vsmartcard expects: in front of raw
//! bytes, and in front of the real pcscd with the real virtual reader.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/pcscd.rs"]
mod pcscd;

use std::time::{Duration, Instant};

use baygate::sim::card::{CardFault, CardProfile, CardSim, Technology};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const DEADLINE: Duration = Duration::from_secs(10);

async fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn send(stream: &mut TcpStream, payload: &[u8]) {
    stream.write_all(&[0, payload.len() as u8]).await.unwrap();
    stream.write_all(payload).await.unwrap();
}

async fn answer(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    tokio::time::timeout(DEADLINE, read).await.expect("no answer")
}

async fn ask(stream: &mut TcpStream, payload: &str) -> String {
    send(stream, &hex::decode(payload).unwrap()).await;
    hex::encode_upper(answer(stream).await)
}

/// The protocol by vsmartcard's "Creating a Virtual Smart Card".
#[tokio::test]
async fn control_bytes_and_apdus_are_answered() {
    let (listener, address) = listen().await;
    let card = CardSim::tap(address, CardProfile::new(Technology::Classic1k)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    send(&mut stream, &[1]).await;
    send(&mut stream, &[2]).await;
    assert_eq!(ask(&mut stream, "04").await, "3B8F8001804F0CA000000306030001000000006A");
    assert_eq!(ask(&mut stream, "FFCA000000").await, "3A91C45E9000");
    assert_eq!(ask(&mut stream, "00A4040000").await, "6D00");
    card.fault(CardFault::Status(0x6300));
    card.fault(CardFault::Garbage);
    card.fault(CardFault::Empty);
    assert_eq!(ask(&mut stream, "FFCA000000").await, "6300");
    assert_eq!(ask(&mut stream, "FFCA000000").await, "A5A5A5");
    assert_eq!(ask(&mut stream, "FFCA000000").await, "");
    assert_eq!(card.apdus().len(), 5);
    send(&mut stream, &[0]).await;
    card.remove().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_card_falls_silent_slows_down_or_is_pulled() {
    let (listener, address) = listen().await;
    let mut card = CardSim::tap(address, CardProfile::new(Technology::Ntag213)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    card.slow(Duration::from_millis(60));
    let begin = Instant::now();
    ask(&mut stream, "FFCA000000").await;
    assert!(begin.elapsed() >= Duration::from_millis(60));
    card.slow(Duration::ZERO);
    card.fault(CardFault::Pull);
    send(&mut stream, &hex::decode("FFD6000404AABBCCDD").unwrap()).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    card.gone().await;
    let card = CardSim::tap(address, CardProfile::new(Technology::Ntag213)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(ask(&mut stream, "04").await.len(), 40);
    card.mute();
    send(&mut stream, &[4]).await;
    let silence = tokio::time::timeout(Duration::from_millis(80), stream.read_u8()).await;
    assert!(silence.is_err(), "muted");
    assert!(CardSim::tap("127.0.0.1:1", CardProfile::new(Technology::Ntag213)).await.is_err());
}

/// Many small round trips: with Nagle or delayed acknowledgements this takes 40 ms each.
#[tokio::test]
async fn round_trips_are_not_held_back_by_the_network() {
    let (listener, address) = listen().await;
    let _card = CardSim::tap(address, CardProfile::new(Technology::Cpu)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        assert_eq!(ask(&mut stream, "FFCA000000").await, "6B2017D99000");
        times.push(begin.elapsed());
    }
    times.sort();
    println!("median round trip {:?}", times[25]);
}

#[test]
fn the_real_pcscd_reads_the_card() {
    let Some(daemon) = pcscd::Pcscd::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for technology in
        [Technology::Classic1k, Technology::Ntag215, Technology::Desfire, Technology::Cpu, Technology::Icode]
    {
        let profile = CardProfile::new(technology);
        let (atr, uid) = (profile.answer_to_reset(), profile.uid.clone());
        let card = runtime.block_on(CardSim::tap(("127.0.0.1", daemon.port), profile)).unwrap();
        let context = pcsc::Context::establish(pcsc::Scope::System).unwrap();
        let begin = Instant::now();
        let connected = loop {
            match context.connect(c"Virtual PCD 00 00", pcsc::ShareMode::Shared, pcsc::Protocols::ANY) {
                Ok(connected) => break connected,
                Err(error) if begin.elapsed() > DEADLINE => panic!("{technology:?}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert_eq!(connected.status2_owned().unwrap().atr(), atr, "{technology:?}");
        let mut buffer = [0; 64];
        let answer = connected.transmit(b"\xFF\xCA\x00\x00\x00", &mut buffer).unwrap();
        assert_eq!(answer, [uid.as_slice(), &[0x90, 0x00]].concat(), "{technology:?}");
        let begin = Instant::now();
        for _ in 0..50 {
            connected.transmit(b"\xFF\xCA\x00\x00\x00", &mut buffer).unwrap();
        }
        println!("{technology:?}: {:?} an APDU through pcscd", begin.elapsed() / 50);
        drop(connected);
        runtime.block_on(card.remove());
        let begin = Instant::now();
        let mut states = [pcsc::ReaderState::new(c"Virtual PCD 00 00", pcsc::State::UNAWARE)];
        while begin.elapsed() < DEADLINE {
            context.get_status_change(Duration::from_millis(100), &mut states).ok();
            states[0].sync_current_state();
            if states[0].event_state().contains(pcsc::State::EMPTY) {
                break;
            }
        }
        assert!(states[0].event_state().contains(pcsc::State::EMPTY), "{technology:?} is gone");
    }
}
