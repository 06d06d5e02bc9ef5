"""The policy's arithmetic, compiled for the CPU: one timestep of each part, and the gradient of many.

At batch sizes of some tens, a tensor operation costs more to call than to compute; here a layer is a few calls. Arrays
are float32 and contiguous, their last axis the batch of B agents (`policy.compiled.buffers`). Observations and missions
are the exception: theirs are rows, one per agent.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, types

from basics.compiler_cache import intrinsic
from policy.compiled.products import add_product

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
LOG2_E, LN_2 = np.float32(math.log2(math.e)), np.float32(math.log(2))
TO_NEAREST = np.float32(1.5 * 2**23)  # adding and subtracting it rounds a small float32 to the nearest integer
THIRD, FIFTH, SEVENTH, NINTH = (np.float32(1 / n) for n in (3, 5, 7, 9))
NORM_EPSILON = np.float32(1e-5)  # torch's
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


@intrinsic
def _bits_of_float(context, x):
    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), code


@njit(inline="always", error_model="numpy")
def log(x):
    """The natural logarithm of a positive float32: x = 2**k * m with m near 1, log(m) by the series of atanh."""
    bits = _bits_of_float(x)
    k = (bits - np.int32(0x3F3504F3)) >> np.int32(23)  # so that m lies between 1/sqrt(2) and sqrt(2)
    m = _float_of_bits(bits - (k << np.int32(23)))
    s = (m - ONE) / (m + ONE)
    square = s * s
    series = ONE + square * (THIRD + square * (FIFTH + square * (SEVENTH + square * NINTH)))
    return np.float32(k) * LN_2 + TWO * s * series


@njit(inline="always", error_model="numpy")
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@njit(inline="always", error_model="numpy")
def tanh(x):
    return TWO / (ONE + exp(-TWO * x)) - ONE


@njit(cache=True, nogil=True, error_model="numpy")
def _add(row, total):
    for j in range(total.size):
        total[j] += row[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_columns(block, totals):
    """totals [s] += the columns of block [s, B], one after the other."""
    for j in range(totals.size):
        total = totals[j]
        for b in range(block.shape[1]):
            total += block[j, b]
        totals[j] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _transpose(block, result):
    for j in range(result.shape[0]):
        for b in range(result.shape[1]):
            result[j, b] = block[b, j]


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(rows, values):
    """Fill each row with its value."""
    for j in range(rows.shape[0]):
        rows[j] = values[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _mask(rows, not_done, masked):
    """rows [s, B] * not_done [B] -> masked [s, B]."""
    for j in range(rows.shape[0]):
        row, result = rows[j], masked[j]
        for b in range(not_done.size):
            result[b] = row[b] * not_done[b]


# Short loops over whole blocks, each with one array to write: those the compiler turns into vector code.
@njit(cache=True, nogil=True, error_model="numpy")
def gates_forward(r, z, n, u_n, h, h_new):
    for x in range(r.size):
        r[x] = sigmoid(r[x])
    for x in range(r.size):
        z[x] = sigmoid(z[x])
    for x in range(r.size):
        n[x] = tanh(n[x] + r[x] * u_n[x])
    for x in range(r.size):
        h_new[x] = n[x] + z[x] * (h[x] - n[x])


@njit(cache=True, nogil=True, error_model="numpy")
def gates_backward(r, z, n, u_n, h, d, d_r, d_z, d_n, d_u_n):
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
def _four(block):
    """Return the four quarters of a block [4 * s, B], flat."""
    s = block.shape[0] // 4
    return block[:s].ravel(), block[s : 2 * s].ravel(), block[2 * s : 3 * s].ravel(), block[3 * s :].ravel()


@njit(cache=True, nogil=True, error_model="numpy")
def gru_forward(weight_ih, weight_hh, bias_ih, bias_hh, inputs, state, not_done, gates, after, before):
    """A timestep of GRUs side by side, by torch.nn.GRU's equations: r, z = sigmoid(i + u), n = tanh(i_n + r * u_n),
    h' = (1 - z) * n + z * h, where i and u are the products of the input and of the state h, with their biases.

    Args:
        weight_ih .. bias_hh: each a tuple with one array per GRU of s hidden units (H in all), as torch lays them out.
        inputs: [input_size, B].
        state: [H, B].
        not_done: [B], 0 where an episode begins and the state returns to zero, else 1.
        gates: [4H, B], to be filled per GRU with r, z, n, u_n.
        after: [H, B], to be filled with h'.
        before: [H, B], to work in.
    """
    _mask(state, not_done, before)
    start = 0
    for g in range(len(weight_hh)):
        hh, b_i, b_h = weight_hh[g], bias_ih[g], bias_hh[g]
        s = hh.shape[1]
        h, block = before[start : start + s], gates[4 * start : 4 * (start + s)]
        for j in range(2 * s):
            block[j] = b_i[j] + b_h[j]
        for j in range(2 * s, 3 * s):
            block[j] = b_i[j]
            block[j + s] = b_h[j]
        add_product(weight_ih[g], inputs, block[: 3 * s])
        add_product(hh[: 2 * s], h, block[: 2 * s])
        add_product(hh[2 * s :], h, block[3 * s :])
        r, z, n, u_n = _four(block)
        gates_forward(r, z, n, u_n, h.ravel(), after[start : start + s].ravel())
        start += s


@njit(cache=True, nogil=True, error_model="numpy")
def gru_backward(
    weight_ih, weight_hh, inputs, state, not_done, gates, after, grad_after, grad_inputs, grad_state,
    grad_weight_ih, grad_weight_hh, grad_bias_ih, grad_bias_hh, before, d_gates, d_biases,
):  # fmt: skip
    """The gradient of T timesteps of `gru_forward`.

    Args:
        inputs: [T, input_size, B].
        state: [H, B], before the first.
        not_done: [T, B].
        gates, after: [T, 4H, B] and [T, H, B], as `gru_forward` filled them.
        grad_after: [T, H, B], the gradient of h' from elsewhere.
        grad_inputs .. grad_bias_hh: zeros, to become the gradients of what they are named after.
        before, d_gates: [H, B] and [4H, B], to work in.
        d_biases: zeros [4H, B], to work in.
    """
    by_row = np.empty(state.size, np.float32)  # a product of rows is faster than one of columns
    inputs_by_row = np.empty((inputs.shape[2], inputs.shape[1]), np.float32)
    for t in range(not_done.shape[0] - 1, -1, -1):
        _mask(state if t == 0 else after[t - 1], not_done[t], before)
        _add(grad_after[t].ravel(), grad_state.ravel())
        _transpose(inputs[t], inputs_by_row)
        start = 0
        for g in range(len(weight_hh)):
            hh, grad_hh = weight_hh[g], grad_weight_hh[g]
            s = hh.shape[1]
            h, d, block = before[start : start + s], grad_state[start : start + s], d_gates[4 * start : 4 * (start + s)]
            r, z, n, u_n = _four(gates[t, 4 * start : 4 * (start + s)])
            d_r, d_z, d_n, d_u_n = _four(block)
            gates_backward(r, z, n, u_n, h.ravel(), d.ravel(), d_r, d_z, d_n, d_u_n)
            add_product(hh[: 2 * s].T, block[: 2 * s], d)
            add_product(hh[2 * s :].T, block[3 * s :], d)
            add_product(weight_ih[g].T, block[: 3 * s], grad_inputs[t])
            h_by_row = by_row[: h.size].reshape(h.shape[1], s)
            _transpose(h, h_by_row)
            add_product(block[: 3 * s], inputs_by_row, grad_weight_ih[g])
            add_product(block[: 2 * s], h_by_row, grad_hh[: 2 * s])
            add_product(block[3 * s :], h_by_row, grad_hh[2 * s :])
            start += s
        _add(d_gates.ravel(), d_biases.ravel())
        _mask(grad_state, not_done[t], grad_state)
    totals = np.zeros(d_biases.shape[0], np.float32)
    _add_columns(d_biases, totals)
    start = 0
    for g in range(len(weight_hh)):
        s = weight_hh[g].shape[1]
        of_gru = totals[4 * start : 4 * (start + s)]
        grad_bias_ih[g][:] = of_gru[: 3 * s]
        grad_bias_hh[g][: 2 * s] = of_gru[: 2 * s]
        grad_bias_hh[g][2 * s :] = of_gru[3 * s :]
        start += s


@njit(cache=True, nogil=True, error_model="numpy")
def linear(inputs, weight, bias, output):
    """inputs [>= I, B], of which the first I count, weight [O, I], bias [O] -> output [O, B]."""
    _fill(output, bias)
    add_product(weight, inputs[: weight.shape[1]], output)


@njit(cache=True, nogil=True, error_model="numpy")
def route(hidden, weight, bias, routing):
    """A router's linear map and softmax: hidden [>= R, B], weight [E, R], bias [E] -> routing [E, B]."""
    linear(hidden, weight, bias, routing)
    for b in range(routing.shape[1]):
        largest, total = np.float32(-np.inf), ZERO
        for e in range(routing.shape[0]):
            largest = max(largest, routing[e, b])
        for e in range(routing.shape[0]):
            routing[e, b] = exp(routing[e, b] - largest)
            total += routing[e, b]
        for e in range(routing.shape[0]):
            routing[e, b] /= total


