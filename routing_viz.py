"""One checkpoint: what its routing depends on, where, when and for what its experts work. A marimo notebook, a script.

marimo run routing_viz.py                         # or: marimo edit routing_viz.py, and run all cells there
marimo export html routing_viz.py -o routing.html -- --checkpoint checkpoints/.../checkpoint_final.pt
python routing_viz.py --checkpoint checkpoints/.../checkpoint_final.pt     # saves all figures under plots/
python routing_viz.py --checkpoint ... --format pdf,png --width column     # for a column of a paper
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Which expert works where")

with app.setup(hide_code=True):
    import sys

    from browser.options import FORMATS, OUTCOMES, WIDTHS, routing_options, wants_help

    if __name__ == "__main__" and wants_help(sys.argv[1:]):
        routing_options(sys.argv[1:])  # tells what there is and leaves, before all that takes long to import

    import html
    import shutil
    from collections.abc import Callable
    from dataclasses import replace
    from functools import partial
    from pathlib import Path
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure

    from basics.errors import UserError, warn
    from basics.files import ArtifactError
    from browser.notebook import (
        STYLE,
        beside,
        callout,
        is_export,
        is_script,
        picture,
        progress,
        remember,
        remembered,
        show,
        stop_with,
        text,
    )
    from browser.saving import file_name, save_all
    from plotting_utils import (
        NothingToShow,
        episode_counts,
        get_available_analyses,
        group_routing_data,
        number_text,
        page,
        plot_conditional_means,
        plot_dependence,
        plot_episode,
        plot_grouped_routing,
        plot_lpc,
        plot_mean_over_time,
        plot_measures,
        plot_overall_routing,
        plot_relative_maps,
        plot_routing_by_distance,
        plot_routing_entropy,
        plot_specialisation,
        plot_weight_histograms,
        routing_dependence,
        short_task,
        step_variables,
        steps_clicked,
        wilson_interval,
    )
    from results.checkpoints import is_mixture, on_each_task
    from results.eval_options import Lesion
    from results.paths import (
        CHECKPOINT_ROOTS,
        RESULTS_PATH,
        CheckpointRef,
        checkpoint_ref,
        find_checkpoints,
        plot_path,
    )
    from results.routing_caches import read_routing_cache
    from results.routing_data import RoutingData
    from results.tables import read_result_rows

    NOTHING_TRAINED = (
        "There is no checkpoint of a mixture in checkpoints/ or modal_checkpoints/ yet. Train one (make demo, or python"
        " train_mop.py --task_id BabyAI-GoToObj-v0) and evaluate it (python batch_eval.py), then open this notebook"
        " again."
    )
    TABS = [
        "Depends on",
        "Maps",
        "Episodes",
        "Over time",
        "Distributions",
        "Behaviour",
        "Decisions",
        "Distance",
        "Save",
    ]
    STRONGEST, COST = "strongest expert", "cost (LPC)"  # maps besides those of places


@app.class_definition(hide_code=True)
class Routing(NamedTuple):
    """What the figures are made of, and where it came from (`source`; `warning` where something is amiss)."""

    ref: CheckpointRef
    data: RoutingData
    expert_hidden_sizes: list | None
    metrics: dict
    source: str
    warning: str = ""
    lpc_alpha: float | None = None
    outcome: str = "all"  # of the episodes in `data`

    def __str__(self) -> str:
        """Name checkpoint, number and outcome of episodes and price: the second line of titles."""
        count = len(np.unique(self.data.episode))
        kind = "" if self.outcome == "all" else f"{self.outcome} "
        alpha = "" if self.lpc_alpha is None else f", lpc_alpha {number_text(self.lpc_alpha)}"
        return f"{checkpoint_name(self.ref)}, {count:,} {kind}episode{'s' * (count != 1)}{alpha}"

    def only(self, outcome: str) -> "Routing":
        """Return the routing of the episodes with an outcome."""
        wanted = OUTCOMES[outcome]
        if wanted is None:
            return self._replace(outcome=outcome)
        fits = np.array(
            [episode["success"] is not None and episode["success"] == wanted for episode in self.data.episodes]
        )
        return self._replace(data=self.data.select(fits[self.data.episode]), outcome=outcome)

    @property
    def outcomes(self) -> list[str]:
        """The outcomes that episodes have."""
        present = {self.data.episodes[episode]["success"] for episode in np.unique(self.data.episode)}
        return [name for name, success in OUTCOMES.items() if success is None or success in present]


@app.cell(hide_code=True)
def controls():
    is_export()  # asked while the page's first request is at hand
    try:
        options = routing_options(sys.argv[1:])
        checkpoints = choose_checkpoints(options.checkpoint, options.task)
    except UserError as error:
        stop_with(error)
    if not checkpoints:
        stop_with(NOTHING_TRAINED)
    _cached = (name for name, ref in checkpoints.items() if cache_of(ref, options.cache_dir).exists())
    _first = next(_cached, next(iter(checkpoints)))  # what can be shown at once, where there is such
    _path, _task = remembered("checkpoint"), remembered("task")
    _wanted = (name for name, ref in checkpoints.items() if (str(ref.path), ref.evaluated_on or "") == (_path, _task))
    _first = next(_wanted, _first)
    checkpoint_dropdown = mo.ui.dropdown(checkpoints, value=_first, label="")
    use_cache_toggle = mo.ui.switch(not options.no_cache, label="use the cache of batch_eval.py")
    num_episodes_slider = mo.ui.slider(
        1,
        max(1000, options.num_episodes),
        value=options.num_episodes,
        debounce=True,
        show_value=True,
        label="episodes, if played afresh",
    )
    num_envs_slider = mo.ui.slider(
        1, max(256, options.num_envs), value=options.num_envs, debounce=True, show_value=True, label="side by side"
    )
    get_found, set_found = mo.state(
        None
    )  # steps that somebody clicked on in a figure: (checkpoint, what, counts, firsts)
    get_jump, set_jump = mo.state(remembered("tab", TABS, TABS[0]))
    return (
        checkpoint_dropdown,
        get_found,
        get_jump,
        num_envs_slider,
        num_episodes_slider,
        options,
        set_found,
        set_jump,
        use_cache_toggle,
    )


@app.cell(hide_code=True)
def load(checkpoint_dropdown, num_envs_slider, num_episodes_slider, options, use_cache_toggle):
    mo.stop(checkpoint_dropdown.value is None, mo.vstack([checkpoint_dropdown, text("Choose a checkpoint.")]))
    try:
        routing = load_routing(
            checkpoint_dropdown.value,
            options.cache_dir,
            use_cache_toggle.value,
            num_episodes_slider.value,
            num_envs_slider.value,
            options.backend,
            options.lang_encoder,
        )
        if not routing.data.weights or not len(routing.data):
            raise UserError(
                f"{routing.ref.path}: no routing to show: a baseline (one GRU) has no experts. Choose a mixture."
            )
    except UserError as error:
        if is_script():
            stop_with(error)
        mo.stop(True, mo.vstack([checkpoint_dropdown, callout(error)]))
    if is_script() and routing.warning:
        warn(routing.warning)
    remember(checkpoint=routing.ref.path, task=routing.ref.evaluated_on)
    _wanted = remembered("outcome", OUTCOMES, options.outcome)
    outcome_dropdown = mo.ui.dropdown(
        routing.outcomes, value=_wanted if _wanted in routing.outcomes else "all", label="episodes"
    )
    _line = [checkpoint_dropdown, outcome_dropdown, metrics_line(routing)]
    mo.vstack(
        [mo.hstack(_line, justify="start", align="center", gap=1.2, wrap=True)]
        + ([callout(routing.warning)] if routing.warning else [])
    )
    return outcome_dropdown, routing


@app.cell(hide_code=True)
def choose_episodes(outcome_dropdown, routing):
    shown = routing.only(outcome_dropdown.value or "all")
    remember(outcome=shown.outcome)
    return (shown,)


@app.cell(hide_code=True)
def tabs(get_jump):
    view_tabs = mo.ui.tabs(dict.fromkeys(TABS, mo.Html("")), value=get_jump().split("#")[0])
    None if is_export() or is_script() else view_tabs
    return (view_tabs,)


@app.cell(hide_code=True)
def chosen_tab(view_tabs):
    chosen_tabs = [] if is_script() else TABS[:-1] if is_export() else [view_tabs.value or TABS[0]]
    remember(tab=None if is_export() else view_tabs.value)
    return (chosen_tabs,)


@app.cell(hide_code=True)
def depends_on(chosen_tabs, shown):
    mo.stop("Depends on" not in chosen_tabs)
    try:
        variable_names = routing_dependence(shown.data, shown.expert_hidden_sizes)[0]
        chosen_variable = remembered("given", variable_names, variable_names[0])
        _chosen = {"panel": "variable", "column": 0, "row": variable_names.index(chosen_variable)}
        with page("half"):
            dependence_picture = picture(
                plot_dependence(shown.data, shown.expert_hidden_sizes, f"\n{shown}"),
                "How much of the variance of the LPC and of each expert's weight each variable explains",
                _chosen,
            )
    except NothingToShow as error:
        stop_with(error)
    return chosen_variable, dependence_picture, variable_names


@app.cell(hide_code=True)
def depends_on_given(chosen_tabs, chosen_variable, dependence_picture, shown, variable_names):
    mo.stop("Depends on" not in chosen_tabs)
    _click = {} if is_export() else dependence_picture.value.get("clicked") or {}
    _variable = variable_names[_click["row"]] if _click else chosen_variable
    remember(given=None if is_export() else _variable)
    given_variable = _variable
    with page("half"):
        given_picture = show(
            partial(plot_conditional_means, shown.data, _variable, shown.expert_hidden_sizes, f"\n{shown}"),
            f"Mean routing given {_variable}",
        )
    _note = text(
        "Share of the variance that each variable explains, adjusted for its number of groups, every episode weighing"
        " alike. Click a row to see its means; click a cell of a map to see the episodes behind it.",
        "rlmop-note",
    )
    mo.vstack([beside((dependence_picture, 420), (given_picture, 420)), _note])
    return given_picture, given_variable


@app.cell(hide_code=True)
def map_controls(chosen_tabs, shown):
    mo.stop("Maps" not in chosen_tabs)
    _places = [name for name, variable in step_variables(shown.data).items() if variable.places is not None]
    map_dropdown = mo.ui.dropdown(
        [f"more or less than on average, by {place}" for place in _places] + [STRONGEST, COST],
        value=f"more or less than on average, by {_places[0]}" if _places else STRONGEST,
        label="map",
    )
    analysis_dropdown = mo.ui.dropdown(get_available_analyses(shown.data), value="overall", label="analysis")
    return analysis_dropdown, map_dropdown


@app.cell(hide_code=True)
def maps(analysis_dropdown, chosen_tabs, map_dropdown, shown):
    mo.stop("Maps" not in chosen_tabs)
    map_place = (map_dropdown.value or STRONGEST).rpartition(", by ")[2]
    if map_dropdown.value == STRONGEST:
        _make = partial(heatmap_figure, shown, analysis_dropdown.value or "overall")
    elif map_dropdown.value == COST:
        _make = partial(plot_lpc, shown.data, shown.expert_hidden_sizes, f"\n{shown}")
    else:
        _make = partial(plot_relative_maps, shown.data, shown.expert_hidden_sizes, f"\n{shown}", map_place)
    map_picture = show(_make, f"{map_dropdown.value}")
    _controls = [map_dropdown, *([analysis_dropdown] if map_dropdown.value == STRONGEST else [])]
    mo.vstack([mo.hstack(_controls, justify="start"), map_picture])
    return map_picture, map_place


@app.cell(hide_code=True)
def distributions(chosen_tabs, shown):
    mo.stop("Distributions" not in chosen_tabs)
    _about = {
        "weight_histograms": "How often an expert has which weight",
        "routing_entropy": "How undecided routers are",
    }
    distribution_pictures = [show(make, _about[name]) for name, make in tab_figures(shown)["Distributions"].items()]
    _note = text("Click a bar to see the episodes behind it.", "rlmop-note")
    mo.vstack([_note, *distribution_pictures])
    return (distribution_pictures,)


@app.cell(hide_code=True)
def other_tabs(chosen_tabs, shown):
    _figures = tab_figures(shown)
    _names = [name for name in ("Over time", "Behaviour", "Decisions", "Distance") if name in chosen_tabs]
    mo.vstack([show(make, tab) for tab in _names for make in _figures[tab].values()]) if _names else None
    return


@app.cell(hide_code=True)
def follow_given(given_picture, given_variable, set_found, set_jump, shown):
    _found = find_clicked(given_picture, given_variable, shown)
    if _found is not None:
        set_found((shown.ref, *_found))
        set_jump(f"Episodes#{_found[0]}")
    return


@app.cell(hide_code=True)
def follow_map(map_picture, map_place, set_found, set_jump, shown):
    _found = find_clicked(map_picture, map_place, shown)
    if _found is not None:
        set_found((shown.ref, *_found))
        set_jump(f"Episodes#{_found[0]}")
    return


@app.cell(hide_code=True)
def follow_distributions(distribution_pictures, set_found, set_jump, shown):
    for _picture in distribution_pictures:
        _found = find_clicked(_picture, "", shown)
        if _found is not None:
            set_found((shown.ref, *_found))
            set_jump(f"Episodes#{_found[0]}")
    return


@app.cell(hide_code=True)
def episode_controls(chosen_tabs, get_found, set_found, shown):
    mo.stop("Episodes" not in chosen_tabs or is_export())
    found = get_found() if get_found() is not None and get_found()[0] == shown.ref else None
    failures_switch = mo.ui.switch(False, label="failures only")
    _all_button = mo.ui.button(label="all episodes", on_click=lambda _: set_found(None))
    found_line = [text(f"{found[1]}: {sum(found[2].values()):,} steps"), _all_button] if found else []
    return failures_switch, found, found_line


@app.cell(hide_code=True)
def episode_table(failures_switch, found, shown):
    _rows = episode_rows(shown, None if found is None else found[2], failures_switch.value)
    _episode = remembered("episode", {str(row["episode"]) for row in _rows})
    _place = next((place for place, row in enumerate(_rows) if str(row["episode"]) == _episode and not found), 0)
    episodes_table = mo.ui.table(
        _rows,
        selection="single",
        initial_selection=[_place] if _rows else None,
        page_size=8,
        wrapped_columns=["mission"] if _rows else None,
        column_widths={name: 150 if name == "mission" else 62 for name in (_rows[0] if _rows else ())},
        show_search=False,
        show_column_summaries=False,
        show_data_types=False,
        show_download=False,
    )
    return (episodes_table,)


@app.cell(hide_code=True)
def make_player(options, shown):
    from browser.widgets import Player

    def _play_without(change):
        """Play the shown level without the expert that was clicked, and show both."""
        player_widget.problem = ""
        if not change["new"]:
            player_widget.beside = {}
            return
        try:
            player_widget.beside = scene_without(shown, player_widget.episode["episode"], change["new"], options)
        except UserError as error:
            player_widget.beside = {}
            player_widget.problem = str(error)

    player_widget = Player(can_lesion=True)
    player_widget.observe(_play_without, "lesion")
    player = mo.ui.anywidget(player_widget)
    return player, player_widget


@app.cell(hide_code=True)
def play(episodes_table, found, player_widget, shown):
    from browser.replay import scene

    chosen_episode = None
    if len(episodes_table.value):
        chosen_episode = int(episodes_table.value[0]["episode"])
        remember(episode=chosen_episode)
        _start = found[3].get(chosen_episode, 0) if found else 0
        try:
            _scene = scene(shown.ref.task, shown.data, chosen_episode, shown.expert_hidden_sizes) | {"start": _start}
        except (NothingToShow, UserError) as error:
            _scene = {"problem": str(error), "episode": chosen_episode}
        with player_widget.hold_trait_notifications():
            player_widget.lesion, player_widget.beside, player_widget.problem = "", {}, ""
        player_widget.episode = _scene
    return (chosen_episode,)


@app.cell(hide_code=True)
def episodes(chosen_tabs, episodes_table, failures_switch, film_controls, found_line, player):
    mo.stop("Episodes" not in chosen_tabs or is_export())
    _choice = mo.vstack([mo.hstack([failures_switch, *found_line], justify="start", wrap=True), episodes_table])
    mo.vstack([beside((player, 760), (_choice, 420)), film_controls])
    return


@app.cell(hide_code=True)
def film(chosen_tabs):
    mo.stop("Episodes" not in chosen_tabs or is_export())
    _kinds = ["gif", "mp4"] if shutil.which("ffmpeg") else ["gif"]
    film_buttons = mo.ui.dictionary({kind: mo.ui.run_button(label=f"Save as {kind.upper()}") for kind in _kinds})
    film_controls = mo.hstack(list(film_buttons.elements.values()), justify="start")
    return film_buttons, film_controls


@app.cell(hide_code=True)
def save_episode(chosen_episode, film_buttons, options, shown):
    from browser.film import save_film

    _lines = []
    for _kind, _pressed in film_buttons.value.items():
        if _pressed and chosen_episode is not None:
            _path = plots_path(shown.ref, f"episode_{chosen_episode}", options.plots_dir).with_suffix(f".{_kind}")
            _steps = int((shown.data.episode == chosen_episode).sum())
            try:
                with progress(_steps + 1, "drawing") as _bar:
                    save_film(
                        _path,
                        shown.ref.task,
                        shown.data,
                        chosen_episode,
                        shown.expert_hidden_sizes,
                        on_frame=_bar.update,
                    )
                _lines.append(text(f"Saved {_path}"))
            except (UserError, NothingToShow) as error:
                _lines.append(callout(error))
    mo.vstack(_lines)
    return


@app.cell(hide_code=True)
def save_controls(chosen_tabs, num_envs_slider, num_episodes_slider, options, routing, shown, use_cache_toggle):
    _names = list(saved_figures(routing, shown)) if "Save" in chosen_tabs else []
    figures_choice = mo.ui.multiselect(_names, value=_names, label="figures")
    formats_choice = mo.ui.multiselect(FORMATS, value=options.format, label="formats")
    width_choice = mo.ui.dropdown(WIDTHS, value=options.width, label="width")
    save_button = mo.ui.run_button(label="Save")
    _evaluation = [use_cache_toggle, num_episodes_slider, num_envs_slider]
    mo.vstack(
        [
            mo.hstack(
                [figures_choice, formats_choice, width_choice, save_button], justify="start", align="end", wrap=True
            ),
            text("column: 3.25 in, page: 6.75 in. Each figure's numbers are saved beside it as CSV.", "rlmop-note"),
            mo.accordion({"How episodes are played": mo.hstack(_evaluation, justify="start", wrap=True)}),
        ]
    ) if "Save" in chosen_tabs else None
    return figures_choice, formats_choice, save_button, width_choice


@app.cell(hide_code=True)
def save(figures_choice, formats_choice, options, routing, save_button, shown, width_choice):
    _lines = []
    if save_button.value or is_script():
        _figures = saved_figures(routing, shown)
        if not is_script():
            _figures = {name: make for name, make in _figures.items() if name in figures_choice.value}
        _notes = []

        def _tell(paths):
            _lines.extend(text(f"Saved {path}") for path in paths)
            for path in paths if is_script() else ():
                print(f"saved {path}")
            _bar.update(1)

        try:
            with progress(len(_figures), "saving figures") as _bar:
                save_all(
                    _figures,
                    lambda name: plots_path(routing.ref, name, options.plots_dir),
                    options.format if is_script() else formats_choice.value,
                    options.width if is_script() else width_choice.value or "screen",
                    _tell,
                    warn if is_script() else _notes.append,
                )
        except UserError as error:
            stop_with(error)
        _lines.extend(text(note, "rlmop-note") for note in _notes)
    mo.vstack(_lines)
    return


@app.function(hide_code=True)
def checkpoint_name(ref: CheckpointRef) -> str:
    """Return `GoToObj trial 0 seed 1`, of a set's checkpoint `GoTos: GoToObj trial 0 seed 1`, and the folder where it
    is not the first one."""
    tasks = short_task(ref.task_id) + ("" if ref.evaluated_on is None else f": {short_task(ref.evaluated_on)}")
    name = tasks + str(replace(ref, evaluated_on=None)).removeprefix(ref.task_id)
    return name if ref.path.parts[0] == CHECKPOINT_ROOTS[0] else f"{name} ({ref.path.parts[0]})"


@app.function(hide_code=True)
def choose_checkpoints(path: str | None, task: str | None = None) -> dict[str, CheckpointRef]:
    """Return what can be shown, by name: all mixtures, or only `path` where one is given; those trained on a set of
    tasks on each of these, or only on `task`."""
    if path is None:
        mixtures = [ref for ref in find_checkpoints() if is_mixture(ref.path)]
        return named([ref for ref in on_each_task(mixtures) if task in (None, ref.task)])
    ref = checkpoint_ref(path)
    if ref is None:
        raise UserError(f"{path}: expected a path such as checkpoints/<task_id>/trial_<N>/checkpoint_final.pt")
    if not ref.path.exists():
        raise UserError(f"{path}: no such file")
    if task is not None:
        from fast_babyai.reference import check_task

        check_task(task)
    return named(on_each_task([ref], None if task is None else [task]))


@app.function(hide_code=True)
def named(refs: list[CheckpointRef]) -> dict[str, CheckpointRef]:
    return {checkpoint_name(ref): ref for ref in refs}


@app.function(hide_code=True)
def cache_of(ref: CheckpointRef, cache_dir: str) -> Path:
    from batch_eval import choose_cache_paths

    return choose_cache_paths([ref], Path(cache_dir), Lesion())[ref]


@app.function(hide_code=True)
def price_of(ref: CheckpointRef) -> float | None:
    """Return the `lpc_alpha` that the results tell of a checkpoint; None where they do not."""
    try:
        for row in read_result_rows(RESULTS_PATH):
            if Path(row["checkpoint_path"]) == ref.path and row.get("lpc_alpha"):
                return float(row["lpc_alpha"])
    except (UserError, ValueError):  # the results have other readers, who will say so
        pass
    return None


@app.function(hide_code=True)
def load_agent_of(ref: CheckpointRef, lang_encoder: str | None):
    """Return a checkpoint's agent and the step limit of its episodes."""
    from basics.config import legacy_config
    from policy.agent import load_agent  # PyTorch takes seconds to import, and the cache often suffices
    from results.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(ref.path)
    return load_agent(checkpoint, lang_encoder), legacy_config(checkpoint["config"])["max_steps"]


