"""One checkpoint: where, when and for what its experts work. A marimo notebook, and a script.

marimo run routing_viz.py                         # or: marimo edit routing_viz.py, and run all cells there
marimo export html routing_viz.py -o routing.html -- --checkpoint checkpoints/.../checkpoint_final.pt
python routing_viz.py --checkpoint checkpoints/.../checkpoint_final.pt     # saves all figures under plots/
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Routing of one checkpoint")

with app.setup(hide_code=True):
    import sys
    from collections.abc import Callable
    from functools import partial
    from pathlib import Path
    from typing import NamedTuple

    import marimo as mo
    import numpy as np
    from matplotlib.figure import Figure
    from tqdm import tqdm

    from basics.config import Parser, legacy_config
    from basics.errors import UserError, warn
    from basics.files import ArtifactError, atomic_write
    from batch_eval import choose_cache_paths
    from fast_babyai.reference import render_level
    from plotting_utils import (
        get_available_analyses,
        group_routing_data,
        plot_episode,
        plot_grouped_routing,
        plot_lpc,
        plot_mean_over_time,
        plot_overall_routing,
        plot_routing_by_distance,
        plot_routing_entropy,
        plot_specialisation,
        plot_step,
        plot_weight_histograms,
    )
    from results.checkpoints import load_checkpoint
    from results.eval_options import NUM_ENVS, Lesion, positive
    from results.paths import CACHE_DIR, PLOTS_DIR, CheckpointRef, checkpoint_ref, find_checkpoints, plot_path
    from results.routing_caches import read_routing_cache
    from results.routing_data import RoutingData

    NOTHING_TRAINED = (
        "There is no checkpoint in checkpoints/ or modal_checkpoints/ yet. Train one (make demo, or python train_mop.py"
        " --task_id BabyAI-GoToObj-v0) and evaluate it (python batch_eval.py), then open this notebook again."
    )


@app.function(hide_code=True)
def is_script() -> bool:
    return mo.app_meta().mode == "script"


@app.class_definition(hide_code=True)
class Routing(NamedTuple):
    """What the figures are made of, and where it came from (`source`; `warning` where something is amiss)."""

    ref: CheckpointRef
    data: RoutingData
    expert_hidden_sizes: list | None
    metrics: dict
    source: str
    warning: str = ""


@app.function(hide_code=True)
def parse_options(arguments):
    parser = Parser(prog="routing_viz.py", description="Save all figures of one checkpoint under plots/.")
    parser.add_argument("--checkpoint", metavar="PATH", help="a checkpoint_*.pt [default: the first that is found]")
    parser.add_argument("--cache_dir", default=CACHE_DIR, help="where batch_eval.py keeps routing [%(default)s]")
    parser.add_argument("--plots_dir", default=PLOTS_DIR, help="where figures go [%(default)s]")
    parser.add_argument("--no_cache", action="store_true", help="evaluate afresh even where there is a cache")
    parser.add_argument(
        "--num_episodes", type=positive, default=100, metavar="N", help="of a fresh evaluation [%(default)s]"
    )
    parser.add_argument(
        "--num_envs", type=positive, default=NUM_ENVS, metavar="N", help="of a fresh evaluation [%(default)s]"
    )
    parser.add_argument(
        "--backend", choices=["fast", "minigrid"], default="fast", help="of a fresh evaluation [%(default)s]"
    )
    parser.add_argument("--lang_encoder", metavar="PATH", help="a local copy of the checkpoint's sentence encoder")
    return parser.parse_args(arguments)


@app.function(hide_code=True)
def stop_with(problem):
    """End a script with one line and exit status 2; in a notebook, show the problem instead of this cell's output."""
    if is_script():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    mo.stop(True, mo.callout(mo.md(str(problem)), kind="warn"))


