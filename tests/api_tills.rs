//! Tills over real HTTP: leases of readers, shifts; and the same people at the command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod served;

use std::process::{Command, Stdio};

use baygate::api::client::Method;
use baygate::clock::UtcMillis;
use baygate::event::card::Technology;
use baygate::store::devices::{CardInField, DeviceOp};
use baygate::store::{Batch, Op};
use serde_json::{Value, json};
use served::people::{EVERYTHING, PIN, add, admin, delete, log_in, pair, shop, try_login};
use served::{Served, Setup};

#[tokio::test]
async fn two_tills_never_mix_at_one_reader() {
    let served = shop(Setup::new()).await;
    let first = pair(&served, "till-1", EVERYTHING).await;
    let second = pair(&served, "till-2", EVERYTHING).await;
    let looker = served.token(&["read"]).await;
    add(&served, "li.wei", "cashier").await;
    let path = "/v1/readers/counter-1/lease";
    let taken = served.post(&first, path, &json!({ "seconds": 120 })).await;
    assert_eq!((taken.status, taken.json()), (200, json!({ "till": "till-1", "expires_in_s": 120 })));
    let refused = served.post(&second, path, &json!({})).await;
    assert_eq!(refused.problem(), (409, "reader-leased".into()));
    assert_eq!(refused.json()["till"], "till-1");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 100);
    // Not its card, nor a login by the card that lies there; whoever only looks, may.
    let card = "/v1/readers/counter-1/card";
    assert_eq!(served.get(&second, card).await.problem().1, "reader-leased");
    let login = json!({ "reader": "counter-1", "pin": PIN });
    assert_eq!(served.post(&second, "/v1/operator-sessions", &login).await.problem().1, "reader-leased");
    assert_eq!((served.get(&first, card).await.status, served.get(&looker, card).await.status), (204, 204));
    assert_eq!(delete(&served, &second, path).await.problem().1, "reader-leased");
    let shown = served.get(&looker, "/v1/readers").await.json();
    assert_eq!(shown["readers"][0]["lease"]["till"], "till-1");

    // Nor in the list of readers.
    let there = CardInField {
        reader: "counter-1".parse().unwrap(),
        uid: "04A1B2C3".parse().unwrap(),
        technology: Technology::MifareClassic1k,
        atr: None,
        since: UtcMillis::now(),
    };
    served.store.commit(Batch::new().op(Op::Device(DeviceOp::CardPresent(there)))).await.unwrap();
    for (token, sees) in [(&first, true), (&second, false), (&looker, true)] {
        let listed = served.get(token, "/v1/readers").await;
        assert_eq!(listed.body.contains("04A1B2C3"), sees, "{listed:?}");
    }

    // The lease is the till's, whoever is logged in there.
    let session = log_in(&served, &first, "li.wei").await;
    assert_eq!(served.post(&session, path, &json!({})).await.status, 200);
    assert_eq!(delete(&served, &session, path).await.status, 204);
    assert_eq!(delete(&served, &first, path).await.problem(), (404, "not-found".into()));
    assert_eq!(served.post(&second, path, &json!({})).await.status, 200);
    assert!(
        served.get(&looker, "/v1/readers").await.json()["readers"][0]["lease"]["expires_in_s"].is_number()
    );

    // A till that was taken back lets go at once, a gateway that starts anew knows of none.
    let (_, tokens) = admin(&served, Method::GET, "/v1/tokens", None).await;
    let of_second = tokens["tokens"].as_array().unwrap().iter().find(|t| t["till"] == "till-2").unwrap();
    let token = format!("/v1/tokens/{}", of_second["id"].as_str().unwrap());
    assert_eq!(admin(&served, Method::DELETE, &token, None).await.0, 204);
    assert_eq!(served.post(&first, path, &json!({})).await.status, 200);
    let served = shop(Setup::in_dir(served.stop().await)).await;
    let third = pair(&served, "till-2", EVERYTHING).await;
    assert_eq!(served.post(&third, path, &json!({})).await.status, 200);
    served.stop().await;
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends() {
    let served = shop(Setup::new()).await;
    let first = pair(&served, "till-1", EVERYTHING).await;
    let second = pair(&served, "till-2", EVERYTHING).await;
    let path = "/v1/readers/counter-1/lease";
    served.post(&first, path, &json!({ "seconds": 1 })).await;
    served::until("the lease ends", || async {
        served.post(&second, path, &json!({ "seconds": 60 })).await.status == 200
    })
    .await;
    assert_eq!(served.post(&first, path, &json!({})).await.problem().1, "reader-leased");
    served.stop().await;
}