@app.function(hide_code=True)
def load_routing(
    ref: CheckpointRef,
    cache_dir: str,
    use_cache: bool,
    num_episodes: int,
    num_envs: int,
    backend: str = "fast",
    lang_encoder: str | None = None,
) -> Routing:
    """Return a checkpoint's routing: from its cache where there is a sound one, else by playing `num_episodes`."""
    path, alpha, warning = cache_of(ref, cache_dir), price_of(ref), ""
    if use_cache and path.exists():
        try:
            cache = read_routing_cache(path)
            if path.stat().st_mtime < ref.path.stat().st_mtime:
                warning = f"The checkpoint is newer than its cache {path}: python batch_eval.py brings it up to date."
            data, sizes, metrics = cache["routing_data"], cache.get("expert_hidden_sizes"), cache.get("metrics") or {}
            return Routing(ref, data, sizes, metrics, f"{path}", warning, alpha)
        except ArtifactError as error:
            warning = f"{error}. Meanwhile, {num_episodes} episodes were played afresh; the file was left as it is."
    elif use_cache:
        warning = f"No cache at {path} (python batch_eval.py makes it): {num_episodes} episodes were played afresh."

    from eval_mop import evaluate

    agent, max_steps = load_agent_of(ref, lang_encoder)
    settings = {"num_envs": min(num_envs, num_episodes), "max_steps": max_steps, "backend": backend}
    with progress(num_episodes, "evaluating") as bar:
        metrics, data = evaluate(agent, ref.task, num_episodes, on_episodes=bar.update, **settings)
    sizes = [list(layer) for layer in agent.expert_hidden_sizes]
    return Routing(ref, data, sizes, metrics, "played afresh", warning, alpha)


