//! Writes Grafana's dashboards into `dashboards/grafana`, which the binary includes:
//!
//!     cargo run --example dashboards

#![allow(missing_docs, unreachable_pub)]

mod make;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/grafana");
    for (name, dashboard) in make::all() {
        std::fs::write(folder.join(name), make::text(&dashboard))?;
    }
    Ok(())
}
