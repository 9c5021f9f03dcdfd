#!/usr/bin/env python3
"""Write the golden inputs and `expected.json` beside this file.

Every value follows the definitions of the metric reference in the plainest form that numpy allows: loops over pairs of
rows, singular values of the centred rows instead of an eigensolver on a covariance, exact rational means. Nothing here
is fast, and nothing is shared with the Rust code.

    python make.py          writes the files
    python make.py --check  writes nothing, fails when a file here differs from what would be written
"""

import argparse
import decimal
import importlib.util
import io
import json
import math
import pathlib
import re
import struct
import sys
from fractions import Fraction

import flint
import numpy as np
import safetensors.numpy

HERE = pathlib.Path(__file__).resolve().parent
MAX_TOTAL_BYTES = 900_000
UNIT_ROUNDOFF = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-24, "F64": 2.0**-53}
SHARES = ("0.5", "0.9", "0.95", "0.99")
LEFT_OUT = object()  # a measure that a case does not state


# ---------------------------------------------------------------- number types and files


def encode(values, dtype):
    """The bytes of an array in a type, rounded to nearest even."""
    values = np.asarray(values, dtype=np.float64)
    if dtype == "BF16":
        bits = values.astype("<f4").view("<u4").astype(np.uint64)
        halves = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return halves.astype("<u2").tobytes()
    return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def decode(raw, dtype, shape):
    """What a reader of those bytes gets, exactly, as float64."""
    if dtype == "BF16":
        bits = np.frombuffer(raw, "<u2").astype("<u4") << 16
        return bits.view("<f4").astype(np.float64).reshape(shape)
    return np.frombuffer(raw, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64).reshape(shape)


def safetensors_bytes(tensors):
    """The safetensors format by hand: u64 header length, JSON header, data. `tensors`: name -> (dtype, shape, raw)."""
    header, offset = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(raw for _, _, raw in tensors.values())


def npy_bytes(array, version=(1, 0)):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=False)
    return out.getvalue()


# ---------------------------------------------------------------- the definitions


def mean_row(rows):
    """The mean of the rows, each coordinate summed exactly and rounded once."""
    return np.array([float(sum(map(Fraction, column)) / len(column)) for column in rows.T.tolist()])


def centred(rows):
    return rows - mean_row(rows)


def scatter_loops(a, b):
    """sum_i a_i b_i^T, one exactly rounded sum for an entry."""
    return np.array([[math.fsum(a[:, k] * b[:, l]) for l in range(b.shape[1])] for k in range(a.shape[1])])


def covariance_eigenvalues(rows):
    """Eigenvalues of M2/N, descending, d of them: squared singular values of the centred rows."""
    n, d = rows.shape
    c = centred(rows)
    if not c.any():
        return np.zeros(d)
    singular = np.linalg.svd(c, compute_uv=False)
    return np.concatenate([singular**2 / n, np.zeros(d - len(singular))])


def hill_entropy(p):
    return math.exp(-math.fsum(x * math.log(x) for x in p if x > 0))


def unit_rows(rows):
    """z/|z|, without the rows of norm zero."""
    norms = [math.sqrt(math.fsum(row * row)) for row in rows]
    return np.array([row / norm for row, norm in zip(rows, norms) if norm > 0]).reshape(-1, rows.shape[1])


def dot(a, b):
    return math.fsum(a * b)


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def scale_measures(rows, out):
    """C0 to C2: guards and the variance of the raw rows."""
    n, d = rows.shape
    norms = [math.sqrt(dot(row, row)) for row in rows]
    out["zero_rows"] = sum(norm == 0 for norm in norms)
    out["row_norm_min"], out["row_norm_mean"], out["row_norm_max"] = min(norms), mean(norms), max(norms)
    out["duplicate_rows"] = n - len({tuple(row) for row in rows.tolist()})
    c, mu = centred(rows), mean_row(rows)
    variances = [dot(c[:, k], c[:, k]) / n for k in range(d)]
    total = math.fsum(variances)
    out["total_variance"] = total
    energy = total + dot(mu, mu)
    out["relative_variance"] = total / energy if energy > 0 else None
    out["diagonal_entropy_rank"] = hill_entropy([v / total for v in variances]) if total > 0 else None
    return variances, total


