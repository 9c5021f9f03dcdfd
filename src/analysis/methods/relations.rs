//! Embeddings against their relation graph G (T6; the spectral view of VICReg, SimCLR and Barlow Twins as Laplacian
//! eigenmaps, ISOMAP and CCA, Balestriero and LeCun, NeurIPS 2022).
//!
//! Related rows are the views of a sample, rows of one id, or pushed edges. The first two graphs are disjoint cliques:
//! the groups' indicators span their top eigenspace, so no N x N matrix is built. Pushed edges are general: their
//! energy is a sum over edges, and the eigenspace is that of one batch.

use nalgebra::DMatrix;

use super::groups::Groups;
use super::kernels::DiagnosticKernels;
use super::measured_layer::{MeasuredLayer, SOLVABLE};
use super::table::GraphDiagnostics;
use crate::analysis::companions::MAX_WEIGHT_DIM;
use kernels::moments::Moments;
use kernels::rows::Rows;
use kernels::view_moments::ViewMoments;

/// The largest batch, in nodes, whose adjacency matrix is decomposed: 8 MiB, and some tenths of a second.
const MOST_NODES: usize = 1024;

/// Above this dimension, views alone do not justify the eigenvectors of Sigma, which take several times as long as the
/// spectrum; ids and edges do.
const MOST_DIM: usize = 512;

/// Eigenvalues closer than this belong to one eigenspace.
const TIE: f64 = 1e-9;

/// Singular values of a batch below this share of the first count as zero.
const RANK_TOLERANCE: f64 = 1e-6;

/// Sums over pushed edges, and results from the first batch's eigenspaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Edges {
    squared: f64,
    count: f64,
    /// (top energy share, overlap, rank cap) of each worker's first batch, summed, and the number of batches.
    eigenspaces: Option<([f64; 3], f64)>,
    /// A batch was decomposed: each worker decomposes one per window.
    tried: bool,
    /// A batch had more nodes than are decomposed.
    pub(super) too_many: bool,
}

impl Edges {
    /// Adds a batch: node v N + i is row i of view v.
    pub(super) fn add(
        &mut self,
        views: &[Rows],
        edges: &[(usize, usize)],
        kernels: &DiagnosticKernels<'_>,
    ) -> Result<(), String> {
        let (samples, dim) = (views[0].len(), views[0].dim());
        // Edges in both directions are one relation, and a row is not related to itself.
        let mut unique: Vec<(usize, usize)> =
            edges.iter().filter(|(a, b)| a != b).map(|(a, b)| (*a.min(b), *a.max(b))).collect();
        unique.sort_unstable();
        unique.dedup();
        let (mut x, mut y) = (vec![0.0; dim], vec![0.0; dim]);
        for (a, b) in &unique {
            views[a / samples].read(a % samples, 1, &mut x);
            views[b / samples].read(b % samples, 1, &mut y);
            self.squared += x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
        }
        self.count += unique.len() as f64;
        let nodes = samples * views.len();
        if self.tried || unique.is_empty() {
            return Ok(());
        }
        self.tried = true;
        if nodes > MOST_NODES || dim > MAX_WEIGHT_DIM {
            self.too_many = true;
            return Ok(());
        }
        self.eigenspaces = eigenspaces(views, &unique, kernels)?.map(|found| (found, 1.0));
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Edges) {
        self.squared += other.squared;
        self.count += other.count;
        self.too_many |= other.too_many;
        self.eigenspaces = match (self.eigenspaces, other.eigenspaces) {
            (Some((a, n)), Some((b, m))) => Some(([a[0] + b[0], a[1] + b[1], a[2] + b[2]], n + m)),
            (a, b) => a.or(b),
        };
    }

    pub(super) fn values(&self, layer: &MeasuredLayer<'_>) -> GraphDiagnostics {
        let total = layer.rows.moments.total_variance();
        let mean = |index: usize| self.eigenspaces.map(|(sums, count)| sums[index] / count);
        GraphDiagnostics {
            dirichlet_energy: (self.count > 0.0 && total > 0.0).then(|| self.squared / self.count / total),
            top_energy_share: mean(0),
            rank: layer.measures.numerical_rank,
            rank_cap: mean(2).map(|cap| cap.min(layer.rows.moments.dim() as f64)),
            subspace_overlap: mean(1),
        }
    }
}

/// (share of the energy in the top eigenspace, overlap, rank(G + I) - 1) of one batch; `None` if all rows are equal.
fn eigenspaces(
    views: &[Rows],
    edges: &[(usize, usize)],
    kernels: &DiagnosticKernels<'_>,
) -> Result<Option<[f64; 3]>, String> {
    let (nodes, dim) = (views[0].len() * views.len(), views[0].dim());
    let rows = centred(views);
    let total = rows.norm_squared();
    if !SOLVABLE.contains(&total) {
        return Ok(None);
    }
    let mut adjacency = DMatrix::zeros(nodes, nodes);
    for (a, b) in edges {
        adjacency[(*a, *b)] = 1.0;
        adjacency[(*b, *a)] = 1.0;
    }
    let (values, vectors) = (kernels.eigenvectors)(&adjacency)?;
    let rank = values.iter().filter(|value| (*value + 1.0).abs() > TIE).count();
    // Take the whole eigenspace of the last eigenvalue: half of one would depend on the solver.
    let last = dim.min(rank.saturating_sub(1)).clamp(1, nodes) - 1;
    let size = values.iter().filter(|value| **value >= values[last] - TIE).count();
    let top = vectors.columns(0, size);

    let inside = &rows * top;
    let (energies, directions) = (kernels.eigenvectors)(&(&rows * rows.transpose()))?;
    let most = size.min(rank.saturating_sub(1));
    let overlap = overlap(&(&inside * inside.transpose()), leading(&energies, most), &directions);
    Ok(overlap.map(|overlap| [inside.norm_squared() / total, overlap, rank as f64 - 1.0]))
}