@app.function(hide_code=True)
def choose_checkpoints(path: str | None) -> dict[str, CheckpointRef]:
    """Return what can be shown, by name; only `path` and checkpoints beside it where one is given."""
    if path is None:
        return {f"{ref} ({ref.path.parts[0]})": ref for ref in find_checkpoints()}
    ref = checkpoint_ref(path)
    if ref is None:
        raise UserError(f"{path}: expected a path such as checkpoints/<task_id>/trial_<N>/checkpoint_final.pt")
    if not ref.path.exists():
        raise UserError(f"{path}: no such file")
    return {f"{ref} ({path})": ref}


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
    path = choose_cache_paths([ref], Path(cache_dir), Lesion())[ref]
    warning = ""
    if use_cache and path.exists():
        try:
            cache = read_routing_cache(path)
            if path.stat().st_mtime < ref.path.stat().st_mtime:
                warning = f"The checkpoint is newer than its cache {path}: python batch_eval.py brings it up to date."
            return Routing(
                ref,
                cache["routing_data"],
                cache.get("expert_hidden_sizes"),
                cache.get("metrics") or {},
                f"{len(cache['routing_data'].episodes):,} episodes from {path}",
                warning,
            )
        except ArtifactError as error:
            warning = f"{error}. Meanwhile, {num_episodes} episodes were played afresh; the file was left as it is."
    elif use_cache:
        warning = f"No cache at {path} (python batch_eval.py makes it): {num_episodes} episodes were played afresh."

    from eval_mop import evaluate
    from policy.agent import load_agent  # PyTorch takes seconds to import, and the cache often suffices

    checkpoint = load_checkpoint(ref.path)
    agent = load_agent(checkpoint, lang_encoder)
    num_envs, max_steps = min(num_envs, num_episodes), legacy_config(checkpoint["config"])["max_steps"]
    with progress_bar(num_episodes) as progress:
        metrics, data = evaluate(
            agent,
            ref.task_id,
            num_episodes,
            num_envs=num_envs,
            max_steps=max_steps,
            backend=backend,
            on_episodes=progress.update,
        )
    sizes = [list(layer) for layer in agent.expert_hidden_sizes]
    return Routing(ref, data, sizes, metrics, f"{num_episodes:,} episodes played afresh", warning)


@app.function(hide_code=True)
def progress_bar(num_episodes: int):
    if is_script():
        return tqdm(total=num_episodes, desc="evaluating", unit="episode", leave=False)
    return mo.status.progress_bar(total=num_episodes, title="Evaluating", subtitle="episodes", remove_on_exit=True)


@app.function(hide_code=True)
def picture_of(routing: Routing, episode: int, step: int = 0) -> np.ndarray | None:
    """Return minigrid's picture of an episode before the given step; None where the cache does not tell its level."""
    seed = routing.data.episodes[episode]["seed"]
    actions = routing.data.action[routing.data.episode == episode][:step]
    if seed is None or (actions < 0).any():
        return None
    return render_level(routing.ref.task_id, seed, actions)


@app.function(hide_code=True)
def room_pictures(routing: Routing) -> dict[tuple[int, int], np.ndarray | None]:
    """Return one picture of the environment per starting room (column, row)."""
    rooms = group_routing_data(routing.data, "by_starting_room")
    return {room: picture_of(routing, int(steps.episode[0])) for room, steps in rooms.items()}


@app.function(hide_code=True)
def heatmap_figure(routing: Routing, analysis: str, room_env_images: dict) -> Figure:
    about, sizes = f" — {routing.ref}", routing.expert_hidden_sizes
    if analysis == "overall":
        first = int(routing.data.episode[0])
        mission = routing.data.episodes[first]["mission"]
        return plot_overall_routing(routing.data, picture_of(routing, first), mission, None, about, sizes)
    return plot_grouped_routing(routing.data, analysis, room_env_images, title_suffix=about, expert_hidden_sizes=sizes)


@app.function(hide_code=True)
def view_figures(routing: Routing) -> dict[str, dict[str, Callable[[], Figure]]]:
    """Return by tab and file name how each figure is made; making it is a ValueError where there is nothing to show."""
    data, sizes = routing.data, routing.expert_hidden_sizes
    return {
        "Where": {"routing_heatmap": lambda: heatmap_figure(routing, "overall", {})},
        "Cost per cell": {"lpc_per_cell": lambda: plot_lpc(data, sizes)},
        "Over time": {
            "mean_over_time": lambda: plot_mean_over_time(data, sizes),
            "episode": lambda: plot_episode(data, int(data.episode[0]), sizes),
        },
        "Distributions": {
            "weight_histograms": lambda: plot_weight_histograms(data, sizes),
            "routing_entropy": lambda: plot_routing_entropy(data, sizes),
        },
        "Distance to objects": {"routing_by_distance": lambda: plot_routing_by_distance(data, sizes)},
        "What experts do": {"specialisation": lambda: plot_specialisation(data, sizes)},
    }