def unit_measures(views, out):
    """C3, C4, C12, C13, T1, T2: everything on unit rows."""
    unit_views = [unit_rows(view) for view in views]
    pooled = np.concatenate(unit_views)
    count, d = pooled.shape
    names = ("center_norm", "residual_norm", "scaled_std", "mean_cosine", "uniformity", "w2_uniformity",
             "view_mean_norm", "alignment", "positive_cosine", "signal_gap")
    out.update(dict.fromkeys(names))
    if count == 0:
        return
    s = mean_row(pooled)
    residuals = pooled - s
    out["center_norm"] = math.sqrt(dot(s, s))
    # For unit rows 1 - |s|^2 is the mean of |u - s|^2; this form does not cancel near collapse.
    out["residual_norm"] = math.sqrt(mean(dot(row, row) for row in residuals))
    out["scaled_std"] = math.sqrt(d) * mean(math.sqrt(mean(residuals[:, k] ** 2)) for k in range(d))

    if len(views) > 1:
        samples = len(views[0])
        assert all(len(u) == samples for u in unit_views), "cases with views have no zero rows"
        distances, lengths = [], []
        for i in range(samples):
            for a in range(len(views)):
                for b in range(a):
                    gap = unit_views[a][i] - unit_views[b][i]
                    distances.append(dot(gap, gap))
            middle = sum(u[i] for u in unit_views) / len(views)
            lengths.append(math.sqrt(dot(middle, middle)))
        out["alignment"] = mean(distances)
        out["positive_cosine"] = 1 - out["alignment"] / 2
        out["view_mean_norm"] = mean(lengths)

    # Different samples only: with views, the pairs of one sample are no negatives.
    samples = count // len(views)
    cosines, kernels = [], []
    for i in range(count):
        for j in range(i):
            gap = pooled[i] - pooled[j]
            squared = dot(gap, gap)
            kernels.append(math.expm1(-2 * squared))  # less one, for the digits near collapse
            if i % samples != j % samples:
                cosines.append(1 - squared / 2)
    if cosines:
        out["mean_cosine"] = mean(cosines)
        v, s2 = len(views), dot(s, s)
        positive = out["positive_cosine"] or 0.0
        formula = (v * samples * s2 - 1 - (v - 1) * positive) / (v * (samples - 1))
        assert abs(formula - out["mean_cosine"]) < 1e-12, "mean_cosine by pairs and by the formula"
    if kernels:
        out["uniformity"] = math.log1p(mean(kernels))
    if out["positive_cosine"] is not None:
        out["signal_gap"] = out["positive_cosine"] - out["mean_cosine"]
    roots = np.linalg.svd(residuals, compute_uv=False) / math.sqrt(count) if residuals.any() else [0.0]
    trace = mean(dot(row, row) for row in residuals)
    squared = dot(s, s) + 1 + trace - 2 / math.sqrt(d) * math.fsum(roots)
    out["w2_uniformity"] = math.sqrt(squared) if squared > 1e-14 else 0.0  # what is left of a difference of ones


