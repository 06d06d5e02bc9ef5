"""The policy's arithmetic between its matrix products, compiled for the CPU.

At batch sizes of some tens, a tensor operation costs more to call than to compute; here everything between two products
is one call. Arrays are float32 and C-contiguous along their last axis; rows are agents (or timesteps of agents).
"""

import math

import numpy as np
import scipy.linalg  # noqa: F401  (numba's products are its BLAS)
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

import compiler_cache  # noqa: F401  (before numba)

threadpool_limits(1, user_api="blas")  # products this small only wait for further threads

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
LOG2_E, LN_2 = np.float32(math.log2(math.e)), np.float32(math.log(2))
TO_NEAREST = np.float32(1.5 * 2**23)  # adding and subtracting it rounds a small float32 to the nearest integer
A2, A3, A4, A5, A6 = (np.float32(1 / math.factorial(n)) for n in range(2, 7))


@intrinsic
def _float_of_bits(context, bits):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), code


@njit(inline="always", error_model="numpy")
def exp(x):
    """e**x in operations that vectorise, its relative error about |x| * 1e-7: 2**k by its exponent bits, the rest by
    Taylor's series."""
    x = min(max(x, np.float32(-87)), np.float32(87))
    k = (x * LOG2_E + TO_NEAREST) - TO_NEAREST
    r = x - k * LN_2
    series = ONE + r * (ONE + r * (A2 + r * (A3 + r * (A4 + r * (A5 + r * A6)))))
    return series * _float_of_bits((np.int32(k) + np.int32(127)) << np.int32(23))


@njit(inline="always", error_model="numpy")
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@njit(inline="always", error_model="numpy")
def tanh(x):
    return TWO / (ONE + exp(-TWO * x)) - ONE


@njit(cache=True, nogil=True)
def _of_gru(kept, start, s, steps, batch, t):
    """Return what is kept of timestep t of the GRU whose hidden units begin at `start`: five arrays [B * s]."""
    first = steps * batch * start + t * batch * s
    last = first + batch * s
    return kept[0, first:last], kept[1, first:last], kept[2, first:last], kept[3, first:last], kept[4, first:last]


# Short loops over whole blocks, each with one array to write: those the compiler turns into vector code.
@njit(cache=True, nogil=True, error_model="numpy")
def _gates_forward(r, z, n, u_n, h, h_new):
    for x in range(r.size):
        r[x] = sigmoid(r[x])
    for x in range(r.size):
        z[x] = sigmoid(z[x])
    for x in range(r.size):
        n[x] = tanh(n[x] + r[x] * u_n[x])
    for x in range(r.size):
        h_new[x] = n[x] + z[x] * (h[x] - n[x])


@njit(cache=True, nogil=True, error_model="numpy")
def _gates_backward(r, z, n, u_n, h, d, d_r, d_z, d_n, d_u_n):
    """From the gradient d of h' to those of r, z, n (before sigmoid and tanh) and u_n; d becomes that of h, as far as
    h' depends on h directly."""
    for x in range(r.size):
        d_n[x] = d[x] * (ONE - z[x]) * (ONE - n[x] * n[x])
    for x in range(r.size):
        d_z[x] = d[x] * (h[x] - n[x]) * z[x] * (ONE - z[x])
    for x in range(r.size):
        d_u_n[x] = d_n[x] * r[x]
    for x in range(r.size):
        d_r[x] = d_u_n[x] * u_n[x] * (ONE - r[x])
    for x in range(r.size):
        d[x] *= z[x]


@njit(cache=True, nogil=True)
def _pack(d_r, d_z, d_n, d_u_n, d_i, d_u):
    """Fill the rows of d_i [B, >= 3s] with d_r, d_z, d_n, and those of d_u [B, 3s] with d_r, d_z, d_u_n."""
    s = d_u.shape[1] // 3
    for b in range(d_u.shape[0]):
        d_i_b, d_u_b = d_i[b], d_u[b]
        first = b * s
        for j in range(s):
            d_u_b[j] = d_r[first + j]
        for j in range(s):
            d_u_b[s + j] = d_z[first + j]
        for j in range(2 * s):
            d_i_b[j] = d_u_b[j]
        for j in range(s):
            d_i_b[2 * s + j] = d_n[first + j]
        for j in range(s):
            d_u_b[2 * s + j] = d_u_n[first + j]


