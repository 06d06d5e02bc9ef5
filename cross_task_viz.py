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
    import sys

    from browser.options import FORMATS, WIDTHS, cross_task_options, wants_help

    if __name__ == "__main__" and wants_help(sys.argv[1:]):
        cross_task_options(sys.argv[1:])  # tells what there is and leaves, before all that takes long to import

    import fnmatch
    import json
    from collections.abc import Callable
    from pathlib import Path

    import marimo as mo
    import pandas as pd
    from matplotlib.figure import Figure

    from basics.errors import UserError, warn
    from basics.files import ArtifactError
    from browser.notebook import (
        STYLE,
        callout,
        is_export,
        is_script,
        picture,
        progress,
        remember,
        remembered,
        stop_with,
        text,
    )
    from browser.saving import file_name, save_all
    from plotting_utils import (
        NothingToShow,
        networks,
        number_text,
        pathway_figures,
        plot_expert_use,
        plot_learning_curves,
        plot_lesions,
        plot_lpc_against_difficulty,
        plot_lpc_alpha,
        plot_measure_correlations,
        plot_metrics_over_updates,
        plot_phases_by_alpha,
        plot_side_by_side,
        plot_success_against_lpc,
        short_task,
    )
    from results.paths import METRICS_FILE, cross_task_plot_path, lesion_results_path, measures_path
    from results.routing_caches import read_routing_cache
    from results.tables import name_sets, read_measures, read_metrics, read_results

    NOTHING_EVALUATED = (
        "There are no results in {path} yet. Train something (make demo, or python train_mop.py --task_id"
        " BabyAI-GoToObj-v0), run python batch_eval.py, then open this notebook again."
    )
    MOST_CACHES = 12  # read for one figure: a maze's cache takes seconds
    SHOWN = [
        "name",
        "num_episodes",
        "success_rate",
        "success_rate_sampled",
        "path_ratio",
        "mean_lpc",
        "lpc_alpha",
        "num_updates",
        "evaluated_at",
    ]
    SHOWN_AS: dict[str, str | Callable] = {
        "success_rate": "{:.3f}",
        "success_rate_sampled": "{:.3f}",
        "path_ratio": "{:.2f}",
        "mean_lpc": "{:.1f}",
    }


@app.cell(hide_code=True)
def load():
    is_export()  # asked while the page's first request is at hand
    try:
        options = cross_task_options(sys.argv[1:])
        all_results = load_results(options.results_path, options.task)
    except UserError as error:
        stop_with(error)
    for _column in ("seed", "update", "routing_cache"):
        if _column not in all_results:  # a CSV of before these columns
            all_results[_column] = pd.NA
    all_results["folder"] = [str(Path(path).parent) for path in all_results["checkpoint_path"]]
    all_results["has_cache"] = [pd.notna(path) and Path(path).is_file() for path in all_results["routing_cache"]]
    return all_results, options


@app.cell(hide_code=True)
def filters(all_results):
    def _filter(column, label):
        choices = [str(choice) for choice in sorted(all_results[column].dropna().unique().tolist())]
        wanted = remembered(label).split(",")
        return mo.ui.multiselect(choices, value=[each for each in choices if each in wanted], label=label)

    task_filter, trial_filter, seed_filter = (
        _filter("task_id", "tasks"),
        _filter("trial", "trials"),
        _filter("seed", "seeds"),
    )
    return seed_filter, task_filter, trial_filter


@app.cell(hide_code=True)
def choose_results(all_results, options, seed_filter, task_filter, trial_filter):
    results, _parts = all_results, []
    for _column, _name, _filter in (
        ("task_id", "tasks", task_filter),
        ("trial", "trials", trial_filter),
        ("seed", "seeds", seed_filter),
    ):
        remember(**{_name: ",".join(_filter.value) or None})
        if _filter.value:
            results = results[results[_column].astype(str).isin(_filter.value)]
            _values = "+".join(map(short_task, _filter.value))
            _parts.append(_values if _column == "task_id" else f"{_column}-{_values}")
    filter_name = file_name("" if options.task is None else short_task(options.task), *_parts)
    _shown = f"{len(results)} checkpoint{'s' * (len(results) != 1)}"
    mo.vstack(
        [
            mo.Html(STYLE),
            mo.hstack(
                [task_filter, trial_filter, seed_filter, text(_shown)], justify="start", align="end", gap=1.5, wrap=True
            ),
        ]
    )
    return filter_name, results