def view_measures(views, total, out):
    """rho, n_eff, T3, and the nulls and the corrected stable rank that use n_eff."""
    samples, d = views[0].shape
    v = len(views)
    out["view_correlation"] = None
    rho = 0.0
    if v > 1:
        parts = [centred(view) for view in views]
        pairs = [(a, b) for a in range(v) for b in range(a)]
        rho = mean(math.fsum((parts[a] * parts[b]).ravel()) / samples / total for a, b in pairs)
        out["view_correlation"] = rho
        correlations = scatter_loops(parts[0], parts[1]) / samples
        std = [[math.sqrt(mean(part[:, k] ** 2)) for k in range(d)] for part in parts[:2]]
        diagonal, off = [], []
        for k in range(d):
            for l in range(d):
                c = correlations[k, l] / (std[0][k] * std[1][l])
                diagonal.append(c) if k == l else off.append(c * c)
        out["cross_correlation_diagonal"] = mean(diagonal)
        out["cross_correlation_off_diagonal"] = mean(off) if off else None
    else:
        out["cross_correlation_diagonal"] = out["cross_correlation_off_diagonal"] = None
    n = v * (samples - 1) / (1 + (v - 1) * rho**2)
    if samples == 1:  # no degree of freedom: the reference does not say what a null would be
        out["effective_rows"] = out["stable_rank_null"] = out["entropy_rank_null"] = LEFT_OUT
        return n
    out["effective_rows"] = n
    out["stable_rank_null"] = n * d / (n + d)
    r, m = min(n, d), max(n, d)
    out["entropy_rank_null"] = r * math.exp(-r / (2 * m))
    return n


def rank_measures(rows, samples, eigenvalues, n, floor, out):
    """C5, C6, C8, C9, C10, from the eigenvalues of Sigma."""
    d = len(eigenvalues)
    total = math.fsum(eigenvalues)
    names = ("entropy_rank", "stable_rank", "stable_rank_corrected", "intrinsic_dimension", "cumulative_variance_area",
             "alpha", "log10_top_to_last", "log10_top_to_median", "log10_top_to_tenth", "ln_first_to_last")
    out.update(dict.fromkeys(names))
    if total == 0:
        return dict.fromkeys(SHARES)  # and numerical_rank is not stated
    p = [x / total for x in eigenvalues]
    out["entropy_rank"] = hill_entropy(p)
    out["stable_rank"] = 1 / math.fsum(x * x for x in p)
    out["intrinsic_dimension"] = 1 / p[0]

    # C6 from the loops' covariance rather than from the eigenvalues.
    if n > 1:
        s = scatter_loops(centred(rows), centred(rows)) / n
        t, f = math.fsum(np.diag(s)), math.fsum((s * s).ravel())
        unbiased_f = n * n / ((n - 1) * (n + 2)) * (f - t * t / n)
        unbiased_t2 = t * t - 2 * unbiased_f / n
        out["stable_rank_corrected"] = unbiased_t2 / unbiased_f if unbiased_f > 0 else None

    # An eigenvalue is certain structure, certainly zero, or neither; what hangs on the last kind is not stated.
    clear = lambda x: x > 100 * floor
    zero = lambda x: x < 1e-17 * eigenvalues[0]
    doubtful = [i for i, x in enumerate(eigenvalues) if not clear(x) and not zero(x)]

    def ratio(rank, logarithm):
        if not 1 <= rank <= d or zero(eigenvalues[rank - 1]):
            return None
        return LEFT_OUT if rank - 1 in doubtful else logarithm(eigenvalues[0] / eigenvalues[rank - 1])

    r = min(samples - 1, d)
    out["log10_top_to_last"] = ratio(r, math.log10)
    out["log10_top_to_median"] = ratio(math.ceil(r / 2), math.log10)
    out["log10_top_to_tenth"] = ratio(10, math.log10)
    out["ln_first_to_last"] = ratio(d, math.log) if samples > d else None
    above = sum(clear(x) for x in eigenvalues)
    out["numerical_rank"] = LEFT_OUT if doubtful else above

    if any(i < 100 for i in doubtful) and d >= 20:
        out["alpha"] = LEFT_OUT
    else:
        ranks = [i for i in range(11, 101) if i <= above]
        if len(ranks) >= 10:
            # polyfit multiplies residuals by w, so the weight 1/i of a square is w = i^(-1/2)
            slope, _ = np.polyfit([-math.log(i) for i in ranks], [math.log(eigenvalues[i - 1]) for i in ranks], 1,
                                  w=[i**-0.5 for i in ranks])
            out["alpha"] = float(slope)

    cumulative = [0.0] + [math.fsum(p[: i + 1]) for i in range(d)]
    out["cumulative_variance_area"] = math.fsum((a + b) / 2 / d for a, b in zip(cumulative, cumulative[1:]))
    components = {}
    for share in SHARES:
        components[share] = next(i for i, c in enumerate(cumulative) if c >= float(share))
        near = min(abs(c - float(share)) for c in cumulative)
        if near < 1e-9:
            components[share] = LEFT_OUT
    return components


