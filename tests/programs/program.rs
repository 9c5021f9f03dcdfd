//! Programs that a test starts beside the service, on ports that were free a moment ago, and Prometheus among them with
//! the project's own configuration and rules.
//!
//! Replaced in temporary copies of `dashboards/`: addresses, and the two intervals of 15 s, which are 1 s here. The rules
//! are the real file, byte by byte.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::files::read;
use crate::harness::Server;

/// Only a test that fails waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The interval of scrapes, and of evaluations.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// An address that was free a moment ago. Whoever takes it in between makes the program end, and the test fail saying so.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// `text` with each of `changes`, all of which must have something to change.
pub fn changed(text: &str, changes: &[(&str, String)]) -> String {
    changes.iter().fold(text.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in:\n{text}");
        text.replace(from, to)
    })
}

/// A program that ends with the test; what it says is in a file.
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    pub fn start(name: &str, arguments: &[String], folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let child = Command::new(name).args(arguments).stdout(file.try_clone().unwrap()).stderr(file).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}; scripts/test installs what the tests need"));
        Self { child, log }
    }

    /// Prometheus, which scrapes the service, evaluates the rules and tells `alertmanager`; its address, too. `more`
    /// changes its configuration further.
    pub fn prometheus(server: &Server, alertmanager: &str, more: &[(&str, String)], folder: &Path) -> (Self, String) {
        let address = free_address();
        let addresses = [
            ("_interval: 15s", "_interval: 1s".to_string()),
            ("127.0.0.1:8417", server.address.to_string()),
            ("127.0.0.1:9093", alertmanager.to_string()),
        ];
        let scrapes = changed(&changed(&read("dashboards/prometheus/prometheus.yaml"), &addresses), more);
        std::fs::write(folder.join("prometheus.yaml"), scrapes).unwrap();
        let rules = read("dashboards/prometheus/fullrank.rules.yaml");
        std::fs::write(folder.join("fullrank.rules.yaml"), rules).unwrap();
        let arguments = [
            format!("--config.file={}", folder.join("prometheus.yaml").display()),
            format!("--storage.tsdb.path={}", folder.join("prometheus").display()),
            format!("--web.listen-address={address}"),
        ];
        (Self::start("prometheus", &arguments, folder), address)
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
