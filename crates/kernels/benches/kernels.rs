//! Moments and eigenvalues over d and N. For comparison between versions; nothing here has a time limit.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::{Float, Order, Rows};
use kernels::spectrum::EigenProblem;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const THREADS: usize = 2;

fn bytes(rows: usize, dim: usize) -> bytes::Bytes {
    let mut random = StdRng::seed_from_u64(1);
    let values = (0..rows * dim).flat_map(|_| random.sample::<f32, _>(rand_distr::StandardNormal).to_le_bytes());
    values.collect::<Vec<u8>>().into()
}

fn rows(rows: usize, dim: usize) -> Rows {
    Rows::new(Float::F32, Order::RowMajor, (rows, dim), bytes(rows, dim)).expect("the sizes agree")
}

fn moments(criterion: &mut Criterion) {
    let backend = Cpu::new(THREADS).expect("threads");
    let mut group = criterion.benchmark_group("moments");
    group.sample_size(10);
    for (n, d) in [(256, 64), (4096, 64), (1024, 256), (1024, 1024), (16_384, 1024), (1024, 2048), (512, 4096)] {
        let rows = rows(n, d);
        group.throughput(Throughput::Elements((n * d * d) as u64));
        group.bench_function(BenchmarkId::new("f32 rows in f64", format!("{n}x{d}")), |b| {
            b.iter(|| backend.moments(black_box(&rows), Precision::F64).expect("no device to fail"));
        });
    }
    group.finish();
}

fn spectrum(criterion: &mut Criterion) {
    let backend = Cpu::new(THREADS).expect("threads");
    let mut group = criterion.benchmark_group("spectrum");
    group.sample_size(10);
    for d in [64, 256, 1024, 2048, 4096] {
        let moments = backend.moments(&rows(d + 100, d), Precision::F64).expect("no device to fail");
        group.bench_function(BenchmarkId::new("covariance eigenvalues", d), |b| {
            b.iter(|| {
                let problem = EigenProblem::covariance(&moments);
                problem.check(backend.eigenvalues(problem.matrix()).expect("converges").values).expect("holds")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, moments, spectrum);
criterion_main!(benches);
