"""What a training has really learned, by measures that do not use spectra.

They are nearest-neighbour accuracy on the backbone's features and on the embedding, the spread of the unit embeddings,
and the correlation of their coordinates, all on images without augmentation. Labels are used nowhere else.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from data import standardise

NEIGHBOURS = 20
BANK = 4096  # number of training images that vote
STATISTICS = 1024  # number of training images for batch norm's statistics


def measured(method, images):
    """A copy of the method in evaluation mode, with its batch norms' statistics computed on the first images.

    Running averages lag behind the weights, and in an untrained network they are meaningless.
    """
    method = copy.deepcopy(method)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.momentum = None  # plain average over the batches below
    method.train()
    for batch in images[:STATISTICS].split(256):
        method.embed(standardise(batch))
    return method.eval()


def embed(method, images):
    parts = [method.embed(standardise(batch)) for batch in images.split(512)]
    return [torch.cat(tensors) for tensors in zip(*parts)]


def knn_accuracy(bank, labels, queries, answers):
    """Share of queries for which the 20 nearest bank rows (by cosine) vote for the right label."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    nearest = similarity.topk(NEIGHBOURS, dim=1).indices
    votes = F.one_hot(labels[nearest], int(labels.max()) + 1).sum(dim=1)
    return (votes.argmax(dim=1) == answers).float().mean().item()


def spread(z):
    """sqrt(d) times the mean per-coordinate std of the unit rows: 1 if spread around the sphere, 0 on a point."""
    return F.normalize(z, dim=1).std(dim=0, unbiased=False).mean().item() * z.shape[1] ** 0.5


def coordinate_correlation(z):
    """Mean |correlation| of two coordinates: 1 if all are copies of one (a line), 0.8/sqrt(N) if independent."""
    correlation = torch.corrcoef(z.double().T).nan_to_num()  # 0 for a constant coordinate
    d = len(correlation)
    return ((correlation.abs().sum() - correlation.diagonal().sum()) / (d * (d - 1))).item()


@torch.no_grad()
def measure(method, train, test):
    """One epoch's record."""
    method = measured(method, train[0])
    (images, labels), (queries, answers) = (train[0][:BANK], train[1][:BANK]), test
    seen = []
    if method.pre_bn_layer is not None:
        method.pre_bn_layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    query_features, query_embedding = embed(method, queries)
    pre_bn = torch.cat(seen) if seen else None
    features, embedding = embed(method, images)
    record = {
        "knn_backbone": round(knn_accuracy(features, labels, query_features, answers), 4),
        "knn_projector": round(knn_accuracy(embedding, labels, query_embedding, answers), 4),
        "spread": round(spread(query_embedding), 4),
        "correlation": round(coordinate_correlation(query_embedding), 4),
    }
    if pre_bn is not None:
        record["pre_bn_std"] = round(pre_bn.std(dim=0, unbiased=False).mean().item(), 6)
        record["pre_bn_spread"] = round(spread(pre_bn), 4)
    return record
