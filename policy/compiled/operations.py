"""Tensor operations with gradients, each sum in one fixed order: what happens once per rollout, update or mission.

PyTorch's own products and sums take an order that depends on the processor's vectors and on threads. Elementwise
arithmetic does not, and is left to PyTorch. Tensors elsewhere than on the CPU are left to PyTorch altogether.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

from policy.compiled.kernels import NORM_EPSILON, exp, log, sigmoid
from policy.compiled.products import add_product

SMALLEST = np.float32(1e-12)  # probability, for logarithms


@njit(cache=True, nogil=True)
def _product(a, b):
    """a [M, K] @ b [K, N], strided in any way."""
    result = np.zeros((a.shape[0], b.shape[1]), np.float32)
    add_product(a, np.ascontiguousarray(b), result)
    return result


@njit(cache=True, nogil=True)
def _linear(inputs, weight, bias):
    """inputs [R, I] @ weight [O, I].T + bias [O]."""
    result = np.empty((inputs.shape[0], weight.shape[0]), np.float32)
    result[:] = bias
    add_product(inputs, np.ascontiguousarray(weight.T), result)
    return result


@njit(cache=True, nogil=True)
def _linear_backward(inputs, weight, grad):
    d_weight, d_bias = np.zeros(weight.shape, np.float32), np.zeros(weight.shape[0], np.float32)
    add_product(np.ascontiguousarray(grad).T, np.ascontiguousarray(inputs), d_weight)
    for r in range(grad.shape[0]):
        d_bias += grad[r]
    return _product(grad, weight), d_weight, d_bias


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b):
        ctx.factors = a.numpy(), b.numpy()
        return torch.from_numpy(_product(*ctx.factors))

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.factors
        grad = grad.numpy()
        return torch.from_numpy(_product(grad, b.T)), torch.from_numpy(_product(a.T, grad))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weight, bias):
        ctx.arrays = inputs.numpy(), weight.numpy()
        return torch.from_numpy(_linear(*ctx.arrays, bias.numpy()))

    @staticmethod
    def backward(ctx, grad):
        inputs, weight = ctx.arrays
        return tuple(map(torch.from_numpy, _linear_backward(inputs, weight, grad.numpy())))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a [M, K] @ b [K, N]."""
    return _Product.apply(a, b) if a.is_cpu else a @ b


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return inputs [..., I] @ weight [O, I].T + bias [O], as `torch.nn.functional.linear` does."""
    if not inputs.is_cpu:
        return nn.functional.linear(inputs, weight, bias)
    return _Linear.apply(inputs.flatten(0, -2), weight, bias).unflatten(0, inputs.shape[:-1])


@njit(cache=True, nogil=True, error_model="numpy")
def _layer_norm(inputs, epsilon, normal, scale):
    for r in range(inputs.shape[0]):
        mean, variance = np.float32(0), np.float32(0)
        for i in range(inputs.shape[1]):
            mean += inputs[r, i]
        mean /= np.float32(inputs.shape[1])
        for i in range(inputs.shape[1]):
            variance += (inputs[r, i] - mean) * (inputs[r, i] - mean)
        scale[r] = np.float32(1) / np.sqrt(variance / np.float32(inputs.shape[1]) + epsilon)
        for i in range(inputs.shape[1]):
            normal[r, i] = (inputs[r, i] - mean) * scale[r]


@njit(cache=True, nogil=True, error_model="numpy")
def _layer_norm_backward(normal, scale, grad, d_inputs):
    for r in range(normal.shape[0]):
        mean, along = np.float32(0), np.float32(0)
        for i in range(normal.shape[1]):
            mean += grad[r, i]
            along += grad[r, i] * normal[r, i]
        mean /= np.float32(normal.shape[1])
        along /= np.float32(normal.shape[1])
        for i in range(normal.shape[1]):
            d_inputs[r, i] = (grad[r, i] - mean - normal[r, i] * along) * scale[r]


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        ctx.normal, ctx.scale = torch.empty(inputs.shape), np.empty(len(inputs), np.float32)
        _layer_norm(inputs.contiguous().numpy(), NORM_EPSILON, ctx.normal.numpy(), ctx.scale)
        return ctx.normal

    @staticmethod
    def backward(ctx, grad):
        d_inputs = torch.empty(grad.shape)
        _layer_norm_backward(ctx.normal.numpy(), ctx.scale, grad.contiguous().numpy(), d_inputs.numpy())
        return d_inputs


def layer_norm(inputs: Tensor) -> Tensor:
    """Return `inputs` with mean 0 and variance 1 over the last dimension, as `torch.nn.functional.layer_norm` does."""
    if not inputs.is_cpu:
        return nn.functional.layer_norm(inputs, inputs.shape[-1:])
    return _LayerNorm.apply(inputs.flatten(0, -2)).unflatten(0, inputs.shape[:-1])


@njit(cache=True, nogil=True, error_model="numpy")
def _exponentials(logits, result):
    """Fill `result` [A] with e**(logits - the largest); return which that is (the first of equals), and their sum."""
    largest, total = 0, np.float32(0)
    for a in range(1, logits.size):
        if logits[a] > logits[largest]:
            largest = a
    for a in range(logits.size):
        result[a] = exp(logits[a] - logits[largest])
        total += result[a]
    return largest, total


@njit(cache=True, nogil=True, error_model="numpy")
def _cross_entropy(logits, label, probability):
    """Fill `probability` [R, A] with the softmax of the logits; return the mean cross-entropy, and how many of the
    largest logits (the first of equals) are the label's."""
    total, correct = 0.0, 0
    for r in range(logits.shape[0]):
        largest, partition = _exponentials(logits[r], probability[r])
        correct += largest == label[r]
        for a in range(logits.shape[1]):
            probability[r, a] /= partition
        total += log(partition) - (logits[r, label[r]] - logits[r, largest])
    return np.float32(total / logits.shape[0]), correct


