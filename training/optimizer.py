"""Adam in one fixed order of operations, so that the same gradients give the same weights on every processor.

torch.optim.Adam fuses multiplications with additions on some processors and not on others.
"""

from collections.abc import Iterable

import numpy as np
import torch
from numba import njit
from torch import Tensor, nn

import basics.compiler_cache  # noqa: F401  (before the first njit)

LANES = 16  # partial sums, on every processor


@njit(cache=True, nogil=True)
def _sum_of_squares(values):
    """Return the sum of squares of values [n] in float64: LANES sums side by side, added up at the end."""
    sums, whole = np.zeros(LANES), values.size - values.size % LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            value = np.float64(values[start + lane])
            sums[lane] += value * value
    for place in range(whole, values.size):
        sums[place - whole] += np.float64(values[place]) ** 2
    total = 0.0
    for lane in range(LANES):
        total += sums[lane]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _adam(parameter, grad, mean, square, scale, decay_mean, decay_square, step_size, correction, epsilon):
    """One step for one flat parameter, in float32; `grad` is multiplied by `scale` first."""
    one = np.float32(1)
    for i in range(parameter.size):
        g = grad[i] * scale
        mean[i] = decay_mean * mean[i] + (one - decay_mean) * g
        square[i] = decay_square * square[i] + (one - decay_square) * (g * g)
        parameter[i] -= step_size * mean[i] / (np.sqrt(square[i]) * correction + epsilon)


def _power(base: float, exponent: int) -> float:
    """Return base**exponent by squaring: the C library's `pow` differs between processors."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Return the 2-norm of all gradients together, on the CPU."""
    total = 0.0
    for parameter in parameters:
        if parameter.grad is not None:
            total += _sum_of_squares(parameter.grad.contiguous().view(-1).numpy())
    return float(np.sqrt(total))


class Adam(torch.optim.Adam):
    """torch.optim.Adam (Kingma, Ba 2015, arXiv 1412.6980), with its state, for parameters on the CPU in fixed order.

    Parameters on other devices are stepped by PyTorch.
    """

    @torch.no_grad()
    def step(self, max_grad_norm: float | None = None) -> None:
        """Make one step with the gradients there are, shortened to `max_grad_norm` if they are longer than that."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if not all(parameter.is_cpu for parameter in parameters):
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            super().step()
            return
        scale = 1.0
        if max_grad_norm is not None:
            scale = min(1.0, max_grad_norm / (gradient_norm(parameters) + 1e-6))
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group, np.float32(scale))

    def _step_one(self, parameter: Tensor, group: dict, scale: np.float32) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        step, (decay_mean, decay_square) = int(state["step"]), group["betas"]
        step_size = group["lr"] / (1 - _power(decay_mean, step))
        correction = 1 / float(np.sqrt(1 - _power(decay_square, step)))
        tensors = (parameter, parameter.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"])
        numbers = (decay_mean, decay_square, step_size, correction, group["eps"])
        _adam(*(tensor.view(-1).numpy() for tensor in tensors), scale, *map(np.float32, numbers))
