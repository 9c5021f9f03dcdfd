//! The numbers behind fullrank: rows of embeddings in, mergeable moments and covariance spectra out.
//!
//! Everything here is a pure function of its arguments: the same rows give the same bits for any number of threads.
//! Nothing here opens a file or a socket, logs, or knows what a training run is.
//!
//! | module | contents |
//! |---|---|
//! | [`rows`] | N x d arrays in the type they arrived in, read as f64 |
//! | [`packed`] | a symmetric matrix by its lower triangle |
//! | [`moments`] | count, mean and centred second moment, with the one `merge` |
//! | [`view_moments`] | second moments between aligned views of the same samples |
//! | [`row_pass`] | norms, directions and a sample of rows, in one pass |
//! | [`rounding`], [`fast_sums`] | what sums in f32 may have lost, and when that is too much |
//! | [`reservoir`] | a mergeable sample of rows, chosen by content |
//! | [`spectrum`] | the eigenvalue problem, the checks on its solution, and the noise floors |
//! | [`uniformity`] | the sum over pairs of unit rows, and its Wasserstein form |
//! | [`lanczos`] | estimates with intervals for spectra that do not fit in memory |
//! | [`backend`] | the interface of a device |
//! | [`checks`] | whether results of an untrusted device can be right |
//! | [`fault`] | the failures of a device in another process |
//! | [`cpu`] | the processor as a device: tiles, two-stage eigenvalues |
//! | [`provenance`] | which device and arithmetic a number came from |
//! | [`priority`] | the niceness of computing threads |
//! | [`word`] | the words of enums |
//!
//! ```
//! use kernels::backend::Backend;
//! use kernels::cpu::Cpu;
//! use kernels::provenance::Precision;
//! use kernels::rows::Rows;
//! use kernels::spectrum::EigenProblem;
//!
//! let rows = Rows::from_f64((4, 2), &[3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0])?;
//! let cpu = Cpu::new(1)?;
//! let moments = cpu.moments(&rows, Precision::F64)?;
//! let problem = EigenProblem::covariance(&moments);
//! let spectrum = problem.check(cpu.eigenvalues(problem.matrix())?.values)?;
//! assert_eq!(spectrum.values, [4.5, 0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backend;
pub mod checks;
pub mod cpu;
pub mod fast_sums;
pub mod fault;
pub mod lanczos;
pub mod moments;
pub mod packed;
pub mod priority;
pub mod provenance;
pub mod reservoir;
pub mod rounding;
pub mod row_pass;
pub mod rows;
pub mod spectrum;
pub mod uniformity;
pub mod view_moments;
pub mod word;
