//! The packages in `docker/`, `kubernetes/` and `systemd/` against the program: what they set exists, what they allow it
//! in memory is there, what is made from another file is made from it as it is now; and what systemd is told.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::CommandFactory;
use fullrank::config::Cli;
use rustix::process::{Pid, Signal, kill_process};

/// Every file that sets flags by their FULLRANK_ names.
const PACKAGES: [&str; 6] = [
    "docker/Dockerfile",
    "docker/Dockerfile.cuda",
    "docker/compose.yaml",
    "kubernetes/base/deployment.yaml",
    "kubernetes/sidecar/job.yaml",
    "systemd/fullrank.service",
];

/// What the budgets do not count: the program, connections, series, SQLite, what allocators keep.
const BESIDE_THE_BUDGETS: u64 = 512 << 20;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Lines of a file without what is for people.
fn settings(path: &str) -> Vec<String> {
    let text = read(path);
    let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    code.map(|line| line.split(" #").next().unwrap().trim().to_string()).collect()
}

/// Words that begin with FULLRANK_.
fn names(lines: &[String]) -> BTreeSet<String> {
    let words = lines.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|word| word.starts_with("FULLRANK_")).map(str::to_string).collect()
}

/// The number that stands for `name`: in its line, or in the next one, as Kubernetes has it.
fn bytes(lines: &[String], name: &str) -> u64 {
    let at = lines.iter().position(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} is not set"));
    let number = |line: &str| line.rsplit([':', '=']).next().unwrap().trim().trim_matches('"').parse().ok();
    number(&lines[at]).or_else(|| number(&lines[at + 1])).unwrap_or_else(|| panic!("{name} is no number"))
}

/// 5Gi, 1536Mi, 5g.
fn amount(text: &str) -> u64 {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let shift = match text[digits..].chars().next() {
        Some('G' | 'g') => 30,
        Some('M' | 'm') => 20,
        _ => panic!("{text}"),
    };
    text[..digits].parse::<u64>().unwrap() << shift
}

#[test]
fn packages_set_only_flags_that_there_are() {
    let command = Cli::command();
    let serve = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let mut known: BTreeSet<String> =
        serve.filter_map(|argument| Some(argument.get_env()?.to_str()?.to_string())).collect();
    // What a build is told, and what the client's Monitor reads.
    known.extend(["FULLRANK_REVISION", "FULLRANK_TARGET", "FULLRANK_TOKEN"].map(str::to_string));
    for path in PACKAGES {
        let names = names(&settings(path));
        assert!(!names.is_empty(), "{path} sets nothing");
        assert!(names.is_subset(&known), "{path} sets {:?}", names.difference(&known));
    }
}

#[test]
fn budgets_fit_into_the_memory_limits() {
    for (path, limit) in [
        ("docker/compose.yaml", "mem_limit: "),
        ("kubernetes/base/deployment.yaml", "memory: "),
        ("kubernetes/sidecar/job.yaml", "memory: "),
    ] {
        let lines = settings(path);
        let budgets = ["FULLRANK_IN_FLIGHT_BYTES", "FULLRANK_ACCUMULATOR_BYTES", "FULLRANK_SOLVER_BYTES"];
        let sum: u64 = budgets.iter().map(|name| bytes(&lines, name)).sum();
        // Requests stand before limits: the second of Kubernetes' two.
        let limits: Vec<u64> = lines.iter().filter_map(|line| line.strip_prefix(limit)).map(amount).collect();
        let limit = limits[usize::from(path.starts_with("kubernetes"))];
        assert!(sum + BESIDE_THE_BUDGETS <= limit, "{path}: budgets of {sum} bytes in a limit of {limit}");
    }
}

#[test]
fn packages_name_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, line) in [
        ("docker/Dockerfile", format!("org.opencontainers.image.version=\"{version}\"")),
        ("docker/Dockerfile.cuda", format!("org.opencontainers.image.version=\"{version}\"")),
        ("docker/compose.yaml", format!("image: fullrank:{version}\n")),
        ("kubernetes/base/kustomization.yaml", format!("newTag: {version}\n")),
        ("kubernetes/sidecar/kustomization.yaml", format!("newTag: {version}\n")),
    ] {
        assert!(read(path).contains(&line), "{path} has no {line}");
    }
}

#[test]
fn the_operator_gets_the_rules_as_they_are() {
    let output = Command::new(root().join("kubernetes/generate")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Not by the script's own word alone: the same lines, two spaces in.
    let rules = read("dashboards/prometheus/fullrank.rules.yaml");
    let made = read("kubernetes/base/prometheusrule.yaml");
    let inner = made.split_once("\nspec:\n").unwrap().1.lines().map(|line| line.strip_prefix("  ").unwrap_or(line));
    let groups = rules.lines().skip_while(|line| *line != "groups:");
    assert!(inner.eq(groups), "the groups differ");
}

#[test]
fn every_dashboard_is_in_the_config_map() {
    // Grafana's sidecar puts everybody's into one folder, so they get names of their own.
    let listed: BTreeSet<String> = settings("dashboards/kustomization.yaml")
        .iter()
        .filter_map(|line| line.split_once("=grafana/"))
        .inspect(|(key, name)| assert_eq!(*key, format!("- fullrank-{name}")))
        .map(|(_, name)| name.to_string())
        .collect();
    let entries = std::fs::read_dir(root().join("dashboards/grafana")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: BTreeSet<String> = names.filter(|name| name.ends_with(".json")).collect();
    assert_eq!(listed, there, "dashboards/kustomization.yaml (left), dashboards/grafana (right)");
}

#[test]
fn systemd_is_told_of_the_start_and_of_the_drain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // Only a test that fails waits that long.
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let heard = || {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_string()
    };
    let mut service = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args(["serve", "--listen", "127.0.0.1:0", "--backend", "cpu"])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(heard(), "READY=1");
    kill_process(Pid::from_child(&service), Signal::TERM).unwrap();
    assert_eq!(heard(), "STOPPING=1");
    assert!(service.wait().unwrap().success());
}
