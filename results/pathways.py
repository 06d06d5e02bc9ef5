"""Pathways: which experts a task uses, and what can be said of networks that do many tasks with the same experts.

A step's *pathway* is the strongest expert of each layer, written `0-2-1` (expert 0 of layer 0, ...). A task's *routing*
is the mean weight of every expert on it. Means are over an episode's steps first and then over episodes, so that one
long episode counts as one. The questions are those of Cook, Akarca, Costa, Achterberg, "Brain-Like Processing Pathways
Form in Models With Heterogeneous Experts", NeurIPS 2025, arXiv 2506.02813; docs/pathways.md says what came out here.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from results.routing_data import RoutingData
from results.statistics import plug_in_information_bits, steps_of_equal_episodes

if TYPE_CHECKING:
    import pandas as pd

SHUFFLES = 200  # of null distributions
STEPS_TO = "env-steps to accuracy "  # of a run on one task alone; how hard the task is

# ------------------------------------------------------------------------------------------------- of one evaluation


def mean_routing(data: RoutingData) -> list[np.ndarray]:
    """Return per layer the mean weight of each of its experts, every episode counting alike."""
    ends = np.cumsum([layer.shape[1] for layer in data.weights])[:-1]
    return np.split(_exact_mean(episode_signatures(data)), ends)


def _exact_mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean of rows [N, C], the same on every processor: the order of numpy's sums depends on it."""
    return np.array([math.fsum(column) / len(rows) for column in rows.T.tolist()])


def pathway_names(experts: Sequence[int]) -> list[str]:
    """Return the names of all pathways through layers of so many experts, in the order of `pathway_codes`."""
    return ["-".join(map(str, chosen)) for chosen in itertools.product(*map(range, experts))]


def pathway_codes(data: RoutingData) -> np.ndarray:
    """Return the pathway of each step, int [T]: the place in `pathway_names` of its strongest experts."""
    strongest = [layer.argmax(1) for layer in data.weights]
    return np.asarray(np.ravel_multi_index(strongest, [layer.shape[1] for layer in data.weights]))


def episode_shares(data: RoutingData, codes: np.ndarray, count: int) -> np.ndarray:
    """Return the share of each episode's steps that have each of `count` codes, [episodes with steps, count]."""
    episodes, place = np.unique(data.episode, return_inverse=True)
    table = np.bincount(place * count + codes, minlength=len(episodes) * count).reshape(-1, count)
    return table / table.sum(1, keepdims=True)


def pathway_shares(data: RoutingData) -> np.ndarray:
    """Return the share of steps on each pathway, in the order of `pathway_names`, every episode counting alike."""
    count = math.prod(layer.shape[1] for layer in data.weights)
    return _exact_mean(episode_shares(data, pathway_codes(data), count))


def episode_signatures(data: RoutingData) -> np.ndarray:
    """Return the mean weight of every expert in each episode that has steps, [episodes, experts of all layers]."""
    episodes, place = np.unique(data.episode, return_inverse=True)
    columns = [np.bincount(place, weight, len(episodes)) for layer in data.weights for weight in layer.T]
    return np.column_stack(columns) / np.bincount(place)[:, None]


def lesion_of_pathway(routing: Sequence[np.ndarray], threshold: float) -> list[tuple[int, int]]:
    """Return the (layer, expert) pairs that are not on a task's pathway: their mean weight on it is below `threshold`.
    A layer's strongest expert always stays."""
    return [
        (layer, expert)
        for layer, weights in enumerate(routing)
        for expert, weight in enumerate(weights)
        if weight < threshold and expert != int(np.argmax(weights))
    ]


def same_pathway(data: RoutingData, final: RoutingData) -> np.ndarray:
    """Return per layer the share of steps whose strongest expert is already that of the final network.

    Args:
        data, final: what an earlier and the final network do along the same steps.

    Raises:
        ValueError: the steps are not the same.
    """
    alike = len(data) == len(final) and np.array_equal(data.episode, final.episode)
    if not alike or not np.array_equal(data.position, final.position):
        raise ValueError("two networks can only be compared along the same steps")
    weights = steps_of_equal_episodes(data.episode)
    return np.array(
        [
            weights @ (mine.argmax(1) == theirs.argmax(1)) / weights.sum()
            for mine, theirs in zip(data.weights, final.weights, strict=True)
        ]
    )


# ------------------------------------------------------------------------------------------------------- consistency