@app.function(hide_code=True)
def scene_without(routing: Routing, episode: int, pair: str, options) -> dict:
    """Return the scene of an episode's level played without one expert, named `layer:expert`."""
    from browser.replay import scene
    from eval_mop import evaluate
    from plotting_utils import lesion_name

    agent, max_steps = load_agent_of(routing.ref, options.lang_encoder)
    seed, lesion = routing.data.episodes[episode]["seed"], Lesion.parse(pair, None)
    settings = {"max_steps": max_steps, "backend": options.backend, "lesion": lesion, "first_level": seed}
    data = evaluate(agent, routing.ref.task, 1, **settings).routing_data
    title = lesion_name(lesion.name, routing.expert_hidden_sizes)
    return scene(routing.ref.task, data, 0, routing.expert_hidden_sizes) | {"title": title}


@app.function(hide_code=True)
def picture_of(routing: Routing, episode: int) -> np.ndarray | None:
    """Return minigrid's picture of an episode's level; None where the cache does not tell it."""
    from fast_babyai.reference import render_level

    seed = routing.data.episodes[episode]["seed"]
    return None if seed is None else render_level(routing.ref.task, seed)


@app.function(hide_code=True)
def room_pictures(routing: Routing) -> dict[tuple | str, np.ndarray | None]:
    """Return one picture of the environment per starting room (column, row)."""
    rooms = group_routing_data(routing.data, "by_starting_room")
    return {room: picture_of(routing, int(steps.episode[0])) for room, steps in rooms.items()}


