//! The straight line once: push, report, read, metrics, page.

use crate::harness::{Server, gaussian_body};

#[test]
fn a_batch_becomes_a_report() {
    let server = Server::start(&[]);
    let report = server.report("?window=0&last=true", gaussian_body(64, 16, 1));
    assert_eq!((&report["closed"], &report["rows"], &report["dim"]), (&true.into(), &64.into(), &16.into()));
    assert_eq!(report["verdict"]["dimension"], "ok");
    let metrics = server.get("/metrics").send().unwrap().text().unwrap();
    assert!(metrics.contains("fullrank_entropy_rank{run=\"r\",layer=\"l\"}"), "{metrics}");
    assert!(server.get("/").send().unwrap().text().unwrap().contains("/page/app.js"));
}