@app.function(hide_code=True)
def show_figures(figures: dict[str, Callable[[], Figure]]):
    """Return the figures of a tab, a line of text in place of one that this data has nothing for."""
    shown = []
    for make in figures.values():
        try:
            shown.append(mo.as_html(make()))
        except ValueError as error:
            shown.append(mo.md(f"Nothing to show: {error}."))
    return mo.vstack(shown)


@app.function(hide_code=True)
def save_figure(figure: Figure, routing: Routing, name: str, plots_dir: str) -> Path:
    """Write a figure where the plots of its run are; return its path."""
    ref = routing.ref
    name = name if ref.update is None else f"{name}_update_{ref.update}"
    path = plot_path(ref.task_id, ref.trial, name, ref.seed, plots_dir)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
    return path


@app.function(hide_code=True)
def save_all_figures(routing: Routing, plots_dir: str) -> list[Path]:
    """Save every view and the heatmaps of every analysis; return their paths."""
    saved = []
    figures = {name: make for views in view_figures(routing).values() for name, make in views.items()}
    for analysis in get_available_analyses(routing.data)[1:]:
        images = room_pictures(routing) if analysis == "by_starting_room" else {}
        figures[f"routing_heatmap_{analysis}"] = partial(heatmap_figure, routing, analysis, images)
    for name, make in figures.items():
        try:
            figure = make()
        except ValueError as error:
            warn(f"no {name}: {error}")
            continue
        saved.append(save_figure(figure, routing, name, plots_dir))
    return saved


@app.cell(hide_code=True)
def controls():
    try:
        options = parse_options(sys.argv[1:])
        checkpoints = choose_checkpoints(options.checkpoint)
    except UserError as error:
        stop_with(error)
    if not checkpoints:
        stop_with(NOTHING_TRAINED)
    _caches = (
        (name, choose_cache_paths([ref], Path(options.cache_dir), Lesion())) for name, ref in checkpoints.items()
    )
    _cached = (name for name, paths in _caches if all(path.exists() for path in paths.values()))
    _first = next(_cached, next(iter(checkpoints)))  # what can be shown at once, where there is such
    checkpoint_dropdown = mo.ui.dropdown(checkpoints, value=_first, label="checkpoint")
    use_cache_toggle = mo.ui.switch(not options.no_cache, label="use the cache")
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
    mo.vstack(
        [
            mo.md("# Which expert works where"),
            mo.hstack([checkpoint_dropdown, use_cache_toggle], justify="start", gap=2),
            mo.hstack([num_episodes_slider, num_envs_slider], justify="start", gap=2),
        ]
    )
    return checkpoint_dropdown, num_envs_slider, num_episodes_slider, options, use_cache_toggle


@app.cell(hide_code=True)
def routing(checkpoint_dropdown, num_envs_slider, num_episodes_slider, options, use_cache_toggle):
    mo.stop(checkpoint_dropdown.value is None, mo.md("Choose a checkpoint."))
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
    except UserError as error:
        stop_with(error)
    routing_data = routing.data
    if not routing_data.weights or not len(routing_data):
        stop_with(f"{routing.ref.path}: no routing to show: a baseline (one GRU) has no experts. Choose a mixture.")
    if is_script() and routing.warning:
        warn(routing.warning)
    _stats = [
        mo.stat(f"{value:.3g}" if isinstance(value, float) else f"{value}", label=name.replace("_", " "), bordered=True)
        for name, value in routing.metrics.items()
    ]
    mo.vstack(
        [
            mo.callout(mo.md(routing.warning), kind="warn") if routing.warning else mo.md(""),
            mo.hstack(_stats, justify="start"),
            mo.md(f"{len(routing_data):,} steps of {routing.source}."),
        ]
    )
    return routing, routing_data


