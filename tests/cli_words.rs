//! The command line as somebody new meets it: exit statuses, languages, a reader that leaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn baygate(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
    command.args(args).current_dir(folder).env("LANG", "en_US.UTF-8").env_remove("BAYGATE_LOG");
    command.stdin(Stdio::null()).output().unwrap()
}

/// A configuration whose data, rules and faces are where they can be found.
fn configuration(folder: &Path, more: &str) {
    let root = env!("CARGO_MANIFEST_DIR");
    let toml = format!(
        "[gateway]\nstore = \"S-1\"\nid = \"gw-1\"\nlocale = \"zh-CN\"\ndata_dir = \"{}\"\n\
         share_dir = \"{root}/config\"\nfirmware_protocols = \"{root}/firmware-protocols\"\n{more}",
        folder.join("data").display()
    );
    std::fs::write(folder.join("baygate.toml"), toml).unwrap();
}

#[test]
fn messages_speak_the_language_of_the_configuration_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    configuration(folder.path(), "");
    // (arguments, what the answer holds)
    let cases: [(&[&str], &str); 3] = [
        (&["check", "--config", "baygate.toml"], "没有发现错误"),
        (&["check", "--config", "."], "没有发现错误"),
        (&["check", "--config", "baygate.toml", "--locale", "en"], "no errors found"),
    ];
    for (args, words) in cases {
        let told = String::from_utf8(baygate(folder.path(), args).stdout).unwrap();
        assert!(told.contains(words), "{args:?}: {told}");
    }
    // Also when something else is wrong with it; without one, LANG decides.
    configuration(folder.path(), "[api]\nlissten = \"127.0.0.1:0\"\n");
    let wrong = baygate(folder.path(), &["check", "--config", "baygate.toml"]);
    assert!(String::from_utf8(wrong.stdout).unwrap().contains("个错误"));
    let none = baygate(folder.path(), &["check", "--config", "none.toml"]);
    assert!(String::from_utf8(none.stdout).unwrap().contains("error(s)"));
}

#[test]
fn an_invalid_configuration_is_exit_status_2_whatever_the_command() {
    let folder = tempfile::tempdir().unwrap();
    configuration(folder.path(), "[api]\nlissten = \"127.0.0.1:0\"\n");
    let commands: [&[&str]; 8] = [
        &["run"],
        &["check"],
        &["scan", "bay-1"],
        &["watch", "bay-1"],
        &["buffer", "status"],
        &["token", "list"],
        &["operator", "list"],
        &["pair", "--till", "till-1"],
    ];
    for command in commands {
        let mut args = command.to_vec();
        args.extend(["--config", "baygate.toml"]);
        let done = baygate(folder.path(), &args);
        assert_eq!(done.status.code(), Some(2), "{command:?}: {done:?}");
        let told = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert!(told.contains("lissten") && told.contains("listen"), "{command:?}: {told}");
    }
}

#[test]
fn a_template_of_the_installation_is_found_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    configuration(folder.path(), "");
    let data = r#"{"card_no":"8800001","points":1250,"offer":"夏季空调检查 8 折","qr":"https://m.example.com/c/8800001"}"#;
    std::fs::write(folder.path().join("card.json"), data).unwrap();
    let args = ["print", "render", "--data", "card.json", "--out", "face.png", "--config", "baygate.toml"];
    let render = |template: &str| baygate(folder.path(), &[&args[..], &["--template", template]].concat());
    let done = render("member-face.svg");
    assert!(done.status.success(), "{done:?}");
    assert!(std::fs::read(folder.path().join("face.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(render("nobody-has-this.svg").status.code(), Some(2));
}

/// `baygate … | head -1`: the reader has gone before the first byte.
#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["schema", "openapi"][..], &["man"], &["completions", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_baygate"));
        let child = command.args(args).current_dir(folder.path()).stdout(writer).stderr(Stdio::piped());
        let done = child.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!((done.status.code(), done.stderr.len()), (Some(0), 0), "{args:?}: {done:?}");
    }
}
