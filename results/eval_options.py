"""What eval_mop.py and batch_eval.py are asked alike: how many episodes, on which backend, with which lesion.

It imports neither PyTorch nor the environment, so that batch_eval.py finds out quickly that nothing is left to do.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from basics.config import load_keys
from basics.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from policy.recurrent_policy import RoutingRule

NUM_EPISODES = 500  # a success rate of 0.9 is then known to +-0.013 (one standard error)
NUM_ENVS = 128


@dataclass(frozen=True)
class Lesion:
    """Experts that are switched off during evaluation; the weights of the others are renormalised.

    Attributes:
        disabled: (layer, expert) pairs that are always off.
        min_router_weight: an expert is off at every step at which its router weight is below this. The strongest expert
            that is not disabled always stays.
        own_pathway: experts are off whose mean weight on the task, in the whole policy, is below this (0: none). Which
            these are is known once the whole policy was evaluated on the task (`of_task`).
        label: what it is called, where that does not follow from the other attributes.
    """

    disabled: tuple[tuple[int, int], ...] = ()
    min_router_weight: float = 0.0
    own_pathway: float = 0.0
    label: str = ""

    @classmethod
    def parse(
        cls, disable_experts: str | None, min_router_weight: float | None, own_pathway: float | None = None
    ) -> "Lesion":
        """Return the lesion of the flags `--disable_experts 0:2,1:2`, `--min_router_weight 0.1` and `--own_pathway 0.1`
        (None: not given).

        Raises:
            UserError: the flags say something else.
        """
        pairs = set()
        for part in [] if disable_experts is None else disable_experts.split(","):
            layer, colon, expert = (piece.strip() for piece in part.partition(":"))
            if not (colon and layer.isdecimal() and expert.isdecimal()):
                raise UserError(f"--disable_experts {disable_experts}: expected layer:expert pairs such as 0:2,1:2")
            pairs.add((int(layer), int(expert)))
        for flag, weight in (("--min_router_weight", min_router_weight), ("--own_pathway", own_pathway)):
            if weight is not None and not 0 < weight < 1:
                raise UserError(f"{flag} {weight}: expected a number between 0 and 1, such as 0.1")
        return cls(tuple(sorted(pairs)), min_router_weight or 0.0, own_pathway or 0.0)

    def __bool__(self) -> bool:
        return bool(self.disabled or self.min_router_weight or self.own_pathway or self.label)

    @property
    def name(self) -> str:
        """A name for files and tables, such as `0-2_1-2_min0.1`; empty when nothing is switched off."""
        parts = [f"{layer}-{expert}" for layer, expert in self.disabled]
        parts += [f"min{self.min_router_weight:g}"] if self.min_router_weight else []
        parts += [f"own{self.own_pathway:g}"] if self.own_pathway else []
        return self.label or "_".join(parts)

    def of_task(self, routing: "Sequence[np.ndarray]") -> "Lesion":
        """Return the lesion that leaves only a task's own pathway.

        Args:
            routing: per layer the mean weight of its experts on the task (`pathways.mean_routing`).
        """
        from results.pathways import lesion_of_pathway

        off = {*self.disabled, *lesion_of_pathway(routing, self.own_pathway)}
        return replace(self, disabled=tuple(sorted(off)), own_pathway=0.0, label=self.name)

    def rule(self, expert_hidden_sizes: Sequence[Sequence[int]]) -> "RoutingRule | None":
        """Return the routing rule that does this to a mixture with these experts; None when nothing is switched off.

        Raises:
            UserError: there are no such experts, or a layer would have none left.
        """
        if not self:
            return None
        if not expert_hidden_sizes:
            raise UserError("this policy is a GRU without experts: there is nothing that a lesion could switch off")
        if self.own_pathway:
            raise ValueError("which experts are on the task's pathway is not known yet: see of_task")
        kept = [[1.0] * len(layer) for layer in expert_hidden_sizes]
        for layer, expert in self.disabled:
            if layer >= len(kept) or expert >= len(kept[layer]):
                raise UserError(
                    f"--disable_experts {layer}:{expert}: there is no such expert; layers and experts count from 0, and"
                    f" this policy's experts have the hidden sizes {[list(sizes) for sizes in expert_hidden_sizes]}"
                )
            kept[layer][expert] = 0.0
        for layer, experts in enumerate(kept):
            if not any(experts):
                raise UserError(f"--disable_experts switches off every expert of layer {layer}: leave it at least one")

        def rule(layer, weights, t):
            kept_experts = weights.new_tensor(kept[layer])
            weights = weights * kept_experts
            weights = weights.where(total(weights) > 0, kept_experts)  # all trust was in disabled ones
            too_small = (weights < self.min_router_weight) & (weights < weights.amax(-1, keepdim=True))
            weights = weights.masked_fill(too_small, 0.0)
            return weights / total(weights)

        def total(weights):  # expert by expert: the order of a sum over a dimension depends on the processor
            first, *others = weights.unbind(-1)
            return sum(others, first)[..., None]

        return rule


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def natural(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


positive.__name__, natural.__name__ = "whole number >= 1", "whole number >= 0"  # argparse names them in its errors


def add_evaluation_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that both evaluation scripts know; `--num_episodes` is None unless given."""
    backend = load_keys()["backend"]
    parser.add_argument(
        "--num_episodes", type=positive, metavar="N", help=f"fixed levels played, each once [default {NUM_EPISODES}]"
    )
    parser.add_argument(
        "--num_envs",
        type=positive,
        default=NUM_ENVS,
        metavar="N",
        help="environments played side by side; the result does not depend on it [default %(default)s]",
    )
    parser.add_argument(
        "--backend", choices=backend.type.split(" | "), default=backend.default, help=f"{backend.meaning} [%(default)s]"
    )
    parser.add_argument(
        "--lang_encoder",
        metavar="PATH",
        help="a local copy of the sentence encoder that checkpoints record, for machines without the hub; those with"
        " lang_encoder parser or words need none",
    )
    parser.add_argument(
        "--sampled",
        action="store_true",
        help="also play each level by actions drawn from the policy, always the same ones: success_rate_sampled",
    )
    parser.add_argument(
        "--disable_experts",
        "--lesion",
        metavar="L:E,...",
        help="experts switched off, as layer:expert pairs counted from 0; the others' weights are renormalised",
    )
    parser.add_argument(
        "--min_router_weight", type=float, metavar="W", help="at each step, switch off experts weighted less than this"
    )
    parser.add_argument(
        "--own_pathway",
        type=float,
        metavar="W",
        help="switch off experts whose mean weight on the task is less than this: only its own pathway is left",
    )
