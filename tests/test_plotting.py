"""Figures on the bot's real walks through real levels: what is drawn where, and that it is quick."""

import io

import numpy as np
import pytest
from bot_routing import SIZES, bot_routing_data
from matplotlib.colors import to_hex, to_rgba
from matplotlib.text import Text
from scipy.stats import entropy, ttest_1samp

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
    assert (grid_info.grid_width, grid_info.grid_height) == (22, 22)
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
    yield plots.plot_side_by_side({"one": data, "other": data.select(data.episode < 3)}, {}, sizes)
    for plot in (
        plots.plot_lpc,
        plots.plot_mean_over_time,
        plots.plot_weight_histograms,
        plots.plot_routing_entropy,
        plots.plot_routing_by_distance,
        plots.plot_specialisation,
        plots.plot_dependence,
        plots.plot_relative_maps,
        plots.plot_measures,
    ):
        yield plot(data, sizes)
    for variable in plots.step_variables(data):
        yield plots.plot_conditional_means(data, variable, sizes)


@pytest.mark.parametrize(
    ("sizes", "known", "width"),
    [
        ([[64]], True, "column"),
        ([[0, 8], [0, 8, 16, 16, 32, 64]], True, "page"),
        ([[0, 16, 32]] * 3, False, "column"),
        ([[*range(12)]] * 2, True, "screen"),
    ],
)
def test_every_figure_holds_for_any_number_of_layers_and_experts_on_every_page(sizes, known, width):
    data = bot_routing_data("BabyAI-UnlockLocal-v0", 4, sizes)
    with plots.page(width) as page:
        for figure in all_figures(data, sizes if known else None):
            figure.draw_without_rendering()
            assert page.width is None or figure.get_figwidth() == page.width
            assert smallest_text(figure) >= 7
            numbers = plots.numbers_of(figure)
            assert numbers and all(numbers[0].keys() == row.keys() for row in numbers)


def smallest_text(figure):
    """Return the size in points of the smallest text that a figure shows."""
    return min(text.get_fontsize() for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip())


def test_twelve_experts_have_colors_of_their_own_and_none_is_a_tasks():
    colors = [plots.expert_color(expert) for expert in range(12)]
    assert len(set(colors)) == 12 and not set(colors) & set(plots.TASK_COLORS)
    assert len(plots.EXPERT_CMAPS) == 6
    assert [to_hex(cmap(1.0)).upper() for cmap in plots.EXPERT_CMAPS] == [color.upper() for color in colors[:6]]


def test_bounds_are_a_mapping_and_have_attributes():
    bounds = plots.compute_grid_bounds([(3, 1), (5, 4)])
    expected = {"x_min": 3, "x_max": 5, "y_min": 1, "y_max": 4, "grid_width": 3, "grid_height": 4}
    assert dict(bounds) == expected and bounds["x_min"] == bounds.x_min == 3
    assert dict(plots.compute_grid_bounds([])) == dict.fromkeys(expected, 0) | {"grid_width": 1, "grid_height": 1}
    with pytest.raises(KeyError):
        bounds["walls"]


# ------------------------------------------------------------------------------------------ what routing depends on


def test_the_explained_share_is_the_adjusted_r_squared_of_a_regression_on_indicators():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 7, 300)
    values = rng.normal(size=(300, 2)) + np.array([0.4, 0])[None] * codes[:, None]
    shares = plots.explained_share(codes, values)
    indicators = np.eye(7)[codes]
    for column in range(2):
        fitted = indicators @ np.linalg.lstsq(indicators, values[:, column], rcond=None)[0]
        left = np.square(values[:, column] - fitted).sum() / (300 - 7)
        everything = values[:, column].var(ddof=1)
        assert shares[column] == pytest.approx(1 - left / everything)


def test_chance_explains_nothing_on_average_also_where_steps_weigh_differently():
    rng = np.random.default_rng(1)
    codes, weights = rng.integers(0, 40, 400), rng.choice([0.01, 0.3, 1.0], 400)
    shares = [plots.explained_share(codes, rng.normal(size=(400, 20)), weights) for _ in range(20)]
    assert abs(np.mean(shares)) < 0.01
    raw = 1 - (1 - np.mean(shares)) * (1 - 40 / 400)  # what is not adjusted is far from nothing
    assert raw > 0.05