@njit(cache=True, nogil=True, error_model="numpy")
def route_backward(hidden, weight, routing, grad_routing, grad_hidden, grad_weight, grad_bias, d_scores):
    """The gradient of T timesteps of `route`, added to `grad_hidden` [T, >= R, B], `grad_weight` and `grad_bias` [E];
    `d_scores` [E, B] is to work in."""
    first = weight.shape[1]
    by_row = np.empty((hidden.shape[2], first), np.float32)
    for t in range(hidden.shape[0]):
        for b in range(routing.shape[2]):
            mean = ZERO
            for e in range(routing.shape[1]):
                mean += routing[t, e, b] * grad_routing[t, e, b]
            for e in range(routing.shape[1]):
                d_scores[e, b] = routing[t, e, b] * (grad_routing[t, e, b] - mean)
                grad_bias[e] += d_scores[e, b]
        add_product(weight.T, d_scores, grad_hidden[t, :first])
        _transpose(hidden[t, :first], by_row)
        add_product(d_scores, by_row, grad_weight)


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh(sizes, hidden, first, used, weighted):
    """Fill `weighted` [H + E, B] with each expert's states times its weight, then the weights."""
    start, units = 0, hidden.shape[0] - first
    for e in range(sizes.size):
        w = used[e]
        for j in range(start, start + sizes[e]):
            state, result = hidden[first + j], weighted[j]
            for b in range(w.size):
                result[b] = w[b] * state[b]
        weighted[units + e] = w
        start += sizes[e]


