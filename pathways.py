"""Measure the pathways of networks that do many tasks, and draw them.

    python batch_eval.py                      # first: success, routing and caches of every checkpoint and task
    python batch_eval.py --min_router_weight 0.1 --skip_routing       # and lesions, for self-sufficiency
    python batch_eval.py --own_pathway 0.1 --skip_routing
    python pathways.py                        # then: what the caches tell, into evaluation_results_pathways.csv

    python pathways.py --results_path docs/pathways/results.csv --figures docs/pathways   # only draw what is measured

It prints a table of what came out per form (a trial number: a way to train), and saves figures, a CSV beside each.
`study.py pathways` does all of this from the training on. What is measured, and why: docs/pathways.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from basics.config import Parser
from basics.errors import UserError, run_script, warn
from basics.files import ArtifactError
from results.eval_options import NUM_ENVS, positive
from results.paths import METRICS_FILE, RESULTS_PATH, lesion_results_path, measures_path
from results.pathways import STEPS_TO, action_information, env_steps_to, network_information, same_pathway
from results.routing_caches import read_routing_cache
from results.tables import (
    read_measures,
    read_metrics,
    read_result_rows,
    read_results,
    write_measures,
    write_result_rows,
)

if TYPE_CHECKING:
    import pandas as pd

    from policy.agent import Agent

NEEDED = [  # columns of results that figures of pathways use
    "checkpoint_path", "task_id", "trial", "num_episodes", "success_rate", "path_ratio", "mean_lpc", "num_updates",
    "lpc_alpha", "normalize_lpc", "expert_dropout", "expert_hidden_sizes", "seed", "update", "trained_on", "lesion",
    "routing", "pathways",
]  # fmt: skip
ACCURACY = 0.75  # that a baseline's env-steps are counted to: how hard a task is


def measure_routing(rows: "pd.DataFrame") -> Iterator[dict]:
    """Yield the measures of one network's routing that need its caches, of the rows of its tasks that have one."""
    from plotting_utils import decision_measures, lpc_by_phase

    routing = {}
    for row in rows.itertuples():
        try:
            data = read_routing_cache(str(row.routing_cache))["routing_data"]
        except ArtifactError as error:
            warn(f"{error}; its task is left out")
            continue
        routing[str(row.task_id)] = data
        phases = {f"LPC, {phase}": lpc for phase, lpc in lpc_by_phase(data).items()}
        for measure, value in (action_information(data) | decision_measures(data) | phases).items():
            yield {"task_id": row.task_id, "measure": measure, "value": value}
    if len(routing) > 1:
        for measure, value in network_information(routing).items():
            yield {"task_id": None, "measure": measure, "value": value}


def measure_training(along: "pd.DataFrame", final: "pd.DataFrame", num_episodes: int) -> Iterator[dict]:
    """Yield how far a run's checkpoints along the way choose the experts of its final network, on the bot's walks."""
    agent, paths = loaded(final["checkpoint_path"].iloc[0]), along["checkpoint_path"].unique()
    walks = {task: routing_of(agent, task, num_episodes) for task in final["task_id"]}
    for path in paths:
        agent = loaded(path)
        for task, walk in walks.items():
            shares = same_pathway(routing_of(agent, task, num_episodes), walk)
            for layer, share in enumerate(shares.tolist()):
                yield {
                    "checkpoint_path": path,
                    "task_id": task,
                    "measure": f"same expert, layer {layer}",
                    "value": share,
                }


def loaded(path: str) -> "Agent":
    from policy.agent import load_agent
    from results.checkpoints import load_checkpoint

    return load_agent(load_checkpoint(path))


def routing_of(agent: "Agent", task_id: str, num_episodes: int):
    """Return what an agent's routers do along the bot's walks through the first levels of a task."""
    from eval_mop import evaluate

    return evaluate(agent, task_id, num_episodes, num_envs=min(NUM_ENVS, num_episodes), along_the_bot=True).routing_data