@app.cell(hide_code=True)
def tabs(options, results):
    if results.empty:
        stop_with("No checkpoint has these tasks, trials and seeds.")
    tab_names = [*view_figures(results, options.results_path, print), "Pathways", "Side by side", "Table", "Save"]
    view_tabs = mo.ui.tabs(dict.fromkeys(tab_names, mo.Html("")), value=remembered("tab", tab_names, tab_names[0]))
    None if is_script() or is_export() else view_tabs
    return tab_names, view_tabs


@app.cell(hide_code=True)
def chosen_tab(tab_names, view_tabs):
    chosen_tabs = [] if is_script() else tab_names if is_export() else [view_tabs.value]
    remember(tab=None if is_export() else view_tabs.value)
    return (chosen_tabs,)


@app.cell(hide_code=True)
def views(chosen_tabs, options, results):
    _problems: list[str] = []
    _views = view_figures(results, options.results_path, _problems.append)
    _shown = [show_view(make, _problems, tab) for tab, (_, make) in _views.items() if tab in chosen_tabs]
    mo.vstack(_shown) if _shown else None
    return


@app.cell(hide_code=True)
def table(chosen_tabs, results):
    mo.stop("Table" not in chosen_tabs)
    _rows = results[[_name for _name in SHOWN if _name in results]].assign(
        lpc_alpha=[number_text(alpha) if pd.notna(alpha) else "" for alpha in results["lpc_alpha"]]
    )
    mo.ui.table(
        _rows.to_dict("records"),
        selection=None,
        page_size=12,
        show_column_summaries=False,
        show_data_types=False,
        format_mapping=SHOWN_AS,
    )
    return


@app.cell(hide_code=True)
def pathway_choice(options, results):
    pathway_makers = pathway_views(results, options.results_path)
    pathway_dropdown = mo.ui.dropdown(
        list(pathway_makers),
        value=remembered("pathways", pathway_makers, next(iter(pathway_makers))),
        label="of networks that do many tasks",
    )
    return pathway_dropdown, pathway_makers


@app.cell(hide_code=True)
def pathways(chosen_tabs, pathway_dropdown, pathway_makers, results):
    mo.stop("Pathways" not in chosen_tabs)
    remember(pathways=pathway_dropdown.value)
    _wanted = list(pathway_makers) if is_export() and does_many_tasks(results) else [pathway_dropdown.value]
    _shown = [show_view(pathway_makers[_name][1], [], _name) for _name in _wanted if _name is not None]
    mo.vstack(_shown if is_export() else [pathway_dropdown, *_shown])
    return


@app.cell(hide_code=True)
def comparison(results):
    _names = results.loc[results["has_cache"], "name"].tolist()
    first_dropdown = mo.ui.dropdown(_names, value=_names[0] if _names else None, label="compare")
    second_dropdown = mo.ui.dropdown(_names, value=_names[1] if len(_names) > 1 else None, label="with")
    return first_dropdown, second_dropdown


@app.cell(hide_code=True)
def compared_pair(first_dropdown, second_dropdown):
    compared = list(dict.fromkeys(name for name in (first_dropdown.value, second_dropdown.value) if name))
    return (compared,)


@app.cell(hide_code=True)
def side_by_side(chosen_tabs, compared, first_dropdown, results, second_dropdown):
    mo.stop("Side by side" not in chosen_tabs)
    _choice = mo.hstack([first_dropdown, second_dropdown], justify="start", wrap=True)
    if len(compared) < 2:
        _shown = text("Choose two checkpoints that have a routing cache (python batch_eval.py).")
    else:
        _shown = show_view(lambda: side_by_side_figure(results, compared), [], "Routing of two checkpoints")
    mo.vstack([_choice, _shown])
    return


@app.cell(hide_code=True)
def save_controls(chosen_tabs, options):
    formats_choice = mo.ui.multiselect(FORMATS, value=options.format, label="formats")
    width_choice = mo.ui.dropdown(WIDTHS, value=options.width, label="width")
    save_button = mo.ui.run_button(label="Save all figures")
    mo.vstack(
        [
            mo.hstack([formats_choice, width_choice, save_button], justify="start", align="end", wrap=True),
            text("column: 3.25 in, page: 6.75 in. Each figure's numbers are saved beside it as CSV.", "rlmop-note"),
        ]
    ) if "Save" in chosen_tabs and not is_export() else None
    return formats_choice, save_button, width_choice