@njit(cache=True, nogil=True, error_model="numpy")
def _cross_entropy_backward(probability, label, grad, d_logits):
    grad = grad / np.float32(len(label))
    for r in range(len(label)):
        for a in range(probability.shape[1]):
            d_logits[r, a] = probability[r, a] * grad
        d_logits[r, label[r]] -= grad


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, label):
        ctx.label, ctx.probability = label.numpy(), torch.empty(logits.shape).numpy()
        loss, correct = _cross_entropy(logits.contiguous().numpy(), ctx.label, ctx.probability)
        accuracy = torch.tensor(correct / len(label), dtype=torch.float32)
        ctx.mark_non_differentiable(accuracy)
        return torch.tensor(loss), accuracy

    @staticmethod
    def backward(ctx, grad, _):
        d_logits = torch.empty(ctx.probability.shape)
        _cross_entropy_backward(ctx.probability, ctx.label, np.float32(grad.item()), d_logits.numpy())
        return d_logits, None


def cross_entropy(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """logits [..., A], label int64 [...] -> the mean cross-entropy, and how often the largest logit is the label's."""
    logits, label = logits.flatten(0, -2), label.flatten()
    if logits.is_cpu:
        return _CrossEntropy.apply(logits, label)
    return nn.functional.cross_entropy(logits, label), (logits.argmax(-1) == label).float().mean()


@njit(cache=True, nogil=True, error_model="numpy")
def _log_prob(logits, action, log_softmax, chosen, entropy):
    """Fill `log_softmax` [R, A], what it is of the actions [R], and the entropy [R]."""
    for r in range(logits.shape[0]):
        largest, partition = _exponentials(logits[r], log_softmax[r])
        log_partition, total = log(partition), np.float32(0)
        for a in range(logits.shape[1]):
            log_softmax[r, a] = logits[r, a] - logits[r, largest] - log_partition
            total -= exp(log_softmax[r, a]) * log_softmax[r, a]
        chosen[r] = log_softmax[r, action[r]]
        entropy[r] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _log_prob_backward(log_softmax, action, entropy, grad_chosen, grad_entropy, d_logits):
    for r in range(log_softmax.shape[0]):
        for a in range(log_softmax.shape[1]):
            along = grad_chosen[r] + grad_entropy[r] * (log_softmax[r, a] + entropy[r])
            d_logits[r, a] = -exp(log_softmax[r, a]) * along
        d_logits[r, action[r]] += grad_chosen[r]


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, action):
        log_softmax, chosen, entropy = torch.empty(logits.shape), torch.empty(len(logits)), torch.empty(len(logits))
        ctx.arrays = log_softmax.numpy(), action.numpy(), entropy.numpy()
        _log_prob(logits.contiguous().numpy(), action.numpy(), log_softmax.numpy(), chosen.numpy(), entropy.numpy())
        return chosen, entropy

    @staticmethod
    def backward(ctx, grad_chosen, grad_entropy):
        d_logits = torch.empty(ctx.arrays[0].shape)
        grads = grad_chosen.contiguous().numpy(), grad_entropy.contiguous().numpy()
        _log_prob_backward(*ctx.arrays, *grads, d_logits.numpy())  # pyright: ignore[reportCallIssue]
        return d_logits, None