@njit(cache=True, nogil=True, error_model="numpy")
def gru_forward(sizes, weight_ih, weight_hh, bias_ih, bias_hh, t, inputs, state, keep, kept, after, room):
    """Timestep t of GRUs side by side, by torch.nn.GRU's equations: r, z = sigmoid(i + u), n = tanh(i_n + r * u_n),
    h' = (1 - z) * n + z * h, where i and u are the products of the input and of the state h, with their biases.

    Args:
        sizes: int64 [G], hidden units s of each GRU, H in all.
        weight_ih, weight_hh, bias_ih, bias_hh: see `gru.JoinedGRUs`.
        inputs: [B, input_size].
        state: [B, H].
        keep: [B], 0 where an episode begins and the state returns to zero, else 1.
        kept: [5, T * B * H]; filled with r, z, n, u_n and h, each per GRU [T, B, s].
        after: [T, B, H]; filled with h'.
        room: [2, 3 * B * H], to work in: arrays cost more to allocate than to fill.
    """
    steps, batch, units = after.shape
    i = room[0].reshape(batch, 3 * units)
    np.dot(inputs, weight_ih, i)
    start = 0
    weights = 0
    for s in sizes:
        r, z, n, u_n, h = _of_gru(kept, start, s, steps, batch, t)
        for b in range(batch):
            for j in range(s):
                h[b * s + j] = state[b, start + j] * keep[b]
        u = room[1, : batch * 3 * s].reshape(batch, 3 * s)
        np.dot(h.reshape(batch, s), weight_hh[weights : weights + 3 * s * s].reshape(s, 3 * s), u)
        for b in range(batch):
            i_b, u_b = i[b, 3 * start :], u[b]
            b_i, b_h = bias_ih[3 * start :], bias_hh[3 * start :]
            r_b, z_b, n_b, u_n_b = r[b * s :], z[b * s :], n[b * s :], u_n[b * s :]
            for j in range(s):
                r_b[j] = i_b[j] + b_i[j] + u_b[j] + b_h[j]
            for j in range(s):
                z_b[j] = i_b[s + j] + b_i[s + j] + u_b[s + j] + b_h[s + j]
            for j in range(s):
                n_b[j] = i_b[2 * s + j] + b_i[2 * s + j]
            for j in range(s):
                u_n_b[j] = u_b[2 * s + j] + b_h[2 * s + j]
        h_new = room[1]
        _gates_forward(r, z, n, u_n, h, h_new)
        for b in range(batch):
            for j in range(s):
                after[t, b, start + j] = h_new[b * s + j]
        start += s
        weights += 3 * s * s


