//! Compiles the proto with protox, so that a build needs no protoc.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rustc-env=FULLRANK_REVISION={}", revision());
    let files = protox::compile(["fullrank/v1/fullrank.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For reflection.
    std::fs::write(out.join("fullrank.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true) // for the tests
        .bytes(".fullrank.v1.PushRequest.chunk") // slices of the connection's buffer, not copies
        .compile_fds(files)?;
    Ok(())
}

/// FULLRANK_REVISION, or git's revision in release builds: debug builds should not be rebuilt for each commit.
fn revision() -> String {
    println!("cargo:rerun-if-env-changed=FULLRANK_REVISION");
    if let Ok(revision) = std::env::var("FULLRANK_REVISION") {
        return revision;
    }
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return "unknown (debug build)".to_string();
    }
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| PathBuf::from(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_string())
}
