//! The sub-commands, as people and scripts use them: what they print, and their exit codes.

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{Server, gaussian_body};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/recordings/simsiam-no-predictor.safetensors");

fn fullrank(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fullrank")).args(arguments).output().unwrap()
}

/// Exit code, standard output, standard error.
fn said(arguments: &[&str]) -> (i32, String, String) {
    let output = fullrank(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// An N x d array of f32 as numpy stores it.
fn npy(rows: usize, dim: usize, values: &[f32]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[test]
fn a_recording_is_replayed_listed_and_reported() {
    let server = Server::start(&[]);
    let url = server.url("");
    server.report("fine/l?window=3&last=true&step=17", gaussian_body(64, 4, 1));
    let (code, out, err) = said(&["replay", RECORDING, "--url", &url]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("simsiam-no-predictor") && out.contains("collapsed"), "{out}");
    assert!(out.contains("cause constant, scaled_std"), "{out}");
    let (code, out, _) = said(&["runs", "--url", &url]);
    assert_eq!(code, 0);
    let line = |run: &str| out.lines().position(|line| line.contains(run)).unwrap();
    assert!(line("simsiam-no-predictor") < line("fine"), "worst first:\n{out}");
    let listed: Value = serde_json::from_str(&said(&["runs", "--json", "--url", &url]).1).unwrap();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 2);
    let (code, out, _) = said(&["report", "fine", "--url", &url]);
    assert_eq!(code, 0);
    assert!(out.contains("fine l, window 3  64 rows of dimension 4") && out.contains("entropy_rank"), "{out}");
    let of_window =
        said(&["report", "simsiam-no-predictor", "--window", "1", "--layer", "projector", "--json", "--url", &url]);
    let report: Value = serde_json::from_str(&of_window.1).unwrap();
    assert_eq!((&report["window"], &report["layer"]), (&1.into(), &"projector".into()));
    for (arguments, says) in [
        (vec!["report", "nobody"], "404 not_found: run nobody does not exist"),
        (vec!["report", "fine", "--layer", "x"], "run fine has no layer x; it has: l"),
        (vec!["report", "fine", "--window", "9"], "no layer has window 9 closed"),
        (vec!["replay", "/no/such/file"], "/no/such/file: No such file"),
        (vec!["replay", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")], "expected npy or safetensors"),
    ] {
        let (code, _, err) = said(&[&arguments[..], &["--url", &url]].concat());
        assert!(code == 2 && err.contains(says), "{arguments:?}: {code} {err}");
    }
}

#[test]
fn files_are_replayed_as_windows_in_their_order() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, body: Vec<u8>| {
        let path = folder.path().join(name).display().to_string();
        std::fs::write(&path, body).unwrap();
        path
    };
    let first = file("b epoch.npy", npy(3, 2, &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0]));
    let second = file("a.safetensors", gaussian_body(40, 2, 1));
    let (code, _, err) =
        said(&["replay", &first, &second, "--method", "byol", "--layer", "head", "--url", &server.url("")]);
    assert_eq!(code, 0, "{err}");
    let reports = server.json("/v1/runs/b_epoch/layers/head/reports");
    let rows: Vec<u64> = reports["reports"].as_array().unwrap().iter().map(|r| r["rows"].as_u64().unwrap()).collect();
    assert_eq!(rows, [3, 40]);
    assert_eq!(server.json("/v1/runs/b_epoch")["method"], "byol");
}

#[test]
fn health_is_an_exit_code() {
    let server = Server::start(&[]);
    let url = server.url("");
    assert_eq!(said(&["healthcheck", "--url", &url]).0, 0);
    server.stop();
    let (code, _, err) = said(&["healthcheck", "--url", &url]);
    assert!(code == 1 && err.contains("is `fullrank serve` running there?"), "{code} {err}");
}

#[test]
fn a_token_is_read_from_its_file_and_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token").display().to_string();
    std::fs::write(&token, "s3cret\n").unwrap();
    let server = Server::start(&["--token-file", &token]);
    let url = server.url("");
    let (code, _, err) = said(&["runs", "--url", &url]);
    assert!(code == 2 && err.contains("401 unauthenticated"), "{err}");
    assert_eq!(said(&["runs", "--url", &url, "--token-file", &token]).0, 0);
}

#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let output = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args([
            "check-config",
            "--threads=2",
            "--webhook=https://user:pass@hooks.example/T0/secret,http://plain.example",
        ])
        .env("FULLRANK_MAX_STREAMS", "7")
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let line = |flag: &str| -> Vec<&str> {
        let line = out.lines().find(|line| line.starts_with(&format!("{flag} "))).unwrap();
        line.split_whitespace().skip(1).collect()
    };
    assert_eq!(line("--threads"), ["2", "command", "line"]);
    assert_eq!(line("--max-streams"), ["7", "FULLRANK_MAX_STREAMS"]);
    assert_eq!(line("--log"), ["info", "default"]);
    assert_eq!(line("--webhook"), ["https://hooks.example:443/(hidden),http://plain.example:80", "command", "line"]);
    assert!(!out.contains("secret") && !out.contains("pass"), "{out}");
    // Every complaint at once, and nothing shown.
    let (code, out, err) = said(&["check-config", "--max-connections=0", "--inbox-batches=0"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("--max-connections is 0") && err.contains("--inbox-batches is 0"), "{err}");
    let help = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args(["serve", "--help"])
        .env("FULLRANK_WEBHOOK", "https://hooks.example/secret")
        .output()
        .unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("secret"), "help shows no secret either");
}