@app.function(hide_code=True)
def heatmap_figure(routing: Routing, analysis: str) -> Figure:
    about, sizes = f"\n{routing}", routing.expert_hidden_sizes
    if analysis == "overall":
        first = int(routing.data.episode[0])
        mission = routing.data.episodes[first]["mission"]
        return plot_overall_routing(routing.data, picture_of(routing, first), mission, None, about, sizes)
    images = room_pictures(routing) if analysis == "by_starting_room" else {}
    return plot_grouped_routing(routing.data, analysis, images, title_suffix=about, expert_hidden_sizes=sizes)


@app.function(hide_code=True)
def tab_figures(routing: Routing) -> dict[str, dict[str, Callable[[], Figure]]]:
    """Return by tab and file name how each figure is made; making it is a ValueError where there is nothing to show."""
    data, sizes, about = routing.data, routing.expert_hidden_sizes, f"\n{routing}"

    def of(plot):
        return lambda: plot(data, sizes, about)

    variables = step_variables(data)
    return {
        "Depends on": {
            "dependence": of(plot_dependence),
            **{
                file_name("given", name): partial(plot_conditional_means, data, name, sizes, about)
                for name, variable in variables.items()
                if variable.places is None
            },
        },
        "Maps": {
            **{
                file_name("map", name): partial(plot_relative_maps, data, sizes, about, name)
                for name, variable in variables.items()
                if variable.places is not None
            },
            "lpc_per_cell": of(plot_lpc),
        },
        "Over time": {"mean_over_time": of(plot_mean_over_time)},
        "Distributions": {"weight_histograms": of(plot_weight_histograms), "routing_entropy": of(plot_routing_entropy)},
        "Behaviour": {"specialisation": of(plot_specialisation)},
        "Decisions": {"decisions": of(plot_measures)},
        "Distance": {"routing_by_distance": of(plot_routing_by_distance)},
    }