def measure_difficulty(results: "pd.DataFrame", accuracy: float) -> Iterator[dict]:
    """Yield after how many env-steps each baseline on one task alone reached an accuracy; NaN where it never did."""
    baselines = results[results["mean_lpc"].isna()]
    for row in baselines.drop_duplicates("checkpoint_path", keep=False).itertuples():  # of one task
        path = Path(str(row.checkpoint_path)).parent / METRICS_FILE
        if not path.exists():
            continue
        try:
            steps = env_steps_to(read_metrics(path), accuracy)
        except ArtifactError as error:
            warn(f"{error}; this baseline is left out")
            continue
        measure = {"checkpoint_path": row.checkpoint_path, "task_id": row.task_id, "measure": f"{STEPS_TO}{accuracy:g}"}
        yield measure | {"value": steps if steps < float("inf") else float("nan")}


def measure(results: "pd.DataFrame", accuracy: float, num_episodes: int) -> list[dict]:
    """Return all measures of the networks among the results, one number a row (`tables.MEASURE_TYPES`)."""
    from plotting_utils import NothingToShow, networks

    measured = list(measure_difficulty(results, accuracy))
    try:
        rows = networks(results)
    except NothingToShow as error:
        raise UserError(str(error)) from None
    final = rows[rows["update"].isna()] if "update" in rows else rows
    folder = {path: str(Path(path).parent) for path in rows["checkpoint_path"]}
    for path in tqdm(final["checkpoint_path"].unique(), desc="networks", unit="network", leave=False):
        network = final[final["checkpoint_path"] == path]
        cached = network[[str(cache) != "nan" and Path(str(cache)).is_file() for cache in network["routing_cache"]]]
        if len(cached) < len(network):
            warn(f"{path}: {len(network) - len(cached)} of its {len(network)} tasks have no routing cache")
        measured += [{"checkpoint_path": path} | each for each in measure_routing(cached)]
        along = rows[(rows["checkpoint_path"].map(folder) == folder[path]) & (rows["checkpoint_path"] != path)]
        there = [each for each in along["checkpoint_path"].unique() if Path(each).is_file()]
        if there and Path(path).is_file():
            measured += measure_training(along[along["checkpoint_path"].isin(there)], network, num_episodes)
    return measured


