//! Every refusal of the contract over HTTP and gRPC: its status, its code word, and that nothing is left behind.
//! Those for want of room are in `room`.

use fullrank::wire::proto;
use fullrank::wire::proto::push_request::Part;
use reqwest::blocking::{Body, Response};
use safetensors::Dtype;
use tonic_types::StatusExt;

use crate::harness::{
    Array, Grpc, Server, body, f32_body, f32_bytes, f64s, gaussian, gaussian_body, grpc_header, problem,
};

/// Refused with this status and word, the detail says `part`, and the list of runs is as it was.
fn refused(server: &Server, response: Response, expected: (u16, &str), part: &str) {
    let (status, code, value) = problem(response);
    assert_eq!((status, code.as_str()), expected, "{value}");
    let detail = value["detail"].as_str().unwrap();
    assert!(detail.contains(part), "'{part}' in: {detail}");
    assert_eq!(server.json("/v1/runs")["runs"], serde_json::json!([]), "{value}");
}

/// The seq that every refused push here carries is still free.
fn seq_is_free(server: &Server) {
    let accepted: serde_json::Value = server.push("?seq=1", gaussian_body(16, 4, 1)).json().unwrap();
    assert_eq!((&accepted["duplicate"], &accepted["rows"]), (&false.into(), &16.into()), "{accepted}");
}

fn send(server: &Server, kind: &str, body: impl Into<Body>) -> Response {
    server.post("/v1/runs/r/layers/l/batches?seq=1").header("content-type", kind).body(body).send().unwrap()
}

#[test]
fn parameters_and_names() {
    let server = Server::start(&[]);
    let check = |place: &str, part: &str| {
        refused(&server, server.push(place, gaussian_body(16, 4, 1)), (400, "malformed"), part);
    };
    check("?seq=1&windw=1", "windw");
    check("?seq=1&window=-1", "-1");
    check("?seq=1&window=1.5", "whole number");
    check("?seq=1&window=", "window");
    check("?seq=1&window=18446744073709551616", "2^64");
    check("?seq=1&window=9223372036854775808", "9223372036854775807");
    check("?seq=1&step=9223372036854775808", "9223372036854775807");
    check("?seq=1&window=0&worker=2&workers=2", "worker is 2 of 2");
    check("?seq=1&window=0&worker=1", "worker is 1 of 1");
    check("?seq=1&window=0&workers=0", "workers is 0");
    check("?seq=1&window=0&workers=4097", "4096");
    check("?seq=1&workers=2", "needs window");
    check("?seq=1&step=3&workers=2", "needs window");
    check("?seq=1&last=yes", "true or false");
    check("?seq=1&method=sinclair", "simsiam");
    check("?seq=1&loss=nan", "finite");
    check("?seq=1&temperature=inf", "finite");
    check("?seq=1&window=1&window=2", "twice");
    check("?seq=one", "seq");
    check("a%20b/l?seq=1", "' '");
    check("a%2Fb/l?seq=1", "'/'");
    check("r/caf%C3%A9?seq=1", "layer name");
    check("r/l%00?seq=1", "layer name");
    check("r/l:teacher?seq=1", "':'");
    check(&format!("{}/l?seq=1", "a".repeat(129)), "129 characters");
    check("%FF/l?seq=1", "path");
    check("r/?seq=1", "0 characters");
    check("/l?seq=1", "0 characters");
    seq_is_free(&server);
    let longest = format!("{}/A-z.0_9?seq=1", "a".repeat(128));
    assert_eq!(server.push(&longest, gaussian_body(16, 4, 1)).status(), 202);
}

#[test]
fn dots_are_no_names() {
    let server = Server::start(&[]);
    for path in ["/v1/runs/../layers/l/batches", "/v1/runs/r/layers/./batches", "/v1/runs/%2e%2E/layers/l/batches"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-npy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = server.raw(head.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"malformed\""), "{path}: {answer}");
    }
}

