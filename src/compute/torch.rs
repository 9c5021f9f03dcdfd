//! The libtorch backend: the kernels on tensors, on libtorch's CPU or a CUDA device. Only this file names tch.
//!
//! Guarantees: each row goes to the device once, in its own type; the results are f64. f32 products are f32, not TF32:
//! `Torch::open` tries one that TF32 would get wrong. Memory on the device is bounded for any number of rows. Must not:
//! call a method of tch that panics (use the `f_` ones), or run in the service's own process: libtorch may crash.

use nalgebra::DMatrix;
use tch::{Kind, Tensor};

use super::SLAB_BYTES;
use kernels::backend::{Backend, CenteredRows, ComputeError, Solution};
use kernels::fast_sums::{F32_BLOCK_ROWS, keeps_enough, summed};
use kernels::moments::Moments;
use kernels::packed::Packed;
use kernels::provenance::{Device, Precision, Provenance};
use kernels::rows::{Float, Rows};
use kernels::spectrum;

/// Rows multiplied at a time in f64, as on the CPU.
const BLOCK_ROWS: usize = 512;

/// libtorch on one device.
pub struct Torch {
    device: Device,
    on: tch::Device,
}

/// Rows summed so far, on the device.
struct Sums {
    rows: f64,
    mean: Tensor,
    scatter: Tensor,
    /// For a scatter from f32 products: its diagonal and the entries (k, k + 1), in f64.
    exact: Option<[Tensor; 2]>,
}

type TchResult<T> = Result<T, tch::TchError>;

impl Torch {
    /// Opens a device, with `threads` threads for libtorch's own kernels on the CPU.
    ///
    /// # Errors
    /// If there is no such device, or it does not compute f32 products in f32.
    pub fn open(device: Device, threads: usize) -> Result<Self, ComputeError> {
        let on = match device {
            Device::Torch => tch::Device::Cpu,
            Device::Cuda(index) => {
                if !tch::utils::has_cudart() {
                    return Err(ComputeError::Device(format!(
                        "{device} is not available: this libtorch has no CUDA (libtorch_cuda.so is not where the loader \
                         looks; LD_LIBRARY_PATH must name the lib folder of a libtorch for CUDA)"
                    )));
                }
                let visible = tch::Cuda::device_count();
                if i64::from(index) >= visible {
                    return Err(ComputeError::Device(format!(
                        "{device} is not available: libtorch sees {visible} CUDA devices (numbers start at 0; check \
                         nvidia-smi and CUDA_VISIBLE_DEVICES)"
                    )));
                }
                tch::Device::Cuda(index.into())
            }
            Device::Cpu => return Err(ComputeError::Device("the device cpu does not use libtorch".to_string())),
        };
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
        let torch = Self { device, on };
        torch.multiplies_in_f32()?;
        Ok(torch)
    }

    /// 1 + 2^-12 is an f32 but not a TF32, whose mantissa has 10 bits: multiplied by the identity it must come back
    /// unchanged. The matrix is large enough to reach the kernels that real rows use.
    fn multiplies_in_f32(&self) -> Result<(), ComputeError> {
        let value = 1.0 + 2f64.powi(-12);
        let made = || {
            let ones = Tensor::f_ones([512, 512], (Kind::Float, self.on))?.f_mul_scalar(value)?;
            let product = ones.f_matmul(&Tensor::f_eye(512, (Kind::Float, self.on))?)?;
            product.f_sub_scalar(value)?.f_abs()?.f_max()?.f_to_kind(Kind::Double)?.f_double_value(&[])
        };
        let error: f64 = made().map_err(failed)?;
        if error == 0.0 {
            return Ok(());
        }
        let device = self.device;
        Err(ComputeError::Device(format!(
            "{device} multiplies f32 in TF32 (off by {error:e}): set NVIDIA_TF32_OVERRIDE=0"
        )))
    }

    /// Rows `first .. first + count` on the device, in their own type.
    fn rows(&self, rows: &Rows, first: usize, count: usize) -> TchResult<Tensor> {
        let mut scratch = Vec::new();
        let bytes = rows.block(first, count, &mut scratch);
        let shape = [count as i64, rows.dim() as i64];
        Tensor::f_from_data_size(bytes, &shape, kind(rows.float()))?.f_to_device(self.on)
    }