def claims(figures: dict[str, list[dict]]) -> str:
    """Return what came out, form by form, as a Markdown table: means with their 95 % intervals.

    Args:
        figures: by the name of a figure, the numbers that it shows.
    """
    forms = list(dict.fromkeys(row["form"] for row in figures.get("price_of_pathways", [])))

    def found(figure: str, form: str, **which) -> str:
        for row in figures.get(figure, []):
            if row["form"] == form and all(row.get(name) == value for name, value in which.items()):
                return interval(row)
        return ""

    wanted = {
        "consistency, r": ("consistency", {"centred": True}),
        "the same, uncentred": ("consistency", {"centred": False}),
        "success": ("price_of_pathways", {"measure": "success"}),
        "difference": ("price_of_pathways", {"measure": "difference"}),
        "LPC": ("price_of_pathways", {"measure": "LPC"}),
        "LPC and difficulty, rho": ("cost_by_difficulty", {"task": "rank correlation"}),
        "change of LPC and difficulty, rho": ("cost_change_by_difficulty", {"task": "rank correlation"}),
        "lost without the largest and difficulty, rho": ("lesions_by_difficulty", {"task": "rank correlation"}),
        "I(task; pathway), bits": ("information", {"measure": "I(task;pathway)"}),
        "I(action; pathway), bits": ("information", {"measure": "I(action;pathway)"}),
        "task told from routing": ("information", {"measure": "task told from routing"}),
    }
    thresholds = {(row["lesion"], row["threshold"]) for row in figures.get("self_sufficiency", []) if row["threshold"]}
    for kind, threshold in sorted(thresholds):
        what = "experts below {:g} off" if kind == "min" else "own pathway above {:g} left"
        wanted[f"success, {what.format(threshold)}"] = ("self_sufficiency", {"lesion": kind, "threshold": threshold})
    rows = [[what, *(found(figure, form, **which) for form in forms)] for what, (figure, which) in wanted.items()]
    lines = [["measure", *forms], ["---"] * (len(forms) + 1), *(row for row in rows if any(row[1:]))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(row: dict) -> str:
    """Return `0.71 (0.60 to 0.82)`, without the interval where there is none."""
    digits = 0 if abs(row["mean"]) >= 10 else 2
    mean, low, high = (f"{row.get(name, float('nan')):.{digits}f}" for name in ("mean", "low", "high"))
    if mean == "nan":
        return ""
    return mean if low == "nan" else f"{mean} ({low} to {high})"


def draw(results_path: Path, folder: Path, file_formats: list[str], width: str) -> str:
    """Save all figures into a folder, a CSV beside each; return the table of what came out."""
    from browser.saving import save_all
    from plotting_utils import numbers_of, pathway_figures

    results = read_results(results_path)
    lesions_path = lesion_results_path(results_path)
    lesions = read_results(lesions_path) if lesions_path.exists() else results.head(0)
    numbers: dict[str, list[dict]] = {}

    def noted(name, make):
        def made():
            figure = make()
            numbers[name] = numbers_of(figure)
            return figure

        return made

    figures = pathway_figures(results, lesions, read_measures(measures_path(results_path)))
    makers = {name: noted(name, make) for name, make in figures.values()}
    save_all(makers, lambda name: folder / f"{name}.png", file_formats, width, on_nothing=warn)
    return claims(numbers)


def export(results_path: Path, folder: Path) -> None:
    """Write what the figures need, and no more, into a folder: results.csv and its two companions."""
    copy = folder / "results.csv"
    for source, target in ((results_path, copy), (lesion_results_path(results_path), lesion_results_path(copy))):
        write_result_rows(target, [{name: row.get(name, "") for name in NEEDED} for row in read_result_rows(source)])
    write_measures(measures_path(copy), read_measures(measures_path(results_path)).to_dict("records"))


def main() -> None:
    from browser.options import add_saving_flags

    parser = Parser(description=__doc__)
    parser.add_argument("--results_path", default=RESULTS_PATH, metavar="CSV", help="of batch_eval.py [%(default)s]")
    parser.add_argument("--figures", metavar="DIR", help="measure nothing, only draw what is measured, into DIR")
    parser.add_argument("--plots_dir", default="plots", help="where figures go, below pathways/ [%(default)s]")
    parser.add_argument(
        "--accuracy", type=float, default=ACCURACY, help="that makes a task easy or hard to reach alone [%(default)s]"
    )
    parser.add_argument(
        "--num_episodes", type=positive, default=32, metavar="N", help="walks of the bot along training [%(default)s]"
    )
    parser.add_argument("--export", metavar="DIR", help="also write all that the figures need into DIR")
    add_saving_flags(parser)
    arguments = parser.parse_args()
    if not 0 < arguments.accuracy <= 1:
        raise UserError(f"--accuracy {arguments.accuracy}: expected a share, such as 0.75")
    path = Path(arguments.results_path)
    if not path.exists():
        raise UserError(f"there are no results in {path} yet: run batch_eval.py first")
    if not arguments.figures:
        rows = measure(read_results(path), arguments.accuracy, arguments.num_episodes)
        write_measures(measures_path(path), rows)
        print(f"{len(rows):,} measures in {measures_path(path)}")
    if arguments.export:
        export(path, Path(arguments.export))
    folder = Path(arguments.figures or Path(arguments.plots_dir, "pathways"))
    print(draw(path, folder, arguments.format, arguments.width))


if __name__ == "__main__":
    run_script(main)