@njit(cache=True, nogil=True, error_model="numpy")
def _weight_of_identity(sizes, used, identity):
    identity[:] = ZERO
    for e in range(sizes.size):
        if sizes[e] == 0:
            identity += used[e]


@njit(cache=True, nogil=True, error_model="numpy")
def mix(sizes, projections, inputs, hidden, first, used, weighted, output):
    """A layer's output: the sum of its experts' outputs, weighted.

    Args:
        sizes: int64 [E], the experts' hidden units, H in all; 0 is the identity.
        projections: [size, H + E], see `policy.compiled.mixing.PackedLayer`.
        inputs: [size, B], the layer's input.
        hidden: [first + H, B], its states.
        used: [E, B], the weights to mix with.
        weighted: [H + E + 1, B], to work in.
        output: [size, B], to be filled.
    """
    identity = weighted[projections.shape[1]]
    _weight_of_identity(sizes, used, identity)
    _mask(inputs, identity, output)
    _weigh(sizes, hidden, first, used, weighted)
    add_product(projections, weighted[: projections.shape[1]], output)


@njit(cache=True, nogil=True, error_model="numpy")
def layer_forward(
    t, weight_ih, weight_hh, bias_ih, bias_hh, router_weight, router_bias, sizes, projections,
    inputs, state, not_done, gates, after, before, routing, weighted, output,
):  # fmt: skip
    """Timestep t of `gru_forward`, `route` and `mix`, which use the router's weights as they are.

    Args:
        inputs: [size, B], the layer's input.
        state: [R + H, B].
        gates, after, routing, output: [T, ., B], of which timestep t is filled.
    """
    gru_forward(weight_ih, weight_hh, bias_ih, bias_hh, inputs, state, not_done, gates[t], after[t], before)
    route(after[t], router_weight, router_bias, routing[t])
    mix(sizes, projections, inputs, after[t], router_weight.shape[1], routing[t], weighted, output[t])


