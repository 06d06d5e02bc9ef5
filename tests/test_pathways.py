"""Measures of pathways on data whose answers are known by hand, or computed a second way."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, ttest_1samp
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from results import pathways, statistics
from results.routing_data import RoutingData

LAYERS = (2, 3)


def walk(*episodes, lpc=1.0, carrying=0):
    """Routing data of episodes given as sequences of pathways such as "01": the strongest experts weigh 0.9."""
    episode = np.repeat(np.arange(len(episodes)), [len(steps) for steps in episodes])
    chosen = np.array([[int(expert) for expert in step] for steps in episodes for step in steps])
    weights = []
    for layer, experts in enumerate(LAYERS):
        weights.append(np.full((len(chosen), experts), 0.1 / (experts - 1)))
        weights[-1][np.arange(len(chosen)), chosen[:, layer]] = 0.9
    count, timestep = len(chosen), np.concatenate([np.arange(len(steps)) for steps in episodes])
    columns = np.full(count, lpc), np.full(count, carrying), np.zeros(count)
    about = [{"seed": place, "success": True, "env_context": {}} for place in range(len(episodes))]
    return RoutingData(episode, timestep, np.zeros((count, 2)), weights, *columns, about)


def test_means_count_episodes_alike_however_long_they_are():
    data = walk(["00"] * 8, ["12", "12"])
    first, second = pathways.mean_routing(data)
    np.testing.assert_allclose(first, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(second, [0.475, 0.05, 0.475], rtol=1e-6)
    shares = dict(zip(pathways.pathway_names(LAYERS), pathways.pathway_shares(data), strict=True))
    assert {name: share for name, share in shares.items() if share} == {"0-0": 0.5, "1-2": 0.5}
    np.testing.assert_allclose(pathways.episode_signatures(data)[0], [0.9, 0.1, 0.9, 0.05, 0.05], rtol=1e-6)


def test_episodes_without_steps_are_no_part_of_a_mean():
    data = walk(["00"], ["12", "01"], ["12"])
    rest = data.select(data.episode != 0)
    assert pathways.episode_signatures(rest).shape == (2, 5)
    assert pathways.pathway_shares(rest).sum() == pytest.approx(1)
    assert pathways.mean_routing(rest)[0][1] == pytest.approx((0.5 + 0.9) / 2)


def test_a_pathway_leaves_out_what_is_below_the_threshold_but_never_the_strongest():
    routing = [np.array([0.2, 0.8]), np.array([0.3, 0.3, 0.4])]
    assert pathways.lesion_of_pathway(routing, 0.1) == []
    assert pathways.lesion_of_pathway(routing, 0.25) == [(0, 0)]
    assert pathways.lesion_of_pathway(routing, 0.95) == [(0, 0), (1, 0), (1, 1)]


def test_along_training_steps_are_compared_with_the_final_network_layer_by_layer():
    early, final = walk(["00", "00", "12", "02"], ["11"]), walk(["00", "10", "12", "01"], ["01"])
    np.testing.assert_allclose(pathways.same_pathway(early, final), [(3 / 4 + 0) / 2, (3 / 4 + 1) / 2])
    assert pathways.same_pathway(final, final).tolist() == [1, 1]
    with pytest.raises(ValueError, match="same steps"):
        pathways.same_pathway(early, walk(["00"]))


def test_consistency_is_the_correlation_of_what_differs_between_tasks():
    base = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    twin, opposite = 0.5 * (base - 0.5) + 0.5, 1 - base
    same = np.array([[0.9, 0.1]] * 3)
    found = pathways.consistency(np.stack([base, twin, opposite, same]))
    assert found[0, 1] == pytest.approx(1) and found[0, 2] == pytest.approx(-1)
    assert np.isnan(found[0, 3]), "a run that routes all tasks alike has no pathways to be consistent"
    generator = np.random.default_rng(0)
    runs = generator.dirichlet([1, 1, 1], (2, 5))
    centred = runs - runs.mean(1, keepdims=True)
    expected = np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1]
    assert pathways.consistency(runs)[0, 1] == pytest.approx(expected)
    raw = pathways.consistency(runs, centred=False)[0, 1]
    assert raw == pytest.approx(np.corrcoef(runs[0].ravel(), runs[1].ravel())[0, 1])


def test_a_preference_that_all_tasks_share_is_no_consistency_but_looks_like_it_uncentred():
    generator = np.random.default_rng(1)
    runs = np.array([0.8, 0.15, 0.05]) + 0.01 * generator.normal(size=(6, 12, 3))
    upper = np.triu_indices(6, 1)
    assert pathways.consistency(runs, centred=False)[upper].mean() > 0.99
    assert abs(pathways.consistency(runs)[upper].mean()) < 0.2


def test_the_null_of_consistency_is_around_zero_and_exact_for_two_tasks():
    runs = np.array([[[1.0, 0.0], [0.0, 1.0]]] * 2)
    null = pathways.consistency_null(runs, shuffles=400)
    assert set(np.round(null).tolist()) == {-1, 1} and abs(null.mean()) < 0.15
    assert pathways.consistency(runs)[0, 1] == pytest.approx(1)


def test_pairs_share_runs_and_their_interval_says_so():
    values = np.array([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
    mean, low, high = statistics.pairs_interval(values)
    assert mean == pytest.approx(0.4)
    # without a run one pair is left: 0.6, 0.4 or 0.2; jackknife error sqrt(2/3 * (0.04 + 0 + 0.04)); t(2) = 4.3027
    assert high - mean == pytest.approx(4.30265 * math.sqrt(2 / 3 * 0.08), rel=1e-4) == mean - low
    assert np.isnan(statistics.pairs_interval(values[:2, :2])[1]) and np.isnan(statistics.pairs_interval(values[:1])[0])


def test_information_of_tasks_on_pathways_of_their_own_and_on_the_same():
    own = np.kron(np.eye(4), np.ones((10, 1)))  # four tasks, each on one pathway
    task = np.repeat(np.arange(4), 10)
    found = pathways.task_information(own, task)
    assert found.plug_in == pytest.approx(2) and 1.7 < found.bits < 2 and found.p_value == pytest.approx(1 / 201)
    alike = pathways.task_information(np.full((40, 3), 1 / 3), task)
    assert alike.plug_in == pytest.approx(0, abs=1e-12) and alike.bits == pytest.approx(0, abs=1e-12)
    assert alike.p_value == 1


def test_information_by_chance_is_subtracted():
    generator = np.random.default_rng(2)
    shares = np.eye(8)[generator.integers(0, 8, 60)]  # pathways that have nothing to do with the task
    found = pathways.task_information(shares, np.arange(60) % 6)
    assert found.plug_in > 0.3 and abs(found.bits) < 0.15 and found.p_value > 0.05


def test_information_of_behaviour_survives_only_where_it_is_linked_to_the_pathway():
    generator = np.random.default_rng(3)
    codes = np.repeat(generator.integers(0, 3, 400), 5)  # pathways that are kept for five steps
    linked = pathways.behaviour_information(codes, np.where(codes == 2, 1, 0), shuffles=50)
    share = (codes == 2).mean()
    assert linked.plug_in == pytest.approx(-share * math.log2(share) - (1 - share) * math.log2(1 - share))
    assert linked.bits > 0.8 * linked.plug_in
    slow = np.repeat(generator.integers(0, 2, 100), 20)
    unlinked = pathways.behaviour_information(codes, slow, shuffles=100)
    assert abs(unlinked.bits) < 0.01 and unlinked.p_value > 0.02
    known = np.arange(len(codes)) % 2 == 0
    half = pathways.behaviour_information(codes, np.where(known, np.where(codes == 2, 1, 0), -1), shuffles=5)
    share = (codes[known] == 2).mean()
    assert half.plug_in == pytest.approx(-share * math.log2(share) - (1 - share) * math.log2(1 - share))


def test_the_classifier_is_discriminant_analysis_and_its_null_is_chance():
    generator = np.random.default_rng(4)
    task = np.arange(200) % 4
    signatures = generator.normal(size=(200, 5)) @ np.diag([1, 2, 3, 1, 0.5]) + 1.2 * np.eye(4, 5)[task]
    fold = np.random.default_rng(0).permutation(200) % 5
    correct = 0
    for held_out in range(5):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[0.25] * 4)
        theirs.fit(signatures[fold != held_out], task[fold != held_out])
        correct += (theirs.predict(signatures[fold == held_out]) == task[fold == held_out]).sum()
    assert pathways.classifier_accuracy(signatures, task) == pytest.approx(correct / 200, abs=0.011)
    assert np.mean(pathways.classifier_null(signatures, task)) == pytest.approx(0.25, abs=0.05)
    weights = generator.dirichlet([1, 1, 1], 200)  # which add up to 1: a covariance without an inverse
    assert 0.1 < pathways.classifier_accuracy(weights, task) < 0.45
    assert pathways.classifier_accuracy(np.repeat(np.eye(4), 50, 0), np.repeat(np.arange(4), 50)) == 1
    assert pathways.classifier_accuracy(np.eye(4), np.arange(4)) == 0, "nothing is known of a task never met before"


def test_distance_of_distributions_and_the_tree_of_tasks():
    shares = np.array([[1.0, 0, 0], [0, 1, 0], [0.95, 0.05, 0], [0, 0.5, 0.5]])
    distances = pathways.jensen_shannon(shares)
    assert distances[0, 1] == pytest.approx(1) and distances[1, 1] == 0
    middle = (shares[1] + shares[3]) / 2
    by_hand = statistics.entropy_bits(middle) - (0 + 1) / 2
    assert distances[1, 3] == pytest.approx(math.sqrt(by_hand))
    tree = pathways.cluster_tasks(shares)
    assert set(tree[0, :2].astype(int)) == {0, 2} and set(tree[1, :2].astype(int)) == {1, 3}


def test_the_steps_to_an_accuracy_are_those_of_the_first_row_that_has_it():
    def curve(*accuracy):
        return pd.DataFrame({"env_steps": 1000 * np.arange(1, 1 + len(accuracy)), "accuracy": accuracy})

    assert pathways.env_steps_to(curve(0.2, 0.8, 0.7, 0.9), 0.8) == 2000
    assert math.isinf(pathways.env_steps_to(curve(0.2, 0.5), 0.8))


def test_rank_correlation_is_spearmans_also_with_ties_and_with_what_was_never_reached():
    generator = np.random.default_rng(5)
    x, y = generator.integers(0, 5, (2, 3, 12))
    expected = [spearmanr(one, other).statistic for one, other in zip(x, y, strict=True)]
    np.testing.assert_allclose(statistics.rank_correlation(x, y), expected)
    assert statistics.rank_correlation([1, 2, math.inf], [10, 20, 30]) == pytest.approx(1)
    assert np.isnan(statistics.rank_correlation([1, 1, 1], [1, 2, 3])) and np.isnan(
        statistics.rank_correlation([1, 2], [1, 2])
    )


def test_the_bootstrap_interval_of_a_mean_is_that_of_the_central_limit():
    values = np.random.default_rng(6).normal(3, 2, 200)
    low, high = statistics.bootstrap_interval(lambda drawn: values[drawn].mean(1), 200)
    error = values.std(ddof=1) / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.06)
    assert np.isnan(statistics.bootstrap_interval(lambda drawn: np.full(len(drawn), np.nan), 5)[0])


def test_the_interval_of_a_mean_over_runs_is_students():
    values = [0.2, 0.5, 0.6, math.nan]
    expected = ttest_1samp(values[:3], 0).confidence_interval(0.95)
    assert statistics.mean_interval(values) == pytest.approx((np.mean(values[:3]), expected.low, expected.high))
    mean, low, _ = statistics.mean_interval([0.2])
    assert mean == 0.2 and np.isnan(low) and np.isnan(statistics.mean_interval([math.nan])[0])


def test_every_pathway_has_a_name_and_the_names_are_in_the_order_of_codes():
    names = pathways.pathway_names(LAYERS)
    data = walk([f"{one}{other}" for one, other in itertools.product(range(2), range(3))])
    assert [names[code] for code in pathways.pathway_codes(data)] == names
