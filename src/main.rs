//! The binary; all of it is in the library, so that only the library is compiled again after a change.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    fullrank::commands::run()
}