@app.cell(hide_code=True)
def save(compared, filter_name, formats_choice, options, results, save_button, width_choice):
    _lines = []
    if save_button.value or is_script():

        def _tell(problem):
            warn(problem) if is_script() else _lines.append(text(problem, "rlmop-note"))

        def _saved(paths):
            _lines.extend(text(f"Saved {path}") for path in paths)
            for path in paths if is_script() else ():
                print(f"saved {path}")
            _bar.update(1)

        _figures = saved_figures(results, compared, filter_name, options.results_path, _tell)
        try:
            with progress(len(_figures), "saving figures") as _bar:
                save_all(
                    _figures,
                    lambda name: cross_task_plot_path(name, options.plots_dir),
                    options.format if is_script() else formats_choice.value,
                    options.width if is_script() else width_choice.value or "screen",
                    _saved,
                    _tell,
                )
        except UserError as error:
            stop_with(error)
    mo.vstack(_lines)
    return


@app.function(hide_code=True)
def load_results(path: str, task: str | None) -> pd.DataFrame:
    """Return the results with a readable and unique `name` for every row."""
    if not Path(path).exists():
        raise UserError(NOTHING_EVALUATED.format(path=path))
    results = read_results(path)
    if task is not None:
        columns = results["task_id"], results["trained_on"]
        results = results[
            [any(fnmatch.fnmatchcase(name, task) for name in names) for names in zip(*columns, strict=True)]
        ]
    if results.empty:
        raise UserError(NOTHING_EVALUATED.format(path=path) if task is None else f"{path}: no task matches {task!r}")

    def name(row) -> str:
        numbers = [(label, row.get(label)) for label in ("trial", "seed", "update")]
        parts = [f"{label} {number}" for label, number in numbers if pd.notna(number)]
        return " ".join([short_task(row["task_id"]), *parts])

    def folder(row) -> str:
        return row["checkpoint_path"].split(f"/{row['trained_on']}/")[0]

    names = name_sets(results).apply(name, axis=1)
    alike = names.duplicated(keep=False)  # checkpoints of one's own, and published ones
    names = names.where(~alike, names + " in " + results.apply(folder, axis=1))
    copies = names.groupby(names).cumcount()
    return results.assign(name=names.where(copies == 0, names + " (" + (copies + 1).astype(str) + ")"))


@app.function(hide_code=True)
def learning_curves(results: pd.DataFrame) -> tuple[dict[str, list[pd.DataFrame]], list[str]]:
    """Return by task and trial the learning curves of its seeds, and what is wrong with those that cannot be read."""
    curves, problems = {}, []
    for row in results.drop_duplicates("folder").itertuples():
        path = Path(str(row.folder), METRICS_FILE)
        if path.exists():
            try:
                metrics = read_metrics(path)
            except ArtifactError as error:
                problems.append(str(error))
            else:
                curves.setdefault(f"{short_task(str(row.trained_on))} trial {row.trial}", []).append(metrics)
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
            caches[str(row.name)] = read_routing_cache(str(row.routing_cache))
        except ArtifactError as error:
            problems.append(str(error))
    if len(mixtures) > MOST_CACHES:
        problems.append(f"{len(mixtures)} caches: the first {MOST_CACHES} are shown; filter to see others")
    return caches, problems


@app.function(hide_code=True)
def expert_use_figure(caches: dict[str, dict]) -> Figure:
    if not caches:
        raise NothingToShow("none of these checkpoints has a routing cache (python batch_eval.py makes them)")
    data = {name: cache["routing_data"] for name, cache in caches.items()}
    return plot_expert_use(data, {name: cache.get("expert_hidden_sizes") for name, cache in caches.items()})


@app.function(hide_code=True)
def side_by_side_figure(results: pd.DataFrame, names: list[str]) -> Figure:
    """Return the heatmaps of two checkpoints on the same scales.

    Raises:
        ArtifactError: a cache cannot be read.
        NothingToShow: they cannot be compared.
    """
    rows = results.set_index("name").loc[names]
    caches = [read_routing_cache(path) for path in rows["routing_cache"]]
    sizes = [cache.get("expert_hidden_sizes") for cache in caches]
    if sizes[0] != sizes[-1]:
        raise NothingToShow(f"these checkpoints have other experts: {json.dumps(sizes[0])} and {json.dumps(sizes[-1])}")
    from fast_babyai.reference import render_level

    images = {}
    for name, task_id, cache in zip(names, rows["task_id"], caches, strict=True):
        level_seed = cache["routing_data"].episodes[0]["seed"]
        images[name] = None if level_seed is None else render_level(task_id, level_seed)
    data = {name: cache["routing_data"] for name, cache in zip(names, caches, strict=True)}
    return plot_side_by_side(data, images, sizes[0])


