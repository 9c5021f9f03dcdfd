//! Compiles the proto with protox, so that a build needs no protoc.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["fullrank/v1/fullrank.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For reflection.
    std::fs::write(out.join("fullrank.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true) // for the tests
        .bytes(".fullrank.v1.PushRequest.chunk") // taken from the connection's buffer as they are, not copied out of it
        .compile_fds(files)?;
    Ok(())
}