#[test]
fn metadata_is_parameters() {
    let server = Server::start(&[]);
    let z = || f64s("z", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let check = |query: &str, metadata: &[(&str, &str)], part: &str| {
        refused(&server, server.push(query, body(&[z()], metadata)), (400, "malformed"), part);
    };
    check("?seq=1&window=1", &[("window", "2")], "twice, as 1 and as 2");
    check("?seq=1&last=true", &[("last", "false")], "twice");
    check("?seq=1&loss=0.5", &[("loss", "0.25")], "twice");
    check("?seq=1&method=simsiam", &[("method", "byol")], "twice");
    check("?seq=1", &[("seq", "2")], "twice");
    check("?seq=1", &[("epoch", "2")], "epoch");
    let same = server.push("?seq=1&window=1", body(&[z()], &[("window", "1"), ("loss", "0.5"), ("format", "pt")]));
    assert_eq!(same.status(), 202);
}

#[test]
fn tensors() {
    let server = Server::start(&[]);
    let check = |arrays: &[Array<'_>], expected: (u16, &str), part: &str| {
        refused(&server, server.push("?seq=1", body(arrays, &[])), expected, part);
    };
    let z = |name| f64s(name, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let ones = |name, shape: &[usize]| f64s(name, shape, &vec![1.0; shape.iter().product()]);
    let integers = |name| (name, Dtype::I64, vec![2], vec![0; 16]);
    let (malformed, length, kind) = ((400, "malformed"), (400, "wrong_length"), (415, "unsupported_type"));
    check(&[z("zz")], malformed, "'zz'");
    check(&[z("z01")], malformed, "'z01'");
    check(&[z("teacher")], malformed, "'teacher'");
    check(&[], malformed, "no embeddings");
    check(&[integers("labels")], malformed, "no embeddings");
    check(&[ones("z", &[4])], malformed, "N x d");
    check(&[ones("z", &[2, 2, 2])], malformed, "N x d");
    check(&[ones("z", &[0, 4])], malformed, "at least one row");
    check(&[ones("z", &[4, 0])], malformed, "one column");
    check(&[z("z2")], malformed, "view 1 is missing");
    check(&[z("z"), z("z1")], malformed, "view 1");
    check(&[z("z1"), ones("z2", &[3, 2])], length, "aligned");
    check(&[z("z1"), ones("z2", &[2, 3])], length, "aligned");
    check(&[z("z"), ("ids", Dtype::I64, vec![3], vec![0; 24])], length, "aligned");
    check(&[z("z"), ones("ids", &[2])], kind, "I64");
    check(&[z("z"), integers("center")], kind, "center");
    check(&[("z", Dtype::I64, vec![2, 1], vec![0; 16])], kind, "integers");
    check(&[("z", Dtype::U8, vec![2, 1], vec![0; 2])], kind, "U8");
    let moments = |count: f64, m2: &[f64]| {
        vec![f64s("count", &[1], &[count]), f64s("mean", &[2], &[0.0, 0.0]), f64s("m2", &[2, 2], m2)]
    };
    check(&moments(0.0, &[1.0, 0.0, 0.0, 1.0]), malformed, "count");
    check(&moments(1.5, &[1.0, 0.0, 0.0, 1.0]), malformed, "count");
    check(&moments(4.0, &[1.0, 0.5, 0.0, 1.0]), malformed, "symmetric");
    check(&moments(4.0, &[-1.0, 0.0, 0.0, 1.0]), malformed, "not negative");
    check(&moments(4.0, &[1.0, 2.0, 2.0, 1.0]), malformed, "not a second moment");
    check(&moments(4.0, &[1.0, 0.0, 0.0, 1.0])[..2], malformed, "m2 is missing");
    check(&[ones("count", &[1]), ones("mean", &[2]), ones("m2", &[4])], length, "packed as 3");
    check(&[z("z"), ones("count", &[1])], malformed, "both rows and moments");
    let many: Vec<String> = (1..=65).map(|view| format!("z{view}")).collect();
    let many: Vec<_> = many.iter().map(|name| z(name)).collect();
    check(&many, (413, "too_large"), "65 views");
    check(&[("z", Dtype::F16, vec![1, 16_385], vec![0; 32_770])], (413, "too_large"), "16385");
    seq_is_free(&server);
}

#[test]
fn bodies() {
    let server = Server::start(&[]);
    let check = |kind: &str, body: &[u8], expected: (u16, &str), part: &str| {
        refused(&server, send(&server, kind, body.to_vec()), expected, part);
    };
    let (malformed, length, kind) = ((400, "malformed"), (400, "wrong_length"), (415, "unsupported_type"));
    let tensors = "application/x-safetensors";
    let whole = gaussian_body(16, 4, 1);
    check(tensors, b"", length, "0 bytes");
    check(tensors, b"abc", length, "3 bytes");
    check(tensors, &whole[..whole.len() - 1], length, "fill the body");
    check(tensors, &[&whole[..], b"x"].concat(), length, "fill the body");
    check(tensors, &[&10u64.to_le_bytes()[..], b"{"].concat(), length, "only 1 bytes follow");
    check(tensors, &[&2u64.to_le_bytes()[..], b"no"].concat(), malformed, "safetensors");
    check(tensors, &[&65_537u64.to_le_bytes()[..], &[b' '; 65_537]].concat(), (413, "too_large"), "65537");
    check("application/x-npy", b"PK\x03\x04....", malformed, "NUMPY");
    check("application/x-npy", b"\x93NUMPY\x01\x00", length, "within its header");
    check("application/x-npy", b"\x93NUMPY\x09\x00\x10\x00", malformed, "version 9");
    check("application/json", b"{", malformed, "not JSON");
    check("application/json", b"[[1, 2]]", malformed, "object");
    check("application/json", b"{\"z\": [[1, 2], [3]]}", length, "ragged");
    check("application/json", b"{\"z\": [[1, \"2\"]]}", malformed, "a number");
    check("application/json", b"{\"z\": [[[1]]]}", malformed, "z");
    check("application/json", b"{\"z\": [[1]], \"window\": {}}", malformed, "object");
    check("application/json", b"{\"z\": [[1]], \"seq\": 2}", malformed, "twice");
    check("application/json", b"{\"z\": [[1]], \"ids\": [1.5]}", malformed, "whole number");
    check("text/plain", &whole, kind, "text/plain");
    check("", &whole, kind, "Content-Type");
    let encoded = server.post("/v1/runs/r/layers/l/batches?seq=1").header("content-type", tensors);
    let encoded = encoded.header("content-encoding", "br").body(whole.clone()).send().unwrap();
    refused(&server, encoded, (415, "unsupported_type"), "gzip");
    let broken = server.post("/v1/runs/r/layers/l/batches?seq=1").header("content-type", tensors);
    let broken = broken.header("content-encoding", "gzip").body(whole).send().unwrap();
    refused(&server, broken, (400, "malformed"), "decompressed");
    seq_is_free(&server);
}

#[test]
fn paths_methods_and_accept() {
    let server = Server::start(&[]);
    let get = |path: &str| server.get(path).send().unwrap();
    for path in [
        "/nothing",
        "/v1",
        "/v1/runs/r",
        "/v1/runs/r/verdict",
        "/v1/runs/r/layers/l/reports",
        "/v1/runs/r/layers/l/spectrum",
        "/v1/runs//verdict",
        "/v1/runs/r/layers/l",
    ] {
        refused(&server, get(path), (404, "not_found"), "");
    }
    let post = |path: &str| server.post(path).send().unwrap();
    for path in ["/v1/runs/r/finish", "/v1/runs/r/acknowledge", "/v1/runs/r/windows/0/close"] {
        refused(&server, post(path), (404, "not_found"), "");
    }
    refused(&server, server.client.delete(server.url("/v1/runs/r")).send().unwrap(), (404, "not_found"), "run r");
    refused(&server, post("/v1/runs/r/windows/x/close"), (400, "malformed"), "path");
    refused(&server, get("/v1/runs/r/layers/l/batches"), (405, "method_not_allowed"), "GET");
    refused(&server, post("/v1/runs"), (405, "method_not_allowed"), "POST");
    refused(&server, server.client.put(server.url("/metrics")).send().unwrap(), (405, "method_not_allowed"), "PUT");
    server.report("?seq=1", gaussian_body(16, 4, 1));
    let spectrum = |accept: &str| server.get("/v1/runs/r/layers/l/spectrum").header("accept", accept).send().unwrap();
    assert_eq!(problem(spectrum("image/png")).1, "not_acceptable");
    for query in ["from=a", "limit=0", "limit=1001", "form=1"] {
        let (status, code, _) = problem(get(&format!("/v1/runs/r/layers/l/reports?{query}")));
        assert_eq!((status, code.as_str()), (400, "malformed"), "{query}");
    }
    assert_eq!(problem(get("/v1/runs/r/layers/l/spectrum?window=7")).1, "not_found");
    assert_eq!(problem(get("/v1/runs/r/layers/other/reports")).1, "not_found");
    assert_eq!(problem(post("/v1/runs/r/windows/7/close")).1, "not_found");
}

#[test]
fn shapes_and_closed_windows() {
    let server = Server::start(&[]);
    let check = |place: &str, body: Vec<u8>, code: &str, part: &str| {
        let (status, word, value) = problem(server.push(place, body));
        assert_eq!((status, word.as_str()), (409, code), "{value}");
        assert!(value["detail"].as_str().unwrap().contains(part), "{value}");
    };
    server.report("?window=0&seq=0&last=true", gaussian_body(16, 4, 1));
    let before = server.json("/v1/runs/r");
    check("?window=1&seq=1", gaussian_body(16, 5, 1), "dimension_mismatch", "dimension 5");
    check("?window=0&seq=1", gaussian_body(16, 4, 2), "window_closed", "window 0 is closed");
    check("?step=0&seq=1", gaussian_body(16, 4, 2), "window_closed", "window 0");
    assert_eq!(server.json("/v1/runs/r"), before);
    server.push("?window=1&seq=1", gaussian_body(16, 4, 1)).error_for_status().unwrap();
    let two = gaussian(16, 4, 1);
    check("?window=1&seq=2", f32_body(&[("z1", 16, 4, &two), ("z2", 16, 4, &two)]), "dimension_mismatch", "view");
    let after: serde_json::Value = server.push("?window=1&seq=2", gaussian_body(16, 4, 3)).json().unwrap();
    assert_eq!((&after["duplicate"], &after["rows"]), (&false.into(), &32.into()));
}

#[test]
fn rows_that_are_not_finite_are_named_and_counted() {
    let server = Server::start(&[]);
    let mut values = gaussian(8, 4, 1);
    values[3 * 4 + 2] = f32::NAN;
    values[5 * 4] = f32::INFINITY;
    let bad = f32_body(&[("z", 8, 4, &values)]);
    refused(&server, server.push("?seq=1", bad.clone()), (422, "not_finite"), "NaN at row 3, column 2; 2 of its rows");
    let huge = body(&[f64s("z", &[1, 2], &[0.0, -1e150])], &[]);
    refused(&server, server.push("?seq=1", huge), (422, "not_finite"), "row 0, column 1");
    let center = body(&[f64s("z", &[1, 1], &[0.0]), f64s("center", &[2], &[0.0, f64::NAN])], &[]);
    refused(&server, server.push("?seq=1", center), (422, "not_finite"), "center");
    seq_is_free(&server);
    for _ in 0..2 {
        assert_eq!(problem(server.push("?seq=2", bad.clone())).0, 422);
    }
    let series = "fullrank_nonfinite_rows_total{run=\"r\",layer=\"l\"}";
    assert_eq!(server.metrics().get(series), Some(4.0));
    assert_eq!(server.json("/v1/runs/r")["layers"][0]["nonfinite_rows"], 4);
    let rejected = "fullrank_batches_rejected_total{door=\"http\",reason=\"not_finite\"}";
    assert_eq!(server.metrics().get(rejected), Some(5.0));
}

#[test]
fn who_may_come_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let server = Server::start(&["--token-file", file.to_str().unwrap(), "--allowed-host", "train.example"]);
    let get = |path: &str| server.get(path).send().unwrap();
    for path in ["/v1/runs", "/metrics", "/", "/openapi.json", "/nothing"] {
        let response = get(path);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"), "{path}");
        let (status, code, value) = problem(response);
        assert_eq!((status, code.as_str()), (401, "unauthenticated"), "{path}");
        assert!(!value.to_string().contains("s3cret"));
    }
    assert_eq!(problem(server.push("?seq=1", gaussian_body(16, 4, 1))).0, 401);
    let with = |credential: &str| server.get("/v1/runs").header("authorization", credential).send().unwrap().status();
    assert_eq!(with("Bearer s3cret"), 200);
    assert_eq!(with("bearer s3cret"), 200);
    // any:s3cret and s3cret:
    assert_eq!(with("Basic YW55OnMzY3JldA=="), 200);
    assert_eq!(with("Basic czNjcmV0Og=="), 401);
    for wrong in ["Bearer s3cre", "Bearer s3cretx", "Bearer", "s3cret", "Basic s3cret", "Digest s3cret"] {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    assert_eq!((get("/livez").status(), get("/readyz").status()), (200.into_status(), 200.into_status()));
    let host = |name: &str| server.get("/v1/runs").bearer_auth("s3cret").header("host", name).send().unwrap();
    assert_eq!(host("TRAIN.example:8417").status(), 200);
    assert_eq!(problem(host("evil.example")).1, "forbidden");
    assert_eq!(server.get("/v1/runs").bearer_auth("s3cret").send().unwrap().text().unwrap(), "{\"runs\":[]}");
    let mut grpc = Grpc::connect(&server);
    says(grpc.push(grpc_header("seq=1", 1, 1), &[0; 4]), tonic::Code::Unauthenticated, "unauthenticated", "");
    let mut evil = Grpc::with_origin(&server, "http://evil.example");
    says(evil.push(grpc_header("seq=1", 1, 1), &[0; 4]), tonic::Code::PermissionDenied, "forbidden", "evil.example");
}

trait IntoStatus {
    fn into_status(self) -> reqwest::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> reqwest::StatusCode {
        reqwest::StatusCode::from_u16(self).unwrap()
    }
}

/// Refused over gRPC with this code and word; what may pass says when to come back.
pub fn says(answer: Result<proto::PushResponse, tonic::Status>, code: tonic::Code, word: &str, part: &str) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, word), "{status:?}");
    assert!(status.message().contains(part), "'{part}' in: {}", status.message());
    let retryable = matches!(code, tonic::Code::ResourceExhausted | tonic::Code::Unavailable);
    assert_eq!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), retryable, "{status:?}");
}