def test_constant_columns_and_groups_of_one_explain_no_share():
    assert np.isnan(plots.explained_share(np.arange(5), np.arange(5.0))).all()
    assert np.isnan(plots.explained_share(np.array([0, 0, 1, 1]), np.ones(4))).all()


def test_means_over_episodes_count_a_long_stay_once():
    codes = np.array([0, 0, 0, 0, 0, 1, -1])
    episode = np.array([0, 0, 0, 0, 1, 1, 1])
    means, halves, counts = plots.means_over_episodes(codes, episode, np.array([1.0, 1, 1, 1, 3, 7, 99]))
    assert means[:, 0].tolist() == [2, 7] and counts.tolist() == [2, 1]
    assert halves[0, 0] == pytest.approx(1.959964 * np.std([1, 3], ddof=1) / np.sqrt(2)) and np.isnan(halves[1, 0])


def test_what_weights_were_made_of_explains_them_best(walks):
    """The made-up weights depend on what is carried, the cell and the timestep, not on the direction or the goal."""
    data = walks[KEYS]
    carried = data.carrying.astype(float)
    weights = np.column_stack([1 - 0.8 * carried, 0.8 * carried])
    data = RoutingData(
        data.episode, data.timestep, data.position, [weights], 100 * weights[:, 1], data.carrying, data.action,
        data.episodes, data.direction, data.target_in_view,
    )  # fmt: skip
    names, found, shares = plots.routing_dependence(data, [[0, 10]])
    assert names[0] == "phase" and shares[0] == pytest.approx(1)
    assert [measure.name for measure in found] == ["LPC", "layer 0: identity", "layer 0: GRU 10"]
    assert (np.nan_to_num(shares[1:], nan=-1) < 0.99).all()
    bars = [patch.get_width() for patch in plots.plot_dependence(data, [[0, 10]]).axes[0].patches]
    assert bars[: len(names)] == pytest.approx(np.nan_to_num(shares[:, 0]).clip(0))


def test_maps_show_weight_minus_mean_of_episodes_and_fade_few_ones(walks):
    data = walks[MAZE]
    figure = plots.plot_relative_maps(data, SIZES)
    rows = {(row["x"], row["y"], row["measure"]): row for row in plots.numbers_of(figure)}
    cell = tuple(data.position[0].tolist())
    per_episode, everywhere = [], []
    for episode in np.unique(data.episode):
        of_episode = data.select(data.episode == episode)
        here = (of_episode.position == cell).all(1)
        everywhere.append(of_episode.weights[1][:, 2].mean())
        if here.any():
            per_episode.append(of_episode.weights[1][here, 2].mean())
    row = rows[*cell, "layer 1: GRU 32"]
    assert row["episodes"] == len(per_episode) and row["mean"] == pytest.approx(np.mean(per_episode))
    assert row["minus_overall_mean"] == pytest.approx(np.mean(per_episode) - np.mean(everywhere))


def test_what_is_clicked_leads_to_the_steps_behind_it(walks):
    data = walks[KEYS]
    figure = plots.plot_relative_maps(data, SIZES)
    _, name, x_edges, y_edges = figure.clickable[0]
    assert name == "place"
    x, y = data.position[7].tolist()
    column, row = np.searchsorted(x_edges, x) - 1, np.searchsorted(y_edges, y) - 1
    what, mask = plots.steps_clicked(data, {"panel": name, "column": column, "row": row}, "cell")
    assert what == f"cell ({x}, {y})" and (mask == (data.position == [x, y]).all(1)).all()
    counts, firsts = plots.episode_counts(data, mask)
    assert sum(counts.values()) == mask.sum() and list(counts.values()) == sorted(counts.values(), reverse=True)
    episode = next(iter(counts))
    assert firsts[episode] == data.timestep[mask & (data.episode == episode)].min()
    what, mask = plots.steps_clicked(data, {"panel": "weight:1:2", "column": 24, "row": 0}, "", SIZES)
    assert (mask == (data.weights[1][:, 2] >= 0.96)).all() and "GRU 32 in layer 1" in what
    assert plots.steps_clicked(data, {"panel": "place", "column": 0, "row": 0}, "cell") is None