def coordinate_measures(rows, variances, total, out):
    """C11."""
    n, d = rows.shape
    if n == 1:
        out["dead_dims"] = out["duplicate_dims"] = LEFT_OUT
        out["correlation_energy"] = None
        return
    limit = 1e-6 * total / d
    assert total == 0 or all(abs(v / limit - 1) > 1e-3 for v in variances), "a variance at the limit"
    live = [k for k in range(d) if variances[k] > limit]
    out["dead_dims"] = d - len(live)
    c = centred(rows)
    squares, copies = [], 0
    for a in range(len(live)):
        correlations = []
        for b in range(a):
            k, l = live[a], live[b]
            correlations.append(mean(c[:, k] * c[:, l]) / math.sqrt(variances[k] * variances[l]))
        assert all(abs(abs(x) - 0.99) > 1e-6 for x in correlations), "a correlation at the limit"
        copies += any(abs(x) > 0.99 for x in correlations)
        squares += [x * x for x in correlations]
    out["correlation_energy"] = mean(squares) if squares else None
    out["duplicate_dims"] = copies


def rankme(rows):
    """C7: uncentred, epsilon on every share, over min(N, d) singular values."""
    singular = np.linalg.svd(rows, compute_uv=False)
    total = math.fsum(singular)
    if total == 0:
        return None
    p = [x / total + 1e-7 for x in singular]
    return math.exp(-math.fsum(x * math.log(x) for x in p))


def input_noise_floor(rows, dtype):
    """C14, the rounding of the rows to their own type."""
    n, d = rows.shape
    largest = max(mean(rows[:, k] ** 2) for k in range(d))
    return UNIT_ROUNDOFF[dtype] ** 2 / 3 * largest * (1 + math.sqrt(d / n)) ** 2


def measure(views, dtype):
    """All of a case from the decoded views."""
    rows = np.concatenate(views)
    samples = len(views[0])
    out = {}
    variances, total = scale_measures(rows, out)
    unit_measures(views, out)
    n = view_measures(views, total, out)
    eigenvalues = covariance_eigenvalues(rows)
    out["input_noise_floor"] = input_noise_floor(rows, dtype)
    largest = max(mean(rows[:, k] ** 2) for k in range(rows.shape[1]))
    # A generous guess at what any sound f64 kernel may leave; used only to decide what is stated.
    kernel = 2.0**-52 * (rows.shape[1] * float(eigenvalues[0]) + (largest if total < 1e-6 * largest else 0.0))
    floor = float(max(out["input_noise_floor"], kernel))
    components = rank_measures(rows, samples, eigenvalues.tolist(), n, floor, out)
    coordinate_measures(rows, variances, total, out)
    out["rankme"] = rankme(rows)
    return {
        "dtype": dtype,
        "rows": len(rows),
        "samples": samples,
        "views": len(views),
        "dim": rows.shape[1],
        "measures": {name: plain(value) for name, value in sorted(out.items()) if value is not LEFT_OUT},
        "components_for_variance": {share: n for share, n in components.items() if n is not LEFT_OUT},
        "eigenvalues": [plain(float(x)) for x in eigenvalues],
    }


def plain(value):
    """Sixteen significant digits: the last one is noise of the linear algebra library."""
    if value is None or isinstance(value, int):
        return value
    value = float(value)
    assert math.isfinite(value)
    return float(f"{value:.16g}")


# ---------------------------------------------------------------- inputs


def rotate(rows, rng, reflections=8):
    """A random rotation as a product of Householder reflections, summed exactly: no library can change a bit."""
    rows = np.array(rows)
    for _ in range(reflections):
        v = rng.standard_normal(rows.shape[1])
        scale = 2 / dot(v, v)
        rows = np.array([row - scale * dot(row, v) * v for row in rows])
    return rows


