//! The program: arguments in, exit status out.

use std::process::ExitCode;

use baygate::cli;

fn main() -> ExitCode {
    cli::main()
}
