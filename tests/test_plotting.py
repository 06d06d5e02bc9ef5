"""Figures on the bot's real walks through real levels: what is drawn where, and that it is quick."""

import io

import numpy as np
import pytest
from bot_routing import SIZES, bot_routing_data
from matplotlib.colors import to_rgba

import plotting_utils as plots
from results.routing_data import RoutingData

ONE_ROOM, MAZE, KEYS = "BabyAI-GoToLocal-v0", "BabyAI-GoTo-v0", "BabyAI-UnlockPickup-v0"


@pytest.fixture(scope="module")
def walks():
    return {task: bot_routing_data(task, count) for task, count in ((ONE_ROOM, 20), (MAZE, 12), (KEYS, 8))}


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=60)
    return buffer.getvalue()


def test_means_per_cell_are_those_of_a_plain_loop(walks):
    data = walks[KEYS]
    routing, lpc = plots.aggregate_routing_by_position(data)
    entries = list(data)
    cell = tuple(entries[0]["position"])
    here = [entry for entry in entries if tuple(entry["position"]) == cell]
    assert set(routing) == set(lpc) == {tuple(entry["position"]) for entry in entries}
    assert lpc[cell] == pytest.approx(np.mean([entry["lpc"] for entry in here]), rel=1e-5)
    for layer in data.layer_names:
        expected = np.mean([entry["layer_routing"][layer] for entry in here], axis=0)
        np.testing.assert_allclose(routing[cell][layer], expected, rtol=1e-5)


def test_a_filter_may_be_a_function_of_an_entry_or_a_mask(walks):
    data = walks[KEYS]
    by_function, _ = plots.aggregate_routing_by_position(data, lambda entry: entry["carrying"] == 1)
    by_mask, _ = plots.aggregate_routing_by_position(data, data.carrying == 1)
    assert by_function.keys() == by_mask.keys() and len(by_mask) > 0
    assert len(plots.aggregate_routing_by_position(data, lambda entry: False)[0]) == 0


def test_lists_of_entries_give_the_same_as_routing_data(walks):
    data = walks[ONE_ROOM]
    routing, lpc = plots.aggregate_routing_by_position(list(data))
    expected_routing, expected_lpc = plots.aggregate_routing_by_position(data)
    assert lpc == expected_lpc and routing.keys() == expected_routing.keys()


def test_heatmap_cells_have_the_hue_of_the_dominant_expert_walls_and_unvisited_cells_their_own(walks):
    data = walks[MAZE]
    grid_info = plots.compute_grid_info(data)
    assert (grid_info.width, grid_info.height) == (22, 22)
    routing, _ = plots.aggregate_routing_by_position(data)
    figure = plots.plot_overall_routing(data)
    panels = [axes for axes in figure.subfigs[0].axes if axes.get_title().startswith("layer")]
    assert [panel.get_title() for panel in panels] == ["layer 0", "layer 1", "layer 2"]
    picture = panels[1].images[0].get_array()
    walls = {tuple(wall) for wall in grid_info.walls.tolist()}
    assert (0, 0) in walls and (7, 7) in walls
    for x in range(22):
        for y in range(22):
            if (x, y) in routing:
                weights = routing[x, y]["layer_1"]
                expected = plots.EXPERT_CMAPS[weights.argmax()](weights.max())
            else:
                expected = to_rgba(plots.WALL_COLOR if (x, y) in walls else plots.UNVISITED_COLOR)
            np.testing.assert_allclose(picture[y, x], expected, atol=0.01)


def test_walls_of_older_contexts_follow_from_the_rooms(walks):
    data = walks[MAZE]
    older = [
        episode | {"env_context": {name: value for name, value in episode["env_context"].items() if name != "walls"}}
        for episode in data.episodes
    ]
    columns = (data.episode, data.timestep, data.position, data.weights, data.lpc, data.carrying, data.action)
    grid_info = plots.compute_grid_info(RoutingData(*columns, older))
    np.testing.assert_array_equal(grid_info.walls, plots.compute_grid_info(data).walls)


def test_groups_cover_what_they_should(walks):
    rooms = plots.group_routing_data(walks[MAZE], "by_starting_room")
    assert sum(map(len, rooms.values())) == len(walks[MAZE])
    for room, group in rooms.items():
        for entry in group.select(slice(0, None, 50)):
            assert tuple(entry["env_context"]["agent_start_room"]) == room
    phases = plots.group_routing_data(walks[KEYS], "by_carrying_phase")
    assert list(phases) == ["before the first pick-up", "carrying", "after a drop"]
    assert (phases["carrying"].carrying == 1).all() and (phases["after a drop"].carrying == 0).all()
    with pytest.raises(ValueError, match="by_starting_room"):
        plots.group_routing_data(walks[KEYS], "by_moon")


def test_analyses_are_those_that_tell_groups_apart(walks):
    assert plots.get_available_analyses(walks[ONE_ROOM])[0] == "overall"
    assert "by_starting_room" not in plots.get_available_analyses(walks[ONE_ROOM])
    assert "by_starting_room" in plots.get_available_analyses(walks[MAZE])
    assert "by_carrying_phase" in plots.get_available_analyses(walks[KEYS])


