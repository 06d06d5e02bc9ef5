"""Many checkpoints: success against cost, learning curves, and how experts are used. A marimo notebook, and a script.

    marimo run cross_task_viz.py                      # marimo edit: the same, with its code
    marimo export html cross_task_viz.py -o results.html
    python cross_task_viz.py [--task 'BabyAI-GoTo*']  # saves all figures under plots/cross_task/

It reads evaluation_results.csv and the routing caches that batch_eval.py writes, and metrics.csv beside checkpoints.
"""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="Many checkpoints")

with app.setup(hide_code=True):
    import argparse
    import fnmatch
    import json
    import sys
    from collections.abc import Callable
    from pathlib import Path

    import marimo as mo
    import pandas as pd
    from matplotlib.figure import Figure

    from basics.config import Parser
    from basics.errors import UserError, warn
    from basics.files import ArtifactError, atomic_write
    from fast_babyai.reference import render_level
    from plotting.cross_task import (
        plot_expert_use,
        plot_learning_curves,
        plot_lesions,
        plot_lpc_against_difficulty,
        plot_lpc_alpha,
        plot_success_against_lpc,
        short_task,
    )
    from plotting_utils import plot_side_by_side
    from results.paths import METRICS_FILE, PLOTS_DIR, RESULTS_PATH, cross_task_plot_path, lesion_results_path
    from results.routing_caches import read_routing_cache
    from results.tables import read_metrics, read_results

    NOTHING_EVALUATED = (
        "There are no results in {path} yet. Train something (make demo, or python train_mop.py --task_id"
        " BabyAI-GoToObj-v0), run python batch_eval.py, then open this notebook again."
    )
    MOST_CACHES = 8  # read for one figure: a maze's cache takes seconds
    SHOWN = [
        "name",
        "num_episodes",
        "success_rate",
        "path_ratio",
        "mean_lpc",
        "lpc_alpha",
        "num_updates",
        "evaluated_at",
    ]
    FORMATS = {"success_rate": "{:.3f}", "path_ratio": "{:.2f}", "mean_lpc": "{:.1f}", "lpc_alpha": "{:g}"}


@app.function(hide_code=True)
def is_script() -> bool:
    return mo.app_meta().mode == "script"


@app.function(hide_code=True)
def parse_options(arguments):
    parser = Parser(
        prog="cross_task_viz.py", description="Save figures that compare checkpoints, in plots/cross_task/."
    )
    parser.add_argument(
        "--results_path", default=RESULTS_PATH, metavar="CSV", help="what batch_eval.py wrote [%(default)s]"
    )
    parser.add_argument("--task", metavar="PATTERN", help="only these tasks, such as 'BabyAI-GoTo*'")
    parser.add_argument("--plots_dir", default=PLOTS_DIR, help="where figures go [%(default)s]")
    return parser.parse_args(arguments)


@app.function(hide_code=True)
def stop_with(problem):
    """End a script with one line and exit status 2; in a notebook, show the problem instead of this cell's output."""
    if is_script():
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    mo.stop(True, mo.callout(mo.md(str(problem)), kind="warn"))


@app.function(hide_code=True)
def load_results(path: str, task: str | None) -> pd.DataFrame:
    """Return the results with a readable and unique `name` for every row."""
    if not Path(path).exists():
        raise UserError(NOTHING_EVALUATED.format(path=path))
    results = read_results(path)
    if task is not None:
        results = results[[fnmatch.fnmatchcase(name, task) for name in results["task_id"]]]
    if results.empty:
        raise UserError(NOTHING_EVALUATED.format(path=path) if task is None else f"{path}: no task matches {task!r}")

    def name(row) -> str:
        numbers = [(label, row.get(label)) for label in ("trial", "seed", "update")]
        parts = [f"{label} {number}" for label, number in numbers if pd.notna(number)]
        return " ".join([short_task(row["task_id"]), *parts])

    names = results.apply(name, axis=1)
    copies = names.groupby(names).cumcount()
    return results.assign(name=names.where(copies == 0, names + " (" + (copies + 1).astype(str) + ")"))


@app.function(hide_code=True)
def learning_curves(results: pd.DataFrame) -> tuple[dict[str, list[pd.DataFrame]], list[str]]:
    """Return by task and trial the learning curves of its seeds, and what is wrong with those that cannot be read."""
    curves, problems = {}, []
    for row in results.drop_duplicates("folder").itertuples():
        path = Path(row.folder, METRICS_FILE)
        if path.exists():
            try:
                metrics = read_metrics(path)
            except ArtifactError as error:
                problems.append(str(error))
            else:
                curves.setdefault(f"{short_task(row.task_id)} trial {row.trial}", []).append(metrics)
    return curves, problems