def input_cases():
    """(name, dtype, container, views)."""

    def rng(number):
        return np.random.Generator(np.random.PCG64(20260000 + number))

    def normal(number, *shape):
        return rng(number).standard_normal(shape)

    yield "isotropic_tall", "F64", "safetensors", [normal(1, 200, 24)]
    yield "isotropic_wide", "F64", "safetensors", [normal(2, 24, 96)]
    decay = np.arange(1, 65) ** -0.5
    yield "power_law_rotated", "F64", "npy", [rotate(normal(3, 150, 64) * decay, rng(103))]
    yield "power_law_f32", "F32", "safetensors", [rotate(normal(4, 150, 64) * decay, rng(104)) + 0.1]
    low = np.zeros((60, 24))
    low[:, :3] = normal(5, 60, 3) * [3.0, 2.0, 1.0]
    yield "rank_3_rotated", "F64", "safetensors", [rotate(low, rng(105))]
    line = normal(6, 40, 1)
    line = (line - mean_row(line)) / math.sqrt(mean(((line - mean_row(line)) ** 2).ravel()))
    yield "line", "F64", "safetensors", [np.repeat(line, 12, axis=1)]
    constant = normal(7, 1, 16)
    yield "constant", "F64", "safetensors", [np.repeat(constant, 30, axis=0)]
    yield "constant_f32", "F32", "npy", [np.repeat(constant, 30, axis=0)]
    yield "constant_with_noise", "F64", "safetensors", [constant + 1e-6 * normal(8, 64, 16)]
    padded = constant * (1 + 1e-3 * normal(108, 300, 1))
    padded[0] = 0  # a kernel that takes the first row for a centre cancels here
    yield "cone_after_a_zero_row", "F64", "safetensors", [padded]
    yield "all_zero", "F32", "safetensors", [np.zeros((10, 4))]
    dead = normal(9, 80, 16)
    dead[:, 5] = 0.25
    yield "one_dead_unit", "F32", "safetensors", [dead]
    half = normal(10, 80, 16)
    half[:, ::2] = np.abs(normal(110, 1, 8))
    yield "half_dead_units", "F32", "safetensors", [half]
    copies = normal(11, 80, 12)
    copies[:, 6:] = copies[:, :6] * [1, -1, 2, 0.5, -4, 1]
    yield "duplicated_units", "F64", "safetensors", [copies]
    yield "mean_100_std_1e-2", "F32", "safetensors", [100 + 0.01 * normal(12, 100, 16)]
    yield "tiny_scale", "F32", "safetensors", [1e-30 * (normal(13, 50, 8) + 0.5)]
    zeros = normal(14, 50, 8)
    zeros[[3, 17, 18, 40, 49]] = 0
    yield "zero_rows", "F64", "safetensors", [zeros]
    repeats = normal(15, 50, 8) + 0.3
    repeats[[10, 20, 30]] = repeats[2]
    repeats[49] = repeats[48]
    yield "duplicated_rows", "F32", "safetensors", [repeats]
    yield "one_row", "F64", "safetensors", [normal(16, 1, 6)]
    yield "two_rows", "F64", "safetensors", [normal(17, 2, 6)]
    yield "one_dimension", "F64", "npy", [normal(18, 40, 1) + 0.2]
    yield "two_dimensions", "F32", "npy", [normal(19, 40, 2) * [2.0, 0.5] + [0.1, -1.0]]
    yield "relu", "F32", "safetensors", [np.maximum(normal(20, 90, 20) + 0.2, 0)]
    yield "half_precision", "F16", "safetensors", [rotate(normal(21, 90, 20) * np.arange(1, 21) ** -0.3, rng(121))]
    yield "half_precision_npy", "F16", "npy", [normal(22, 40, 8) + 1]
    yield "bfloat16", "BF16", "safetensors", [rotate(normal(23, 90, 20) * np.arange(1, 21) ** -0.3, rng(123))]
    yield "fortran_order", "F64", "npy_fortran", [normal(24, 31, 9) + 0.5]
    yield "npy_version_2", "F32", "npy_2", [normal(25, 31, 9) * np.arange(1, 10)]

    def views(number, count, samples, d, noise):
        shared = rotate(normal(number, samples, d) * np.arange(1, d + 1) ** -0.4, rng(number + 100))
        return [shared + noise * normal(number + 200 + 10 * v, samples, d) + 0.1 * v for v in range(count)]

    yield "two_views", "F32", "safetensors", views(30, 2, 60, 16, 0.3)
    yield "three_views", "F64", "safetensors", views(31, 3, 40, 12, 0.5)
    yield "two_views_wide", "F16", "safetensors", views(32, 2, 20, 48, 0.4)
    yield "two_views_bfloat16", "BF16", "safetensors", views(33, 2, 60, 16, 0.2)
    yield "two_views_independent", "F64", "safetensors", [normal(34, 40, 10), normal(35, 40, 10)]