#[test]
fn grpc_pushes() {
    let server = Server::start(&["--max-body-bytes", "8388608"]);
    let mut grpc = Grpc::connect(&server);
    let zeros = |header: proto::PushHeader| vec![Part::Header(header), Part::Chunk(vec![0; 64].into())];
    let named = |run: &str, layer: &str| proto::PushHeader {
        run: run.into(),
        layer: layer.into(),
        ..grpc_header("seq=1", 4, 4)
    };
    let typed = |name: &str, dtype: &str, shape: &[u64]| proto::PushHeader {
        tensors: vec![proto::Tensor { name: name.into(), dtype: dtype.into(), shape: shape.to_vec() }],
        ..grpc_header("seq=1", 4, 4)
    };
    let mut check = |parts: Vec<Part>, code: tonic::Code, word: &str, part: &str| {
        says(grpc.push_parts(parts), code, word, part);
        assert_eq!(server.json("/v1/runs")["runs"], serde_json::json!([]));
    };
    let invalid = tonic::Code::InvalidArgument;
    check(zeros(named("a b", "l")), invalid, "malformed", "run name");
    check(zeros(named("r", "..")), invalid, "malformed", "layer name");
    check(zeros(named("", "l")), invalid, "malformed", "run name");
    check(zeros(grpc_header("seq=1&windw=1", 4, 4)), invalid, "malformed", "windw");
    check(zeros(grpc_header("seq=1&workers=2", 4, 4)), invalid, "malformed", "needs window");
    check(zeros(typed("zz", "F32", &[4, 4])), invalid, "malformed", "zz");
    check(zeros(typed("z", "F8", &[4, 4])), invalid, "unsupported_type", "F8");
    check(zeros(typed("z", "F32", &[4, 5])), invalid, "wrong_length", "80 bytes, but 64");
    check(zeros(typed("z", "F32", &[4, 3])), invalid, "wrong_length", "48 bytes, but 64");
    check(zeros(typed("z", "F32", &[u64::MAX, 4])), invalid, "wrong_length", "overflows");
    check(Vec::new(), invalid, "malformed", "header");
    check(vec![Part::Chunk(vec![0; 64].into())], invalid, "malformed", "header");
    let twice = vec![Part::Header(grpc_header("", 4, 4)), Part::Header(grpc_header("", 4, 4))];
    check(twice, invalid, "malformed", "only chunks");
    let header = || Part::Header(grpc_header("seq=1", 1024, 1024));
    let large = tonic::Code::OutOfRange;
    check(vec![header(), Part::Chunk(vec![0; (1 << 20) + 1].into())], large, "too_large", "1048577");
    check(vec![header(), Part::Chunk(vec![0; 5 << 20].into())], large, "too_large", "");
    check(vec![Part::Header(grpc_header("seq=1", 8192, 8192))], large, "too_large", "8388608");
    let bad = f32_bytes(&[0.0, 1.0, f32::NAN, 2.0]);
    check(
        vec![Part::Header(grpc_header("seq=1", 2, 2)), Part::Chunk(bad.into())],
        invalid,
        "not_finite",
        "row 1, column 0",
    );
    let accepted = grpc.push(grpc_header("seq=1&window=0&last=1", 16, 4), &f32_bytes(&gaussian(16, 4, 1))).unwrap();
    assert_eq!((accepted.duplicate, accepted.rows, accepted.window), (false, 16, 0));
    let failed = tonic::Code::FailedPrecondition;
    says(grpc.push(grpc_header("seq=2&window=0", 4, 4), &[0; 64]), failed, "window_closed", "window 0");
    says(grpc.push(grpc_header("seq=2&window=1", 2, 8), &[0; 64]), failed, "dimension_mismatch", "dimension 8");
    let again = grpc.push(grpc_header("seq=1&window=0&last=1", 4, 4), &[0; 64]).unwrap();
    assert!(again.duplicate);
    let unknown = proto::GetVerdictRequest { run: "nobody".into() };
    let status = grpc.runtime.block_on(grpc.client.get_verdict(unknown)).unwrap_err();
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "not_found");
}