@app.function(hide_code=True)
def saved_figures(routing: Routing, shown: Routing) -> dict[str, Callable[[], Figure]]:
    """Return by file name all that is saved: the heatmaps of all episodes, and everything else of those shown."""
    analyses = get_available_analyses(routing.data)
    names = ["routing_heatmap" + ("" if analysis == "overall" else f"_{analysis}") for analysis in analyses]
    figures = {name: partial(heatmap_figure, routing, analysis) for name, analysis in zip(names, analyses, strict=True)}
    kind = "" if shown.outcome == "all" else shown.outcome.replace(" ", "_")
    for views in tab_figures(shown).values():
        figures |= {file_name(name, kind): make for name, make in views.items()}
    episode = int(shown.data.episode[0])
    figures[f"episode_{episode}"] = partial(plot_episode, shown.data, episode, shown.expert_hidden_sizes)
    return figures


@app.function(hide_code=True)
def plots_path(ref: CheckpointRef, name: str, plots_dir: str) -> Path:
    """Return where a figure of a checkpoint goes; no two checkpoints share a file."""
    root = ref.path.parts[0]
    update = "" if ref.update is None else f"update_{ref.update}"
    other = root if root in CHECKPOINT_ROOTS[1:] else ""
    return plot_path(ref.task_id, ref.trial, file_name(name, update, other), ref.seed, plots_dir, ref.evaluated_on)


