//! Moments of any usable rows: merged from two parts they are those of the whole, and their spectrum passes its checks.

#![no_main]

use kernels::backend::Backend;
use kernels::cpu::Cpu;
use kernels::provenance::Precision;
use kernels::rows::Rows;
use kernels::spectrum::EigenProblem;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, Vec<f64>)| {
    let (dim, cut, values) = input;
    let dim = usize::from(dim % 24) + 1;
    let count = values.len() / dim;
    if count < 2 || values.iter().any(|x| !x.is_finite() || x.abs() > 1e100) {
        return;
    }
    let cpu = Cpu::new(1).expect("one thread");
    let moments = |part: &[f64]| {
        let rows = Rows::from_f64((part.len() / dim, dim), part).expect("whole rows");
        cpu.moments(&rows, Precision::F64).expect("no device to fail")
    };
    let cut = (usize::from(cut) % (count - 1) + 1) * dim;
    let whole = moments(&values[..count * dim]);
    let mut merged = moments(&values[..cut]);
    merged.merge(&moments(&values[cut..count * dim]));
    let scale = whole.total_variance() + whole.mean_norm_squared();
    assert!((merged.total_variance() - whole.total_variance()).abs() <= 1e-10 * scale);
    let problem = EigenProblem::covariance(&whole);
    problem.check(cpu.eigenvalues(problem.matrix()).expect("converges").values).expect("the spectrum of the matrix");
});