@app.function(hide_code=True)
def view_figures(
    results: pd.DataFrame, results_path: str, tell: Callable[[str], object]
) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """Return by tab the file name of its figure, and how that is made; `tell` hears what is missing in it."""

    def curves():
        runs, problems = learning_curves(results)
        for problem in problems:
            tell(problem)
        if not runs:
            raise NothingToShow(f"no {METRICS_FILE} beside these checkpoints")
        return plot_learning_curves(runs)

    def expert_use():
        caches, problems = load_caches(results)
        for problem in problems:
            tell(problem)
        if problems and not caches:
            raise NothingToShow("; ".join(problems))
        return expert_use_figure(caches)

    def phases():
        mixtures = final[final["has_cache"] & final["lpc_alpha"].notna()]
        if mixtures["task_id"].nunique() != 1:
            raise NothingToShow("phases are compared within one task: choose one")
        caches = loaded(mixtures)
        by_alpha: dict[float, list] = {}
        alphas = dict(zip(mixtures["name"], mixtures["lpc_alpha"].astype(float), strict=True))
        for name, cache in caches.items():
            by_alpha.setdefault(alphas[name], []).append(cache["routing_data"])
        return plot_phases_by_alpha(by_alpha, f"\n{short_task(mixtures['task_id'].iloc[0])}")

    def decisions():
        runs: dict[str, list] = {}
        for name, cache in loaded(final).items():
            runs.setdefault(name.split(" seed ")[0], []).append(cache["routing_data"])
        return plot_measure_correlations(runs)

    def loaded(rows):
        caches, problems = load_caches(rows)
        for problem in problems:
            tell(problem)
        return caches

    final = results[results["update"].isna()] if results["update"].isna().any() else results
    views = {
        "Success and cost": ("success_against_lpc", lambda: plot_success_against_lpc(final)),
        "Price of experts": ("lpc_alpha", lambda: plot_lpc_alpha(final)),
        "Difficulty": ("lpc_against_difficulty", lambda: plot_lpc_against_difficulty(final)),
        "Learning curves": ("learning_curves", curves),
        "Along training": ("metrics_over_updates", lambda: plot_metrics_over_updates(results)),
        "Phases": ("lpc_by_phase", phases),
        "Decisions": ("measure_correlations", decisions),
        "Use of experts": ("expert_use", expert_use),
    }
    if lesion_results_path(results_path).exists():  # as few make one, nobody has to hear that there is none
        views["Experts off"] = ("lesions", lambda: lesions_figure(final, results_path))
    return views


@app.function(hide_code=True)
def pathway_views(results: pd.DataFrame, results_path: str) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """Return by title the file name of each figure of networks that do many tasks, and how it is made."""
    lesions_path = lesion_results_path(results_path)
    lesions = read_results(lesions_path) if lesions_path.exists() else results.head(0)
    return pathway_figures(results, lesions, read_measures(measures_path(results_path)))


@app.function(hide_code=True)
def does_many_tasks(results: pd.DataFrame) -> bool:
    try:
        return len(networks(results)) > 0
    except NothingToShow:
        return False


@app.function(hide_code=True)
def saved_figures(
    results: pd.DataFrame, compared: list[str], chosen: str, results_path: str, tell: Callable[[str], object]
) -> dict[str, Callable[[], Figure]]:
    """Return by file name all that is saved; filters and the compared pair are part of the name."""
    views = view_figures(results, results_path, tell)
    if does_many_tasks(results):  # as few do, nobody has to hear that there are none
        views |= pathway_views(results, results_path)
    figures = {file_name(name, chosen): make for name, make in views.values()}
    if len(compared) == 2:
        figures[file_name("side_by_side", *compared)] = lambda: side_by_side_figure(results, compared)
    return figures


@app.function(hide_code=True)
def show_view(make: Callable[[], Figure], problems: list[str], description: str):
    """Return the figure of a tab and what is missing in it, or a line of text where there is nothing to show."""
    try:
        shown = picture(make(), description)
    except (NothingToShow, UserError) as error:
        shown = text(f"Nothing to show: {error}.", "rlmop-note")
    notes = [*map(callout, problems)]
    problems.clear()
    return mo.vstack([*notes, shown])


if __name__ == "__main__":
    app.run()
