//! What stands in the file, and files that say nothing.

use super::*;

fn foil() -> KeptFoil {
    let proof = Proof {
        tac: String::new(),
        terminal_id: "001122334455".into(),
        terminal_sequence: 5,
        key_version: 1,
        algorithm: 0,
    };
    let open = OpenPurse { kind: 6, sequence: 9, balance_after: 4_300 };
    let leaves = Leaves { counter: 3, tag: Some([1, 2, 3, 4]) };
    let uid = "04A1B2C3".parse().unwrap();
    KeptFoil { uid, leaves, open, proof, word: Word::Open, approved: Some(5) }
}

#[test]
fn what_was_kept_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sam.json");
    let (notebook, left) = Notebook::open(&path, 1);
    assert_eq!(left, None);
    notebook.note(foil());
    assert_eq!(Notebook::open(&path, 0).1, Some(Kept { wrong: 1, last: Some(foil()) }), "nobody knows");
    notebook.count(2);
    let last = foil();
    notebook.became(&last.uid, Leaves { counter: 4, ..last.leaves }, "00", Word::Refuted);
    notebook.strike(&"04A1B2C4".parse().unwrap(), last.leaves);
    let kept = Notebook::open(&path, 1).1.unwrap();
    assert_eq!(kept, Kept { wrong: 2, last: Some(foil()) }, "another transaction is not this one");
    notebook.became(&last.uid, last.leaves, "ABABABAB", Word::Believed);
    let kept = Notebook::open(&path, 1).1.unwrap().last.unwrap();
    assert_eq!((kept.word, kept.proof.tac.as_str()), (Word::Believed, "ABABABAB"));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 1024);
    notebook.strike(&last.uid, last.leaves);
    assert_eq!(Notebook::open(&path, 1).1, Some(Kept { wrong: 2, last: None }));
}

/// Half a file, another one, or none that can be written: nothing is known, and nothing stops.
#[test]
fn a_file_that_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sam.json");
    for text in ["", "{\"wrong\":2,\"last\":{\"uid", "{\"wrong\":300,\"last\":null}", "\u{0}\u{0}"] {
        std::fs::write(&path, text).unwrap();
        let (notebook, left) = Notebook::open(&path, 1);
        assert_eq!(left, None, "{text:?}");
        notebook.note(foil());
        assert_eq!(Notebook::open(&path, 1).1.unwrap().last, Some(foil()), "{text:?}");
    }
    let (notebook, left) = Notebook::open(folder.path(), 1);
    assert_eq!(left, None);
    notebook.note(foil());
}