@app.function(hide_code=True)
def lesions_figure(results: pd.DataFrame, results_path: str) -> Figure:
    return plot_lesions(results, read_results(lesion_results_path(results_path)))


@app.function(hide_code=True)
def load_caches(results: pd.DataFrame) -> tuple[dict[str, dict], list[str]]:
    """Return the routing caches of the first mixtures among the results, by name, and what is wrong with the others."""
    caches, problems = {}, []
    mixtures = results[results["has_cache"]]
    for row in mixtures.head(MOST_CACHES).itertuples():
        try:
            caches[row.name] = read_routing_cache(row.routing_cache)
        except ArtifactError as error:
            problems.append(str(error))
    if len(mixtures) > MOST_CACHES:
        problems.append(f"{len(mixtures)} caches: the first {MOST_CACHES} are shown; filter to see others")
    return caches, problems


@app.function(hide_code=True)
def expert_use_figure(caches: dict[str, dict]) -> Figure:
    if not caches:
        raise ValueError("none of these checkpoints has a routing cache (python batch_eval.py makes them)")
    data = {name: cache["routing_data"] for name, cache in caches.items()}
    return plot_expert_use(data, {name: cache.get("expert_hidden_sizes") for name, cache in caches.items()})


@app.function(hide_code=True)
def side_by_side_figure(results: pd.DataFrame, names: list[str]) -> Figure:
    """Return the heatmaps of two checkpoints on the same scales.

    Raises:
        ArtifactError: a cache cannot be read.
        ValueError: they cannot be compared.
    """
    rows = results.set_index("name").loc[names]
    caches = [read_routing_cache(path) for path in rows["routing_cache"]]
    sizes = [cache.get("expert_hidden_sizes") for cache in caches]
    if sizes[0] != sizes[-1]:
        raise ValueError(f"these checkpoints have other experts: {json.dumps(sizes[0])} and {json.dumps(sizes[-1])}")
    images = {}
    for name, task_id, cache in zip(names, rows["task_id"], caches, strict=True):
        level_seed = cache["routing_data"].episodes[0]["seed"]
        images[name] = None if level_seed is None else render_level(task_id, level_seed)
    data = {name: cache["routing_data"] for name, cache in zip(names, caches, strict=True)}
    return plot_side_by_side(data, images, sizes[0])


@app.function(hide_code=True)
def view_figures(
    results: pd.DataFrame, results_path: str
) -> dict[str, tuple[str, Callable[[], tuple[Figure, list[str]]]]]:
    """Return by tab the file name of its figure, and how the figure and the list of what is missing in it are made."""

    def curves():
        runs, problems = learning_curves(results)
        if not runs:
            raise ValueError(f"no {METRICS_FILE} beside these checkpoints")
        return plot_learning_curves(runs), problems

    def expert_use():
        caches, problems = load_caches(results)
        if problems and not caches:
            raise ValueError("; ".join(problems))
        return expert_use_figure(caches), problems

    final = results[results["update"].isna()] if results["update"].isna().any() else results
    views = {
        "Success and cost": ("success_against_lpc", lambda: (plot_success_against_lpc(final), [])),
        "Price of experts": ("lpc_alpha", lambda: (plot_lpc_alpha(final), [])),
        "Difficulty": ("lpc_against_difficulty", lambda: (plot_lpc_against_difficulty(final), [])),
        "Learning curves": ("learning_curves", curves),
        "Use of experts": ("expert_use", expert_use),
    }
    if lesion_results_path(results_path).exists():  # as few make one, nobody has to hear that there is none
        views["Experts off"] = ("lesions", lambda: (lesions_figure(final, results_path), []))
    return views


@app.function(hide_code=True)
def show_figure(make):
    """Return the figure of a tab and what is missing in it, or a line of text where there is nothing to show."""
    try:
        figure, problems = make()
    except (ValueError, UserError) as error:
        return mo.md(f"Nothing to show: {error}.")
    notes = [mo.callout(mo.md(problem), kind="warn") for problem in problems]
    return mo.vstack([*notes, mo.as_html(figure)])


@app.function(hide_code=True)
def save_figure(figure: Figure, name: str, plots_dir: str) -> Path:
    path = cross_task_plot_path(name, plots_dir)
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)
    return path