@app.cell(hide_code=True)
def analyses(routing_data):
    analysis_dropdown = mo.ui.dropdown(get_available_analyses(routing_data), value="overall", label="analysis")
    mo.vstack([analysis_dropdown])
    return (analysis_dropdown,)


@app.cell(hide_code=True)
def pictures(analysis_dropdown, routing):
    room_env_images = room_pictures(routing) if analysis_dropdown.value == "by_starting_room" else {}
    return (room_env_images,)


@app.cell(hide_code=True)
def heatmap(analysis_dropdown, room_env_images, routing):
    try:
        fig_heatmap = heatmap_figure(routing, analysis_dropdown.value or "overall", room_env_images)
    except ValueError as error:
        stop_with(error)
    return (fig_heatmap,)


@app.cell(hide_code=True)
def interactive_heatmap(fig_heatmap):
    None if is_script() else mo.mpl.interactive(fig_heatmap)
    return


@app.cell(hide_code=True)
def save_controls():
    save_button = mo.ui.run_button(label="Save this heatmap")
    save_all_button = mo.ui.run_button(label="Save all figures")
    mo.hstack([save_button, save_all_button], justify="start")
    return save_all_button, save_button


@app.cell(hide_code=True)
def save(analysis_dropdown, fig_heatmap, options, routing, save_all_button, save_button):
    _saved = []
    try:
        if save_button.value:
            _suffix = "" if analysis_dropdown.value == "overall" else f"_{analysis_dropdown.value}"
            _saved.append(save_figure(fig_heatmap, routing, f"routing_heatmap{_suffix}", options.plots_dir))
        if save_all_button.value or is_script():
            _saved += save_all_figures(routing, options.plots_dir)
    except UserError as error:
        stop_with(error)
    if is_script():
        print("\n".join(f"saved {path}" for path in _saved))
    mo.md("\n\n".join(f"Saved `{path}`" for path in _saved))
    return


@app.cell(hide_code=True)
def views(routing):
    _is_export = mo.app_meta().request is None  # nobody will click: tabs cannot wait until they are opened
    _tabs = {
        name: show_figures(figures) if _is_export else mo.lazy(lambda figures=figures: show_figures(figures))
        for name, figures in ({} if is_script() else view_figures(routing)).items()
    }
    view_tabs = mo.ui.tabs(_tabs | {"Episode player": mo.md("")})
    mo.vstack([view_tabs])
    return (view_tabs,)


@app.cell(hide_code=True)
def player_episode(routing):
    episode_slider = mo.ui.slider(steps=np.unique(routing.data.episode).tolist(), label="episode", show_value=True)
    return (episode_slider,)


@app.cell(hide_code=True)
def player_step(episode_slider, routing):
    player_steps = routing.data.select(routing.data.episode == episode_slider.value)
    step_slider = mo.ui.slider(0, max(len(player_steps) - 1, 1), label="step", show_value=True, full_width=True)
    return player_steps, step_slider


@app.cell(hide_code=True)
def player(episode_slider, player_steps, routing, step_slider, view_tabs):
    mo.stop(view_tabs.value != "Episode player")
    _about = routing.data.episodes[episode_slider.value]
    _step = min(step_slider.value, len(player_steps) - 1)
    _frame = picture_of(routing, episode_slider.value, _step)
    _sizes = routing.expert_hidden_sizes
    if _frame is None:
        _picture = mo.md("This cache does not tell which levels were played, so there are no pictures of them.")
    else:
        _picture = plot_step(player_steps[_step], _frame, _about["mission"], _about["num_steps"], _sizes)
    mo.vstack([mo.hstack([episode_slider, step_slider], widths=[1, 2]), _picture])
    return


@app.cell(hide_code=True)
def player_timeline(episode_slider, routing, view_tabs):
    mo.stop(view_tabs.value != "Episode player")
    plot_episode(routing.data, episode_slider.value, routing.expert_hidden_sizes)
    return


if __name__ == "__main__":
    app.run()