def consistency(routing: np.ndarray, centred: bool = True) -> np.ndarray:
    """Return how alike runs route their tasks: for each pair of runs, Pearson's correlation of their mean weights.

    Args:
        routing: [R, K, W], of R runs the mean weight of W experts on K tasks; experts correspond by place (and size).
        centred: subtract each expert's mean over tasks first. What is left is how tasks differ: where all tasks of all
            runs prefer the cheap experts, runs would seem consistent without any task having a pathway of its own.

    Returns:
        [R, R], symmetric; 1 on the diagonal, NaN where a run routes all tasks alike.
    """
    values = routing - routing.mean(1, keepdims=True) if centred else routing
    values = values.reshape(len(routing), -1)
    values = values - values.mean(1, keepdims=True)
    norms = np.sqrt(np.square(values).sum(1))
    norms = np.where(norms > 1e-9, norms, np.nan)
    return values @ values.T / np.outer(norms, norms)


def consistency_null(routing: np.ndarray, shuffles: int = SHUFFLES, seed: int = 0) -> np.ndarray:
    """Return what the mean `consistency` over pairs is if tasks do not correspond: those of each run are permuted."""
    generator = np.random.default_rng(seed)
    upper = np.triu_indices(len(routing), 1)
    drawn = []
    for _ in range(shuffles):
        permuted = np.stack([run[generator.permutation(len(run))] for run in routing])
        drawn.append(consistency(permuted)[upper].mean())
    return np.array(drawn)


# ------------------------------------------------------------------------------------------------------ distinctness


class Information(NamedTuple):
    """Mutual information in bits.

    Attributes:
        bits: corrected: the plug-in estimate less what it is on average when there is nothing to know.
        plug_in: as the table of counts has it.
        by_chance: the plug-in estimates of shuffled data.
    """

    bits: float
    plug_in: float
    by_chance: np.ndarray

    @property
    def p_value(self) -> float:
        """How often chance gives as much, counting the data itself as one draw (Davison and Hinkley, 1997)."""
        return float((1 + (self.by_chance >= self.plug_in - 1e-9).sum()) / (1 + len(self.by_chance)))


def _information(table, shuffled) -> Information:
    plug_in = plug_in_information_bits(table)
    by_chance = np.array([plug_in_information_bits(each) for each in shuffled])
    return Information(plug_in - float(by_chance.mean()), plug_in, by_chance)


def task_information(shares: np.ndarray, task: np.ndarray, shuffles: int = SHUFFLES, seed: int = 0) -> Information:
    """Return I(task; pathway), how many bits the pathway of a step tells of the task.

    Steps of an episode are not independent, so chance is what comes out when whole episodes change their task.

    Args:
        shares: [N, C], of each episode the share of its steps on each pathway (`episode_shares`).
        task: int [N], each episode's.
    """
    generator = np.random.default_rng(seed)
    present = shares[:, shares.any(0)]

    def table(labels):
        indicator = np.zeros((labels.max() + 1, len(labels)))
        indicator[labels, np.arange(len(labels))] = 1
        return indicator @ present

    return _information(table(task), (table(generator.permutation(task)) for _ in range(shuffles)))


def behaviour_information(
    codes: np.ndarray, behaviour: np.ndarray, shuffles: int = SHUFFLES, seed: int = 0
) -> Information:
    """Return I(behaviour; pathway), how many bits the pathway of a step tells of what the agent does.

    Chance is what comes out when the sequence of all steps' behaviours is turned against that of their pathways by a
    random number of steps: both keep how long they stay what they are, only what links them is gone.

    Args:
        codes: int [T], the steps' pathways.
        behaviour: int [T], -1 where unknown: such steps are left out.
    """
    generator = np.random.default_rng(seed)
    known = behaviour >= 0
    codes, behaviour = np.unique(codes[known], return_inverse=True)[1], behaviour[known].astype(np.int64)
    width = int(codes.max(initial=0)) + 1

    def table(turned):
        counts = np.bincount(turned * width + codes, minlength=width * (int(behaviour.max(initial=0)) + 1))
        return counts.reshape(-1, width)

    turns = generator.integers(1, max(len(codes), 2), shuffles)
    return _information(table(behaviour), (table(np.roll(behaviour, turn)) for turn in turns))