def test_doors_are_seen_from_the_starting_room():
    data = bot_routing_data("BabyAI-OpenDoor-v0", 12)  # the agent starts in the middle of 3x3 rooms
    groups = plots.group_routing_data(data, "by_door_location")
    centers = {"right": (1, 0), "left": (-1, 0), "below": (0, 1), "above": (0, -1)}
    assert set(groups) <= set(centers) and len(groups) > 1
    for place, group in groups.items():
        context = group[0]["env_context"]
        middle = (np.array(context["grid_size"]) - 1) / 2
        offset = np.array(context["goals"][0]["position"]) - middle
        assert np.dot(offset, centers[place]) == np.abs(offset).max()


@pytest.mark.parametrize(
    ("mission", "kind"),
    [
        ("go to the red ball", "go to"),
        ("pick up a key", "pick up"),
        ("open the blue door", "open"),
        ("put the red ball next to the box", "put next to"),
        ("open a door, then pick up a key and go to a ball", "several parts"),
        ("pick up a key after you open a door", "several parts"),
        (None, None),
    ],
)
def test_mission_types(mission, kind):
    assert plots.mission_type(mission) == kind


def test_room_labels():
    label = plots.room_labels_for_groups
    assert label([(0, 0), (1, 1), (2, 1)], (3, 3)) == ["Top-Left", "Center", "Middle-Right"]
    assert label([(0, 0), (1, 0)], (2, 1)) == ["Left", "Right"]
    assert label([(0, 0)], (1, 1)) == ["Room"]
    assert label([(3, 0)], (4, 1)) == ["Column 4, Row 1"]


def test_distances_are_to_the_nearest_object(walks):
    data = walks[KEYS]
    distance = plots.object_distances(data, "keys")
    for place in range(0, len(data), 25):
        entry = data[place]
        each = [np.abs(np.subtract(key["position"], entry["position"])).sum() for key in entry["env_context"]["keys"]]
        assert distance[place] == min(each)
    assert np.isnan(plots.object_distances(walks[ONE_ROOM], "doors")).all()


def all_figures(data, sizes):
    yield plots.plot_overall_routing(data, np.zeros((8, 8, 3), np.uint8), "go", expert_hidden_sizes=sizes)
    for group_by in plots.get_available_analyses(data)[1:]:
        yield plots.plot_grouped_routing(data, group_by, expert_hidden_sizes=sizes)
    yield plots.plot_episode(data, 1, sizes)
    yield plots.plot_step(data[3], np.zeros((8, 8, 3), np.uint8), None, 9, sizes)
    yield plots.plot_side_by_side({"one": data, "other": data.select(data.episode < 3)}, {}, sizes)
    for plot in (
        plots.plot_lpc,
        plots.plot_mean_over_time,
        plots.plot_weight_histograms,
        plots.plot_routing_entropy,
        plots.plot_routing_by_distance,
        plots.plot_specialisation,
    ):
        yield plot(data, sizes)


@pytest.mark.parametrize(
    ("sizes", "known"), [([[64]], True), ([[0, 8], [0, 8, 16, 16, 32, 64]], True), ([[0, 16, 32]] * 4, False)]
)
def test_every_figure_holds_for_any_number_of_layers_and_one_to_six_experts(sizes, known):
    data = bot_routing_data("BabyAI-UnlockLocal-v0", 4, sizes)
    for figure in all_figures(data, sizes if known else None):
        figure.draw_without_rendering()


def test_seven_experts_are_an_error_that_says_so():
    data = bot_routing_data(ONE_ROOM, 2, [[0, 1, 2, 3, 4, 5, 6]])
    with pytest.raises(ValueError, match="7 experts"):
        plots.plot_overall_routing(data)


def test_sizes_that_do_not_fit_the_data_are_an_error(walks):
    with pytest.raises(ValueError, match="do not fit"):
        plots.plot_overall_routing(walks[ONE_ROOM], expert_hidden_sizes=[[0, 16]])


def test_legends_tell_the_hidden_sizes(walks):
    assert plots.expert_names([0, 16, 32], 3) == ["identity", "GRU 16", "GRU 32"]
    assert plots.expert_names([16, 16], 2) == ["GRU 16 (1)", "GRU 16 (2)"]
    legend = plots.plot_mean_over_time(walks[ONE_ROOM], SIZES).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["identity", "GRU 16", "GRU 32"]


def test_older_entries_without_episodes_lpc_or_actions_are_drawn(walks):
    contexts = [entry["env_context"] for entry in walks[MAZE]]
    older = [
        {"position": entry["position"], "layer_routing": entry["layer_routing"], "env_context": context}
        for entry, context in zip(walks[MAZE], contexts, strict=True)
    ]
    data = RoutingData.from_entries(older)
    png(plots.plot_overall_routing(older))
    plots.plot_grouped_routing(older, "by_starting_room")
    for plot in (plots.plot_lpc, plots.plot_routing_entropy, plots.plot_specialisation, plots.plot_routing_by_distance):
        png(plot(data))
    png(plots.plot_episode(data, 0))


def test_the_same_data_gives_the_same_picture(walks):
    figures = [plots.plot_overall_routing(walks[KEYS], expert_hidden_sizes=SIZES) for _ in range(2)]
    assert png(figures[0]) == png(figures[1])
