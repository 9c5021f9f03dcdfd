//! Decoding and the measures over d and N. For comparison between versions; nothing here has a time limit.

#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fullrank::analysis::batch::EmbeddingBatch;
use fullrank::analysis::decode::safetensors;
use fullrank::analysis::measures::{RankMe, Solved, measure};
use fullrank::analysis::parameters::Parameters;
use fullrank::analysis::window::Accumulator;
use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::{Float, Order, Rows};
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

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (n, d) in [(256, 256), (1024, 2048), (8192, 2048)] {
        let data = bytes(n, d);
        let view = safetensors_view(&data, n, d);
        let body = bytes::Bytes::from(::safetensors::serialize([("z", view)], None).expect("one tensor"));
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("safetensors f32, checked finite", format!("{n}x{d}")), |b| {
            b.iter(|| {
                let (tensors, parameters) = safetensors::decode(&body, Parameters::default()).expect("valid");
                EmbeddingBatch::new(tensors, parameters).expect("finite")
            });
        });
    }
    group.finish();
}

fn safetensors_view(data: &[u8], n: usize, d: usize) -> ::safetensors::tensor::TensorView<'_> {
    ::safetensors::tensor::TensorView::new(::safetensors::Dtype::F32, vec![n, d], data).expect("the sizes agree")
}

fn measures(criterion: &mut Criterion) {
    let backend = Cpu::new(THREADS).expect("threads");
    let mut group = criterion.benchmark_group("measures");
    group.sample_size(10);
    for d in [64, 256, 1024, 2048, 4096] {
        let rows = rows(256, d);
        let moments = backend.moments(&rows, Precision::F64).expect("no device to fail");
        let window = Accumulator::from_views(&[rows], moments, None, 4096);
        group.bench_function(BenchmarkId::new("without eigenvalues", d), |b| {
            b.iter(|| measure(black_box(&window), &Solved::default(), RankMe::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, decode, measures);
criterion_main!(benches);
