"""What training minimises and what it measures on the way: each declared once, as a name and a number.

A row of metrics.csv has a column for every name here, and the progress bar shows some of them.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from basics.extensions import registered
from mixture_of_experts import compute_lpc
from policy.compiled.operations import cross_entropy, mean, negative_log_likelihood
from policy.recurrent_policy import PolicyOutput, RecurrentPolicy
from training.rollout import Rollout


def lpc_penalty(lpc: Tensor, ce: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Return the penalty on LPC: `lpc_alpha * LPC`, or with `normalize_lpc` that over (CE + lpc_epsilon).

    The cross-entropy in the denominator only scales the penalty (eq. 2 of arXiv 2506.02813); no gradient flows into it,
    or the policy could lower the penalty by imitating worse.
    """
    penalty = config["lpc_alpha"] * lpc
    return penalty / (ce.detach() + config["lpc_epsilon"]) if config["normalize_lpc"] else penalty


def imitation_losses(
    policy: RecurrentPolicy, output: PolicyOutput, rollout: Rollout, config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the loss to minimise under the name `loss`, and what is to be logged beside it.

    Args:
        policy: whose output it is.
        output: of an unroll along the rollout.
        rollout: that it ran along.
    """
    ce, accuracy = cross_entropy(output.logits, rollout.label)
    lpc, penalty = ce.new_tensor(math.nan), ce.new_zeros(())
    parts = {"ce": ce}
    if output.routing:
        lpc = mean(compute_lpc(output.routing, policy.expert_costs))
        parts["penalty"] = penalty = lpc_penalty(lpc, ce, config)
    if output.due is not None and config["aux_weight"] > 0:
        parts["aux"] = config["aux_weight"] * negative_log_likelihood(output.due, rollout.due)
    parts |= {name: f(output, rollout, config) for name, f in registered("loss", config["extensions"]).items()}
    loss = sum(list(parts.values())[1:], ce)
    metrics = {name: f(output, rollout, config) for name, f in registered("metric", config["extensions"]).items()}
    return {"loss": loss, **parts, "penalty": penalty, "accuracy": accuracy, "mean_lpc": lpc, **metrics}
