//! Linear fit of labels (T8): whether the classes can be read off the embeddings.
//!
//! For one-hot labels Y, centred, Z^T Y has the columns n_c (m_c - m), so the class means are enough.

use nalgebra::DMatrix;

use super::groups::Groups;
use super::kernels::DiagnosticKernels;
use super::table::LabelsDiagnostics;
use super::two_views::{ROWS_PER_DIM, ridge};

/// `None` with one class, too few rows, or no variance.
pub(super) fn fit(groups: &Groups, kernels: &DiagnosticKernels<'_>) -> Result<Option<LabelsDiagnostics>, String> {
    let (rows, dim) = (groups.moments.rows() as f64, groups.moments.dim());
    let classes = groups.by_id.len();
    let scatter = groups.moments.scatter().to_full();
    if classes < 2 || rows < ROWS_PER_DIM * dim as f64 || scatter.trace() <= 0.0 {
        return Ok(None);
    }
    let mut moment = DMatrix::zeros(dim, classes);
    for (mut column, group) in moment.column_iter_mut().zip(groups.by_id.values()) {
        for ((out, mean), centre) in column.iter_mut().zip(&group.mean).zip(groups.moments.mean()) {
            *out = group.rows as f64 * (mean - centre);
        }
    }
    let energy: f64 = groups.by_id.values().map(|group| group.rows as f64 * (1.0 - group.rows as f64 / rows)).sum();
    let fitted = (kernels.whiten)(&ridge(scatter.clone()), &moment)?.norm_squared();
    // U^T Y = Lambda^(-1/2) V^T Z^T Y for the left singular vectors U of the centred rows.
    let (values, vectors) = (kernels.eigenvectors)(&scatter)?;
    let mut leading = 0.0;
    for (value, vector) in values.iter().zip(vectors.column_iter()).take(classes - 1) {
        if *value > 0.0 {
            leading += moment.tr_mul(&vector).norm_squared() / value;
        }
    }
    Ok(Some(LabelsDiagnostics {
        r2: Some(fitted / energy),
        top_energy_share: Some((leading / energy).min(1.0)),
        classes: Some(classes as f64),
    }))
}
