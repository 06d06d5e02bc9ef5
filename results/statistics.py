"""Statistics of evaluations: intervals, agreement of seeds, and how much of a number a grouping explains.

They need numpy (`summarise_runs` and `seed_agreement` pandas too), so that tables can be made where nothing is drawn.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from results.routing_data import RoutingData

if TYPE_CHECKING:
    import pandas as pd

Z95 = 1.959963984540054  # standard deviations to either side of the mean that hold 95 % of a normal distribution


def wilson_interval(success_rate: float, num_episodes: float) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a success rate measured over `num_episodes` independent episodes.

    Unlike the normal approximation it stays within 0 and 1, and is not empty where all or no episodes succeeded. Where
    one of the two is not known (NaN), neither is the interval.
    """
    if np.isnan(success_rate) or np.isnan(num_episodes):
        return np.nan, np.nan
    shrink = 1 + Z95**2 / num_episodes
    center = (success_rate + Z95**2 / (2 * num_episodes)) / shrink
    spread = success_rate * (1 - success_rate) / num_episodes + Z95**2 / (4 * num_episodes**2)
    half = Z95 * np.sqrt(spread) / shrink
    return max(0.0, float(center - half)), min(1.0, float(center + half))


def summarise_runs(
    results: "pd.DataFrame", by: Sequence[str] = ("trained_on", "task_id", "trial", "update")
) -> "pd.DataFrame":
    """Return one row for the rows of `results` that agree in the columns `by`: means and error bars over seeds.

    `success_low` and `success_high` are a standard error over the seeds away from the mean `success_rate`, or the
    Wilson interval of the only seed's episodes (NaN where their number is not known); `lpc_error` is the standard error
    of `mean_lpc`, 0 for one seed. `mean_lpc` is NaN for baselines, which have no experts.
    """
    import pandas as pd

    by = [name for name in by if name in results]
    rows = []
    for key, runs in results.groupby(by, sort=True, dropna=False):
        success, lpc = runs["success_rate"].astype(float), runs["mean_lpc"].astype(float)
        mean, lpc_error = success.mean(), 0.0
        if len(runs) == 1:
            low, high = wilson_interval(mean, runs["num_episodes"].astype(float).iloc[0])
        else:
            error = success.std() / np.sqrt(len(runs))
            low, high = np.clip([mean - error, mean + error], 0, 1).tolist()
            lpc_error = lpc.std() / np.sqrt(len(runs))
        values = {"seeds": len(runs), "success_rate": mean, "success_low": low, "success_high": high}
        values |= {"mean_lpc": lpc.mean(), "lpc_error": lpc_error}
        rows.append(dict(zip(by, key, strict=True)) | values)
    columns = [*by, "seeds", "success_rate", "success_low", "success_high", "mean_lpc", "lpc_error"]
    return pd.DataFrame(rows, columns=columns).astype({name: results[name].dtype for name in by})


def seed_agreement(first: RoutingData | Sequence[dict], second: RoutingData | Sequence[dict]) -> float:
    """Return whether two policies find the same levels expensive: Spearman's rank correlation, over the levels that
    both solved, of the mean LPC per step. NaN for fewer than three such levels.

    Args:
        first, second: routing data of the same levels.
    """
    import pandas as pd

    columns = []
    for data in map(RoutingData.from_entries, (first, second)):
        steps = np.bincount(data.episode, minlength=len(data.episodes))
        lpc = np.bincount(data.episode, data.lpc, len(data.episodes)) / np.maximum(steps, 1)
        solved = np.array([bool(episode["success"]) for episode in data.episodes]) & (steps > 0)
        columns.append(pd.Series(np.where(solved, lpc, np.nan), [episode["seed"] for episode in data.episodes]))
    both = pd.concat(columns, axis=1).dropna()
    return float(both[0].rank().corr(both[1].rank())) if len(both) > 2 else np.nan


def steps_of_equal_episodes(episode: np.ndarray) -> np.ndarray:
    """Return a weight for each step [T] such that every episode weighs 1 in all, however long it is.

    One episode that is stuck for hundreds of steps would otherwise outweigh dozens of short ones.
    """
    return 1.0 / np.bincount(episode)[episode]


