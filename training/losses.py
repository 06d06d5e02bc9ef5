"""What training minimises and what it measures on the way: each declared once, as a name and a number.

A row of metrics.csv has a column for every name here, and the progress bar shows some of them.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
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

    The quotient is eq. 2 of arXiv 2506.02813: the better the task is solved, the more the experts cost. Two forms:

    - `attached`, as the paper's code has it: gradients flow through the divisor too, so imitating worse lowers the
      penalty. At a given LPC the loss CE + a LPC / (CE + e) then no longer falls with CE below
      CE = sqrt(a LPC) - e, where its derivative 1 - a LPC / (CE + e)^2 changes its sign: there imitation settles, at
      0.17 nats for the mixture's largest LPC of 3072, a = 1e-5 and e = 0.01.
    - `detached`: the divisor is a number that only scales the penalty; imitation is never made worse on purpose.
    """
    penalty = config["lpc_alpha"] * lpc
    if config["normalize_lpc"] == "off":
        return penalty
    return penalty / ((ce.detach() if config["normalize_lpc"] == "detached" else ce) + config["lpc_epsilon"])


def lpc_penalty_by_task(
    lpc: Tensor, logits: Tensor, label: Tensor, task: np.ndarray, config: Mapping[str, Any]
) -> Tensor:
    """Return the mean over environments of the penalty on LPC, each task's divided by its own cross-entropy.

    So experts cost more on the tasks that the network has solved than on those that it has not: that is what may send
    hard tasks along costly pathways. (The paper's code sums over tasks, which is the same up to a factor.)

    Args:
        lpc: [T, N].
        logits: [T, N, A].
        label: int64 [T, N].
        task: int64 [N], which task each environment runs.
    """
    parts = []
    for number in np.unique(task):
        its = torch.from_numpy(np.flatnonzero(task == number)).to(lpc.device)
        ce, _ = cross_entropy(logits.index_select(1, its), label.index_select(1, its))
        parts.append(len(its) / len(task) * lpc_penalty(mean(lpc.index_select(1, its)), ce, config))
    return sum(parts[1:], parts[0])


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
    new_log_prob, entropy = log_prob_and_entropy(output.logits - rollout.penalty, rollout.action)
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
        lpc_of_steps = compute_lpc(output.routing, policy.expert_costs)
        lpc = mean(lpc_of_steps)
        if config["normalize_lpc"] == "off" or rollout.task.max() == 0:
            penalty = lpc_penalty(lpc, ce, config)
        else:
            penalty = lpc_penalty_by_task(lpc_of_steps, output.logits, rollout.label, rollout.task, config)
    losses = {"penalty": penalty}
    if output.due is not None and config["aux_weight"] > 0:
        losses["aux"] = config["aux_weight"] * negative_log_likelihood(output.due, rollout.due)
    losses |= {name: f(output, rollout, config) for name, f in registered("loss", config["extensions"]).items()}
    metrics = {name: f(output, rollout, config) for name, f in registered("metric", config["extensions"]).items()}
    return losses, {"mean_lpc": lpc, **metrics}
