"""One page for somebody who has only a browser: figures, captions and playable episodes in a single HTML file.

    python report.py                                 # writes report.html of everything that was evaluated
    python report.py --task 'BabyAI-Unlock*' --output unlock.html

The file is self-contained: pictures, data and the player's program are inside it, and nothing is loaded from anywhere.
"""

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from basics.config import Parser
from basics.errors import UserError, run_script, warn
from basics.files import ArtifactError, atomic_write, timestamp
from browser.replay import scene
from browser.widgets import HERE, data_url
from plotting.style import Page
from plotting_utils import (
    NothingToShow,
    number_text,
    page,
    plot_conditional_means,
    plot_dependence,
    plot_learning_curves,
    plot_lesions,
    plot_lpc_alpha,
    plot_relative_maps,
    plot_success_against_lpc,
    routing_dependence,
    short_task,
    step_variables,
    wilson_interval,
)
from results.paths import METRICS_FILE, RESULTS_PATH, lesion_results_path
from results.routing_caches import read_routing_cache
from results.routing_data import RoutingData
from results.tables import read_metrics, read_results

REPORT = "report.html"
MOST_CHECKPOINTS = 4  # of which the page shows what routing depends on
WIDE = Page(8.6, 8)  # of figures in the page

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 900px; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
figure { margin: 1rem 0 2rem; } figure img { width: 100%; background: white; border-radius: 6px; }
figcaption { opacity: 0.85; font-size: 0.92rem; }
table { border-collapse: collapse; font-size: 0.92rem; } td, th { padding: 0.2rem 0.7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } thead { border-bottom: 1px solid #8888; }
.table { overflow-x: auto; }
"""

INTRODUCTION = """A mixture-of-experts policy decides at every step, in each of its layers, how much each expert counts:
the routing weights. Experts differ in size; the identity passes its input on and costs nothing. <b>LPC</b> (layered
parameter cost) is what a step uses: the sum over layers and experts of the routing weight times the square of the
expert's hidden size. A price on it, <i>lpc_alpha</i>, makes training prefer cheap experts where they suffice."""

CAPTIONS = {
    "success": "Each mark is a run: up is better, left is cheaper. Small dots are single seeds. Policies that are one"
    " GRU have no experts, and so no LPC; they stand in a strip of their own.",
    "alpha": "What the price of experts changes: success at the left, what is used at the right. Small dots are seeds.",
    "learning": "How success, agreement with the teacher, error and cost developed while training.",
    "lesions": "Success with all experts (black bars) and with some of them switched off in the same policies (dots)."
    " A long line is a large loss: the task needs those experts. Small dots are single seeds.",
    "dependence": "How much of the variation of the LPC (bars) and of every expert's weight (table) one can explain by"
    " knowing only the variable at the left, adjusted so that chance explains nothing. Every episode counts alike.",
    "given": "Mean routing weights and LPC given the variable that explains most, with 95 % intervals over episodes.",
    "maps": "Red: the expert is used more in this cell than on average, blue: less. Rows are layers, columns experts."
    " Right: the LPC, and in how many episodes each cell was visited.",
    "episode": "Press play, or click into the timelines. The way is colored by the strongest expert of a layer.",
}


def figure_html(make: Callable[[], Figure], caption: str) -> str:
    """Return a figure with its caption; a sentence where there is nothing to show."""
    try:
        with page(WIDE):
            source = data_url(make(), dpi=150)
    except NothingToShow as error:
        return f"<p><i>{html.escape(str(error).capitalize())}.</i></p>"
    return f'<figure><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>'


def results_table(results: pd.DataFrame) -> str:
    """Return a row per checkpoint: success with its 95 % interval, path ratio, LPC, price."""
    heads = ["run", "episodes", "success, % (95 % interval)", "steps / bot's steps", "LPC", "lpc_alpha"]
    lines = []
    for row in rows_of(results):
        episodes = np.nan if pd.isna(row.num_episodes) else float(row.num_episodes)
        low, high = wilson_interval(row.success_rate, episodes)
        interval = "" if np.isnan(low) else f" ({100 * low:.1f}–{100 * high:.1f})"
        cells = [
            run_name(row),
            "" if np.isnan(episodes) else f"{episodes:,.0f}",
            "" if np.isnan(row.success_rate) else f"{100 * row.success_rate:.1f}{interval}",
            "" if pd.isna(row.path_ratio) else f"{row.path_ratio:.2f}",
            "one GRU" if pd.isna(row.mean_lpc) else f"{row.mean_lpc:.0f}",
            "" if pd.isna(row.lpc_alpha) or pd.isna(row.mean_lpc) else number_text(float(row.lpc_alpha)),
        ]
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    header = "".join(f"<th>{html.escape(head)}</th>" for head in heads)
    return f'<div class="table"><table><thead><tr>{header}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def rows_of(results: pd.DataFrame) -> list[Any]:
    """Return the rows, whose columns are attributes."""
    return list(results.itertuples())


def run_name(row: Any) -> str:
    numbers = [(label, getattr(row, label, None)) for label in ("trial", "seed", "update")]
    task = row.task_id if row.trained_on == row.task_id else f"{row.trained_on}: {row.task_id}"
    return " ".join([short_task(task), *(f"{label} {number}" for label, number in numbers if pd.notna(number))])


def telling_episodes(data: RoutingData) -> dict[int, str]:
    """Return up to three episodes worth watching, and why: one of usual length, the most expensive, and a failure (or
    the longest one where all were solved)."""
    steps = np.bincount(data.episode, minlength=len(data.episodes))
    lpc = np.bincount(data.episode, data.lpc, len(data.episodes)) / np.maximum(steps, 1)
    played = np.flatnonzero(steps)
    solved = np.array([episode for episode in played if data.episodes[episode]["success"]], int)
    failed = np.array([episode for episode in played if data.episodes[episode]["success"] is False], int)
    chosen: dict[int, str] = {}
    if len(solved):
        usual = solved[np.argsort(np.abs(steps[solved] - np.median(steps[solved])), kind="stable")[0]]
        chosen[int(usual)] = "An episode of usual length."
        chosen.setdefault(int(solved[lpc[solved].argmax()]), "The solved episode with the highest mean LPC.")
    if len(failed):
        chosen.setdefault(int(failed[0]), "An episode that was not solved.")
    elif len(solved):
        chosen.setdefault(int(solved[steps[solved].argmax()]), "The longest episode.")
    return chosen


def checkpoint_parts(row, cache: dict, players: list[dict]) -> Iterator[str]:
    """Yield what the page shows of one checkpoint; episodes to play are appended to `players`."""
    data, sizes = cache["routing_data"], cache.get("expert_hidden_sizes")
    success = np.array([bool(episode["success"]) for episode in data.episodes])
    shown = data.select(success[data.episode]) if success.any() else data
    count = len(np.unique(shown.episode))
    about = f"\n{run_name(row)}, {count:,} {'solved ' if success.any() else ''}episodes"
    yield f"<h2>{html.escape(run_name(row))}</h2>"
    yield figure_html(lambda: plot_dependence(shown, sizes, about), CAPTIONS["dependence"])
    variables = step_variables(shown)
    flat = [name for name in routing_dependence(shown, sizes)[0] if variables[name].places is None]
    if flat:
        yield figure_html(lambda: plot_conditional_means(shown, flat[0], sizes, about), CAPTIONS["given"])
    yield figure_html(lambda: plot_relative_maps(shown, sizes, about), CAPTIONS["maps"])
    for episode, why in telling_episodes(data).items():
        try:
            players.append(scene(row.task_id, data, episode, sizes))
        except (NothingToShow, UserError) as error:
            yield f"<p><i>{html.escape(str(error))}</i></p>"
            continue
        caption = f"{why} {CAPTIONS['episode']}"
        player = f'<div class="play" data-place="{len(players) - 1}"></div>'
        yield f"<figure>{player}<figcaption>{caption}</figcaption></figure>"


def report_html(results_path: str, task: str | None = None) -> str:
    """Return the page, as text.

    Raises:
        UserError: nothing was evaluated.
    """
    results = read_results(results_path)
    if task is not None:
        columns = results["task_id"], results["trained_on"]
        results = results[[any(Path(name).match(task) for name in names) for names in zip(*columns, strict=True)]]
    if results.empty:
        raise UserError(f"{results_path}: there are no results{'' if task is None else f' of {task}'} to report")
    for column in ("seed", "update", "routing_cache"):
        if column not in results:
            results[column] = pd.NA
    final = results[results["update"].isna()] if results["update"].isna().any() else results
    final = final.sort_values(["trained_on", "task_id", "trial", "seed"])
    parts = [f"<h1>Which expert works where</h1><p>{INTRODUCTION}</p>", results_table(final)]
    parts += ["<h2>Success and cost</h2>", figure_html(lambda: plot_success_against_lpc(final), CAPTIONS["success"])]
    if final["lpc_alpha"].nunique() > 1:
        parts.append(figure_html(lambda: plot_lpc_alpha(final), CAPTIONS["alpha"]))
    if curves := learning_curves(final):
        parts += ["<h2>Learning</h2>", figure_html(lambda: plot_learning_curves(curves), CAPTIONS["learning"])]
    lesions = lesion_results_path(results_path)
    if lesions.exists():
        parts.append("<h2>Without some experts</h2>")
        parts.append(figure_html(lambda: plot_lesions(final, read_results(lesions)), CAPTIONS["lesions"]))
    players: list[dict] = []
    cached = final[[isinstance(path, str) and Path(path).is_file() for path in final["routing_cache"]]]
    shown = cached.drop_duplicates(["trained_on", "task_id"]).head(MOST_CHECKPOINTS)
    for row in tqdm(rows_of(shown), desc="checkpoints", unit="checkpoint", leave=False):
        try:
            cache = read_routing_cache(row.routing_cache)
        except ArtifactError as error:
            warn(str(error))
            continue
        parts += checkpoint_parts(row, cache, players)
    program = (HERE / "player.js").read_text(encoding="utf-8").replace("export default { render };", "")
    program = program.replace("export function mount", "function mount")
    data = json.dumps(players).replace("<", "\\u003c")  # so that nothing in it can end the script
    starter = "for (const node of document.querySelectorAll('.play')) mount(node, scenes[Number(node.dataset.place)]);"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Which expert works where</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}{(HERE / 'player.css').read_text(encoding='utf-8')}</style></head><body>{''.join(parts)}"
        f"<p>Made from {html.escape(str(results_path))}, {timestamp()}.</p>"
        f'<script type="module">{program}\nconst scenes = {data};\n{starter}</script></body></html>\n'
    )


def learning_curves(results: pd.DataFrame) -> dict[str, list[pd.DataFrame]]:
    """Return by task and trial the learning curves of its seeds, of the runs that have a readable one."""
    curves: dict[str, list[pd.DataFrame]] = {}
    for row in rows_of(results.drop_duplicates("checkpoint_path")):
        path = Path(row.checkpoint_path).parent / METRICS_FILE
        if path.exists():
            try:
                curves.setdefault(f"{short_task(row.trained_on)} trial {row.trial}", []).append(read_metrics(path))
            except ArtifactError as error:
                warn(str(error))
    return curves


def main() -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--results_path", default=RESULTS_PATH, metavar="CSV", help="what batch_eval.py wrote [%(default)s]"
    )
    parser.add_argument("--task", metavar="PATTERN", help="only these tasks or sets of tasks, such as 'BabyAI-GoTo*'")
    parser.add_argument("--output", default=REPORT, metavar="HTML", help="the page to write [%(default)s]")
    arguments = parser.parse_args()
    content = report_html(arguments.results_path, arguments.task)
    with atomic_write(arguments.output) as file:
        file.write(content)
    print(f"saved {arguments.output}: open it in a browser")


if __name__ == "__main__":
    run_script(main)
