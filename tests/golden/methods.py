#!/usr/bin/env python3
"""Write the golden inputs of the methods' diagnostics and `methods.json` beside this file.

Every value follows its definition in the plainest form: adjacency matrices that are really built, inverse square roots
by eigenvectors, loops over pairs of rows. Nothing is shared with the Rust code. Inputs are float64, so that what is
compared is the formulas.

    python methods.py          writes the files
    python methods.py --check  writes nothing, fails when a file here differs from what would be written
"""

import argparse
import itertools
import json
import math
import pathlib
import sys

import numpy as np
import safetensors.numpy

HERE = pathlib.Path(__file__).resolve().parent
PREFIX = "methods_"


def entropy(p):
    p = np.asarray(p, float)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def entropy_rank(weights):
    return math.exp(entropy(np.asarray(weights) / np.sum(weights)))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def inverse_root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**-0.5) @ vectors.T


def softmax(scores, temperature, center=0.0):
    x = (scores - center) / temperature
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def lidar(rows, ids, delta=1e-4):
    groups = [rows[ids == i] for i in np.unique(ids)]
    groups = [g for g in groups if len(g) > 1]
    means = np.array([g.mean(axis=0) for g in groups])
    within = sum((g - g.mean(axis=0)).T @ (g - g.mean(axis=0)) for g in groups) / sum(len(g) - 1 for g in groups)
    between = np.cov(means.T, ddof=1)
    root = inverse_root(within + delta * np.eye(rows.shape[1]))
    values = np.linalg.eigvalsh(root @ between @ root)
    return {
        "value": entropy_rank(np.clip(values, 0, None)),
        "delta": delta,
        "ids": len(groups),
        "rows_per_id": sum(map(len, groups)) / len(groups),
    }


def information(z1, z2):
    a, b = z1 - z1.mean(axis=0), z2 - z2.mean(axis=0)
    # Canonical correlations are the singular values of Q1^T Q2 (Bjorck and Golub 1973).
    rho = np.linalg.svd(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0], compute_uv=False)
    values = {
        "value": float(-0.5 * np.log(1 - rho**2).sum()),
        "mean_correlation": float(rho.mean()),
        "top_correlation": float(rho[0]),
    }
    fit = a @ np.linalg.lstsq(a, b, rcond=None)[0]
    return values, float((fit**2).sum() / (b**2).sum())


def label_fit(rows, labels):
    z = rows - rows.mean(axis=0)
    names = np.unique(labels)
    y = (labels[:, None] == names[None, :]).astype(float)
    y -= y.mean(axis=0)
    fit = z @ np.linalg.lstsq(z, y, rcond=None)[0]
    left = np.linalg.svd(z, full_matrices=False)[0][:, : len(names) - 1]
    return {
        "r2": float((fit**2).sum() / (y**2).sum()),
        "top_energy_share": float(((left.T @ y) ** 2).sum() / (y**2).sum()),
        "classes": len(names),
    }


def relation_graph(rows, adjacency, top):
    """`top`: dimension of the graph's top eigenspace."""
    z = rows - rows.mean(axis=0)
    sigma = float((z**2).sum() / len(z))
    degrees = adjacency.sum(axis=1)
    laplacian = np.diag(degrees) - adjacency
    values, vectors = np.linalg.eigh(adjacency)
    space = vectors[:, ::-1][:, :top]
    left, singular, _ = np.linalg.svd(z, full_matrices=False)
    rank_g = int((np.abs(values + 1) > 1e-9).sum())
    rank_z = int((singular > 1e-9 * singular[0]).sum())
    k = min(rank_z, rank_g - 1, top)
    return {
        "dirichlet_energy": float(2 * np.trace(z.T @ laplacian @ z) / (degrees.sum() * sigma)),
        "top_energy_share": float(((space.T @ z) ** 2).sum() / (z**2).sum()),
        "rank": rank_z,
        "rank_cap": min(rows.shape[1], rank_g - 1),
        "subspace_overlap": float(((space.T @ left[:, :k]) ** 2).sum() / k),
    }


def same_id(ids):
    adjacency = (ids[:, None] == ids[None, :]).astype(float)
    np.fill_diagonal(adjacency, 0.0)
    return adjacency


def simplex(rows):
    u = unit(rows)
    cosines = [float(u[i] @ u[j]) for i in range(len(u)) for j in range(len(u)) if i != j]
    return {
        "mean_cosine": float(np.mean(cosines)),
        "cosine_spread": float(np.std(cosines)),
        "null": -1 / (len(u) - 1),
    }


def usage(p):
    h, mean = float(np.mean([entropy(row) for row in p])), p.mean(axis=0)
    count = p.shape[1]
    return {
        "count": count,
        "entropy": h,
        "marginal_entropy": entropy(mean),
        "information": entropy(mean) - h,
        "largest_share": float(mean.max()),
        "usage": math.exp(entropy(mean)) / count,
        "dead_share": float((mean < 0.1 / count).mean()),
    }


