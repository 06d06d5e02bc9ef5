"""How tensors and the kernels' arrays lie in memory: [..., units, B], the batch last; tensors show [..., B, units].

What is one per unit (a bias, a gate's rows) then lies in one piece, a matrix multiplies from the left as torch keeps
it, and loops run over many neighbours at once.
"""

import numpy as np
import torch
from torch import Tensor


def aligned_zeros(*shape: int) -> np.ndarray:
    """Return float32 zeros that begin at a multiple of 64 bytes, where vector instructions read them fastest."""
    return torch.zeros(shape).numpy()


def batch_last(tensor: Tensor) -> np.ndarray:
    """[..., B, units] -> an array [..., units, B], contiguous: a copy only where it does not lie like that already."""
    return tensor.detach().mT.contiguous().numpy()


def batch_first(array: np.ndarray) -> Tensor:
    """An array [..., units, B] as the tensor [..., B, units] that it holds."""
    return torch.from_numpy(array).mT
