//! Estimates for a spectrum too large to solve: its first eigenvalues, and intervals for the sums over all of them.
//! Deflated stochastic Lanczos quadrature.
//!
//! Guarantees: the same moments give the same bits (the random signs depend on d alone); nothing d x d is formed; every
//! estimate has an interval. Must not: call a number an eigenvalue if its residual is not small.
//!
//! With Q the Ritz vectors that have converged and P = I - Q Q^T, tr f(A) = tr Q^T f(A) Q + tr P f(A) P (Meyer, Musco, Musco
//! and Woodruff, Hutch++, SOSA 2021). The first term is known to within the residuals (`estimate`). The second is the
//! mean over random signs g of (P g)^T f(A) (P g), each of which a Lanczos run encloses (`quadrature`; Ubaru, Chen and
//! Saad, SIAM J. Matrix Anal. Appl. 38, 2017).

mod deflate;
mod estimate;
mod operator;
mod quadrature;

pub use estimate::{Estimate, Ranged, scratch_bytes};
pub use operator::{Eigenvectors, LanczosKernels, Operator, Times};
