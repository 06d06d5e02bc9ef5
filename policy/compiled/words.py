"""`policy.words.WordReader`, compiled: missions of different lengths side by side, without steps for missing words.

States lie row by row, one row per word: first the first words of all missions, then the second words of all that have
one, and so on, the longest missions first. So a timestep's missions are the first of those before, and a product has as
many rows as there are words to read. A GRU of its input is a table here, as words are few.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from policy.compiled.kernels import exp, gates_backward, gates_forward
from policy.compiled.operations import linear
from policy.compiled.products import add_product


@njit(cache=True, nogil=True)
def _lay_out(numbers):
    """Return how the words of missions [M, W] lie: which mission stands at which place int64 [M], where each timestep's
    rows start int64 [T + 1], and the word of each row int64 [rows]."""
    lengths = np.zeros(numbers.shape[0], np.int64)
    for m in range(lengths.size):
        while lengths[m] < numbers.shape[1] and numbers[m, lengths[m]] > 0:
            lengths[m] += 1
    starts = np.zeros(lengths.max() + 1, np.int64)
    mission_at, place = np.empty(lengths.size, np.int64), 0
    for length in range(starts.size - 1, 0, -1):
        for m in range(lengths.size):
            if lengths[m] == length:
                mission_at[place] = m
                place += 1
        starts[length] = place  # as many have a word number `length`
    for t in range(1, starts.size):
        starts[t] += starts[t - 1]
    word = np.empty(starts[-1], np.int64)
    for t in range(starts.size - 1):
        for row in range(starts[t], starts[t + 1]):
            word[row] = np.int64(numbers[mission_at[row - starts[t]], t])
    return mission_at, starts, word


@njit(cache=True, nogil=True, error_model="numpy")
def _read(starts, word, table, weight_hh, bias_hh, gates, before, after):
    """The GRU's states.

    Args:
        starts, word: see `_lay_out`.
        table: [V, 3H], of each word the GRU's product with its embedding, and bias_ih.
        weight_hh, bias_hh: as torch lays them out, [3H, H] and [3H].
        gates: [rows, 4H], to be filled with r, z, n, u_n, as in `kernels.gru_forward`.
        before, after: zeros [rows, H], to become the states before and after each word.
    """
    size = weight_hh.shape[1]
    of_gates, of_new = weight_hh[: 2 * size].T.copy(), weight_hh[2 * size :].T.copy()
    for t in range(starts.size - 1):
        first, last = starts[t], starts[t + 1]
        if t > 0:
            before[first:last] = after[starts[t - 1] : starts[t - 1] + last - first]
        for row in range(first, last):
            gates[row, : 2 * size] = table[word[row], : 2 * size] + bias_hh[: 2 * size]
            gates[row, 2 * size : 3 * size] = table[word[row], 2 * size :]
            gates[row, 3 * size :] = bias_hh[2 * size :]
        add_product(before[first:last], of_gates, gates[first:last, : 2 * size])
        add_product(before[first:last], of_new, gates[first:last, 3 * size :])
        for row in range(first, last):
            r, z, n, u_n = _four(gates[row])
            gates_forward(r, z, n, u_n, before[row], after[row])


@njit(cache=True, nogil=True)
def _four(row):
    """Return the four quarters of a row [4H]."""
    size = row.size // 4
    return row[:size], row[size : 2 * size], row[2 * size : 3 * size], row[3 * size :]


@njit(cache=True, nogil=True, error_model="numpy")
def _read_backward(starts, word, weight_hh, gates, before, grad_after, grad_table, grad_weight_hh, grad_bias_hh):
    """The gradient of `_read`, added to the last three; `grad_after` [rows, H] is used up."""
    size = weight_hh.shape[1]
    of_gates, of_new = weight_hh[: 2 * size], weight_hh[2 * size :]
    d_gates = np.empty(gates.shape, np.float32)
    for t in range(starts.size - 2, -1, -1):
        first, last = starts[t], starts[t + 1]
        for row in range(first, last):
            r, z, n, u_n = _four(gates[row])
            d_r, d_z, d_n, d_u_n = _four(d_gates[row])
            gates_backward(r, z, n, u_n, before[row], grad_after[row], d_r, d_z, d_n, d_u_n)
        if t > 0:
            d_before = grad_after[starts[t - 1] : starts[t - 1] + last - first]
            d_before += grad_after[first:last]
            add_product(d_gates[first:last, : 2 * size], of_gates, d_before)
            add_product(d_gates[first:last, 3 * size :], of_new, d_before)
    add_product(d_gates[:, : 2 * size].T, before, grad_weight_hh[: 2 * size])
    add_product(d_gates[:, 3 * size :].T, before, grad_weight_hh[2 * size :])
    for row in range(word.size):
        grad_table[word[row]] += d_gates[row, : 3 * size]
        grad_bias_hh[: 2 * size] += d_gates[row, : 2 * size]
        grad_bias_hh[2 * size :] += d_gates[row, 3 * size :]


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(mission_at, starts, query, after, weights, pooled):
    """Fill `weights` [rows, Q] with how much each query looks at each word, a softmax over a mission's words, and
    `pooled` [M, (Q + 1) * H] with the states that each query sees, and the last ones."""
    size = after.shape[1]
    weights[:] = np.float32(0)
    add_product(after, query.T.copy(), weights)
    pooled[:] = np.float32(0)
    for place in range(mission_at.size):
        seen = pooled[mission_at[place]]
        for q in range(query.shape[0]):
            largest, total = np.float32(-np.inf), np.float32(0)
            for t in range(starts.size - 1):
                row = starts[t] + place
                if row < starts[t + 1]:
                    largest = max(largest, weights[row, q])
            for t in range(starts.size - 1):
                row = starts[t] + place
                if row < starts[t + 1]:
                    weights[row, q] = exp(weights[row, q] - largest)
                    total += weights[row, q]
            for t in range(starts.size - 1):
                row = starts[t] + place
                if row < starts[t + 1]:
                    weights[row, q] /= total
                    seen[q * size : (q + 1) * size] += weights[row, q] * after[row]
        for t in range(starts.size - 1):
            row = starts[t] + place
            if row < starts[t + 1]:
                seen[query.shape[0] * size :] = after[row]


@njit(cache=True, nogil=True, error_model="numpy")
def _pool_backward(mission_at, starts, query, after, weights, grad_pooled, grad_after, grad_query):
    """The gradient of `_pool`: `grad_after` is filled, `grad_query` is added to."""
    size, queries = after.shape[1], query.shape[0]
    d_weights, along = np.zeros(weights.shape, np.float32), np.zeros(queries, np.float32)
    for place in range(mission_at.size):
        d_pooled = grad_pooled[mission_at[place]]
        d_seen = np.ascontiguousarray(d_pooled[: queries * size].reshape(queries, size).T)
        along[:] = np.float32(0)
        last = 0
        for t in range(starts.size - 1):
            row = starts[t] + place
            if row < starts[t + 1]:
                last = row
                grad_after[row] = np.float32(0)
                add_product(after[row : row + 1], d_seen, d_weights[row : row + 1])
                for q in range(queries):
                    grad_after[row] += weights[row, q] * d_pooled[q * size : (q + 1) * size]
                    along[q] += weights[row, q] * d_weights[row, q]
        grad_after[last] += d_pooled[queries * size :]
        for t in range(starts.size - 1):
            row = starts[t] + place
            if row < starts[t + 1]:
                for q in range(queries):
                    d_weights[row, q] = weights[row, q] * (d_weights[row, q] - along[q])
    add_product(d_weights, query, grad_after)
    add_product(d_weights.T, after, grad_query)


class _ReadWords(torch.autograd.Function):
    """numbers float32 [M, W], table [V, 3H], weight_hh, bias_hh, query [Q, H] -> pooled states [M, (Q + 1) * H]."""

    @staticmethod
    def forward(ctx, numbers, table, weight_hh, bias_hh, query):
        ctx.places = _lay_out(numbers.numpy())
        ctx.weights = table.numpy(), weight_hh.numpy(), bias_hh.numpy(), query.numpy()
        (mission_at, starts, word), size = ctx.places, weight_hh.shape[1]
        gates = np.empty((len(word), 4 * size), np.float32)
        before, after = np.zeros((2, len(word), size), np.float32)
        _read(starts, word, *ctx.weights[:3], gates, before, after)
        attention = np.empty((len(word), len(query)), np.float32)
        pooled = torch.empty(len(numbers), (len(query) + 1) * size)
        _pool(mission_at, starts, ctx.weights[3], after, attention, pooled.numpy())
        ctx.computed = gates, before, after, attention
        return pooled

    @staticmethod
    def backward(ctx, grad):
        (mission_at, starts, word), (gates, before, after, attention) = ctx.places, ctx.computed
        _, weight_hh, _, query = ctx.weights
        grads = [torch.zeros(weight.shape) for weight in ctx.weights]
        grad_table, grad_weight_hh, grad_bias_hh, grad_query = (tensor.numpy() for tensor in grads)
        grad_after, grad = np.empty(after.shape, np.float32), grad.contiguous().numpy()
        _pool_backward(mission_at, starts, query, after, attention, grad, grad_after, grad_query)
        _read_backward(starts, word, weight_hh, gates, before, grad_after, grad_table, grad_weight_hh, grad_bias_hh)
        return None, *grads


class PackedReader:
    """A WordReader's weights in the form that missions are read with, until they change.

    Args:
        embedding, gru, query: its parts.
    """

    def __init__(self, embedding: nn.Embedding, gru: nn.GRU, query: nn.Linear):
        weight_ih, weight_hh, bias_ih, bias_hh = gru.parameters()
        with torch.enable_grad():
            table = linear(embedding.weight, weight_ih, bias_ih)
        self.weights = table, weight_hh, bias_hh, query.weight

    def __call__(self, numbers: Tensor) -> Tensor:
        """As `WordReader.forward`."""
        return _ReadWords.apply(numbers, *self.weights)