def student_usage(p, q, weight=None):
    out = usage(p)
    out["count"] = p.shape[1]
    out["usage_share"] = math.exp(out["marginal_entropy"]) / min(p.shape[1], len(p) * math.exp(out["entropy"]))
    out["divergence"] = float((q * np.log(q / p)).sum(axis=1).mean())
    if weight is not None:
        out["weight_entropy_rank"] = entropy_rank(np.linalg.svd(weight, compute_uv=False) ** 2)
    return out


def mean_cosine(a, b):
    return float((unit(a) * unit(b)).sum(axis=1).mean())


def covariance_rank(rows):
    return entropy_rank(np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2)


def spectrum(rows):
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    return values / values.sum()


def centre_norm(rows):
    return float(np.linalg.norm(unit(rows).mean(axis=0)))


def views(rng, count, samples, dim, noise=0.5):
    mixing = rng.standard_normal((dim, dim))
    signal = rng.standard_normal((samples, dim)) @ mixing
    return [signal + noise * rng.standard_normal((samples, dim)) + 0.3 for _ in range(count)]


def cases():
    rng = np.random.default_rng(7)

    z1, z2 = views(rng, 2, 300, 6)
    ids = rng.permutation(np.repeat(np.arange(100), 3)).astype(np.int64)
    labels = (np.arange(300) % 5).astype(np.int64)
    z1[:, 0] += labels
    z2[:, 0] += labels
    pooled, twice = np.concatenate([z1, z2]), np.concatenate([ids, ids])
    shared, r2 = information(z1, z2)
    yield "ids_and_labels", {"z1": z1, "z2": z2, "ids": ids, "labels": labels}, {}, {
        "lidar": lidar(pooled, twice),
        "labels": label_fit(pooled, np.concatenate([labels, labels])),
        "mutual_information": shared,
        "predictor": {"linear_r2": r2, "cosine": None, "entropy_rank_ratio": None, "commutator": None},
        "graph": relation_graph(pooled, same_id(twice), 100),
        "simplex": simplex(z1),
        "teacher": None,
        "prototypes": None,
        "loss": None,
    }

    z1, z2 = views(rng, 2, 80, 5)
    negative = rng.standard_normal((80, 5))
    rows, sample = np.concatenate([z1, z2]), np.tile(np.arange(80), 2)
    distance = lambda a, b: float(np.linalg.norm(a - b, axis=1).mean())  # noqa: E731
    covariances = [np.cov(z.T, ddof=1) for z in (z1, z2)]
    yield "vicreg", {"z1": z1, "z2": z2, "negative1": negative}, {"method": "vicreg", "gamma": 3.0}, {
        "vicreg": {
            "invariance": float(((z1 - z2) ** 2).mean()),
            "variance": float(np.mean([np.maximum(0, 3 - np.sqrt(np.diag(c) + 1e-4)).mean() for c in covariances])),
            "covariance": float(np.mean([(c**2).sum() - (np.diag(c) ** 2).sum() for c in covariances]) / 5),
        },
        "triplet": {
            "positive_distance": distance(z1, z2),
            "negative_distance": distance(z1, negative),
            "distance_gap": distance(z1, negative) - distance(z1, z2),
        },
        "graph": relation_graph(rows, same_id(sample), 80),
        "mutual_information": information(z1, z2)[0],
        "barlow": None,
    }

    correlation = np.corrcoef(z1.T, z2.T)[:5, 5:]
    off = (correlation**2).sum() - (np.diag(correlation) ** 2).sum()
    yield "barlow", {"z1": z1[:40], "z2": z2[:40]}, {"method": "barlow", "lambda": 0.005, "loss": 5.01}, {
        "loss": {"value": 5.01, "constant": 5.0, "distance": 0.002},
        "mutual_information": None,
        "vicreg": None,
        "lidar": None,
    }
    yield "barlow_terms", {"z1": z1, "z2": z2}, {"method": "barlow", "lambda": 0.005}, {
        "barlow": {"invariance": float(((1 - np.diag(correlation)) ** 2).sum()), "redundancy": float(0.005 * off)},
    }

    three = views(rng, 3, 50, 4)
    rows, sample = np.concatenate(three), np.tile(np.arange(50), 3)
    yield "three_views", {f"z{i + 1}": z for i, z in enumerate(three)}, {}, {
        "graph": relation_graph(rows, same_id(sample), 50),
    }

    z = rng.standard_normal((40, 6))
    pairs = [(i, j) for i, j in itertools.combinations(range(40), 2) if rng.random() < 0.15]
    adjacency = np.zeros((40, 40))
    for i, j in pairs:
        adjacency[i, j] = adjacency[j, i] = 1.0
    # Both directions, a loop and a repeat: none of them is another relation.
    edges = np.array(pairs + [(j, i) for i, j in pairs[:9]] + [(3, 3), pairs[0]], dtype=np.int64)
    yield "edges", {"z": z, "edges": edges}, {}, {"graph": relation_graph(z, adjacency, 6)}

    z1, z2 = views(rng, 2, 64, 5)
    teachers = [z + 0.7 * rng.standard_normal(z.shape) for z in (z1, z2)]
    logits = [rng.standard_normal((64, 12)) for _ in range(2)]
    teacher_logits = [x + 0.2 * rng.standard_normal(x.shape) for x in logits]
    center, weight = rng.standard_normal(12), rng.standard_normal((12, 5))
    p = np.concatenate([softmax(x, 0.1) for x in logits])
    q = np.concatenate([softmax(x, 0.04, center) for x in teacher_logits])
    student, teacher = np.concatenate([z1, z2]), np.concatenate(teachers)
    yield (
        "dino",
        {"z1": z1, "z2": z2, "teacher1": teachers[0], "teacher2": teachers[1], "center": center}
        | {f"logits{i + 1}": x for i, x in enumerate(logits)}
        | {f"teacher_logits{i + 1}": x for i, x in enumerate(teacher_logits)}
        | {"prototype_weight": weight},
        {"method": "dino", "temperature": 0.1, "teacher_temperature": 0.04, "loss": 2 * math.log(12)},
        {
            "prototypes": student_usage(p, q, weight),
            "prototype_targets": usage(q),
            "loss": {"value": 2 * math.log(12), "constant": 2 * math.log(12), "distance": 0.0},
            "teacher": {
                "cosine": mean_cosine(student, teacher),
                "entropy_rank_ratio": covariance_rank(teacher) / covariance_rank(student),
                "spectrum_distance": float(np.abs(spectrum(teacher) - spectrum(student)).sum() / 2),
                "center_norm_gap": centre_norm(teacher) - centre_norm(student),
            },
        },
    )

    scores = rng.standard_normal((30, 8))
    codes = softmax(rng.standard_normal((30, 8)), 0.5)
    p = softmax(scores, 0.2)
    yield "scores_alone", {"logits1": scores, "codes1": codes}, {"method": "swav", "temperature": 0.2}, {
        "prototypes": student_usage(p, codes),
        "prototype_targets": usage(codes),
        "graph": None,
        "simplex": None,
    }

    z1, z2 = views(rng, 2, 90, 7)
    predictions = [z @ rng.standard_normal((7, 7)) for z in (z1, z2)]
    weight = rng.standard_normal((7, 7))
    pre = 2 + rng.standard_normal((90, 4)) * np.array([0.01, 0.02, 0.003, 0.5])
    rows = np.concatenate([z1, z2])
    second = rows.T @ rows / len(rows)
    vectors = np.linalg.eigh(second)[1].T
    alignment = np.mean([abs(v @ weight @ v) / np.linalg.norm(weight @ v) for v in vectors])
    commutator = np.linalg.norm(weight @ second - second @ weight)
    variance = pre.var(axis=0)
    pre_cosine = (len(pre) * centre_norm(pre) ** 2 - 1) / (len(pre) - 1)
    tensors = {"z1": z1, "z2": z2, "prediction1": predictions[0], "prediction2": predictions[1], "pre_bn": pre}
    tensors |= {"predictor_weight": weight, "neighbors": (np.arange(90) // 4).astype(np.int64)}
    scalars = {"method": "simsiam", "bn_eps": 1e-5, "bn_gamma": 0.5}
    yield "simsiam", tensors, scalars, {
        "predictor": {
            "entropy_rank_ratio": covariance_rank(np.concatenate(predictions)) / covariance_rank(rows),
            "cosine": mean_cosine(np.concatenate(predictions), np.concatenate([z2, z1])),
            "linear_r2": information(z1, z2)[1],
            "eigenvector_alignment": float(alignment),
            "commutator": float(commutator / np.linalg.norm(weight) / np.linalg.norm(second)),
        },
        "batch_norm": {
            "pre_std": float(math.sqrt(variance.mean())),
            "pre_std_limit": 10 * math.sqrt(1e-5),
            "pre_mean_cosine": pre_cosine,
            "post_variance_share": float(rows.var(axis=0).mean() / 0.25),
            "stiffness": float((0.5 / np.sqrt(variance + 1e-5)).mean()),
            "pre_center_norm": centre_norm(pre),
            "post_center_norm": centre_norm(rows),
        },
        "neighbors": {"unique_share": 23 / 90},
    }


def build():
    files, expected = {}, {}
    for name, tensors, scalars, methods in cases():
        file = f"{PREFIX}{name}.safetensors"
        metadata = {key: value if isinstance(value, str) else repr(value) for key, value in scalars.items()}
        files[file] = safetensors.numpy.save(tensors, metadata=metadata or None)
        expected[name] = {"file": file, "methods": methods}
    files["methods.json"] = (json.dumps(expected, indent=1) + "\n").encode()
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    files = build()
    if check:
        differing = [f for f, data in files.items() if not (HERE / f).is_file() or (HERE / f).read_bytes() != data]
        print(f"{len(files)} files, {len(differing)} differ: {' '.join(differing)}")
        sys.exit(bool(differing))
    for file, data in files.items():
        (HERE / file).write_bytes(data)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
