//! The page in a real browser: `tests/clients/page.py` looks at it; here is what it looks at.

use rusqlite::{Connection, params};

use crate::harness::{Server, f32_body, gaussian_body};
use crate::interop::{passes, python_client};

/// Names that the doors refuse, so that only a hand can have written them: each would run if it were put in as markup.
fn hostile(index: usize) -> String {
    match index % 5 {
        0 => format!("<img src=x onerror=alert({index})>"),
        1 => format!("\"><script>alert({index})</script>"),
        2 => format!("javascript:alert({index})//'"),
        3 => format!("</span><svg/onload=alert({index})>&run=<b>"),
        _ => format!("' onmouseover='alert({index})' <a href=//elsewhere.example>"),
    }
}

/// 100 runs with such names, layers and notes, and 10,000 windows of the run `long`.
fn write_by_hand(file: &std::path::Path) {
    let connection = Connection::open(file).unwrap();
    connection.execute_batch("BEGIN").unwrap();
    for index in 0..100 {
        let name = hostile(index);
        let note = format!("<img src=x onerror=alert({index})>");
        let layer = if index % 2 == 0 { note.clone() } else { "projector".to_string() };
        let copies = [
            "INSERT INTO runs SELECT ?1, method, last_push_at, finished_at FROM runs WHERE run = 'long' AND ?2 = ?2 AND ?3 = ?3",
            "INSERT INTO layers SELECT ?1, ?2, memory FROM layers WHERE run = 'long' AND ?3 = ?3",
            "INSERT INTO verdicts SELECT ?1, ?2, since_window, latched_window, latched_revision FROM verdicts
             WHERE run = 'long' AND ?3 = ?3",
            "INSERT INTO closed_windows SELECT ?1, ?2, window, revision, sessions FROM closed_windows
             WHERE run = 'long' AND ?3 = ?3",
            "INSERT INTO reports SELECT ?1, ?2, window, revision, closed_at, rows, dim, state, scale, dimension, cause,
             json_set(report, '$.run', ?1, '$.layer', ?2, '$.notes[0]', ?3) FROM reports WHERE run = 'long'",
            "INSERT INTO spectra SELECT ?1, ?2, window, revision, numeric_noise_floor, input_noise_floor, eigenvalues
             FROM spectra WHERE run = 'long' AND ?3 = ?3",
        ];
        for copy in copies {
            connection.execute(copy, params![name, layer, note]).unwrap();
        }
    }
    let series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)";
    connection
        .execute_batch(&format!(
            "{series} INSERT INTO reports SELECT run, layer, i, 1, closed_at, rows, dim, state, scale, dimension, cause,
             json_set(report, '$.window', i, '$.measures.entropy_rank', 4 + (i % 600) / 200.0) FROM reports, n WHERE run = 'long';
             {series} INSERT INTO spectra SELECT run, layer, i, 1, numeric_noise_floor, input_noise_floor, eigenvalues
             FROM spectra, n WHERE run = 'long';
             {series} INSERT INTO closed_windows SELECT run, layer, i, 1, sessions FROM closed_windows, n WHERE run = 'long';
             COMMIT"
        ))
        .unwrap();
}

#[test]
fn a_browser_shows_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let server = Server::start(&["--data-dir", data]);
    server.report("long/projector?window=0&last=true&method=byol", gaussian_body(64, 16, 1));
    server.stop();
    write_by_hand(&directory.path().join("fullrank.sqlite3"));

    // With memory for the demo's d = 64, and not for d = 256.
    let server = Server::start(&["--data-dir", data, "--solver-bytes", "1048576"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = fullrank::client::Client::new(server.url("").parse().unwrap(), None).unwrap();
    assert!(runtime.block_on(fullrank::demo::replay(&client, "", |_| {})).unwrap());
    let estimated = server.report("estimated/projector?window=0&last=true", gaussian_body(512, 256, 2));
    assert!(!estimated["computed"]["estimated"].as_array().unwrap().is_empty(), "{estimated}");
    for window in 0..6 {
        server.report(&format!("live/projector?window={window}&last=true"), gaussian_body(64, 16, window));
    }
    assert_eq!(server.push("live/projector?window=6", f32_body(&[("z", 2, 16, &[0.5; 32])])).status(), 202);
    let mut look = python_client("page.py", &server);
    // Where the screenshots of the README come from.
    if let Some(folder) = std::env::var_os("FULLRANK_TEST_SCREENSHOTS") {
        look.arg(folder);
    }
    eprintln!("{}", passes(look, b""));
}
