"""RoutingData behaves as the list of entries that the design describes, whatever it was made of."""

import numpy as np
import pytest

from results.routing_data import NO_ACTION, RoutingData

CONTEXTS = [{"grid_size": [8, 8], "agent_start_pos": [1, 1]}, {"grid_size": [8, 8], "agent_start_pos": [6, 3]}]


def make_entry(episode, timestep, env_context=None, **changes):
    entry = {
        "episode": episode,
        "timestep": timestep,
        "position": [timestep, 3],
        "layer_routing": {"layer_0": [0.25, 0.75], "layer_1": [0.5, 0.25, 0.25]},
        "lpc": 64.5 * timestep,
        "carrying": timestep % 2,
        "action": 2,
        "env_context": CONTEXTS[episode] if env_context is None else env_context,
    }
    return entry | changes


@pytest.fixture
def entries():
    return [make_entry(0, 0), make_entry(0, 1), make_entry(0, 2), make_entry(1, 0), make_entry(1, 1)]


def test_is_the_sequence_of_its_entries(entries):
    data = RoutingData.from_entries(entries)
    assert len(data) == 5
    assert list(data) == entries
    assert data[3] == data[-2] == entries[3]
    assert list(reversed(data)) == entries[::-1]
    with pytest.raises(IndexError):
        data[5]


def test_contexts_are_shared_not_copied(entries):
    data = RoutingData.from_entries(entries)
    assert all(entry["env_context"] is CONTEXTS[entry["episode"]] for entry in data)


def test_columns(entries):
    data = RoutingData.from_entries(entries)
    assert data.layer_names == ["layer_0", "layer_1"]
    assert [layer.shape for layer in data.weights] == [(5, 2), (5, 3)]
    assert data.position.tolist() == [[0, 3], [1, 3], [2, 3], [0, 3], [1, 3]]
    assert data.lpc.tolist() == [0.0, 64.5, 129.0, 0.0, 64.5]
    assert [episode["num_steps"] for episode in data.episodes] == [3, 2]


@pytest.mark.parametrize("which", [slice(1, 4), [0, 4], np.array([True, False, False, True, True])])
def test_selection_is_routing_data_of_the_same_episodes(entries, which):
    chosen = RoutingData.from_entries(entries).select(which)
    assert list(chosen) == [entries[i] for i in np.arange(5)[which]]
    assert len(chosen.episodes) == 2
    assert list(RoutingData.from_entries(entries)[which]) == list(chosen)


def test_many_entries_cross_block_borders():
    count = 40_000
    column = np.arange(count)
    data = RoutingData(
        np.zeros(count), column, np.zeros((count, 2)), [np.ones((count, 1))], column, column % 2, column % 7, [{}]
    )
    data.episodes[0]["env_context"] = CONTEXTS[0]
    assert [entry["timestep"] for entry in data] == column.tolist()


def test_from_entries_keeps_routing_data(entries):
    data = RoutingData.from_entries(entries)
    assert RoutingData.from_entries(data) is data


def test_older_entries_may_lack_what_was_added_later():
    older = [
        {"position": (1, 2), "layer_routing": {"layer_0": np.array([0.5, 0.5])}, "env_context": CONTEXTS[0]},
        {"position": (1, 3), "layer_routing": {"layer_0": np.array([1.0, 0.0])}, "env_context": CONTEXTS[1]},
    ]
    data = RoutingData.from_entries(older)
    assert data.episode.tolist() == [0, 1]
    assert np.isnan(data.lpc).all()
    assert data.action.tolist() == [NO_ACTION] * 2 and data.carrying.tolist() == [0, 0]
    assert [entry["env_context"] for entry in data] == CONTEXTS


def test_older_entries_with_equal_but_separate_contexts_are_one_episode():
    data = RoutingData.from_entries([make_entry(0, t, dict(CONTEXTS[0])) for t in range(3)])
    assert len(data.episodes) == 1 and data.episode.tolist() == [0, 0, 0]


def test_entries_of_several_caches_keep_their_own_contexts(entries):
    other = [make_entry(0, 0, {"grid_size": [22, 22]}), make_entry(1, 0, {"grid_size": [22, 8]})]
    data = RoutingData.from_entries(entries + other)
    assert [entry["env_context"] for entry in data] == [entry["env_context"] for entry in entries + other]
    assert data.episode.tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_episode_numbers_with_gaps_are_kept():
    data = RoutingData.from_entries([make_entry(1, 0), make_entry(1, 1)])
    assert data.episode.tolist() == [1, 1]
    assert len(data.episodes) == 2


def test_no_entries():
    data = RoutingData.from_entries([])
    assert len(data) == 0 and list(data) == [] and data.weights == []
    assert len(data.select(np.zeros(0, bool))) == 0


def test_a_policy_without_routers_has_entries_without_layers(entries):
    data = RoutingData.from_entries([entry | {"layer_routing": {}} for entry in entries])
    assert data.weights == [] and data[1]["layer_routing"] == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": [1]}, "2 numbers"),
        ({"position": None}, "unexpected"),
        ({"layer_routing": {"layer_0": [0.5, 0.5]}}, "number of layers"),
        ({"layer_routing": {"layer_0": [1.0], "layer_1": [0.5, 0.25, 0.25]}}, "2 numbers"),
        ({"episode": -1}, "between -1 and"),
        ({"episode": 10**12}, "unexpected"),
        ({"timestep": "soon"}, "soon"),
    ],
)
def test_entries_that_contradict_the_form_are_refused(entries, changes, message):
    with pytest.raises(ValueError, match=message):
        RoutingData.from_entries([*entries, make_entry(0, 3) | changes])


def test_missing_fields_are_named(entries):
    del entries[2]["layer_routing"]
    with pytest.raises(ValueError, match="layer_routing"):
        RoutingData.from_entries(entries)


def test_an_episode_that_is_not_described_is_refused(entries):
    with pytest.raises(ValueError, match="1 episodes are described"):
        RoutingData.from_entries(entries, episodes=[{"env_context": CONTEXTS[0]}])
