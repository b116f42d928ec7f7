//! What the linker is told about the program, on Linux with glibc.
//!
//! Relative relocations are packed (DT_RELR; binutils 2.38, glibc 2.36): unpacked, the loader reads
//! 1.3 MB of them at every start, which stay in memory. In a release the functions that the daemon
//! runs all the time lie side by side (`hot_functions.txt`, written by `make hot-functions`): the
//! kernel maps 64 KiB around each one that is touched.

use std::fmt::Write as _;
use std::path::Path;

const HOT_FUNCTIONS: &str = include_str!("hot_functions.txt");

fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=src/build.rs");
    println!("cargo::rerun-if-changed=src/hot_functions.txt");
    let variable = |key: &str| std::env::var(key).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") != "linux" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return Ok(());
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if variable("PROFILE") == "release" {
        let script = Path::new(&variable("OUT_DIR")).join("hot_functions.ld");
        std::fs::write(&script, linker_script(HOT_FUNCTIONS))?;
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
    Ok(())
}

/// A line is a family of functions, and of some the hashes of its busy members. The first pattern
/// that fits a function takes it, so the idle members of those come last.
fn linker_script(list: &str) -> String {
    let (mut busy, mut idle) = (String::new(), String::new());
    for line in list.lines() {
        let mut words = line.split(' ');
        let family = words.next().unwrap_or_default();
        let mut named = false;
        for hash in words {
            named = true;
            function(&mut busy, &format!("{family}17h{hash}E*"));
        }
        let all = if named { &mut idle } else { &mut busy };
        // A Rust symbol ends in a hash; one of C is the whole name. Either may end in `.llvm.1234`.
        match family.starts_with("_ZN") {
            true => function(all, &format!("{family}17h*")),
            false => {
                function(all, family);
                function(all, &format!("{family}.llvm.*"));
            }
        }
    }
    format!("SECTIONS {{ .text.hot : {{\n{busy}{idle}}} }} INSERT BEFORE .text;\n")
}

/// The compiler keeps what it takes for rare apart: the start of the program among it.
fn function(script: &mut String, name: &str) {
    let _ = writeln!(script, "*(.text.{name} .text.unlikely.{name})");
}