@njit(cache=True, nogil=True, error_model="numpy")
def mix_backward(
    sizes, projections, inputs, hidden, first, used, grad_output,
    grad_inputs, grad_hidden, grad_used, grad_projections, weighted,
):  # fmt: skip
    """The gradient of T timesteps of `mix`: from `grad_output` [T, size, B] to what it read; those of inputs, hidden
    and used are filled, the one of projections is added to; `weighted` [H + E + 1, B] is to work in."""
    columns = projections.shape[1]
    units = columns - sizes.size
    identity, block = weighted[columns], weighted[:columns]
    by_row = np.empty((inputs.shape[2], columns), np.float32)
    for t in range(inputs.shape[0]):
        d_output, d_used = grad_output[t], grad_used[t]
        _weigh(sizes, hidden[t], first, used[t], block)
        _transpose(block, by_row)
        add_product(d_output, by_row, grad_projections)
        block[:] = ZERO
        add_product(projections.T, d_output, block)
        grad_hidden[t, :first] = ZERO
        start = 0
        for e in range(sizes.size):
            w, d_w = used[t, e], d_used[e]
            d_w[:] = block[units + e]
            for j in range(start, start + sizes[e]):
                state, d_weighted, d_state = hidden[t, first + j], block[j], grad_hidden[t, first + j]
                for b in range(w.size):
                    d_w[b] += d_weighted[b] * state[b]
                for b in range(w.size):
                    d_state[b] = w[b] * d_weighted[b]
            start += sizes[e]
            if sizes[e] == 0:
                for j in range(inputs.shape[1]):
                    d_row, row = d_output[j], inputs[t, j]
                    for b in range(w.size):
                        d_w[b] += d_row[b] * row[b]
        _weight_of_identity(sizes, used[t], identity)
        _mask(d_output, identity, grad_inputs[t])


@njit(cache=True, nogil=True, error_model="numpy")
def _look(seen, cell, colors, states):
    """Return the way in which a cell of what an agent sees, [152], looks (`policy.observation.looks_of_cells`)."""
    return (np.int64(seen[3 * cell]) * colors + seen[3 * cell + 1]) * states + seen[3 * cell + 2]


@njit(cache=True, nogil=True, error_model="numpy")
def _look_up(observation, colors, states, cells, rows, look_scores, scores):
    """Fill the first heads * cells of scores [B, ...]: how well each visible cell answers its row's mission."""
    heads = look_scores.shape[1]
    looks = np.empty(cells, np.int64)
    for b in range(observation.shape[0]):
        for cell in range(cells):
            looks[cell] = _look(observation[b], cell, colors, states)
        for head in range(heads):
            matches, score = look_scores[rows[b], head], scores[b, head * cells : (head + 1) * cells]
            for cell in range(cells):
                score[cell] = matches[looks[cell]]


@njit(cache=True, nogil=True, error_model="numpy")
def _look_up_backward(observation, colors, states, cells, rows, grad_scores, grad_answers):
    """Add the gradient of `_look_up` to `grad_answers`."""
    heads = grad_answers.shape[1]
    for b in range(observation.shape[0]):
        for cell in range(cells):
            look = _look(observation[b], cell, colors, states)
            for head in range(heads):
                grad_answers[rows[b], head, look] += grad_scores[b, head * cells + cell]


@njit(cache=True, nogil=True, error_model="numpy")
def remember_locks(observation, colors, states, cells, lock_of_look, not_done, before, after):
    """Fill after [B, colors]: 1 where a locked door of a color is seen now, or was before in this episode, else 0
    (`policy.input.FittingKeys`).

    Args:
        observation, colors, states: see `read_forward`.
        lock_of_look: int64 [looks], the color of the locked door that it is, else -1.
        not_done: [B], 0 where an episode begins.
        before: [B, colors].
    """
    for b in range(observation.shape[0]):
        for color in range(after.shape[1]):
            after[b, color] = before[b, color] * not_done[b]
        for cell in range(cells):
            lock = lock_of_look[_look(observation[b], cell, colors, states)]
            if lock >= 0:
                after[b, lock] = ONE


@njit(cache=True, nogil=True, error_model="numpy")
def _fitting_keys(observation, colors, states, cells, key_of_look, locks, scores):
    """Fill the last cells of scores [B, ...]: 1 for keys of a color that locks [B, colors] has, else 0."""
    first = scores.shape[1] - cells
    for b in range(observation.shape[0]):
        for cell in range(cells):
            key = key_of_look[_look(observation[b], cell, colors, states)]
            scores[b, first + cell] = locks[b, key] if key >= 0 else ZERO


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(observation, colors, states, cells, rows, look_scores, key_of_look, locks, scores):
    """Fill all of scores [B, heads * cells], or [B, (heads + 1) * cells] where locks are remembered."""
    _look_up(observation, colors, states, cells, rows, look_scores, scores)
    if locks.shape[1]:
        _fitting_keys(observation, colors, states, cells, key_of_look, locks, scores)