def log_prob_and_entropy(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """logits [..., A], action int64 [...] -> the actions' log-probabilities under the softmax, and its entropy, [...]
    each, as `torch.distributions.Categorical` has them."""
    if not logits.is_cpu:
        distribution = torch.distributions.Categorical(logits=logits)
        return distribution.log_prob(action), distribution.entropy()
    log_prob, entropy = _LogProb.apply(logits.flatten(0, -2), action.flatten())
    return log_prob.view(action.shape), entropy.view(action.shape)


@njit(cache=True, nogil=True, error_model="numpy")
def _exponential(values, result):
    for i in range(values.size):
        result[i] = exp(values[i])


class _Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.result = torch.empty(values.shape)
        _exponential(values.flatten().numpy(), ctx.result.view(-1).numpy())
        return ctx.result

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.result


def exponential(values: Tensor) -> Tensor:
    """Return e**values."""
    return _Exponential.apply(values) if values.is_cpu else values.exp()


@njit(cache=True, nogil=True)
def _mean_and_variance(values):
    """Of values [n], in float64; the variance as of a sample (Bessel's correction)."""
    total, squares = 0.0, 0.0
    for value in values:
        total += value
    average = total / values.size
    for value in values:
        squares += (value - average) * (value - average)
    return average, squares / max(values.size - 1, 1)


def normalized(values: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Return (values - mean) / (standard deviation + epsilon) over all values, without gradients."""
    if not values.is_cpu:
        return (values - values.mean()) / (values.std() + epsilon)
    average, variance = _mean_and_variance(values.flatten().numpy())
    return (values - average) / (variance**0.5 + epsilon)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_measures(logits, label, lpc, sums):
    exponentials = np.empty(logits.shape[2], np.float32)
    for t in range(logits.shape[0]):
        for n in range(logits.shape[1]):
            largest, partition = _exponentials(logits[t, n], exponentials)
            sums[n, 0] += largest == label[t, n]
            sums[n, 1] += log(partition) - (logits[t, n, label[t, n]] - logits[t, n, largest])
            sums[n, 2] += lpc[t, n]


def add_measures(logits: Tensor, label: Tensor, lpc: Tensor, sums: np.ndarray) -> None:
    """Add to `sums` float64 [N, 3], over T steps: how often the largest logit is the label's, cross-entropy, LPC.

    logits [T, N, A], label int64 [T, N], lpc [T, N].
    """
    logits, label, lpc = (tensor.detach().cpu().contiguous() for tensor in (logits, label, lpc))
    _add_measures(logits.numpy(), label.numpy(), lpc.numpy(), sums)


@njit(cache=True, nogil=True, error_model="numpy")
def _sharpen(scores, gain, threshold, result):
    for m in range(scores.shape[0]):
        for head in range(scores.shape[1]):
            for i in range(scores.shape[2]):
                result[m, head, i] = sigmoid(gain[head, 0] * (scores[m, head, i] - threshold[head, 0]))


@njit(cache=True, nogil=True, error_model="numpy")
def _sharpen_backward(scores, gain, threshold, result, grad, d_scores, d_gain, d_threshold):
    for m in range(scores.shape[0]):
        for head in range(scores.shape[1]):
            for i in range(scores.shape[2]):
                d = grad[m, head, i] * result[m, head, i] * (np.float32(1) - result[m, head, i])
                d_scores[m, head, i] = d * gain[head, 0]
                d_gain[head, 0] += d * (scores[m, head, i] - threshold[head, 0])
                d_threshold[head, 0] -= d * gain[head, 0]


class _Sharpen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, gain, threshold):
        arrays, result = (scores.contiguous().numpy(), gain.numpy(), threshold.numpy()), torch.empty(scores.shape)
        _sharpen(*arrays, result.numpy())
        ctx.arrays = *arrays, result.numpy()
        return result

    @staticmethod
    def backward(ctx, grad):
        scores, gain, threshold, result = ctx.arrays
        d_scores, d_gain, d_threshold = (np.zeros_like(array) for array in (scores, gain, threshold))
        grad = grad.contiguous().numpy()
        _sharpen_backward(scores, gain, threshold, result, grad, d_scores, d_gain, d_threshold)
        return tuple(map(torch.from_numpy, (d_scores, d_gain, d_threshold)))


def sharpen(scores: Tensor, gain: Tensor, threshold: Tensor) -> Tensor:
    """scores [M, heads, looks], gain and threshold [heads, 1] -> sigmoid(gain * (scores - threshold))."""
    if scores.is_cpu:
        return _Sharpen.apply(scores, gain, threshold)
    return torch.sigmoid(gain * (scores - threshold))


@njit(cache=True, nogil=True, error_model="numpy")
def _negative_log(probability, label, smallest):
    total, count = 0.0, 0
    for r in range(label.size):
        if label[r] >= 0:
            total -= log(max(probability[r, label[r]], smallest))
            count += 1
    return np.float32(total / max(count, 1)), count


@njit(cache=True, nogil=True, error_model="numpy")
def _negative_log_backward(probability, label, smallest, grad, d_probability):
    for r in range(label.size):
        if label[r] >= 0:
            d_probability[r, label[r]] = -grad / max(probability[r, label[r]], smallest)


class _NegativeLog(torch.autograd.Function):
    @staticmethod
    def forward(ctx, probability, label):
        ctx.probability, ctx.label = probability.contiguous().numpy(), label.numpy()
        loss, ctx.count = _negative_log(ctx.probability, ctx.label, SMALLEST)
        return torch.tensor(loss)

    @staticmethod
    def backward(ctx, grad):
        d_probability = torch.zeros(ctx.probability.shape)
        grad = np.float32(grad.item()) / np.float32(max(ctx.count, 1))
        _negative_log_backward(ctx.probability, ctx.label, SMALLEST, grad, d_probability.numpy())
        return d_probability, None


def negative_log_likelihood(probability: Tensor, label: Tensor) -> Tensor:
    """probability [..., A], label int64 [...] -> the mean of -log(probability of the label), over labels >= 0."""
    probability, label = probability.flatten(0, -2), label.flatten()
    if probability.is_cpu:
        return _NegativeLog.apply(probability, label)
    known = label >= 0
    chosen = probability[known].gather(-1, label[known, None]).clamp(min=SMALLEST.item())
    return -chosen.log().sum() / known.sum().clamp(min=1)


@njit(cache=True, nogil=True)
def _mean(values):
    total = 0.0
    for i in range(values.size):
        total += values[i]
    return np.float32(total / values.size)


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.shape = values.shape
        return torch.tensor(_mean(values.flatten().numpy()))

    @staticmethod
    def backward(ctx, grad):
        return (grad / np.prod(ctx.shape, dtype=np.float32).item()).expand(ctx.shape)


def mean(values: Tensor) -> Tensor:
    """Return the mean of all values."""
    return _Mean.apply(values) if values.is_cpu else values.mean()


@njit(cache=True, nogil=True, error_model="numpy")
def _sample(logits, uniform, chosen):
    exponentials = np.empty(logits.shape[1], np.float32)
    for b in range(logits.shape[0]):
        _, total = _exponentials(logits[b], exponentials)
        threshold, reached = uniform[b] * total, np.float32(0)
        chosen[b] = logits.shape[1] - 1
        for a in range(logits.shape[1]):
            reached += exponentials[a]
            if reached > threshold:
                chosen[b] = a
                break


def sample(logits: Tensor, uniform: np.ndarray) -> np.ndarray:
    """Draw from the softmax of logits [B, A] with the numbers `uniform` [B] in [0, 1) -> int64 [B]."""
    chosen = np.empty(len(uniform), np.int64)
    _sample(logits.detach().cpu().numpy(), uniform, chosen)
    return chosen