    /// X^T: nalgebra stores columns, libtorch rows.
    fn transposed(&self, x: &DMatrix<f64>) -> TchResult<Tensor> {
        let shape = [x.ncols() as i64, x.nrows() as i64];
        Tensor::f_from_slice(x.as_slice())?.f_reshape(shape)?.f_to_device(self.on)
    }

    fn zeros(&self, shape: &[i64]) -> TchResult<Tensor> {
        Tensor::f_zeros(shape, (Kind::Double, self.on))
    }

    fn sum(&self, rows: &Rows, in_f32: bool) -> TchResult<Sums> {
        let (n, d) = (rows.len(), rows.dim());
        let mut sums: Option<Sums> = None;
        for (first, count) in slabs(n, d * rows.float().size()) {
            let slab = self.rows(rows, first, count)?;
            let part = if in_f32 { self.sum_f32(&slab, count, d)? } else { self.sum_f64(&slab, count, d)? };
            match &mut sums {
                Some(sums) => sums.merge(&part, d)?,
                None => sums = Some(part),
            }
        }
        sums.ok_or_else(|| tch::TchError::Shape("no rows".to_string()))
    }

    /// Around the slab's own mean; a second sum corrects for what rounding left in it, as on the CPU.
    fn sum_f64(&self, slab: &Tensor, count: usize, d: usize) -> TchResult<Sums> {
        let mean = mean(slab, count)?;
        let mut scatter = self.zeros(&[d as i64, d as i64])?;
        let mut left = self.zeros(&[d as i64])?;
        for (first, rows) in blocks(count, BLOCK_ROWS) {
            let block = slab.f_narrow(0, first, rows)?.f_to_kind(Kind::Double)?.f_sub(&mean)?;
            let _ = scatter.f_addmm_(&block.f_tr()?, &block)?;
            let _ = left.f_add_(&sum_of_rows(&block)?)?;
        }
        centred(count, mean, scatter, &left)
    }

    /// Products in f32 of rows that were centred in f64 and scaled by a power of two so that no square over- or
    /// underflows; the blocks' sums are added in f64. The squares and the products of neighbouring coordinates are also
    /// summed in f64, to measure the rounding.
    fn sum_f32(&self, slab: &Tensor, count: usize, d: usize) -> TchResult<Sums> {
        let mean = mean(slab, count)?;
        let above = slab.f_amax(0, false)?.f_to_kind(Kind::Double)?.f_sub(&mean)?;
        let below = mean.f_sub(&slab.f_amin(0, false)?.f_to_kind(Kind::Double)?)?;
        let largest = above.f_maximum(&below)?.f_max()?.f_double_value(&[])?;
        let scale = if largest > 0.0 { 2f64.powi(largest.log2().ceil() as i32) } else { 1.0 };
        let (d, others) = (d as i64, d as i64 - 1);
        let mut scatter = self.zeros(&[d, d])?;
        let mut exact = [self.zeros(&[d])?, self.zeros(&[others])?];
        for (first, rows) in blocks(count, F32_BLOCK_ROWS) {
            let block = slab.f_narrow(0, first, rows)?.f_to_kind(Kind::Double)?.f_sub(&mean)?;
            let neighbours = block.f_narrow(1, 0, others)?.f_mul(&block.f_narrow(1, 1, others)?)?;
            let _ = exact[0].f_add_(&sum_of_rows(&block.f_square()?)?)?;
            let _ = exact[1].f_add_(&sum_of_rows(&neighbours)?)?;
            let scaled = block.f_div_scalar(scale)?.f_to_kind(Kind::Float)?;
            let product = scaled.f_tr()?.f_matmul(&scaled)?;
            let _ = scatter.f_add_(&product.f_to_kind(Kind::Double)?)?;
        }
        // Scale twice, because its square may overflow.
        let _ = scatter.f_mul_scalar_(scale)?.f_mul_scalar_(scale)?;
        Ok(Sums { rows: count as f64, mean, scatter, exact: Some(exact) })
    }

    /// The sums on the host, with the diagonal and the measured rounding errors filled in.
    fn taken(&self, sums: &Sums, n: usize, d: usize) -> TchResult<Moments> {
        let mean = host(&sums.mean, d)?;
        let mut scatter = DMatrix::from_vec(d, d, host(&sums.scatter, d * d)?);
        let mut errors = Vec::new();
        if let Some([squares, neighbours]) = &sums.exact {
            for (k, exact) in host(neighbours, d - 1)?.iter().enumerate() {
                errors.push(scatter[(k + 1, k)] - exact);
            }
            scatter.set_diagonal(&host(squares, d)?.into());
        }
        for k in 0..d {
            // A sum of squares is not negative; anything below zero is rounding.
            scatter[(k, k)] = scatter[(k, k)].max(0.0);
        }
        let kernel = if sums.exact.is_some() { "f32" } else { "f64" };
        let origin = Provenance { device: self.device, kernel };
        summed(origin, n, mean, Packed::from_lower(&scatter), errors)
            .map_err(|reason| tch::TchError::Kind(reason.to_string()))
    }
}

