//! Push to report over loopback: decode, accumulate, spectrum, diagnose and publish, as a trainer with `wait` sees it.

#![allow(missing_docs, dead_code, unreachable_pub)]

mod common;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn push(criterion: &mut Criterion) {
    let service = common::Service::start();
    let mut client = common::Client::connect(service.address);
    let mut group = criterion.benchmark_group("push");
    group.sample_size(10);
    for (n, d) in [(256, 64), (256, 256), (512, 512), (256, 2048), (2048, 1024)] {
        let body = common::body(n, d);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("to the report of its own window", format!("{n}x{d}")), |b| {
            let path = format!("/v1/runs/bench/layers/d{d}n{n}/batches?wait=true");
            b.iter(|| assert_eq!(client.request("POST", &path, &body), 200));
        });
    }
    group.finish();
}

criterion_group!(benches, push);
criterion_main!(benches);