@app.function(hide_code=True)
def metrics_line(routing: Routing) -> mo.Html:
    """Return what an evaluation found in one line, success with its 95 % interval."""
    metrics, episodes = routing.metrics, len(routing.data.episodes)
    parts = []
    if metrics.get("success_rate") is not None:
        low, high = wilson_interval(metrics["success_rate"], episodes)
        parts.append(f"success <b>{100 * metrics['success_rate']:.3g} %</b> ({100 * low:.1f}–{100 * high:.1f})")
    if metrics.get("path_ratio") == metrics.get("path_ratio") is not None:
        parts.append(f"path ratio <b>{metrics['path_ratio']:.2f}</b>")
    if metrics.get("mean_lpc") is not None:
        parts.append(f"LPC <b>{metrics['mean_lpc']:.0f}</b>")
    if routing.lpc_alpha is not None:
        parts.append(f"lpc_alpha {number_text(routing.lpc_alpha)}")
    parts.append(f"{episodes:,} episodes")
    title = html.escape(f"{len(routing.data):,} steps, {routing.source}", quote=True)
    return mo.Html(f'{STYLE}<div class="rlmop-line" title="{title}">{" · ".join(parts)}</div>')


@app.function(hide_code=True)
def episode_rows(routing: Routing, counts: dict[int, int] | None, failures_only: bool) -> list[dict]:
    """Return a row per episode for the table; `counts` says how many steps of which episodes something was found in."""
    data = routing.data
    lpc = np.bincount(data.episode, data.lpc, len(data.episodes)) / np.maximum(np.bincount(data.episode), 1)
    rows = []
    for episode in list(counts) if counts is not None else np.unique(data.episode).tolist():
        about = data.episodes[episode]
        if failures_only and about["success"] is not False:
            continue
        solved = {True: "yes", False: "no", None: "?"}[about["success"]]
        row = {"episode": episode} | ({} if counts is None else {"steps found": counts[episode]})
        row |= {"mission": about["mission"] or "?", "solved": solved, "steps": about["num_steps"]}
        rows.append(row | {"LPC": round(float(lpc[episode]), 1)})
    return rows


@app.function(hide_code=True)
def find_clicked(figure, place: str, routing: Routing):
    """Return what was clicked in a figure, in words, in how many steps of which episodes, and first when; else None."""
    clicked = getattr(figure, "value", None)
    clicked = clicked.get("clicked") if isinstance(clicked, dict) else None
    if not clicked:
        return None
    found = steps_clicked(routing.data, clicked, place, routing.expert_hidden_sizes)
    return None if found is None else (found[0], *episode_counts(routing.data, found[1]))


if __name__ == "__main__":
    app.run()