@njit(cache=True, nogil=True, error_model="numpy")
def gru_backward(
    sizes, weight_ih, weight_hh, inputs, keep, kept, grad_after,
    grad_inputs, grad_state, grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh,
    grad_i, grad_u, room,
):  # fmt: skip
    """The gradient of T timesteps of `gru_forward`.

    Args:
        inputs: [T * B, input_size].
        keep: [T, B].
        kept: as `gru_forward` filled it.
        grad_after: [T, B, H], the gradient of h' from elsewhere.
        grad_inputs .. grad_bias_hh: to be filled, shaped as what they are the gradients of.
        grad_i, grad_u: [T * B * 3H], room: [6 * B * H], to work in.
    """
    steps, batch, units = grad_after.shape
    rows = steps * batch
    d_i = grad_i.reshape(steps, batch, 3 * units)
    grad_bias_ih[:] = ZERO
    grad_bias_hh[:] = ZERO
    start = 0
    weights = 0
    for s in sizes:
        weight = weight_hh[weights : weights + 3 * s * s].reshape(s, 3 * s)
        of_gru = grad_u[: 3 * rows * s].reshape(steps, batch, 3 * s)
        blocks = room[: 6 * batch * s].reshape(6, batch, s)
        d, through_u = blocks[0], blocks[1]
        d_r, d_z, d_n, d_u_n = blocks[2].ravel(), blocks[3].ravel(), blocks[4].ravel(), blocks[5].ravel()
        d[:] = ZERO
        for t in range(steps - 1, -1, -1):
            for b in range(batch):
                d_b, d_after = d[b], grad_after[t, b, start:]
                for j in range(s):
                    d_b[j] += d_after[j]
            _gates_backward(*_of_gru(kept, start, s, steps, batch, t), d.ravel(), d_r, d_z, d_n, d_u_n)
            _pack(d_r, d_z, d_n, d_u_n, d_i[t, :, 3 * start :], of_gru[t])
            np.dot(of_gru[t], weight.T, through_u)
            for b in range(batch):
                d_b, more = d[b], through_u[b]
                for j in range(s):
                    d_b[j] = (d_b[j] + more[j]) * keep[t, b]
        for b in range(batch):
            for j in range(s):
                grad_state[b, start + j] = d[b, j]
        first = steps * batch * start
        states = kept[4, first : first + rows * s].reshape(rows, s)
        d_u = of_gru.reshape(rows, 3 * s)
        np.dot(states.T, d_u, grad_weight_hh[weights : weights + 3 * s * s].reshape(s, 3 * s))
        total = grad_bias_hh[3 * start :]
        for row in range(rows):
            for j in range(3 * s):
                total[j] += d_u[row, j]
        start += s
        weights += 3 * s * s
    flat = grad_i.reshape(rows, 3 * units)
    np.dot(inputs.T, flat, grad_weight_ih)
    np.dot(flat, weight_ih.T, grad_inputs)
    for row in range(rows):
        for j in range(3 * units):
            grad_bias_ih[j] += flat[row, j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def route(hidden, weight, bias, routing):
    """A router's linear map and softmax: hidden [B, >= R], weight [E, R], bias [E] -> routing [B, E]."""
    for b in range(hidden.shape[0]):
        largest = np.float32(-np.inf)
        for e in range(weight.shape[0]):
            score = bias[e]
            for j in range(weight.shape[1]):
                score += weight[e, j] * hidden[b, j]
            routing[b, e] = score
            largest = max(largest, score)
        total = ZERO
        for e in range(weight.shape[0]):
            routing[b, e] = exp(routing[b, e] - largest)
            total += routing[b, e]
        for e in range(weight.shape[0]):
            routing[b, e] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def mix(sizes, projections, inputs, hidden, first, used, weighted, output):
    """A layer's output: the sum of its experts' outputs, weighted.

    Args:
        sizes: int64 [E], the experts' hidden units, H in all; 0 is the identity.
        projections: [H + E, size], see `mixture_of_experts.JoinedLayer`.
        inputs: [B, size], the layer's input.
        hidden: [B, first + H], its states.
        used: [B, E], the weights to mix with.
        weighted: [B, H + E], to be filled with each expert's states times its weight, then the weights.
        output: [B, size], to be filled.
    """
    units = hidden.shape[1] - first
    for b in range(inputs.shape[0]):
        start = 0
        for e in range(sizes.shape[0]):
            w = used[b, e]
            for j in range(start, start + sizes[e]):
                weighted[b, j] = w * hidden[b, first + j]
            weighted[b, units + e] = w
            start += sizes[e]
    np.dot(weighted, projections, output)
    for b in range(inputs.shape[0]):
        identity = ZERO
        for e in range(sizes.shape[0]):
            if sizes[e] == 0:
                identity += used[b, e]
        for j in range(inputs.shape[1]):
            output[b, j] += identity * inputs[b, j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def mix_backward(
    sizes, projections, inputs, hidden, first, used, weighted, grad_output,
    grad_inputs, grad_hidden, grad_used, grad_weighted, grad_projections,
):  # fmt: skip
    """The gradient of `mix`: from `grad_output` [B, size] to what it read; `grad_weighted` [B, H + E] is to work in."""
    units = hidden.shape[1] - first
    np.dot(grad_output, projections.T, grad_weighted)
    np.dot(weighted.T, grad_output, grad_projections)
    for b in range(inputs.shape[0]):
        grad_identity, identity = ZERO, ZERO
        for j in range(inputs.shape[1]):
            grad_identity += grad_output[b, j] * inputs[b, j]
        for j in range(first):
            grad_hidden[b, j] = ZERO
        start = 0
        for e in range(sizes.shape[0]):
            w, grad_w = used[b, e], grad_weighted[b, units + e]
            if sizes[e] == 0:
                identity += w
                grad_w += grad_identity
            for j in range(start, start + sizes[e]):
                grad_w += grad_weighted[b, j] * hidden[b, first + j]
                grad_hidden[b, first + j] = w * grad_weighted[b, j]
            grad_used[b, e] = grad_w
            start += sizes[e]
        for j in range(inputs.shape[1]):
            grad_inputs[b, j] = identity * grad_output[b, j]


@njit(cache=True, nogil=True, error_model="numpy")
def add_onehot(observation, starts, table, output):
    """output [B, size] += the one-hot encoded observations [B, 152] times table [985, size], by its rows."""
    cells, first_number = starts.shape[0], table.shape[0] - (observation.shape[1] - starts.shape[0])
    for b in range(observation.shape[0]):
        for i in range(cells):
            row = starts[i] + observation[b, i]
            for j in range(table.shape[1]):
                output[b, j] += table[row, j]
        for i in range(cells, observation.shape[1]):
            if observation[b, i]:
                for j in range(table.shape[1]):
                    output[b, j] += np.float32(observation[b, i]) * table[first_number + i - cells, j]


@njit(cache=True, nogil=True, error_model="numpy")
def add_onehot_backward(observation, starts, grad_output, grad_table):
    """grad_table [985, size] += the gradient of `add_onehot`'s table."""
    cells, first_number = starts.shape[0], grad_table.shape[0] - (observation.shape[1] - starts.shape[0])
    for b in range(observation.shape[0]):
        for i in range(cells):
            row = starts[i] + observation[b, i]
            for j in range(grad_table.shape[1]):
                grad_table[row, j] += grad_output[b, j]
        for i in range(cells, observation.shape[1]):
            if observation[b, i]:
                for j in range(grad_table.shape[1]):
                    grad_table[first_number + i - cells, j] += np.float32(observation[b, i]) * grad_output[b, j]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def attend(observation, colors, states, queries, keys, scores):
    """How well each visible cell answers each query.

    Args:
        observation: uint8 [B, >= 3 * cells], per cell its type, color and state.
        colors, states: how many of each there are.
        queries: [B, heads, size].
        keys: [looks, size], of every type, color and state a cell can have.
        scores: [B, heads, cells], to be filled with the products.
    """
    for b in range(observation.shape[0]):
        for cell in range(scores.shape[2]):
            look = (np.int64(observation[b, 3 * cell]) * colors + observation[b, 3 * cell + 1]) * states
            key = keys[look + observation[b, 3 * cell + 2]]
            for head in range(queries.shape[1]):
                query, score = queries[b, head], ZERO
                for j in range(key.size):
                    score += query[j] * key[j]
                scores[b, head, cell] = score


@njit(cache=True, nogil=True, error_model="numpy")
def attend_backward(observation, colors, states, queries, keys, grad_scores, grad_queries, grad_keys):
    """Add the gradient of `attend` to `grad_queries` and `grad_keys`."""
    for b in range(observation.shape[0]):
        for cell in range(grad_scores.shape[2]):
            look = (np.int64(observation[b, 3 * cell]) * colors + observation[b, 3 * cell + 1]) * states
            look += observation[b, 3 * cell + 2]
            key, grad_key = keys[look], grad_keys[look]
            for head in range(queries.shape[1]):
                grad, query, grad_query = grad_scores[b, head, cell], queries[b, head], grad_queries[b, head]
                for j in range(key.size):
                    grad_query[j] += grad * key[j]
                for j in range(key.size):
                    grad_key[j] += grad * query[j]