def certified_cases():
    """(name, dtype, integer rows): covariances whose eigenvalues are algebraic numbers we can enclose."""

    def integers(number, low, high, *shape):
        return np.random.Generator(np.random.PCG64(20261000 + number)).integers(low, high + 1, shape)

    yield "certified_small", "F64", integers(1, -9, 9, 11, 4)
    yield "certified_dense", "F64", integers(2, -1000, 1000, 24, 16)
    yield "certified_rank_3", "F64", integers(3, -5, 5, 20, 3) @ integers(4, -5, 5, 3, 8)
    yield "certified_wide", "F32", integers(5, -99, 99, 6, 12)
    yield "certified_offset_f64", "F64", 10**9 + integers(6, -50, 50, 20, 8)
    yield "certified_offset_f32", "F32", 2**23 + integers(7, -8, 8, 24, 8)
    # Column k is about 16^k: eigenvalues over 17 decades, mixed so that no axis is an eigenvector.
    yield "certified_graded", "F64", integers(8, -7, 7, 20, 8) * 16 ** np.arange(8) + integers(9, -7, 7, 20, 1)

    # Wilkinson's W15+ plus 2 I as a sum of squares: edges e_i + e_(i+1), and what the diagonal still needs. Each row
    # also with the opposite sign, so that the mean is zero. Its large eigenvalues come in close pairs.
    d = 15
    rows = []
    for i in range(d - 1):
        rows.append([int(k in (i, i + 1)) for k in range(d)])
    for i in range(d):
        edges = 1 if i in (0, d - 1) else 2
        rows += [[int(k == i) for k in range(d)]] * (abs(i - d // 2) + 2 - edges)
    rows = np.array(rows)
    yield "certified_wilkinson", "F32", np.concatenate([rows, -rows])

    # Edges of the complete graph: Sigma is a multiple of d I - 1 1^T, one zero and an eigenvalue d - 1 times.
    rows = np.array([[(k == i) - (k == j) for k in range(7)] for i in range(7) for j in range(i)])
    yield "certified_multiple", "F64", np.concatenate([rows, -rows])

    # Two levels, four and four, in the Hadamard basis.
    h = np.array([[1]])
    for _ in range(3):
        h = np.block([[h, h], [h, -h]])
    rows = np.concatenate([h[:4] * 3, h[4:]])
    yield "certified_two_levels", "F32", np.concatenate([rows, -rows])


# ---------------------------------------------------------------- certified spectra


def certified_spectrum(rows):
    """Eigenvalues of the exact covariance, enclosed; 30 digits each, descending, with exact multiplicity.

    The characteristic polynomial is taken over the rationals and split into square-free factors, so a multiple root is
    known to be one, not suspected. flint isolates the roots of the factors.
    """
    flint.ctx.prec = 512
    n, d = rows.shape
    z = [[int(x) for x in row] for row in rows]
    sums = [sum(row[k] for row in z) for k in range(d)]
    entries = [
        [flint.fmpq(n * sum(row[k] * row[l] for row in z) - sums[k] * sums[l], n * n) for l in range(d)]
        for k in range(d)
    ]
    sigma = flint.fmpq_mat(entries)
    _, factors = sigma.charpoly().factor_squarefree()
    found = []
    for factor, multiplicity in factors:
        for root, times in flint.fmpz_poly(list((factor * factor.denom()).numer())).complex_roots():
            root = flint.acb(root)
            assert times == 1 and root.imag.contains(0)  # symmetric: every root is real
            found += [root.real] * multiplicity
    assert len(found) == d
    found.sort(key=lambda x: -float(x.mid()))
    for a, b in zip(found, found[1:]):
        assert a is b or a > b, "roots not separated"
    total = sum(found)
    assert total.contains(flint.arb(sum((sigma[k, k] for k in range(d)), flint.fmpq(0))))  # the trace
    assert all(x == 0 or x > 0 for x in found)

    # A second opinion: a ball around every eigenvalue from flint's linear algebra must meet the roots.
    balls = flint.acb_mat([[flint.acb(flint.arb(x)) for x in row] for row in sigma.tolist()]).eig(multiple=True)
    for value in found:
        assert any(ball.real.overlaps(value) for ball in balls)

    p = [x / total for x in found]
    entropy = -sum((x * x.log() for x in p if x != 0), flint.arb(0))
    measures = {
        "total_variance": total,
        "stable_rank": 1 / sum(x * x for x in p),
        "entropy_rank": entropy.exp(),
        "intrinsic_dimension": total / found[0],
    }
    return {
        "certified": [digits(x) for x in found],
        "certified_measures": {name: digits(x) for name, x in measures.items()},
        "numerical_rank": sum(x != 0 for x in found),
    }


def digits(ball):
    if ball == 0:
        return "0"
    assert ball.rel_accuracy_bits() > 150
    return ball.str(30, radius=False)


# ---------------------------------------------------------------- NIST StRD, analysis of variance


NIST_FILES = ("SiRstv", "AtmWtAg", "SmLs01", "SmLs04", "SmLs05", "SmLs07", "SmLs08")


def decimal_string(fraction, places=30):
    with decimal.localcontext(decimal.Context(prec=places)):
        return str(decimal.Decimal(fraction.numerator) / decimal.Decimal(fraction.denominator))


def sums_of_squares(treatments):
    """(within, between) of exact numbers."""
    everything = [x for treatment in treatments for x in treatment]
    grand = sum(everything, Fraction(0)) / len(everything)
    within = between = Fraction(0)
    for treatment in treatments:
        centre = sum(treatment, Fraction(0)) / len(treatment)
        within += sum((x - centre) ** 2 for x in treatment)
        between += len(treatment) * (centre - grand) ** 2
    return within, between


def nist(folder):
    out = []
    for name in NIST_FILES:
        text = (folder / f"{name}.dat").read_text()
        lines = text.splitlines()
        first, last = map(int, re.search(r"Data +\(lines (\d+) to (\d+)\)", text).groups())
        between = re.search(r"^Between \w+ +\d+ +(\S+)", text, re.M).group(1)
        within = re.search(r"^Within \w+ +\d+ +(\S+)", text, re.M).group(1)
        treatments = {}
        for line in lines[first - 1 : last]:
            label, response = line.split()
            treatments.setdefault(label, []).append(response)
        exact = sums_of_squares([[Fraction(x) for x in t] for t in treatments.values()])
        for got, certified in zip(exact, (within, between)):
            assert abs(got / Fraction(certified) - 1) < Fraction(1, 10**13), (name, float(got), certified)
        floats = [[float(x) for x in t] for t in treatments.values()]
        stored = sums_of_squares([[Fraction(x) for x in t] for t in floats])
        out.append({
            "name": name,
            "within_ss": within,
            "between_ss": between,
            "within_ss_f64": decimal_string(stored[0]),
            "between_ss_f64": decimal_string(stored[1]),
            "treatments": floats,
        })
    return out


# ---------------------------------------------------------------- writing


def pack(name, dtype, container, views):
    """(file name, bytes, decoded views)."""
    names = ["z"] if len(views) == 1 else [f"z{v + 1}" for v in range(len(views))]
    raws = [encode(view, dtype) for view in views]
    decoded = [decode(raw, dtype, view.shape) for raw, view in zip(raws, views)]
    if container == "safetensors":
        data = safetensors_bytes({n: (dtype, v.shape, raw) for n, v, raw in zip(names, views, raws)})
        if dtype != "BF16":
            read = safetensors.numpy.load(data)
            assert all((read[n].astype(np.float64) == v).all() for n, v in zip(names, decoded))
        return f"{name}.safetensors", data, decoded
    array = np.frombuffer(raws[0], {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).reshape(views[0].shape)
    if container == "npy_fortran":
        array = np.asfortranarray(array)
    data = npy_bytes(array, (2, 0) if container == "npy_2" else (1, 0))
    assert (np.load(io.BytesIO(data)).astype(np.float64) == decoded[0]).all()
    return f"{name}.npy", data, decoded


def to_json(cases, nist_sets):
    """JSON with a line for each part, so that a change shows as a few lines."""

    def compact(value):
        return json.dumps(value, allow_nan=False)

    lines = ["{"]
    for name, case in cases.items():
        lines.append(f" {compact(name)}: {{")
        lines.append(",\n".join(f"  {compact(key)}: {compact(value)}" for key, value in case.items()))
        lines.append(" },")
    lines.append(' "nist": [')
    parts = []
    for entry in nist_sets:
        fields = [f"   {compact(k)}: {compact(v)}" for k, v in entry.items() if k != "treatments"]
        rows = ",\n".join("    " + compact(t) for t in entry["treatments"])
        parts.append("  {\n" + ",\n".join(fields) + ',\n   "treatments": [\n' + rows + "\n   ]\n  }")
    lines.append(",\n".join(parts))
    lines += [" ]", "}"]
    return "\n".join(lines) + "\n"


def build():
    files, cases = {}, {}
    for name, dtype, container, views in input_cases():
        file, files_data, decoded = pack(name, dtype, container, views)
        files[file] = files_data
        cases[name] = {"file": file} | measure(decoded, dtype)
    for name, dtype, rows in certified_cases():
        file, files_data, decoded = pack(name, dtype, "safetensors", [rows])
        assert (decoded[0] == rows).all(), "integers must survive the type"
        files[file] = files_data
        case = {"file": file} | measure(decoded, dtype)
        certified = certified_spectrum(rows)
        # Exact knowledge of the rank settles nothing about what a floor hides: stated only where measure() could too.
        if "numerical_rank" in case["measures"]:
            assert case["measures"]["numerical_rank"] == certified["numerical_rank"]
        del certified["numerical_rank"]
        for mine, exact in zip(case["eigenvalues"], certified["certified"]):
            assert abs(mine - float(exact)) <= 1e-13 * case["eigenvalues"][0], (name, mine, exact)
        for measure_name, exact in certified["certified_measures"].items():
            assert abs(case["measures"][measure_name] / float(exact) - 1) < 1e-13, (name, measure_name)
        cases[name] = case | certified
    scipy_folder = pathlib.Path(importlib.util.find_spec("scipy").origin).parent
    text = to_json(cases, nist(scipy_folder / "stats/tests/data/nist_anova"))
    assert json.loads(text)
    files["expected.json"] = text.encode()
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    files = build()
    total = sum(map(len, files.values()))
    assert total < MAX_TOTAL_BYTES, total
    if check:
        differing = [f for f, data in files.items() if not (HERE / f).is_file() or (HERE / f).read_bytes() != data]
        print(f"{len(files)} files, {len(differing)} differ: {' '.join(differing)}")
        sys.exit(bool(differing))
    for old in [*HERE.glob("*.npy"), *HERE.glob("*.safetensors")]:
        if old.name not in files and not old.name.startswith("methods_"):
            old.unlink()
    for file, data in files.items():
        (HERE / file).write_bytes(data)
    print(f"{len(files)} files, {total} bytes")


if __name__ == "__main__":
    main()
