//! The members that a shop had before, at the real program: a CSV file from the terminal, good lines
//! taken and wrong ones told, the same file twice, killed in the middle, and a card given out to
//! such a member.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod counter_shop;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use baygate::sim::card::Technology as Sim;
use counter_shop::{Shop, blank};
use serde_json::{Value, json};

fn command(shop: &Shop, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(["card", "import"]).args(words).args(["--locale", "en", "--config"]);
    command.arg(shop.desk.config()).stdin(Stdio::null());
    command
}

/// Exit status, standard output and standard error.
async fn import(shop: &Shop, words: &[&str]) -> (i32, String, String) {
    let mut command = command(shop, words);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

fn file(shop: &Shop, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = shop.desk.path(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// What the ledger tells of members, by number.
fn listed(told: &[(String, Value)]) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (_, data) in told.iter().filter(|(kind, data)| kind == "card.status" && data["listed"].is_object()) {
        found.entry(data["card_no"].as_str().unwrap().to_owned()).or_default().push(data.clone());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn good_lines_are_taken_once_and_become_cards() {
    let shop = Shop::open("").await;
    let text = "\u{FEFF}卡号,类型,等级,折扣类别,有效期至\r\n8800000042,记名,2,1,\r\n8800000043,不记名,,,2040-12-31\r\n\
                8800000044,记名,,,2040-12-31\r\n88000000XX,记名,,,\r\n8800000042,记名,9,9,\r\n8800000045,不记名,,,2026-12-31\r\n";
    let path = file(&shop, "members.csv", text);
    let (status, out, err) = import(&shop, &[&path, "--check"]).await;
    assert_eq!(status, 1, "{out}{err}");
    assert!(
        out.contains(
            "checked, nothing taken: 2 new, 0 changed, 0 unchanged, 0 have their card, 4 lines wrong"
        ),
        "{out}{err}"
    );
    for line in
        ["line 4: ", "line 5: card number", "line 6: card number 8800000042 stands in line 2", "line 7: "]
    {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert_eq!(shop.get("/v1/cards/8800000042").await.body["code"], "card-not-known", "only looked");

    for expected in ["imported: 2 new, 0 changed, 0 unchanged", "imported: 0 new, 0 changed, 2 unchanged"] {
        let (status, out, err) = import(&shop, &[&path, "--operator", "li.wei"]).await;
        assert!(status == 1 && out.contains(expected), "{out}{err}");
    }
    let answer = shop.get("/v1/cards/8800000042").await;
    let member = json!({ "type": "named", "tier": 2, "discount_class": 1 });
    assert_eq!(
        (answer.status, &answer.body["code"], &answer.body["listed"]),
        (404, &json!("card-not-given-out"), &member)
    );

    // Another list says otherwise of one.
    let other = file(&shop, "other.csv", "card_no,tier,discount_class\n8800000042,3,1\n8800000043,0,0\n");
    let (status, out, err) = import(&shop, &[&other, "--json"]).await;
    assert_eq!(status, 0, "{out}{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["changed"], 2, "the second one is named now: {told}");

    // Its card needs to be told nothing.
    let card = shop.lay(blank(Sim::Ntag215)).await;
    assert_eq!(shop.refused("/v1/cards", json!({ "card_no": "8800000077" }), "i-0").await.0, 422);
    shop.done("/v1/cards", json!({ "card_no": "8800000042" }), "i-1").await;
    let mut chip = card.chip();
    card.remove().await;
    chip.reset();
    let card = shop.lay(chip).await;
    let member = shop.member().await;
    assert_eq!(
        (&member["card_no"], &member["type"], &member["tier"]),
        (&json!("8800000042"), &json!("named"), &json!(3))
    );
    card.remove().await;
    let (_, out, err) = import(&shop, &[&path]).await;
    assert!(out.contains("imported: 0 new, 1 changed, 0 unchanged, 1 have their card"), "{out}{err}");

    let (_, told) = shop.close().await;
    let told = listed(&told);
    assert_eq!(told.keys().collect::<Vec<_>>(), ["8800000042", "8800000043"]);
    let first = &told["8800000042"][0];
    assert_eq!(
        json!([first["reason"], first["operator"], first["till"], first["status"]]),
        json!(["imported", "li.wei", "control", "active"])
    );
    assert_eq!(told["8800000042"][1]["reason"], "import-changed");
    assert_eq!((told["8800000042"].len(), told["8800000043"].len()), (2, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_says_how_to_save_it() {
    let shop = Shop::open("").await;
    // 金卡 in GB18030, as a spreadsheet in Chinese saves plain CSV.
    let gbk = file(&shop, "gbk.csv", b"\xBF\xA8\xBA\xC5,\xC0\xE0\xD0\xCD\r\n8800000042,\xBC\xC7\xC3\xFB\r\n");
    let utf16 = file(&shop, "utf16.csv", b"\xFF\xFEc\0a\0r\0d\0");
    for path in [gbk, utf16] {
        let (status, out, err) = import(&shop, &[&path]).await;
        assert!(
            status == 2 && err.contains("line 1 is not UTF-8") && err.contains("CSV UTF-8"),
            "{out}{err}"
        );
    }
    let money = file(&shop, "money.csv", "card_no,principal_fen\n8800000042,100000\n");
    let (status, _, err) = import(&shop, &[&money]).await;
    assert!(status == 2 && err.contains("principal_fen"), "{err}");
    let (status, _, err) = import(&shop, &["/nowhere.csv"]).await;
    assert!(status == 2 && err.contains("cannot be read"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_loses_nobody_and_doubles_nobody() {
    const MEMBERS: usize = 1800;
    let mut shop = Shop::open("").await;
    let lines: String = (0..MEMBERS).map(|n| format!("{},{}\n", 8_800_000_000 + n, n % 200)).collect();
    // Without the type: as the words say.
    let path = file(&shop, "members.csv", format!("card_no,tier\n{lines}"));
    let path = [path.as_str(), "--type", "anonymous", "--valid-until", "2099-12-31"];
    let mut running = command(&shop, &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    // One of the second part is there: the import is under way.
    while shop.get("/v1/cards/8800000600").await.body["code"] != "card-not-given-out" {
        assert!(begun.elapsed() < daemon::LONG, "nothing is imported");
    }
    shop.kill_and_restart().await;
    tokio::task::spawn_blocking(move || running.wait().unwrap()).await.unwrap();
    let (status, out, err) = import(&shop, &[&path[..], &["--json"][..]].concat()).await;
    assert_eq!(status, 0, "{out}{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let count = |name: &str| usize::try_from(told[name].as_u64().unwrap()).unwrap();
    assert_eq!((count("imported") + count("unchanged"), count("changed")), (MEMBERS, 0), "{told}");
    assert!(count("unchanged") > 600, "{told}");
    let (_, told) = shop.close().await;
    let told = listed(&told);
    assert_eq!(told.len(), MEMBERS);
    assert!(told.values().all(|events| events.len() == 1));
    let last = &told["8800001799"][0]["listed"];
    let named =
        json!({ "type": "anonymous", "tier": 1799 % 200, "discount_class": 0, "valid_until": "2099-12-31" });
    assert_eq!(last, &named);
}

/// A long file goes over in parts: what is wrong in a later one is told by its line in the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_keeps_its_number_in_a_long_file() {
    let shop = Shop::open("").await;
    let member = |n: u64| match n {
        // Only the daemon knows that this cannot be; the command alone sees that.
        900 => "8800000900,named,2040-12-31\n".to_owned(),
        901 => "8800000899,named,\n".to_owned(),
        n => format!("{},named,\n", 8_800_000_000 + n),
    };
    let lines: String = (2..=1100).map(member).collect();
    let path = file(&shop, "members.csv", format!("card_no,type,valid_until\n{lines}"));
    let (status, out, err) = import(&shop, &[&path, "--json"]).await;
    assert_eq!(status, 1, "{out}{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let lines: Vec<_> = told["faults"].as_array().unwrap().iter().map(|fault| &fault["line"]).collect();
    assert_eq!((lines, &told["imported"]), (vec![&json!(900), &json!(901)], &json!(1097)), "{out}");
    shop.close().await;
}
