"""What training minimises and what it measures on the way: each declared once, as a name and a number.

A row of metrics.csv has a column for every name here, and the progress bar shows some of them.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from basics.extensions import registered
from mixture_of_experts import compute_lpc
from policy.compiled.operations import (
    cross_entropy,
    exponential,
    log_prob_and_entropy,
    mean,
    negative_log_likelihood,
    normalized,
)
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
    added, logged = _further_losses(policy, output, rollout, ce, config)
    loss = sum(added.values(), ce)
    return {"loss": loss, "ce": ce, **added, "accuracy": accuracy, **logged}


def ppo_losses(
    policy: RecurrentPolicy,
    output: PolicyOutput,
    rollout: Rollout,
    log_prob: Tensor,
    advantage: Tensor,
    target: Tensor,
    config: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return the same for learning from reward: the clipped objective of PPO (eq. 7 of Schulman et al. 2017, arXiv
    1707.06347), the value's squared error, and a bonus for entropy (eq. 9).

    Args:
        log_prob: of the rollout's actions as they were drawn, [T, N].
        advantage: of these actions, [T, N].
        target: what the value should be, [T, N].
    """
    if output.value is None:
        raise ValueError("a policy without a value head cannot learn from reward")
    if config["normalize_advantage"]:
        advantage = normalized(advantage)
    new_log_prob, entropy = log_prob_and_entropy(output.logits, rollout.action)
    log_ratio = new_log_prob - log_prob
    ratio = exponential(log_ratio)
    clipped = ratio.clamp(1 - config["clip_coef"], 1 + config["clip_coef"])
    policy_loss = mean(torch.maximum(-advantage * ratio, -advantage * clipped))
    value_loss = mean((output.value - target).square())
    entropy = mean(entropy)
    ce, accuracy = cross_entropy(output.logits, rollout.label)

    loss = policy_loss + config["value_coef"] * value_loss - config["entropy_coef"] * entropy
    loss = loss + config["imitation_weight"] * ce
    added, logged = _further_losses(policy, output, rollout, ce, config)
    loss = sum(added.values(), loss)
    with torch.no_grad():
        how_far = {  # http://joschu.net/blog/kl-approx.html
            "approx_kl": mean(ratio - 1 - log_ratio),
            "clip_fraction": mean((ratio != clipped).float()),
        }
    losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy, "ce": ce}
    return {"loss": loss, **losses, **added, **how_far, "accuracy": accuracy, **logged}


def _further_losses(
    policy: RecurrentPolicy, output: PolicyOutput, rollout: Rollout, ce: Tensor, config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what every objective adds to its loss (the penalty, losses of one's own), and what it logs.

    Args:
        ce: the cross-entropy against the bot's actions.
    """
    lpc, penalty = ce.new_tensor(math.nan), ce.new_zeros(())
    if output.routing:
        lpc = mean(compute_lpc(output.routing, policy.expert_costs))
        penalty = lpc_penalty(lpc, ce, config)
    losses = {"penalty": penalty}
    if output.due is not None and config["aux_weight"] > 0:
        losses["aux"] = config["aux_weight"] * negative_log_likelihood(output.due, rollout.due)
    losses |= {name: f(output, rollout, config) for name, f in registered("loss", config["extensions"]).items()}
    metrics = {name: f(output, rollout, config) for name, f in registered("metric", config["extensions"]).items()}
    return losses, {"mean_lpc": lpc, **metrics}
