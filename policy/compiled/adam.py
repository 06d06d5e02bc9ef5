"""Adam in one fixed order of operations, so that the same gradients give the same weights on every processor.

torch.optim.Adam fuses multiplications with additions on some processors and not on others.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import nn

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


class _Flat(NamedTuple):
    """A parameter and its state as flat arrays that share their memory."""

    parameter: nn.Parameter
    values: np.ndarray
    mean: np.ndarray
    square: np.ndarray


class Adam(torch.optim.Adam):
    """torch.optim.Adam (Kingma, Ba 2015, arXiv 1412.6980), with its state, for parameters on the CPU in fixed order.

    Parameters on other devices are stepped by PyTorch.
    """

    _flat: list[list[_Flat]] | None = None  # per group

    def load_state_dict(self, state_dict: dict) -> None:
        """See `torch.optim.Optimizer.load_state_dict`."""
        super().load_state_dict(state_dict)
        self._flat = None

    @torch.no_grad()
    def step(self, max_grad_norm: float | None = None) -> None:
        """Make one step with the gradients there are, shortened to `max_grad_norm` if they are longer than that."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        if not all(parameter.is_cpu for parameter in parameters):
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            super().step()
            return
        if self._flat is None:
            self._flat = self._flatten()
        grads = [
            [
                None if flat.parameter.grad is None else flat.parameter.grad.contiguous().view(-1).numpy()
                for flat in group
            ]
            for group in self._flat
        ]
        scale = 1.0
        if max_grad_norm is not None:
            squares = [_sum_of_squares(grad) for group in grads for grad in group if grad is not None]
            scale = min(1.0, max_grad_norm / (float(np.sqrt(sum(squares))) + 1e-6))
        self._steps += 1
        for group, flats, flat_grads in zip(self.param_groups, self._flat, grads, strict=True):
            decay_mean, decay_square = group["betas"]
            step_size = group["lr"] / (1 - _power(decay_mean, int(self._steps)))
            correction = 1 / float(np.sqrt(1 - _power(decay_square, int(self._steps))))
            numbers = (scale, decay_mean, decay_square, step_size, correction, group["eps"])
            numbers = [np.float32(number) for number in numbers]
            for flat, grad in zip(flats, flat_grads, strict=True):
                if grad is not None:
                    _adam(flat.values, grad, flat.mean, flat.square, *numbers)

    def _flatten(self) -> list[list[_Flat]]:
        """Make the state that is missing, with one count of steps for all, and return it flat."""
        steps = [state["step"] for state in self.state.values() if state]
        self._steps = steps[0].clone() if steps else torch.tensor(0.0)
        groups = []
        for group in self.param_groups:
            groups.append([])
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] = self._steps
                tensors = (parameter.detach(), state["exp_avg"], state["exp_avg_sq"])
                groups[-1].append(_Flat(parameter, *(tensor.view(-1).numpy() for tensor in tensors)))
        return groups