#[test]
fn a_spectrum_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("z.npy"), npy(4, 2, &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 1.0, 1.0])).unwrap();
    std::fs::write(path("zero.npy"), npy(4, 2, &[1.0; 8])).unwrap();
    let (code, _, err) = said(&["analyze", &path("z.npy"), second(&folder).as_str(), "--plot", &path("s.svg")]);
    assert_eq!(code, 0, "{err}");
    let svg = std::fs::read_to_string(path("s.svg")).unwrap();
    for part in ["<svg", "eigenvalue of the covariance", "noise floor", "(4 x 2)", "2 spectra"] {
        assert!(svg.contains(part), "{part}");
    }
    assert_eq!(said(&["analyze", &path("z.npy"), "--plot", &path("s.png")]).0, 0);
    let png = std::fs::read(path("s.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{} bytes", png.len());
    for (file, plot, says) in [
        ("z.npy", "s.pdf", "must end in .svg or .png"),
        ("z.npy", "no/folder/s.svg", "No such file"),
        ("zero.npy", "s.svg", "there is no spectrum to draw"),
    ] {
        let (code, _, err) = said(&["analyze", &path(file), "--plot", &path(plot)]);
        assert!(code == 2 && err.contains(says), "{plot}: {code} {err}");
    }
}

/// A second file to draw.
fn second(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("gaussian.safetensors").display().to_string();
    std::fs::write(&path, gaussian_body(200, 16, 1)).unwrap();
    path
}

#[test]
fn completions_pages_and_versions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (code, script, _) = said(&["completions", shell]);
        assert!(code == 0 && script.contains("check-config"), "{shell}");
    }
    let (code, page, _) = said(&["man"]);
    assert!(code == 0 && page.contains(".TH fullrank 1") && page.contains("Exit codes"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(said(&["man", "--dir", folder.path().to_str().unwrap()]).0, 0);
    assert!(std::fs::read_to_string(folder.path().join("fullrank-serve.1")).unwrap().contains("FULLRANK_DATA_DIR"));
    let (code, version, _) = said(&["--version"]);
    assert_eq!(code, 0);
    for part in [concat!("fullrank ", env!("CARGO_PKG_VERSION")), "revision: ", "features: ", "backends: cpu"] {
        assert!(version.contains(part), "{version}");
    }
}

#[test]
fn whoever_reads_no_further_ends_it_quietly() {
    use std::io::Read;
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_fullrank"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}