def test_phases_follow_the_key_and_the_door():
    data = bot_routing_data(KEYS, 6)
    codes, names = plots.phases(data)
    for episode, about in enumerate(data.episodes):
        steps = codes[data.episode == episode]
        picked = next(time for time, what, _ in about["events"] if what == "pick up")
        unlocked = next(time for time, what, _ in about["events"] if what == "unlock")
        dropped = next(time for time, what, _ in about["events"] if what == "drop")
        expected = [0] * (picked + 1) + [1] * (unlocked - picked) + [2] * (dropped - unlocked)
        assert steps.tolist() == expected + [3] * (len(steps) - len(expected))
        context, position = about["env_context"], data.position[data.episode == episode]
        (door,) = [each["position"] for each in context["doors"] if each["state"] == "locked"]
        targets = [context["keys"][0]["position"], door, *[context["goals"][0]["position"]] * 2]
        expected = np.abs(position - np.array(targets)[steps]).sum(1)
        np.testing.assert_array_equal(plots.distance_due(data)[data.episode == episode], expected)
    assert names[:2] == ["before the key", "with the key"]
    for episode in data.episodes:
        del episode["events"]
    assert plots.phases(data)[1] == ["before the first pick-up", "carrying", "after a drop"]


def test_the_part_of_a_mission_that_is_due_is_the_one_not_done_yet(walks):
    cases = [  # mission, parts_done, what is due up to and with the step of that time, and after it
        ("go to the red ball", None, "the only part", None),
        ("go to the red ball, then open a door", [2, None], "first of a sequence", "second of a sequence"),
        ("go to the red ball after you open a door", [None, 1], "first of a sequence", "second of a sequence"),
        ("go to the red ball and open a door", [None, 0], "either of two", "the other of two"),
        ("go to the red ball and open a door", [None, None], "either of two", None),
        ("go to the red ball, then open a door", None, None, None),  # an older file
        (None, None, None, None),
    ]
    walk = walks[ONE_ROOM]
    longest = np.flatnonzero(walk.episode == np.argmax(np.bincount(walk.episode)))
    data = walk.select(np.tile(longest, len(cases)))
    data.episode = np.repeat(np.arange(len(cases), dtype=np.int32), len(longest))
    data.episodes = [
        data.episodes[0] | {"mission": mission} | ({} if parts_done is None else {"parts_done": parts_done})
        for mission, parts_done, _, _ in cases
    ]
    variable = plots.step_variables(data)["mission part due"]
    due = [variable.labels[code] if code >= 0 else None for code in variable.codes.tolist()]
    for place, (_, parts_done, first, second) in enumerate(cases):
        told = due[place * len(longest) : (place + 1) * len(longest)]
        times = [time for time in parts_done or () if time is not None]
        done = times[0] + 1 if times else len(longest)
        assert len(longest) > 3 and told == [first] * done + [second] * (len(longest) - done)


# ------------------------------------------------------------------------------------------------------ measures


def test_entropy_divergence_and_information_are_those_of_the_textbook():
    assert plots.entropy_bits([0.5, 0.25, 0.25]) == pytest.approx(1.5) and plots.entropy_bits([1, 0]) == 0
    p, q = np.array([0.5, 0.5, 0]), np.array([0.25, 0.5, 0.25])
    assert plots.kl_bits(p, q) == pytest.approx(0.5 * np.log2(2)) and plots.kl_bits(q, q) == 0
    assert plots.smoothed([3, 0, 1]) == pytest.approx(np.array([3.5, 0.5, 1.5]) / 5.5)
    table = np.array([[400, 0], [0, 400]])
    assert plots.mutual_information_bits(table) == pytest.approx(1 - 1 / (1600 * np.log(2)))


def test_information_of_independent_rows_and_columns_is_about_nothing():
    rng = np.random.default_rng(0)
    tables = [np.histogram2d(rng.integers(0, 20, 500), rng.integers(0, 7, 500), [20, 7])[0] for _ in range(50)]
    assert np.mean([plots.mutual_information_bits(table) for table in tables]) < 0.03


def test_the_mean_of_correlations_and_its_interval_are_those_of_fishers_z():
    values = [0.2, 0.5, 0.6]
    mean, low, high = plots.fisher_mean(values)
    interval = ttest_1samp(np.arctanh(values), 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.tanh(np.arctanh(values).mean()), *np.tanh(interval)))
    assert plots.fisher_mean([0.5])[0] == pytest.approx(0.5) and np.isnan(plots.fisher_mean([0.5])[1])
    assert np.isnan(plots.fisher_mean([])).all()


