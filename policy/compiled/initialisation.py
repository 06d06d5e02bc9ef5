"""Weights to begin with: the same for the same seed on every processor.

PyTorch's own initialisation fuses a multiplication and an addition on some processors and not on others, and LAPACK's
decompositions differ in their last digits; what is here does neither.
"""

import numpy as np
import torch
from numba import njit
from torch import nn

import basics.compiler_cache  # noqa: F401  (before the first njit)

SWEEPS = 60  # of Jacobi rotations, at most; some ten are enough


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Draw the weights of all linear and recurrent layers and embeddings of `module` anew, uniformly.

    In [-1/sqrt(n), 1/sqrt(n)), as PyTorch does, where n is a linear layer's number of inputs or a recurrent layer's of
    hidden units; an embedding's in [-1, 1). Other parameters stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            n = layer.in_features
        elif isinstance(layer, nn.RNNBase):
            n = layer.hidden_size
        elif isinstance(layer, nn.Embedding):
            n = 1
        else:
            continue
        for parameter in layer.parameters(recurse=False):
            parameter.copy_((2 * torch.rand(parameter.shape) - 1) / n**0.5)


@njit(cache=True, nogil=True, error_model="numpy")
def _orthogonalise(rows):
    """Rotate pairs of rows [n, d] until all are orthogonal (one-sided Jacobi: Hestenes 1958)."""
    nothing = 0.0  # squared length below which a row is rounding error: there may be more rows than dimensions
    for row in rows:
        for value in row:
            nothing += 1e-30 * value * value
    for _ in range(SWEEPS):
        largest = 0.0
        for i in range(rows.shape[0]):
            for j in range(i + 1, rows.shape[0]):
                a, b = rows[i], rows[j]
                aa = bb = ab = 0.0
                for k in range(rows.shape[1]):
                    aa += a[k] * a[k]
                    bb += b[k] * b[k]
                    ab += a[k] * b[k]
                lengths = np.sqrt(aa) * np.sqrt(bb)
                if aa <= nothing or bb <= nothing or abs(ab) <= 1e-15 * lengths:
                    continue
                largest = max(largest, abs(ab) / lengths)
                zeta = (bb - aa) / (2.0 * ab)
                tangent = 1.0 / (abs(zeta) + np.sqrt(1.0 + zeta * zeta))
                if zeta < 0:
                    tangent = -tangent
                cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
                sine = cosine * tangent
                for k in range(rows.shape[1]):
                    a[k], b[k] = cosine * a[k] - sine * b[k], sine * a[k] + cosine * b[k]
        if largest < 1e-14:
            break


@njit(cache=True, nogil=True)
def _mean_of_rows(rows):
    mean = np.zeros(rows.shape[1])
    for row in rows:
        mean += row
    return mean / rows.shape[0]


@njit(cache=True, nogil=True)
def _dot(rows, vector):
    result = np.zeros(rows.shape[0])
    for i in range(rows.shape[0]):
        for k in range(vector.size):
            result[i] += rows[i, k] * vector[k]
    return result


def principal_components(embeddings: np.ndarray, lang_dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (weight [k, embed_dim], bias [k]) of a linear map after which missions differ as much as they can.

    A task's missions say nearly the same as far as a sentence encoder is concerned: their embeddings lie close together
    around a large common mean. The map takes the mean away and turns the k <= lang_dim directions in which the
    embeddings differ most (a principal component analysis) into coordinates of variance one; directions with less than
    a tenth of the first one's spread are mostly noise, and are not magnified further.
    """
    distinct = np.unique(embeddings, axis=0).astype(np.float64)
    mean = _mean_of_rows(distinct)
    rows = distinct - mean
    _orthogonalise(rows)
    spread = np.sqrt([_dot(row[None], row)[0] for row in rows])
    order = np.argsort(-spread, kind="stable")[: min(lang_dim, len(distinct) - 1)]
    if len(order) == 0:  # a task with one mission
        return np.zeros((0, embeddings.shape[1]), np.float32), np.zeros(0, np.float32)
    directions = rows[order] / spread[order, None]
    scale = np.sqrt(float(len(distinct))) / np.maximum(spread[order], 0.1 * spread[order[0]])
    weight = directions * scale[:, None]
    return weight.astype(np.float32), (-_dot(weight, mean)).astype(np.float32)