/// The rows of all views as columns, minus their mean.
fn centred(views: &[Rows]) -> DMatrix<f64> {
    let (samples, dim) = (views[0].len(), views[0].dim());
    let mut rows = DMatrix::zeros(dim, samples * views.len());
    for (view, block) in views.iter().enumerate() {
        let mut row = vec![0.0; dim];
        for index in 0..samples {
            block.read(index, 1, &mut row);
            rows.column_mut(view * samples + index).copy_from_slice(&row);
        }
    }
    let mean = rows.column_mean();
    rows.column_iter_mut().for_each(|mut column| column -= &mean);
    rows
}

/// At most `most` of the largest energies, those above rounding.
fn leading(energies: &[f64], most: usize) -> &[f64] {
    let floor = RANK_TOLERANCE * RANK_TOLERANCE * energies.first().copied().unwrap_or(0.0);
    let count = energies.iter().take(most).filter(|energy| **energy > floor).count();
    &energies[..count]
}

/// |U_G^T U_Z|^2 / k from `inside` = Z^T P Z, P the projection onto the graph's eigenspace: the left singular vector of
/// direction v is Z v / sigma, so |P u|^2 = v^T Z^T P Z v / sigma^2.
fn overlap(inside: &DMatrix<f64>, energies: &[f64], directions: &DMatrix<f64>) -> Option<f64> {
    let shares = energies.iter().zip(directions.column_iter()).map(|(energy, v)| (inside * v).dot(&v) / energy);
    (!energies.is_empty()).then(|| (shares.sum::<f64>() / energies.len() as f64).clamp(0.0, 1.0))
}

pub(super) fn by_ids(
    groups: &Groups,
    layer: &MeasuredLayer<'_>,
    kernels: &DiagnosticKernels<'_>,
) -> Result<GraphDiagnostics, String> {
    // sum over pairs within a group of |z_i - z_j|^2 = n times the group's scatter.
    let squared: f64 = groups.by_id.values().map(|group| group.rows as f64 * group.scatter).sum();
    let pairs: f64 = groups.by_id.values().map(|group| group.rows as f64 * (group.rows as f64 - 1.0) / 2.0).sum();
    let cliques = Cliques { squared, pairs, between: Some(groups.between()), groups: groups.by_id.len() as f64 };
    cliques.values(&groups.moments, layer, kernels)
}

/// T6 of the views of samples. `view_means`: moments of the samples' view means, for more than two views.
pub(super) fn by_views(
    pairs: &ViewMoments,
    view_means: Option<&Moments>,
    layer: &MeasuredLayer<'_>,
    kernels: &DiagnosticKernels<'_>,
) -> Result<GraphDiagnostics, String> {
    let (samples, views) = (pairs.samples() as f64, pairs.views() as f64);
    let moments = &layer.rows.moments;
    let between = match (pairs.views(), view_means) {
        _ if moments.dim() > MOST_DIM => None,
        (2, _) => Some(pairs.between_samples()),
        (_, Some(means)) => Some(means.scatter().to_full() * views),
        _ => None,
    };
    let cliques = Cliques {
        squared: pairs.squared_distances(moments),
        pairs: samples * views * (views - 1.0) / 2.0,
        between,
        groups: samples,
    };
    cliques.values(moments, layer, kernels)
}

struct Cliques {
    /// Sum over related pairs of |z_i - z_j|^2.
    squared: f64,
    pairs: f64,
    /// Zc^T P Zc, P the projection onto the groups' indicators.
    between: Option<DMatrix<f64>>,
    groups: f64,
}

impl Cliques {
    fn values(
        &self,
        moments: &Moments,
        layer: &MeasuredLayer<'_>,
        kernels: &DiagnosticKernels<'_>,
    ) -> Result<GraphDiagnostics, String> {
        let (total, scatter) = (moments.total_variance(), moments.scatter());
        let rank = layer.measures.numerical_rank;
        let mut values = GraphDiagnostics {
            dirichlet_energy: (self.pairs > 0.0 && total > 0.0).then(|| self.squared / self.pairs / total),
            rank,
            rank_cap: Some((self.groups - 1.0).min(moments.dim() as f64)),
            ..GraphDiagnostics::default()
        };
        let Some(between) = self.between.as_ref().filter(|_| total > 0.0) else { return Ok(values) };
        values.top_energy_share = Some((between.trace() / scatter.trace()).clamp(0.0, 1.0));
        let most = rank.unwrap_or(0.0).min(self.groups - 1.0).max(0.0);
        let (energies, directions) = (kernels.eigenvectors)(&scatter.to_full())?;
        values.subspace_overlap = overlap(between, leading(&energies, most as usize), &directions);
        Ok(values)
    }
}
