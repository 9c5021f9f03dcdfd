//! Compiles the proto with protox, so that a build needs no protoc.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["fullrank/v1/fullrank.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .build_client(true) // for the tests
        .file_descriptor_set_path(out.join("fullrank.bin"))
        .compile_fds(files)?;
    Ok(())
}
