//! The methods' diagnostics as a client sees them: causes, what to send, refusals, workers, metrics.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::harness::{Array, Server, body, gaussian, problem};

fn f32s<'a>(name: &'a str, shape: &[usize], values: &[f32]) -> Array<'a> {
    (name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn i64s<'a>(name: &'a str, shape: &[usize], values: &[i64]) -> Array<'a> {
    (name, Dtype::I64, shape.to_vec(), values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn add(a: &[f32], b: &[f32], scale: f32) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + scale * b).collect()
}

/// Closes windows of the same arrays until warm-up is over; the last report.
fn settle(server: &Server, run: &str, query: &str, arrays: &[Array<'_>]) -> Value {
    let push = |window| server.report(&format!("{run}/l?window={window}&last=1&{query}"), body(arrays, &[]));
    (0..11).for_each(|window| drop(push(window)));
    push(11)
}

/// State, scale, dimension, cause.
fn words(report: &Value) -> [&str; 4] {
    ["state", "scale", "dimension", "cause"].map(|key| report["verdict"][key].as_str().unwrap())
}

fn fires(report: &Value, alarm: &str, severity: &str) -> bool {
    report["verdict"]["alarms"].as_array().unwrap().contains(&json!({"alarm": alarm, "severity": severity}))
}

fn layer_report(server: &Server, run: &str, layer: &str) -> Value {
    let all = server.json(&format!("/v1/runs/{run}/layers/{layer}/reports"));
    all["reports"].as_array().unwrap().last().unwrap().clone()
}

fn noted(report: &Value, part: &str) -> bool {
    report["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(part))
}

const N: usize = 128;
const D: usize = 8;

/// Two aligned views with a gap, spread over every direction.
fn views() -> (Vec<f32>, Vec<f32>) {
    let z = gaussian(N, D, 1);
    (add(&z, &gaussian(N, D, 2), 0.3), add(&z, &gaussian(N, D, 3), 0.3))
}

#[test]
fn batch_norm_that_hides_a_collapse_is_seen_and_one_that_lifts_a_cone_is_left_alone() {
    let server = Server::start(&[]);
    let (z1, _) = views();
    let check = |run: &str, spread: f32, query: &str, layer: [&str; 4], pre: [&str; 4]| {
        let pre_bn = add(&[1.0; N * D], &gaussian(N, D, 4), spread);
        let arrays = [f32s("z", &[N, D], &z1), f32s("pre_bn", &[N, D], &pre_bn)];
        assert_eq!(words(&settle(&server, run, query, &arrays)), layer, "{run}");
        let report = layer_report(&server, run, "l:pre_bn");
        assert_eq!(words(&report), pre, "{run}: {}", report["verdict"]);
    };
    let told = "bn_eps=0.00001&bn_gamma=1";
    let masked = "masked_by_batch_norm";
    check("masked", 0.003, told, ["degrading", "ok", "ok", masked], ["degrading", "warning", "ok", masked]);
    check("lifted", 0.2, told, ["healthy", "ok", "ok", "none"], ["healthy", "ok", "ok", "none"]);
    check("untold", 0.003, "", ["healthy", "ok", "ok", "none"], ["healthy", "unknown", "ok", "none"]);
    assert!(noted(&layer_report(&server, "untold", "l"), "send bn_eps and bn_gamma"));
    // Batch norm that lives off its epsilon so far that nothing is left after it: a collapse like any other.
    let flat = add(&[1.0; N * D], &gaussian(N, D, 4), 1e-5);
    let arrays = [f32s("z", &[N, D], &flat), f32s("pre_bn", &[N, D], &flat)];
    assert_eq!(words(&settle(&server, "gone", told, &arrays))[0], "collapsed");
    assert_eq!(words(&layer_report(&server, "gone", "l:pre_bn"))[..2], ["collapsed", "critical"]);
}

/// Scores of N rows over K prototypes: `peak` above the rest at the prototype that `of` names.
fn scores(count: usize, peak: f32, of: impl Fn(usize) -> usize) -> Vec<f32> {
    (0..N).flat_map(|i| (0..count).map(move |k| (i, k))).map(|(i, k)| if of(i) == k { peak } else { 0.0 }).collect()
}

#[test]
fn one_prototype_and_uniform_prototypes_are_told_apart() {
    const K: usize = 32;
    let server = Server::start(&[]);
    let check = |run: &str, scores: Vec<f32>, expected: [&str; 4], critical: bool| {
        let arrays = [
            f32s("logits1", &[N, K], &scores),
            f32s("teacher_logits1", &[N, K], &scores),
            f32s("center", &[K], &[0.0; K]),
        ];
        let query = "method=dino&temperature=0.1&teacher_temperature=0.1";
        let report = settle(&server, run, query, &arrays);
        assert_eq!(words(&report), expected, "{run}: {}", report["verdict"]);
        assert_eq!(fires(&report, "prototypes", "critical"), critical, "{run}");
        assert_eq!((&report["dim"], &report["samples"]), (&0.into(), &N.into()));
        assert!(report["measures"]["entropy_rank"].is_null() && noted(&report, "send z"));
        report
    };
    check("one", scores(K, 3.0, |_| 5), ["degrading", "unknown", "unknown", "one_prototype"], true);
    check("uniform", scores(K, 0.0, |_| 0), ["degrading", "unknown", "unknown", "uniform_prototypes"], true);
    // Sharp rows that agree with the teacher and differ from each other are what training is for.
    check("sharp", scores(K, 3.0, |i| i % K), ["healthy", "unknown", "unknown", "none"], false);
    let few = check("few", scores(K, 3.0, |i| i % 7), ["degrading", "unknown", "unknown", "one_prototype"], false);
    assert!(fires(&few, "prototypes", "warning"));
    let recovered = |run: &str| {
        for window in 20..26 {
            let all = scores(K, 3.0, |i| i % K);
            let arrays = [f32s("logits1", &[N, K], &all), f32s("teacher_logits1", &[N, K], &all)];
            let query = format!("{run}/l?window={window}&last=1&method=dino&temperature=0.1&teacher_temperature=0.1");
            server.report(&query, body(&arrays, &[]));
        }
        layer_report(&server, run, "l")
    };
    assert_eq!(words(&recovered("one"))[0], "healthy");
    let series = |name: &str| server.metrics().get(&format!("fullrank_{name}{{run=\"sharp\",layer=\"l\"}}"));
    assert_eq!(series("prototypes_count"), Some(K as f64));
    assert!((series("prototypes_usage").unwrap() - 1.0).abs() < 1e-6);
    assert!(series("prototypes_entropy").unwrap() < 1e-6);
    assert_eq!((series("entropy_rank"), series("lidar")), (None, None), "what was not sent has no series");
}

#[test]
fn keys_that_the_queries_have_left_behind_are_a_stale_queue() {
    let server = Server::start(&[]);
    let (z1, z2) = views();
    let cone = add(&[1.0; N * D], &gaussian(N, D, 9), 0.01);
    let line: Vec<f32> = gaussian(N, 1, 5).iter().flat_map(|x| (0..D).map(move |k| x * (k as f32 + 1.0))).collect();
    let check = |run: &str, method: &str, key: &[f32], base: [&str; 2], teacher: [&str; 2]| {
        let arrays = [f32s("z1", &[N, D], &z1), f32s("teacher1", &[N, D], key)];
        let report = settle(&server, run, &format!("method={method}"), &arrays);
        assert_eq!([words(&report)[0], words(&report)[3]], base, "{run}: {}", report["verdict"]);
        let report = layer_report(&server, run, "l:teacher");
        assert_eq!([words(&report)[0], words(&report)[3]], teacher, "{run}: {}", report["verdict"]);
    };
    check("alike", "moco", &z2, ["healthy", "none"], ["healthy", "none"]);
    check("stale", "moco", &line, ["degrading", "stale_queue"], ["collapsed", "stale_queue"]);
    check("byol", "byol", &line, ["healthy", "none"], ["collapsed", "line"]);
    // A cone with the queries' own spectrum is no older than they are: it is a collapse of the teacher.
    check("cone", "moco", &cone, ["healthy", "none"], ["collapsed", "constant"]);
}

#[test]
fn a_loss_at_its_constant_is_named_and_told_apart_from_a_collapse() {
    let server = Server::start(&[]);
    let (z1, z2) = views();
    let flat = add(&[1.0; N * D], &gaussian(N, D, 9), 1e-4);
    let healthy = [f32s("z1", &[N, D], &z1), f32s("z2", &[N, D], &z2)];
    let point = [f32s("z1", &[N, D], &flat), f32s("z2", &[N, D], &flat)];
    let at = "method=simclr&batch_size=256&loss=6.2366";
    let report = settle(&server, "plateau", at, &healthy);
    assert_eq!(words(&report), ["degrading", "ok", "ok", "no_alignment"]);
    assert!(fires(&report, "loss_constant", "warning") && noted(&report, "loss 6.2366 = ln 511: positives"));
    assert_eq!(report["methods"]["loss"]["formula"], "ln 511");
    let report = settle(&server, "collapse", at, &point);
    assert_eq!(words(&report)[..2], ["collapsed", "critical"]);
    assert_eq!(report["verdict"]["cause"], "constant");
    let report = settle(&server, "learning", "method=simclr&batch_size=256&loss=4.5", &healthy);
    assert_eq!((words(&report)[0], &report["methods"]["loss"]["meaning"]), ("healthy", &Value::Null));
    // SimSiam's optimum and its collapse have the same loss.
    let report = settle(&server, "optimum", "method=simsiam&loss=-0.9999", &healthy);
    assert_eq!(words(&report)[0], "healthy");
    assert!(noted(&report, "loss -0.9999 = -1"));
    let report = settle(&server, "uniform", "method=swav&prototypes=4096&loss=8.3178", &healthy);
    assert!(noted(&report, "loss 8.3178 = ln 4096: the prototypes are uniform"));
    assert_eq!(words(&report)[3], "uniform_prototypes");
}

#[test]
fn what_was_not_sent_is_null_and_named() {
    let server = Server::start(&[]);
    let (z1, z2) = views();
    let check = |method: &str, arrays: &[Array<'_>], query: &str, wanted: &[&str]| {
        let report = server.report(&format!("{method}/l?last=1&method={method}&{query}"), body(arrays, &[]));
        let notes: Vec<&str> = report["notes"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|note| note.as_str()?.strip_prefix("send "))
            .collect();
        for name in wanted {
            assert!(notes.iter().any(|note| note.starts_with(name)), "{method}: {name} in {notes:?}");
        }
        assert_eq!(notes.len(), wanted.len(), "{method}: {notes:?}");
        report
    };
    let one = [f32s("z", &[N, D], &z1)];
    let two = [f32s("z1", &[N, D], &z1), f32s("z2", &[N, D], &z2)];
    let report = check("byol", &one, "", &["prediction1 ", "teacher1 ", "loss "]);
    for group in ["teacher", "predictor", "prototypes", "lidar", "graph", "labels", "batch_norm", "loss"] {
        assert_eq!(report["methods"].get(group), Some(&Value::Null), "{group}");
    }
    assert!(report["methods"]["simplex"]["mean_cosine"].is_f64(), "needs rows alone");
    check("simclr", &two, "batch_size=64&loss=1", &[]);
    check("simclr", &one, "negatives=64&loss=1", &["z2 "]);
    check("moco", &one, "", &["teacher1 ", "queue_size ", "loss "]);
    check("nnclr", &two, "loss=1", &["neighbors ", "batch_size or negatives "]);
    check("simsiam", &two, "loss=1", &["prediction1 ", "pre_bn "]);
    check("swav", &one, "loss=1", &["logits1 ", "codes1 "]);
    check("dino", &one, "loss=1", &["logits1 ", "teacher_logits1 ", "center "]);
    check("barlow", &two, "loss=1", &["lambda "]);
    check("vicreg", &two, "loss=1", &["gamma ", "variance_weight "]);
    check("triplet", &two, "loss=1", &["negative1 ", "margin "]);
    check("simple", &two, "loss=1", &["lambda "]);
    check("directpred", &one, "loss=1", &["predictor_weight "]);
    check("other", &one, "", &[]);
    let untempered = [f32s("z", &[N, D], &z1), f32s("logits1", &[N, 4], &gaussian(N, 4, 1))];
    let report = check("swav", &untempered, "loss=1", &["codes1 ", "temperature with logits"]);
    assert!(report["methods"]["prototypes"].is_null());
    let labels: Vec<i64> = (0..N as i64).collect();
    let few = [f32s("z", &[N, D], &gaussian(N, D, 1)), i64s("ids", &[N], &labels)];
    let report = check("other", &few, "", &[]);
    assert!(report["methods"]["lidar"].is_null() && noted(&report, "lidar needs two ids"));
}

#[test]
fn companions_that_do_not_fit_are_refused() {
    let server = Server::start(&[]);
    let z = f32s("z", &[4, 2], &[1.0; 8]);
    let check = |array: Array<'_>, query: &str, code: &str, said: &str| {
        let (status, got, value) = problem(server.push(&format!("?{query}"), body(&[z.clone(), array], &[])));
        assert_eq!((status, got.as_str()), (if code == "unsupported_type" { 415 } else { 400 }, code), "{value}");
        assert!(value["detail"].as_str().unwrap().contains(said), "{value}");
    };
    check(f32s("logits1", &[3, 5], &[0.0; 15]), "", "wrong_length", "logits1 has 3 rows but the embeddings have 4");
    check(f32s("codes1", &[4, 2], &[0.9; 8]), "", "malformed", "row 0 of codes1 sums to 1.8");
    check(i64s("ids", &[3], &[1, 2, 3]), "", "wrong_length", "ids has 3 rows");
    check(i64s("ids", &[4, 1], &[1, 2, 3, 4]), "", "malformed", "must have 1 dimension");
    check(f32s("labels", &[4], &[1.0; 4]), "", "unsupported_type", "labels must be I64 or I32");
    check(i64s("edges", &[1, 2], &[0, 4]), "", "wrong_length", "edge (0, 4) names a row beyond the 4");
    check(i64s("edges", &[1, 2], &[-1, 2]), "", "malformed", "edges holds -1");
    check(i64s("edges", &[1, 3], &[0, 1, 2]), "", "malformed", "it must be E x 2");
    check(f32s("negative1", &[4, 3], &[0.0; 12]), "", "wrong_length", "negative1 is 4 x 3");
    check(f32s("predictor_weight", &[3, 3], &[0.0; 9]), "", "wrong_length", "predictor_weight is 3 x 3");
    check(f32s("teacher_logits", &[4, 3], &[0.0; 12]), "", "malformed", "unknown tensor 'teacher_logits'");
    check(
        f32s("pre_bn", &[4, 2], &[0.0; 8]),
        "temperature=0",
        "malformed",
        "temperature is 0: it must be at least 0.000001",
    );
    let two = [f32s("logits1", &[4, 5], &[0.0; 20]), f32s("logits2", &[4, 6], &[0.0; 24])];
    let (status, _, value) = problem(server.push("", body(&two, &[])));
    assert!(status == 400 && value["detail"].as_str().unwrap().contains("logits2 has 6 columns"), "{value}");
    let center = [f32s("logits1", &[4, 5], &[0.0; 20]), f32s("center", &[4], &[0.0; 4])];
    let (status, _, value) = problem(server.push("", body(&center, &[])));
    assert!(status == 400 && value["detail"].as_str().unwrap().contains("over 5 prototypes"), "{value}");
    assert_eq!(server.json("/v1/runs")["runs"], json!([]), "a refused push creates nothing");
}

#[test]
fn many_pushes_of_many_workers_are_one() {
    const HALF: usize = N / 2;
    let server = Server::start(&[]);
    let (z1, z2) = views();
    let (ids, labels): (Vec<i64>, Vec<i64>) =
        ((0..N as i64).map(|i| i % 32).collect(), (0..N as i64).map(|i| i % 3).collect());
    let logits = gaussian(N, 6, 7);
    let arrays = |rows: std::ops::Range<usize>| {
        let (count, cut) = (rows.len(), |values: &[f32], dim: usize| values[rows.start * dim..rows.end * dim].to_vec());
        body(
            &[
                f32s("z1", &[count, D], &cut(&z1, D)),
                f32s("z2", &[count, D], &cut(&z2, D)),
                f32s("teacher1", &[count, D], &cut(&z2, D)),
                f32s("logits1", &[count, 6], &cut(&logits, 6)),
                i64s("ids", &[count], &ids[rows.clone()]),
                i64s("labels", &[count], &labels[rows.clone()]),
            ],
            &[("temperature", "0.5"), ("window", "0")],
        )
    };
    let whole = server.report("one/l?last=1", arrays(0..N));
    server.report("many/l?worker=1&workers=2", arrays(HALF..HALF + 20));
    server.report("many/l?worker=0&workers=2&last=1", arrays(0..HALF));
    let split = server.report("many/l?worker=1&workers=2&last=1", arrays(HALF + 20..N));
    assert_eq!((&split["closed"], &split["samples"]), (&true.into(), &N.into()));
    let mut compared = 0;
    for (group, values) in whole["methods"].as_object().unwrap() {
        for (name, want) in values.as_object().into_iter().flatten().filter(|_| group != "simplex") {
            let (want, got) = (want.as_f64(), split["methods"][group][name].as_f64());
            compared += usize::from(want.is_some());
            let close = want.zip(got).map_or(want == got, |(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1.0));
            assert!(close, "{group}.{name}: {want:?} against {got:?}");
        }
    }
    assert!(compared > 25, "{compared} values were compared");
}

#[test]
fn rankme_is_taken_as_the_run_asks() {
    let server = Server::start(&[]);
    let rows = add(&[1.0; N * D], &gaussian(N, D, 3), 0.5);
    let rankme = |query: &str| {
        let report = server.report(&format!("r/l?last=1&{query}"), body(&[f32s("z", &[N, D], &rows)], &[]));
        (report["measures"]["rankme"].as_f64().unwrap(), report["computed"]["rankme"].clone())
    };
    let (plain, how) = rankme("");
    assert_eq!(how, json!({"epsilon": 1e-7, "centered": false}));
    let (coarse, how) = rankme("rankme_epsilon=0.00001");
    assert_eq!(how["epsilon"], 1e-5);
    // d entropy / d epsilon = -sum (1 + ln p): towards more rank.
    assert!(coarse > plain && coarse < 1.001 * plain, "{coarse} {plain}");
    let (centred, how) = rankme("rankme_centered=1");
    assert_eq!(how["centered"], true);
    assert!(centred > plain + 1.0, "without the mean's direction: {centred} against {plain}");
    let (status, _, value) = problem(server.push("?rankme_epsilon=2", body(&[f32s("z", &[N, D], &rows)], &[])));
    assert!(status == 400 && value["detail"].as_str().unwrap().contains("rankme_epsilon is 2"), "{value}");
}

#[test]
fn lidar_is_there_when_few_directions_are_left() {
    const RANK: usize = 3;
    let server = Server::start(&[]);
    let (ids, dim) = (10usize, 32);
    let mixing = gaussian(RANK, dim, 1);
    let means = gaussian(ids, RANK, 2);
    for noise in [0.0, 0.002, 0.02] {
        let wobble = gaussian(N, RANK, 3);
        let rows: Vec<f32> = (0..N)
            .flat_map(|i| (0..dim).map(move |k| (i, k)))
            .map(|(i, k)| {
                let factor = |r: usize| means[(i % ids) * RANK + r] + 0.1 * wobble[i * RANK + r];
                (0..RANK).map(|r| factor(r) * mixing[r * dim + k]).sum::<f32>()
            })
            .collect();
        let rows = add(&rows, &gaussian(N, dim, 4), noise);
        let groups: Vec<i64> = (0..N).map(|i| (i % ids) as i64).collect();
        let report = server.report("r/l?last=1", body(&[f32s("z", &[N, dim], &rows), i64s("ids", &[N], &groups)], &[]));
        let value = report["methods"]["lidar"]["value"].as_f64().unwrap();
        // At least the three directions' worth of ids, at most the nine that ten means span.
        assert!((1.0..=9.0).contains(&value), "noise {noise}: {value}");
    }
}

#[test]
fn odd_pushes_are_answered_with_nulls() {
    let server = Server::start(&[]);
    let both = |values: &[f32], dim: usize| {
        let rows = values.len() / dim;
        let ids: Vec<i64> = (0..rows as i64).map(|i| i / 2).collect();
        body(
            &[
                f32s("z1", &[rows, dim], values),
                f32s("z2", &[rows, dim], values),
                f32s("teacher1", &[rows, dim + 1], &vec![1.0; rows * (dim + 1)]),
                f32s("prediction1", &[rows, dim], values),
                f32s("negative1", &[rows, dim], values),
                f32s("predictor_weight", &[dim, dim], &vec![0.0; dim * dim]),
                f32s("logits1", &[rows, 3], &vec![1e30; rows * 3]),
                i64s("ids", &[rows], &ids),
                i64s("labels", &[rows], &ids),
                i64s("edges", &[1, 2], &[0, 0]),
            ],
            &[("temperature", "1e-6"), ("gamma", "1"), ("lambda", "1")],
        )
    };
    let huge: Vec<f32> = gaussian(64, 4, 1).iter().map(|x| x * 1e37).collect();
    let cases: [(&str, &[f32], usize); 6] = [
        ("zero", &[0.0; 64], 4),
        ("constant", &[2.5; 64], 4),
        ("one-row", &[1.0, 2.0], 2),
        ("one-dim", &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0, 233.0], 1),
        ("huge", &huge, 4),
        ("pair", &[1.0, 2.0, 2.0, 1.0], 2),
    ];
    for (run, values, dim) in cases {
        let report = server.report(&format!("{run}/l?last=1&method=vicreg"), both(values, dim));
        assert!(report["methods"]["prototypes"]["entropy"].is_f64(), "{run}: {report}");
        let teacher = &report["methods"]["teacher"];
        assert!(teacher["cosine"].is_null(), "{run}: rows of two dimensions have no cosine, {teacher}");
    }
    for line in server.metrics().0.lines().filter(|line| line.contains("{run=")) {
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value.is_finite(), "{line}");
    }
    assert_eq!(server.metrics().get("fullrank_worker_panics_total"), Some(0.0));
    assert_eq!(server.metrics().get("fullrank_solver_failures_total"), Some(0.0));
    // Moments with scores: the scores must be aligned with each other all the same.
    let moments = [
        f32s("count", &[1], &[4.0]),
        f32s("mean", &[2], &[0.0; 2]),
        f32s("m2", &[2, 2], &[1.0, 0.0, 0.0, 1.0]),
        f32s("logits1", &[4, 3], &[0.0; 12]),
        f32s("codes1", &[3, 3], &[1.0 / 3.0; 9]),
    ];
    let (status, code, _) = problem(server.push("", body(&moments, &[])));
    assert_eq!((status, code.as_str()), (400, "wrong_length"));
}