impl Backend for Torch {
    fn device(&self) -> Device {
        self.device
    }

    fn moments(&self, rows: &Rows, precision: Precision) -> Result<Moments, ComputeError> {
        let (n, d) = (rows.len(), rows.dim());
        let of = |in_f32: bool| self.sum(rows, in_f32).and_then(|sums| self.taken(&sums, n, d)).map_err(failed);
        let may_be_fast = match precision {
            Precision::F64 => false,
            Precision::Fast => true,
            Precision::Auto => matches!(rows.float(), Float::Bf16 | Float::F16) || rows.holds_bf16(),
        };
        if !may_be_fast {
            return of(false);
        }
        let fast = of(true)?;
        if keeps_enough(&fast, may_lose(&fast, rows, precision)) { Ok(fast) } else { of(false) }
    }

    fn cross(&self, a: CenteredRows<'_>, b: CenteredRows<'_>) -> Result<DMatrix<f64>, ComputeError> {
        let (n, d) = (a.rows.len(), a.rows.dim());
        let made = || {
            let means = [self.vector(a.moments.mean())?, self.vector(b.moments.mean())?];
            let mut transposed = self.zeros(&[d as i64, d as i64])?;
            for (first, count) in slabs(n, d * a.rows.float().size().max(b.rows.float().size())) {
                let slabs = [self.rows(a.rows, first, count)?, self.rows(b.rows, first, count)?];
                for (first, rows) in blocks(count, BLOCK_ROWS) {
                    let block = |i: usize| slabs[i].f_narrow(0, first, rows)?.f_to_kind(Kind::Double)?.f_sub(&means[i]);
                    let _ = transposed.f_addmm_(&block(1)?.f_tr()?, &block(0)?)?;
                }
            }
            host(&transposed, d * d)
        };
        Ok(DMatrix::from_vec(d, d, made().map_err(failed)?))
    }

    fn gram(&self, x: &DMatrix<f64>, outer: bool) -> Result<DMatrix<f64>, ComputeError> {
        let n = if outer { x.nrows() } else { x.ncols() };
        let made = || {
            let t = self.transposed(x)?;
            let product = if outer { t.f_tr()?.f_matmul(&t)? } else { t.f_matmul(&t.f_tr()?)? };
            host(&product, n * n)
        };
        Ok(DMatrix::from_vec(n, n, made().map_err(failed)?))
    }

    fn inner(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let (n, m) = (a.ncols(), b.ncols());
        let made = || host(&self.transposed(b)?.f_matmul(&self.transposed(a)?.f_tr()?)?, n * m);
        Ok(DMatrix::from_vec(n, m, made().map_err(failed)?))
    }

    fn eigenvalues(&self, symmetric: &DMatrix<f64>) -> Result<Solution, ComputeError> {
        let dim = symmetric.nrows();
        // Our lower triangle is the upper triangle in libtorch's layout.
        let made = || host(&self.transposed(symmetric)?.f_linalg_eigvalsh("U")?, dim);
        let values = made().map_err(|error| unsolved(error, dim))?;
        Ok(Solution { values, provenance: Provenance { device: self.device, kernel: "eigh" } })
    }

    fn eigenvectors(&self, symmetric: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>), ComputeError> {
        let dim = symmetric.nrows();
        let made = || {
            let (values, vectors) = self.transposed(symmetric)?.f_linalg_eigh("U")?;
            // libtorch sorts them ascending.
            Ok((host(&values.f_flip([0])?, dim)?, host(&vectors.f_tr()?.f_flip([0])?, dim * dim)?))
        };
        let (values, vectors) = made().map_err(|error| unsolved(error, dim))?;
        Ok((values, DMatrix::from_vec(dim, dim, vectors)))
    }