@app.function(hide_code=True)
def save_all_figures(results: pd.DataFrame, compared: list[str], options: argparse.Namespace) -> list[Path]:
    """Save every view, and the heatmaps of the compared checkpoints; return their paths."""
    figures = dict(view_figures(results, options.results_path).values())
    if len(compared) == 2:
        figures["side_by_side"] = lambda: (side_by_side_figure(results, compared), [])
    saved = []
    for name, make in figures.items():
        try:
            figure, problems = make()
        except (ValueError, UserError) as error:
            problems = [f"no {name}: {error}"]
        else:
            saved.append(save_figure(figure, name, options.plots_dir))
        for problem in problems if is_script() else ():
            warn(problem)
    return saved


@app.cell(hide_code=True)
def load():
    try:
        options = parse_options(sys.argv[1:])
        all_results = load_results(options.results_path, options.task)
    except UserError as error:
        stop_with(error)
    for _column in ("seed", "update", "routing_cache"):
        if _column not in all_results:  # a CSV of before these columns
            all_results[_column] = pd.NA
    all_results["folder"] = [str(Path(path).parent) for path in all_results["checkpoint_path"]]
    all_results["has_cache"] = [pd.notna(path) and Path(path).is_file() for path in all_results["routing_cache"]]
    mo.md("# Many checkpoints")
    return all_results, options


@app.cell(hide_code=True)
def filters(all_results):
    def _choices(column):
        return sorted(all_results[column].dropna().unique().tolist())

    task_filter = mo.ui.multiselect(_choices("task_id"), label="tasks (none chosen: all)")
    trial_filter = mo.ui.multiselect([str(trial) for trial in _choices("trial")], label="trials")
    seed_filter = mo.ui.multiselect([str(seed) for seed in _choices("seed")], label="seeds")
    mo.hstack([task_filter, trial_filter, seed_filter], justify="start", gap=2)
    return seed_filter, task_filter, trial_filter


@app.cell(hide_code=True)
def results_table(all_results, seed_filter, task_filter, trial_filter):
    results = all_results
    for _column, _filter in (("task_id", task_filter), ("trial", trial_filter), ("seed", seed_filter)):
        if _filter.value:
            results = results[results[_column].astype(str).isin(_filter.value)]
    if results.empty:
        stop_with("No checkpoint has these tasks, trials and seeds.")
    mo.ui.table(
        results[SHOWN],
        selection=None,
        page_size=10,
        label=f"{len(results)} checkpoint{'s' * (len(results) != 1)}",
        format_mapping=FORMATS,
    )
    return (results,)


@app.cell(hide_code=True)
def views(options, results):
    _is_export = mo.app_meta().request is None  # nobody will click: tabs cannot wait until they are opened
    view_tabs = mo.ui.tabs(
        {
            name: show_figure(make) if _is_export else mo.lazy(lambda make=make: show_figure(make))
            for name, (_, make) in ({} if is_script() else view_figures(results, options.results_path)).items()
        }
    )
    mo.vstack([view_tabs])
    return


@app.cell(hide_code=True)
def comparison(results):
    _names = results.loc[results["has_cache"], "name"].tolist()
    first_dropdown = mo.ui.dropdown(_names, value=_names[0] if _names else None, label="compare")
    second_dropdown = mo.ui.dropdown(_names, value=_names[1] if len(_names) > 1 else None, label="with")
    mo.vstack([mo.md("## Two checkpoints side by side"), mo.hstack([first_dropdown, second_dropdown], justify="start")])
    return first_dropdown, second_dropdown


@app.cell(hide_code=True)
def side_by_side(first_dropdown, results, second_dropdown):
    mo.stop(is_script())
    _compared = list(dict.fromkeys(name for name in (first_dropdown.value, second_dropdown.value) if name))
    mo.stop(len(_compared) < 2, mo.md("Choose two checkpoints that have a routing cache (python batch_eval.py)."))
    try:
        fig_comparison = side_by_side_figure(results, _compared)
    except (ValueError, UserError) as error:
        stop_with(error)
    mo.as_html(fig_comparison)
    return


@app.cell(hide_code=True)
def save_controls():
    save_button = mo.ui.run_button(label="Save all figures")
    mo.vstack([save_button])
    return (save_button,)


@app.cell(hide_code=True)
def save(first_dropdown, options, results, save_button, second_dropdown):
    _compared = list(dict.fromkeys(name for name in (first_dropdown.value, second_dropdown.value) if name))
    _saved = []
    if save_button.value or is_script():
        try:
            _saved = save_all_figures(results, _compared, options)
        except UserError as error:
            stop_with(error)
    if is_script():
        print("\n".join(f"saved {path}" for path in _saved))
    mo.md("\n\n".join(f"Saved `{path}`" for path in _saved))
    return


if __name__ == "__main__":
    app.run()