def test_measures_of_a_cell_are_those_of_its_actions(walks):
    data = walks[KEYS]
    measured = plots.cell_measures(data)
    codes, names = plots.phases(data)
    phase = "unlocked, key dropped"
    row = max(measured[phase], key=lambda row: row["visits"])
    here = (codes == names.index(phase)) & (data.position == [row["x"], row["y"]]).all(1)
    assert row["visits"] == here.sum() >= 5 and row["LPC"] == pytest.approx(data.lpc[here].mean(), rel=1e-5)
    shares = (np.bincount(data.action[here], minlength=7) + 0.5) / (here.sum() + 3.5)
    assert row["H(A|S)"] == pytest.approx(entropy(shares, base=2))
    everywhere = (np.bincount(data.action, minlength=7) + 0.5) / (len(data) + 3.5)
    assert row["KL to all"] == pytest.approx(entropy(shares, everywhere, base=2))
    assert all(row["visits"] >= 5 for rows in measured.values() for row in rows)


def test_each_seed_is_a_dot_beside_the_mean_of_correlations_and_of_phases(walks):
    data = walks[KEYS]
    halves = [data.select(data.episode % 2 == part) for part in (0, 1)]
    figure = plots.plot_measure_correlations({"run": halves})
    related = [plots.lpc_correlations(half) for half in halves]
    rows = {(row["phase"], row["measure"]): row for row in plots.numbers_of(figure)}
    phase = next(iter(related[0]))
    expected = [seed[phase]["H(A|S)"] for seed in related if phase in seed]
    assert rows[phase, "H(A|S)"]["mean"] == pytest.approx(plots.fisher_mean(expected)[0], nan_ok=True)
    figure = plots.plot_phases_by_alpha({0.0: halves, 1e-5: [data]})
    assert len(plots.numbers_of(figure)) == 3 * len(figure.axes)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "10⁻⁵"]


def test_lesions_and_small_numbers_are_named_as_papers_do():
    assert plots.lesion_name("0-2_1-2_2-2", SIZES) == "without GRU 32"
    assert plots.lesion_name("0-2_2-1", SIZES) == "without GRU 32 in layer 0, GRU 16 in layer 2"
    assert plots.lesion_name("0-2_min0.1") == "without expert 2 in layer 0, weights below 0.1"
    assert [plots.number_text(value) for value in (1e-5, 3e-5, 0, 0.25, -2e-7, 512)] == [
        "10⁻⁵", "3×10⁻⁵", "0", "0.25", "-2×10⁻⁷", "512",
    ]  # fmt: skip


def test_sizes_that_do_not_fit_the_data_are_an_error(walks):
    with pytest.raises(ValueError, match="do not fit"):
        plots.plot_overall_routing(walks[ONE_ROOM], expert_hidden_sizes=[[0, 16]])


def test_legends_tell_the_hidden_sizes(walks):
    assert plots.expert_names([0, 16, 32], 3) == ["identity", "GRU 16", "GRU 32"]
    assert plots.expert_names([16, 16], 2) == ["GRU 16 (1)", "GRU 16 (2)"]
    legend = plots.plot_mean_over_time(walks[ONE_ROOM], SIZES).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["identity", "GRU 16", "GRU 32"]


def test_what_is_high_only_at_the_end_of_episodes_is_not_cut_off():
    data = bot_routing_data(ONE_ROOM, 20)
    last = np.append(data.episode[1:] != data.episode[:-1], True)
    data.lpc = np.where(last, 3000.0, 1.0)
    figure = plots.plot_mean_over_time(data, SIZES)
    *_, since_start, until_end = figure.axes
    assert until_end.get_ylim()[0] == 0 and until_end.get_ylim()[1] >= 3000 == until_end.lines[0].get_ydata()[0]
    assert max(since_start.lines[0].get_ydata()) < 2500  # or the first column alone would have made room


def test_a_mission_with_dollar_signs_is_text():
    data = bot_routing_data(ONE_ROOM, 2)
    data.episodes[1]["mission"] = "go to $x_{$ ball"
    png(plots.plot_episode(data, 1))
    png(plots.plot_overall_routing(data, np.zeros((8, 8, 3), np.uint8), "go to $x_{$ ball"))


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