    fn whiten(&self, a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<DMatrix<f64>, ComputeError> {
        let (dim, columns) = b.shape();
        let made = || {
            let (factor, info) = self.transposed(a)?.f_tr()?.f_linalg_cholesky_ex(false, false)?;
            if info.f_int64_value(&[])? != 0 {
                return Ok(None);
            }
            let solved = factor.f_linalg_solve_triangular(&self.transposed(b)?.f_tr()?, false, true, false)?;
            host(&solved.f_tr()?, dim * columns).map(Some)
        };
        let values = made().map_err(failed)?.ok_or(ComputeError::NotPositiveDefinite { dim })?;
        Ok(DMatrix::from_vec(dim, columns, values))
    }
}

impl Torch {
    fn vector(&self, values: &[f64]) -> TchResult<Tensor> {
        Tensor::f_from_slice(values)?.f_to_device(self.on)
    }
}

impl Sums {
    /// The update of Chan, Golub and LeVeque, as in `Moments::merge`.
    fn merge(&mut self, other: &Sums, d: usize) -> TchResult<()> {
        let (a, b) = (self.rows, other.rows);
        let delta = other.mean.f_sub(&self.mean)?;
        let weighted = delta.f_mul_scalar(a * b / (a + b))?;
        let _ = self.scatter.f_add_(&other.scatter)?.f_add_(&weighted.f_outer(&delta)?)?;
        if let (Some(mine), Some(theirs)) = (&mut self.exact, &other.exact) {
            let others = d as i64 - 1;
            let neighbours = weighted.f_narrow(0, 0, others)?.f_mul(&delta.f_narrow(0, 1, others)?)?;
            for (k, outer) in [weighted.f_mul(&delta)?, neighbours].iter().enumerate() {
                let _ = mine[k].f_add_(&theirs[k])?.f_add_(outer)?;
            }
        }
        let _ = self.mean.f_add_(&delta.f_mul_scalar(b / (a + b))?)?;
        self.rows += b;
        Ok(())
    }
}

/// How much f32 may lose of the covariance: with `auto` no more than the rows' own type has lost already (C14).
fn may_lose(fast: &Moments, rows: &Rows, precision: Precision) -> f64 {
    if precision == Precision::Fast { f64::INFINITY } else { spectrum::input_floor(rows.resolution(), fast) }
}

fn kind(float: Float) -> Kind {
    match float {
        Float::F64 => Kind::Double,
        Float::F32 => Kind::Float,
        Float::F16 => Kind::Half,
        Float::Bf16 => Kind::BFloat16,
    }
}

/// (first row, rows) of at most [`SLAB_BYTES`], but at least one block.
fn slabs(rows: usize, row_bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = (SLAB_BYTES / row_bytes.max(1)).max(BLOCK_ROWS);
    (0..rows).step_by(most).map(move |first| (first, most.min(rows - first)))
}

fn blocks(rows: usize, most: usize) -> impl Iterator<Item = (i64, i64)> {
    (0..rows).step_by(most).map(move |first| (first as i64, most.min(rows - first) as i64))
}

fn mean(slab: &Tensor, count: usize) -> TchResult<Tensor> {
    sum_of_rows(slab)?.f_div_scalar(count as f64)
}

fn sum_of_rows(rows: &Tensor) -> TchResult<Tensor> {
    rows.f_sum_dim_intlist(0, false, Kind::Double)
}

/// mu = shift + delta and M2 = product - n delta delta^T, where delta is the mean of `left` around the shift.
fn centred(count: usize, mean: Tensor, mut scatter: Tensor, left: &Tensor) -> TchResult<Sums> {
    let rows = count as f64;
    let delta = left.f_div_scalar(rows)?;
    let _ = scatter.f_sub_(&delta.f_outer(&delta)?.f_mul_scalar(rows)?)?;
    Ok(Sums { rows, mean: mean.f_add(&delta)?, scatter, exact: None })
}

/// The values of a tensor of `count`, row after row.
fn host(tensor: &Tensor, count: usize) -> TchResult<Vec<f64>> {
    let mut values = vec![0.0; count];
    tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_copy_data(&mut values, count)?;
    Ok(values)
}

fn failed(error: tch::TchError) -> ComputeError {
    let text = error.to_string();
    // libtorch appends its own stack trace.
    let first = text.lines().next().unwrap_or_default().to_string();
    if text.contains("out of memory") || text.contains("can't allocate memory") {
        return ComputeError::OutOfMemory(first);
    }
    ComputeError::Device(first)
}

fn unsolved(error: tch::TchError, dim: usize) -> ComputeError {
    if error.to_string().contains("failed to converge") {
        return ComputeError::NoConvergence { dim };
    }
    failed(error)
}