@njit(cache=True, nogil=True, error_model="numpy")
def read_forward(
    observation, colors, states, starts, of_scores, table, key_of_look, rows, of_missions, look_scores, locks,
    scores, by_row, output,
):  # fmt: skip
    """What a policy's layers read: of the mission, plus scores times `of_scores`, plus the one-hot encoded observation
    times `table`, by its rows.

    Args:
        observation: uint8 [B, 152], per cell its type, color and state, and other numbers.
        colors, states: how many of each there are.
        starts: int64 [147], where in the table the rows of each of a cell's properties begin.
        of_scores: [heads * cells, size].
        table: [985, size].
        key_of_look: int64 [looks], the color of the key that it is, else -1.
        rows: int64 [B], which mission each agent has.
        of_missions: [M, size].
        look_scores: [M, heads, looks], how well each look answers each mission; no heads without attention.
        locks: [B, colors], see `remember_locks`; no colors where they are not remembered.
        scores, by_row: [B, heads * cells] and [B, size], to work in.
        output: [size, B], to be filled.
    """
    for b in range(rows.size):
        by_row[b] = of_missions[rows[b]]
    if scores.shape[1]:
        _mark(observation, colors, states, starts.size // 3, rows, look_scores, key_of_look, locks, scores)
        add_product(scores, of_scores, by_row)
    # One property of all agents after the other, so that both the rows it adds and those it adds to stay in the cache.
    for i in range(starts.size):
        start = starts[i]
        for b in range(rows.size):
            _add(table[start + observation[b, i]], by_row[b])
    numbers = np.float32(1) * observation[:, starts.size :]
    add_product(numbers, table[table.shape[0] - numbers.shape[1] :], by_row)
    _transpose(by_row, output)


@njit(cache=True, nogil=True, error_model="numpy")
def read_backward(
    observation, colors, states, starts, key_of_look, rows, look_scores, locks, of_scores, grad_output,
    grad_of_missions, grad_answers, grad_of_scores, grad_table, scores, by_row, learns_look_scores,
):  # fmt: skip
    """Add the gradient of T timesteps of `read_forward`, from grad_output [T, size, B]; observation [T, B, 152], rows
    [T, B], locks [T, B, colors]; that of the look scores only if they are learned."""
    cells = starts.size // 3
    scores_of = of_scores.T.copy()
    for t in range(observation.shape[0]):
        seen, d_output = observation[t], grad_output[t]
        _transpose(d_output, by_row)
        for b in range(by_row.shape[0]):
            _add(by_row[b], grad_of_missions[rows[t, b]])
        if scores.shape[1]:
            _mark(seen, colors, states, cells, rows[t], look_scores, key_of_look, locks[t], scores)
            add_product(scores.T, by_row, grad_of_scores)
            if learns_look_scores:
                scores[:] = ZERO
                add_product(by_row, scores_of, scores)
                _look_up_backward(seen, colors, states, cells, rows[t], scores, grad_answers)
        for i in range(starts.size):
            start = starts[i]
            for b in range(by_row.shape[0]):
                _add(by_row[b], grad_table[start + seen[b, i]])
        numbers = np.float32(1) * seen[:, starts.size :]
        add_product(numbers.T, by_row, grad_table[grad_table.shape[0] - numbers.shape[1] :])


@njit(cache=True, nogil=True, error_model="numpy")
def normalise(inputs, normal, scale):
    """Layer normalisation without weights: inputs [size, B] -> normal [size, B], of mean 0 and variance 1 over the
    size, and the scale [B] that made it so."""
    size = np.float32(inputs.shape[0])
    mean, variance = np.zeros(scale.size, np.float32), np.zeros(scale.size, np.float32)
    for j in range(inputs.shape[0]):
        for b in range(scale.size):
            mean[b] += inputs[j, b]
    for b in range(scale.size):
        mean[b] /= size
    for j in range(inputs.shape[0]):
        for b in range(scale.size):
            variance[b] += (inputs[j, b] - mean[b]) * (inputs[j, b] - mean[b])
    for b in range(scale.size):
        scale[b] = ONE / np.sqrt(variance[b] / size + NORM_EPSILON)
    for j in range(inputs.shape[0]):
        for b in range(scale.size):
            normal[j, b] = (inputs[j, b] - mean[b]) * scale[b]


@njit(cache=True, nogil=True, error_model="numpy")
def normalise_backward(normal, scale, grad, grad_inputs):
    """The gradient of T timesteps of `normalise`: normal, grad and grad_inputs (to be filled) [T, size, B], scale
    [T, B]."""
    size = np.float32(normal.shape[1])
    for t in range(normal.shape[0]):
        mean, along = np.zeros(scale.shape[1], np.float32), np.zeros(scale.shape[1], np.float32)
        for j in range(normal.shape[1]):
            d, row = grad[t, j], normal[t, j]
            for b in range(d.size):
                mean[b] += d[b]
            for b in range(d.size):
                along[b] += d[b] * row[b]
        for b in range(mean.size):
            mean[b] /= size
            along[b] /= size
        for j in range(normal.shape[1]):
            d, row, result = grad[t, j], normal[t, j], grad_inputs[t, j]
            for b in range(d.size):
                result[b] = (d[b] - mean[b] - row[b] * along[b]) * scale[t, b]


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh_scores(due, scores, weighted):
    """Fill weighted [B, n] with the scores [B, actions * n] of each agent's actions, weighed by due [actions, B]."""
    n = weighted.shape[1]
    for b in range(weighted.shape[0]):
        weighted[b] = ZERO
        for a in range(due.shape[0]):
            w, row, total = due[a, b], scores[b, a * n : (a + 1) * n], weighted[b]
            for j in range(n):
                total[j] += w * row[j]


@njit(cache=True, nogil=True, error_model="numpy")
def due_forward(
    observation, colors, states, rows, look_scores, actions, due, of_cells, inputs, scores, weighted, by_row, output
):
    """What is said of the action that is due (`policy.input.DueAction`), added to the inputs.

    Args:
        observation, colors, states, rows, look_scores: see `read_forward`.
        actions: [M, A, size], what each mission's actions ask for.
        due: [A, B], how far each action is due.
        of_cells: [2 * cells, size].
        inputs: [size, B].
        scores, weighted, by_row: [B, heads * cells], [B, 2 * cells] and [B, size], to work in.
        output: [size, B], to be filled.
    """
    cells = scores.shape[1] // look_scores.shape[1]
    _look_up(observation, colors, states, cells, rows, look_scores, scores)
    _weigh_scores(due, scores, weighted)
    for b in range(rows.size):
        total = by_row[b]
        for j in range(total.size):
            total[j] = inputs[j, b]
        for a in range(due.shape[0]):
            w, row = due[a, b], actions[rows[b], a]
            for j in range(total.size):
                total[j] += w * row[j]
    add_product(weighted, of_cells, by_row)
    _transpose(by_row, output)


@njit(cache=True, nogil=True, error_model="numpy")
def due_backward(
    observation, colors, states, rows, look_scores, actions, due, of_cells, grad_output,
    grad_look_scores, grad_actions, grad_due, grad_of_cells, scores, weighted, by_row, learns_look_scores,
):  # fmt: skip
    """Add the gradient of T timesteps of `due_forward`, from grad_output [T, size, B]; observation [T, B, 152], rows
    [T, B], due and grad_due [T, A, B]. The gradient of the inputs is grad_output itself."""
    n, cells = weighted.shape[1], scores.shape[1] // look_scores.shape[1]
    cells_of = of_cells.T.copy()
    for t in range(rows.shape[0]):
        seen, now = observation[t], due[t]
        _look_up(seen, colors, states, cells, rows[t], look_scores, scores)
        _weigh_scores(now, scores, weighted)
        _transpose(grad_output[t], by_row)
        add_product(weighted.T, by_row, grad_of_cells)
        weighted[:] = ZERO
        add_product(by_row, cells_of, weighted)  # now the gradient of the weighted scores
        for b in range(rows.shape[1]):
            d, d_weighted, action, d_action = by_row[b], weighted[b], actions[rows[t, b]], grad_actions[rows[t, b]]
            for a in range(now.shape[0]):
                w, row, d_row, place, total = now[a, b], action[a], d_action[a], scores[b, a * n : (a + 1) * n], ZERO
                for j in range(d.size):
                    d_row[j] += w * d[j]
                for j in range(d.size):
                    total += row[j] * d[j]
                for j in range(n):
                    total += place[j] * d_weighted[j]
                grad_due[t, a, b] = total
                if learns_look_scores:
                    for j in range(n):
                        place[j] = w * d_weighted[j]
        if learns_look_scores:
            _look_up_backward(seen, colors, states, cells, rows[t], scores, grad_look_scores)
