//! The straight line once: push, report, read, metrics, page.

use std::io::{Read, Write};

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

#[test]
fn a_refused_push_keeps_its_connection() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let body = gaussian_body(64, 64, 1);
    for _ in 0..3 {
        // Refused for its name, before the body is read.
        let head = format!(
            "POST /v1/runs/r/layers/no+name/batches HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400");
        let mut rest = Vec::new();
        while !rest.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
    }
}