def classifier_accuracy(signatures: np.ndarray, task: np.ndarray, folds: int = 5, seed: int = 0) -> float:
    """Return how often the task is told from an episode's routing signature, on episodes not learned from.

    Linear discriminant analysis (Fisher, 1936; one covariance for all tasks, tasks equally likely beforehand), with
    `folds`-fold cross-validation.

    Args:
        signatures: [N, W], see `episode_signatures`.
        task: int [N], 0 to K - 1.
    """
    fold = np.random.default_rng(seed).permutation(len(task)) % folds
    correct = 0
    for held_out in range(folds):
        learned, asked = fold != held_out, fold == held_out
        classes = np.unique(task[learned])  # of very few episodes, a task may have none to learn from
        means = np.stack([signatures[learned & (task == each)].mean(0) for each in classes])
        within = signatures[learned] - means[np.searchsorted(classes, task[learned])]
        covariance = within.T @ within / max(1, len(within) - len(classes))
        covariance += np.eye(len(covariance)) * (1e-6 * np.trace(covariance) + 1e-12)  # a layer's weights add up to 1
        directions = np.linalg.solve(covariance, means.T)
        scores = signatures[asked] @ directions - 0.5 * np.einsum("kw,wk->k", means, directions)
        correct += int((classes[scores.argmax(1)] == task[asked]).sum())
    return correct / len(task)


def classifier_null(signatures: np.ndarray, task: np.ndarray, shuffles: int = 20, seed: int = 0) -> np.ndarray:
    """Return the `classifier_accuracy` for tasks permuted over episodes, [shuffles]: about 1 / number of tasks."""
    generator = np.random.default_rng(seed)
    return np.array([classifier_accuracy(signatures, generator.permutation(task)) for _ in range(shuffles)])


def jensen_shannon(shares: np.ndarray) -> np.ndarray:
    """Return the distance between each two distributions of shares [K, C]: the square root of the Jensen-Shannon
    divergence in bits, [K, K], from 0 (equal) to 1 (nothing in common) (Endres and Schindelin, 2003)."""
    count = len(shares)
    distances = np.zeros((count, count))
    for one, other in itertools.combinations(range(count), 2):
        divergence = plug_in_information_bits(shares[[one, other]])  # of which of the two a draw comes from
        distances[one, other] = distances[other, one] = math.sqrt(max(0.0, divergence))
    return distances


def cluster_tasks(shares: np.ndarray) -> np.ndarray:
    """Return the hierarchical clustering of tasks by their pathways: scipy's linkage [K - 1, 4], average linkage over
    the distances `jensen_shannon`, leaves in the order in which neighbours are most alike."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    return linkage(squareform(jensen_shannon(shares), checks=False), "average", optimal_ordering=True)


# -------------------------------------------------------------------------------------------------------- difficulty


def env_steps_to(metrics: "pd.DataFrame", accuracy: float) -> float:
    """Return after how many env-steps a run first logged this accuracy, infinity if it never did.

    Args:
        metrics: of `tables.read_metrics`.
    """
    reached = metrics.loc[metrics["accuracy"] >= accuracy, "env_steps"]
    return float(reached.iloc[0]) if len(reached) else math.inf


# ------------------------------------------------------------------------------------------------ rows of the results


def pathway_columns(data: RoutingData) -> dict[str, list[list[float]] | dict[str, float]]:
    """Return what a row of evaluation_results.csv says of a mixture's routing: `routing`, the mean weight of each
    layer's experts (`mean_routing`), and `pathways`, the share of steps on each pathway that has any."""
    if not data.weights:
        return {}
    names = pathway_names([layer.shape[1] for layer in data.weights])
    shares = zip(names, pathway_shares(data).round(5).tolist(), strict=True)
    routing = [layer.round(5).tolist() for layer in mean_routing(data)]
    return {"routing": routing, "pathways": {name: share for name, share in shares if share > 0}}


def network_information(routing_by_task: Mapping[str, RoutingData]) -> dict[str, float]:
    """Return what one network's routing tells of its tasks: `task_information` and `classifier_accuracy`, and what
    chance gives of both."""
    counts = {tuple(layer.shape[1] for layer in data.weights) for data in routing_by_task.values()}
    if len(counts) != 1:
        raise ValueError("the tasks' routing is of different networks")
    count = math.prod(counts.pop())
    shares = [episode_shares(data, pathway_codes(data), count) for data in routing_by_task.values()]
    signatures = [episode_signatures(data) for data in routing_by_task.values()]
    task = np.repeat(np.arange(len(shares)), list(map(len, shares)))
    information = task_information(np.concatenate(shares), task)
    signatures = np.concatenate(signatures)
    return {
        "I(task;pathway)": information.bits,
        "I(task;pathway) by chance": float(information.by_chance.mean()),
        "I(task;pathway) p": information.p_value,
        "task told from routing": classifier_accuracy(signatures, task),
        "task told by chance": float(classifier_null(signatures, task).mean()),
    }


def action_information(data: RoutingData) -> dict[str, float]:
    """Return `behaviour_information` of the actions taken."""
    information = behaviour_information(pathway_codes(data), data.action)
    return {
        "I(action;pathway)": information.bits,
        "I(action;pathway) by chance": float(information.by_chance.mean()),
        "I(action;pathway) p": information.p_value,
    }