def explained_share(codes: np.ndarray, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the adjusted share of the variance of each column that the groups explain.

        1 - (1 - R^2) / (1 - r),   R^2 = 1 - sum w (v - mean of its group)^2 / sum w (v - mean)^2

    where r is what R^2 would be on average if groups were drawn by chance: (k - 1) / (n - 1) for k groups of n steps
    that weigh alike, which makes it the adjusted R^2 of a regression on the groups' indicators (Ezekiel, 1930; Kelley's
    epsilon squared, 1935). With weights w, W their sum and S that of their squares (in a group: W_g and S_g),

        r = (sum over g of S_g / W_g - S / W) / (W - S / W).

    So chance alone explains nothing on average, however many groups there are, and sometimes less than nothing.

    Args:
        codes: int [T], the group of each step, 0 or more.
        values: [T, V].
        weights: [T]; None: all alike.

    Returns:
        [V]; NaN where a column is constant or every step is a group of its own.
    """
    values = np.asarray(values, np.float64).reshape(len(codes), -1)
    weights = np.ones(len(codes)) if weights is None else weights
    total, squares = weights.sum(), np.square(weights).sum()
    mean = weights @ values / total
    mass, squares_of = np.bincount(codes, weights), np.bincount(codes, np.square(weights))
    present = mass > 0
    by_chance = ((squares_of[present] / mass[present]).sum() - squares / total) / (total - squares / total)
    if not by_chance < 1 - 1e-9:
        return np.full(values.shape[1], np.nan)
    centered = values - mean
    everything = weights @ np.square(centered)
    order = np.argsort(codes, kind="stable")  # groups in a row: much faster to sum than scattered
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sums = np.add.reduceat((centered * weights[:, None])[order], starts, axis=0)
    between = (np.square(sums) / mass[present][:, None]).sum(0)
    is_constant = everything <= 1e-12 * total
    shares = 1 - (1 - between / np.where(is_constant, 1, everything)) / (1 - by_chance)
    return np.where(is_constant, np.nan, shares)


def means_over_episodes(
    codes: np.ndarray, episode: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return per group the mean of each column, its 95 % half-width, and the number of episodes.

    Each episode's steps in a group are averaged first, then its episodes: a long stay counts as one. The half-width is
    1.96 standard errors over episodes, NaN for a single one.

    Args:
        codes: int [T], groups 0 to K - 1; steps of group -1 are left out.
        values: [T, V].

    Returns:
        means [K, V] (NaN for groups without steps), half-widths [K, V], counts [K].
    """
    values = np.asarray(values, np.float64).reshape(len(codes), -1)
    known = codes >= 0
    codes, episode, values = codes[known], episode[known].astype(np.int64), values[known]
    groups = int(codes.max(initial=-1)) + 1
    pairs, place = np.unique(episode * max(groups, 1) + codes, return_inverse=True)
    group = pairs % max(groups, 1)
    steps = np.bincount(place, minlength=len(pairs))
    counts = np.bincount(group, minlength=groups)
    means, halves = np.full((groups, values.shape[1]), np.nan), np.full((groups, values.shape[1]), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        for column in range(values.shape[1]):
            of_episode = np.bincount(place, values[:, column], len(pairs)) / steps
            means[:, column] = np.bincount(group, of_episode, groups) / counts
            deviation = np.square(of_episode - means[group, column])
            halves[:, column] = Z95 * np.sqrt(np.bincount(group, deviation, groups) / (counts - 1) / counts)
    return means, halves, counts


def smoothed(counts: np.ndarray, prior: float = 0.5) -> np.ndarray:
    """Return the distributions [..., K] that counts [..., K] stand for: the posterior mean under a symmetric Dirichlet
    prior, (n_k + prior) / (n + K prior). 0.5 is Jeffreys' prior (Krichevsky and Trofimov, 1981): an action that was
    never seen in a few visits is rare there, not impossible.
    """
    counts = np.asarray(counts, np.float64)
    return (counts + prior) / (counts.sum(-1, keepdims=True) + prior * counts.shape[-1])


def entropy_bits(shares: np.ndarray) -> np.ndarray:
    """Return the entropy -sum p log2 p of distributions [..., K], in bits (Shannon, 1948)."""
    shares = np.asarray(shares, np.float64)
    return -np.sum(shares * np.log2(np.where(shares > 0, shares, 1)), axis=-1)


def kl_bits(shares: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the divergence sum p log2 (p / q) of distributions p [..., K] from q [K], in bits (Kullback and Leibler,
    1951); q must be positive wherever p is."""
    shares, reference = np.asarray(shares, np.float64), np.asarray(reference, np.float64)
    return np.sum(shares * np.log2(np.where(shares > 0, shares, 1) / np.where(shares > 0, reference, 1)), axis=-1)


def plug_in_information_bits(table: np.ndarray) -> float:
    """Return I(R;C) = sum p(r) KL(p(c|r) || p(c)) in bits, p being a table [R, C] of counts or shares as it stands.

    Of a sample, this is too large: see `mutual_information_bits`, or subtract what shuffled data gives.
    """
    table = np.asarray(table, np.float64)
    rows = table.sum(1)
    table, rows = table[rows > 0], rows[rows > 0]
    total = rows.sum()
    return float((rows / total) @ kl_bits(table / rows[:, None], table.sum(0) / total)) if total else float("nan")


def mutual_information_bits(counts: np.ndarray) -> float:
    """Return how much a row tells of the column, I(S;A) = sum p(s) KL(p(a|s) || p(a)), of a table of counts [S, A].

    The plug-in estimate is too large by about (S - 1)(A - 1) / (2 n ln 2) bits, which is subtracted (Miller, 1955), S
    and A being the rows and columns that occur; less than nothing is 0.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    total = counts.sum()
    if total == 0:
        return float("nan")
    bias = (counts.shape[0] - 1) * (counts.shape[1] - 1) / (2 * total * np.log(2))
    return max(0.0, plug_in_information_bits(counts) - bias)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation of the pairs that are both finite; NaN for fewer than four or constant ones."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 4 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return float("nan")
    return float(np.corrcoef(x[both], y[both])[0, 1])


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of a value per run and its 95 % interval by Student's t; the interval of one run is NaN."""
    known = np.asarray([value for value in values if np.isfinite(value)], np.float64)
    if len(known) == 0:
        return float("nan"), float("nan"), float("nan")
    mean = float(known.mean())
    if len(known) == 1:
        return mean, float("nan"), float("nan")
    from scipy.stats import t

    half = float(t.ppf(0.975, len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    return mean, mean - half, mean + half


def fisher_mean(correlations: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of correlations over seeds and its 95 % interval: of z = atanh r (Fisher, 1921), with Student's t
    for the few seeds there are, turned back. The interval of fewer than two is NaN."""
    mean, low, high = np.tanh(mean_interval(np.arctanh(np.clip(correlations, -0.999999, 0.999999)).tolist())).tolist()
    return mean, low, high


def rank_correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation along the last axis of x and y [..., N], equal values sharing their mean rank.

    What was never reached may be infinity: it ranks last. NaN for fewer than three pairs, or where all of x or y agree.
    """
    from scipy.stats import rankdata

    x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
    if x.shape[-1] < 3:
        return np.full(x.shape[:-1], np.nan)
    x, y = (rankdata(each, axis=-1, nan_policy="raise") for each in (x, y))
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))
    return np.divide((x * y).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a statistic of `count` things drawn again with replacement (Efron, 1979).

    Args:
        statistic: from indices [resamples, count] to its values [resamples]; NaN (nothing can be said of such a draw)
            is left out.
    """
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    values = np.asarray(statistic(drawn), np.float64)
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def pairs_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over all pairs of runs of a value per pair and its 95 % interval.

    Pairs share runs, so they are not independent: the standard error is the jackknife's, which leaves out one run and
    with it all of its pairs (Arvesen, 1969), with Student's t for the few runs there are. NaN for fewer than three.

    Args:
        values: [R, R], symmetric; the diagonal is not used.
    """
    runs = len(values)
    upper = np.triu_indices(runs, 1)
    if runs < 2:
        return float("nan"), float("nan"), float("nan")
    mean = float(values[upper].mean())
    if runs < 3:
        return mean, float("nan"), float("nan")
    from scipy.stats import t

    without = []
    for run in range(runs):
        rest = np.delete(np.delete(values, run, 0), run, 1)
        without.append(rest[np.triu_indices(runs - 1, 1)].mean())
    error = np.sqrt((runs - 1) / runs * np.square(np.array(without) - np.mean(without)).sum())
    half = float(t.ppf(0.975, runs - 1) * error)
    return mean, mean - half, mean + half