#[tokio::test]
async fn a_shift_is_opened_once_and_lasts_over_a_restart() {
    let served = shop(Setup::new()).await;
    let till = pair(&served, "till-1", EVERYTHING).await;
    let other = pair(&served, "till-2", EVERYTHING).await;
    add(&served, "li.wei", "cashier").await;
    add(&served, "wang.fang", "manager").await;
    let li = log_in(&served, &till, "li.wei").await;
    let nothing = json!({});
    assert_eq!(served.post(&li, "/v1/shifts/close", &nothing).await.problem(), (409, "no-open-shift".into()));
    let opened = served.post(&li, "/v1/shifts/open", &nothing).await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let again = served.post(&li, "/v1/shifts/open", &nothing).await;
    assert_eq!(again.problem(), (409, "shift-open".into()));
    assert_eq!(again.json()["shift"], opened.json()["id"]);
    let elsewhere = log_in(&served, &other, "wang.fang").await;
    assert_eq!(served.post(&elsewhere, "/v1/shifts/open", &nothing).await.status, 201);

    let served = shop(Setup::in_dir(served.stop().await)).await;
    assert_eq!(served.get(&li, "/v1/shifts").await.problem().1, "session-over", "people log in again");
    let wang = log_in(&served, &till, "wang.fang").await;
    assert_eq!(served.post(&wang, "/v1/shifts/open", &nothing).await.problem().1, "shift-open");
    let closed = served.post(&wang, "/v1/shifts/close", &nothing).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    let shift = closed.json();
    assert_eq!((&shift["id"], &shift["till"]), (&opened.json()["id"], &json!("till-1")));
    assert_eq!((&shift["opened_by"], &shift["closed_by"]), (&json!("li.wei"), &json!("wang.fang")));
    assert_eq!(shift["totals"], json!([]), "nothing was taken");
    let listed = served.get(&wang, "/v1/shifts").await.json();
    let open = |shift: &Value| shift["closed_at"].is_null();
    assert_eq!(listed["shifts"].as_array().unwrap().iter().filter(|shift| open(shift)).count(), 1);
    served.stop().await;
}

