//! Asks the linker to pack the relative relocations of the program (DT_RELR; binutils 2.38, glibc
//! 2.36): unpacked, the loader reads 1.3 MB of them at every start, which stay in memory.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let is = |key: &str, value: &str| std::env::var(key).is_ok_and(|is| is == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