/// A configuration that names the socket.
fn config(served: &Served) -> String {
    let file = served.dir.path().join("baygate.toml");
    let text = format!(
        "[gateway]\nstore = \"SH-0042\"\nid = \"gw-1\"\n\n[api]\ncontrol_socket = {:?}\n",
        served.socket.display().to_string()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn baygate(config: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(["operator"]).args(words).args(["--config", config, "--locale", "en"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command with a line of standard input, off the threads that serve it.
async fn run(config: &str, words: &[&str], input: &'static str) -> (i32, String) {
    let mut command = baygate(config, words);
    let done = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        use std::io::Write as _;
        // A command that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let done = done.await.unwrap();
    let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_all_of_it() {
    let served = shop(Setup::new()).await;
    let config = config(&served);
    let till = pair(&served, "till-1", EVERYTHING).await;
    let words = ["add", "li.wei", "--name", "李伟", "--role", "cashier", "--card", "04A1B2C3"];
    // (arguments, standard input, exit, said)
    let cases: [(&[&str], &'static str, i32, &str); 9] = [
        (&words, "", 1, "nothing was typed"),
        (&words, "123456\n", 2, "pin-too-weak"),
        (&words, "271828182845\n", 0, "li.wei"),
        (&words, "271828182845\n", 4, "exists-already"),
        (&["list"], "", 0, "04A1B2C3"),
        (&["set", "li.wei", "--role", "manager", "--no-card"], "", 0, "manager"),
        (&["set", "nobody", "--role", "manager"], "", 2, "not-found"),
        (&["lock", "li.wei"], "", 0, "yes"),
        (&["log"], "", 0, "locked"),
    ];
    for (words, input, exit, said) in cases {
        let (code, told) = run(&config, words, input).await;
        assert_eq!(code, exit, "{words:?}: {told}");
        assert!(told.contains(said) && !told.contains(PIN), "{words:?}: {told}");
    }
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem().1, "operator-locked");
    assert_eq!(run(&config, &["unlock", "li.wei"], "").await.0, 0);
    assert_eq!(run(&config, &["pin", "li.wei"], "314159265358\r\n").await.0, 0);
    assert_eq!(try_login(&served, &till, "li.wei", PIN).await.problem().1, "login-refused");
    assert_eq!(try_login(&served, &till, "li.wei", "314159265358").await.status, 201);
    let (_, listed) = run(&config, &["list", "--json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["operators"][0]["role"], "manager");
    served.stop().await;
}

/// At a terminal the PIN is asked for twice and never shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_typed_pin_is_not_shown() {
    let served = shop(Setup::new()).await;
    let config = config(&served);
    let till = pair(&served, "till-1", EVERYTHING).await;
    for (second, exit) in [("271828182846\n", 2), ("271828182845\n", 0)] {
        let mut command = baygate(&config, &["add", "li.wei", "--name", "李伟", "--role", "cashier"]);
        let (code, shown) = tokio::task::spawn_blocking(move || {
            use std::io::{Read as _, Write as _};
            let pty = nix::pty::openpty(None, None).unwrap();
            let mut child = command
                .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
                .stderr(Stdio::from(pty.slave))
                .spawn()
                .unwrap();
            drop(command); // with its ends of the terminal
            let mut master = std::fs::File::from(pty.master);
            let mut shown = String::new();
            let mut answers = [("not shown", "271828182845\n"), ("Once more", second)].into_iter().peekable();
            let mut bytes = [0; 512];
            // Until the other end is closed.
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
                if let Some((_, answer)) = answers.next_if(|(asked, _)| shown.contains(asked)) {
                    master.write_all(answer.as_bytes()).unwrap();
                }
            }
            (child.wait().unwrap().code().unwrap(), shown)
        })
        .await
        .unwrap();
        assert_eq!(code, exit, "{shown}");
        assert!(!shown.contains("2718"), "{shown}");
    }
    log_in(&served, &till, "li.wei").await;
    served.stop().await;
}

#[tokio::test]
async fn a_till_prints_on_its_own_printer_when_it_names_none() {
    let served = shop(Setup::new()).await;
    let (home, bare) = (pair(&served, "till-1", EVERYTHING).await, pair(&served, "till-2", EVERYTHING).await);
    let script = served.token(&["print"]).await;
    let face = json!({ "fields": { "name": "李伟" } });
    let mut named = face.clone();
    named["printer"] = json!("face-1");
    // (who, what, status, the printer or the code)
    let cases = [
        (&home, &face, 202, "face-1"),
        (&home, &named, 202, "face-1"),
        (&bare, &named, 202, "face-1"),
        (&bare, &face, 422, "printer-needed"),
        (&script, &face, 422, "printer-needed"),
        (&script, &named, 202, "face-1"),
    ];
    for (n, (token, body, status, told)) in cases.into_iter().enumerate() {
        let reply = served.post(token, "/v1/print-jobs", body).await;
        assert_eq!(reply.status, status, "{n}: {reply:?}");
        let member = if status == 202 { "printer" } else { "code" };
        assert_eq!(reply.json()[member], told, "{n}: {reply:?}");
    }
    let refused = served.post(&bare, "/v1/print-jobs", &face).await;
    assert!(refused.body.contains("till-2"), "it says which till: {refused:?}");
    let document = served.get(&script, "/openapi.json").await.json();
    let schema = &document["components"]["schemas"]["NewPrintJob"];
    assert_eq!(schema["required"], json!(["fields"]), "{schema}");
    assert!(schema["properties"]["printer"]["description"].as_str().unwrap().contains("till"), "{schema}");
    served.stop().await;
}
