"""What is decided in each cell and phase, and whether routing costs more where decisions are harder.

Of the actions taken in a cell (at least 5 visits, counts smoothed by a Dirichlet prior of 0.5, all in bits):
H(A|S), how undecided they are; KL to the phase's actions and to all actions, how much they are this cell's own.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from plotting.data import Entries, NothingToShow, compute_grid_info
from plotting.dependence import fill_cells
from plotting.style import (
    LPC_COLOR,
    SEQUENTIAL,
    Sizes,
    current_page,
    keep_numbers,
    new_figure,
    number_text,
    panels_in_a_row,
    plain,
    require_steps,
    small,
    task_styles,
    wrapped,
)
from plotting.variables import ACTION_NAMES, Variable, step_variables
from results.routing_data import RoutingData
from results.statistics import (
    correlation,
    entropy_bits,
    fisher_mean,
    kl_bits,
    means_over_episodes,
    mutual_information_bits,
    smoothed,
)

LEAST_VISITS = 5
MEASURES = {
    "H(A|S)": "H(A|S), bits",
    "KL to phase": "KL to the phase's actions, bits",
    "KL to all": "KL to all actions, bits",
}


def _phase_variable(data: RoutingData) -> Variable:
    """Return the phases of steps; one that holds them all where phases cannot be told apart."""
    return step_variables(data).get("phase") or Variable(np.zeros(len(data), int), ["all steps"])


def cell_measures(routing_data: Entries) -> dict[str, list[dict]]:
    """Return per phase a row for each cell with at least 5 visits in it: x, y, visits, LPC and the `MEASURES`.

    Raises:
        NothingToShow: the data does not tell actions.
    """
    data = require_steps(routing_data)
    if (data.action < 0).any():
        raise NothingToShow("this cache does not tell which actions were taken")
    phase, cell = _phase_variable(data), step_variables(data).get("cell")
    if cell is None or cell.places is None:
        raise NothingToShow("the agent never left its cell")
    actions = len(ACTION_NAMES)
    of_all = smoothed(np.bincount(data.action, minlength=actions))
    measured, places = {}, cell.places.tolist()
    for code, name in enumerate(phase.labels):
        here = phase.codes == code
        cells = len(cell.labels)
        counts = np.bincount(cell.codes[here] * actions + data.action[here], minlength=cells * actions)
        counts = counts.reshape(cells, actions)
        visits = counts.sum(1)
        lpc = np.bincount(cell.codes[here], data.lpc[here], cells) / np.maximum(visits, 1)
        shares, of_phase = smoothed(counts), smoothed(counts.sum(0))
        values = {"H(A|S)": entropy_bits(shares), "KL to phase": kl_bits(shares, of_phase)}
        values["KL to all"] = kl_bits(shares, of_all)
        measured[name] = [
            {"x": x, "y": y, "visits": int(visits[place]), "LPC": float(lpc[place])}
            | {measure: float(column[place]) for measure, column in values.items()}
            for place, (x, y) in enumerate(places)
            if visits[place] >= LEAST_VISITS
        ]
    return {name: rows for name, rows in measured.items() if rows}


def action_information(routing_data: Entries) -> dict[str, float]:
    """Return per phase how much the cell tells of the action, I(S;A) in bits (`statistics.mutual_information_bits`)."""
    data = require_steps(routing_data)
    phase, cell = _phase_variable(data), step_variables(data).get("cell")
    actions, known = len(ACTION_NAMES), data.action >= 0
    told = {}
    for code, name in enumerate(phase.labels):
        here = (phase.codes == code) & known
        codes = np.zeros(here.sum(), int) if cell is None else cell.codes[here]
        counts = np.bincount(codes * actions + data.action[here])
        told[name] = mutual_information_bits(np.pad(counts, (0, -len(counts) % actions)).reshape(-1, actions))
    return told


def lpc_correlations(routing_data: Entries) -> dict[str, dict[str, float]]:
    """Return per phase the correlation over cells of the LPC with each of the `MEASURES`."""
    found = {}
    for phase, rows in cell_measures(routing_data).items():
        lpc = np.array([row["LPC"] for row in rows])
        found[phase] = {name: correlation(lpc, np.array([row[name] for row in rows])) for name in MEASURES}
    return found


def lpc_by_phase(routing_data: Entries) -> dict[str, float]:
    """Return the mean LPC in each phase; episodes count alike, each with its mean over its steps in the phase."""
    data = require_steps(routing_data)
    phase = _phase_variable(data)
    means = means_over_episodes(phase.codes, data.episode, data.lpc)[0][:, 0]
    return dict(zip(phase.labels, means.tolist(), strict=True))


def decision_measures(routing_data: Entries) -> dict[str, float]:
    """Return how much there is to decide on a task, in bits, means over steps:

    - `H(A|S)`: the entropy of the actions taken, given phase and cell, over cells with at least 5 visits in a phase;
    - `I(S;A)`: what the cell tells of the action, given the phase (`action_information`);
    - `policy entropy`: of the softmax of a step's logits, given all that the policy saw; only where they are known.
    """
    data = require_steps(routing_data)
    rows = [row for rows in cell_measures(data).values() for row in rows]
    visits = np.array([row["visits"] for row in rows], float)
    phase, told = _phase_variable(data), action_information(data)
    steps = np.bincount(phase.codes, minlength=len(phase.labels))
    measured = {
        "H(A|S)": float(visits @ [row["H(A|S)"] for row in rows] / visits.sum()) if len(rows) else float("nan"),
        "I(S;A)": float(steps @ [told[name] for name in phase.labels] / steps.sum()),
    }
    if data.logits.shape[1]:
        logits = data.logits.astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        measured["policy entropy"] = float(entropy_bits(shares / shares.sum(1, keepdims=True)).mean())
    return measured


def plot_measures(routing_data: Entries, expert_hidden_sizes: Sizes = None, title_suffix: str = "") -> Figure:
    """Return per phase (row) the LPC and the `MEASURES` per cell, and how the LPC correlates with each over cells.

    I(S;A) beside a phase's name says how much the cell tells of the action in it.
    """
    data = require_steps(routing_data)
    measured, told, related = cell_measures(data), action_information(data), lpc_correlations(data)
    if not measured:
        raise NothingToShow(f"no cell was visited {LEAST_VISITS} times in one phase")
    grid_info = compute_grid_info(data)
    names = {"LPC": "LPC"} | MEASURES
    aspect = float(np.clip(grid_info.grid_height / grid_info.grid_width, 0.4, 1.3))
    title = f"What is decided in each cell, and what it costs{title_suffix}"
    width = current_page().width
    is_narrow = width is not None and width < 5
    height = (2.6 if width is None else width / 4) * aspect + 0.45
    figure, axes = new_figure(len(measured), 4, 2.6, max(height, 2.0 if is_narrow else 0.9), title)
    figure.set_figheight(figure.get_figheight() + 0.4)  # for the bars below
    tops = {name: max((row[name] for rows in measured.values() for row in rows), default=1) for name in names}
    for (phase, rows), panels in zip(measured.items(), axes, strict=True):
        places = np.array([[row["x"], row["y"]] for row in rows])
        for panel, (name, label) in zip(panels, names.items(), strict=True):
            scale = ScalarMappable(Normalize(0, max(tops[name], 1e-9)), "viridis" if name == "LPC" else SEQUENTIAL)
            fill_cells(panel, places, scale.to_rgba(np.array([row[name] for row in rows])), grid_info)
            panel.tick_params(labelleft=name == "LPC", labelbottom=phase == list(measured)[-1])
            r = "" if name == "LPC" or np.isnan(related[phase][name]) else f"r = {related[phase][name]:.2f}"
            head = (
                (name.replace(" to ", "\n") if is_narrow else label.split(",")[0])
                if phase == next(iter(measured))
                else ""
            )
            panel.set_title("\n".join(filter(None, [head, r])), fontsize=small())
            if phase == list(measured)[-1]:
                bar = figure.colorbar(
                    scale, ax=axes[:, list(names).index(name)], location="bottom", shrink=0.8, aspect=14
                )
                bar.ax.tick_params(labelsize=small(), length=2)
                bar.ax.xaxis.set_major_locator(MaxNLocator(3))
        row_name = wrapped(phase, 1.0, small()) if is_narrow else phase
        panels[0].set_ylabel(f"{row_name}\nI(S;A) {told[phase]:.2f} bits", fontsize=small())
    return keep_numbers(figure, [{"phase": phase} | row for phase, rows in measured.items() for row in rows])


def plot_measure_correlations(routing_by_run: Mapping[str, Sequence[Entries]]) -> Figure:
    """Return the correlation over cells of the LPC with each of the `MEASURES`, per phase: a dot per seed, their mean
    and its 95 % interval by Fisher's z.

    Args:
        routing_by_run: by the run's name (a task and a trial), the routing data of each of its seeds.
    """
    runs = {name: [lpc_correlations(data) for data in seeds] for name, seeds in routing_by_run.items()}
    phases = list(dict.fromkeys(phase for seeds in runs.values() for seed in seeds for phase in seed))
    if not phases:
        raise NothingToShow(f"no cell was visited {LEAST_VISITS} times in one phase")
    columns = panels_in_a_row(len(MEASURES), 1.5)
    title = "Does routing cost more where decisions are harder?\n(correlation of the LPC over cells; dots: seeds)"
    height = 0.3 * len(phases) * max(1, 0.5 * len(runs)) + 0.8
    figure, axes = new_figure(-(-len(MEASURES) // columns), columns, 3.0, height, title, sharey=True)
    styles, numbers = task_styles(list(runs)), []
    for panel, (measure, label) in zip(axes.flat, MEASURES.items(), strict=False):
        for place, (run, seeds) in enumerate(runs.items()):
            beside = 0.5 * (place - (len(runs) - 1) / 2) / max(len(runs), 1)
            for row, phase in enumerate(phases):
                values = [seed[phase][measure] for seed in seeds if phase in seed]
                mean, low, high = fisher_mean(values)
                panel.plot(
                    values, [row + beside] * len(values), "o", color=styles[run]["color"], markersize=3, alpha=0.55
                )
                bar = None if np.isnan(low) else [[mean - low], [high - mean]]
                name = run if row == 0 else None
                panel.errorbar([mean], [row + beside], xerr=bar, capsize=2, linestyle="", label=name, **styles[run])
                numbers.append({"run": run, "phase": phase, "measure": measure, "mean": mean, "low": low, "high": high})
                numbers[-1]["seeds"] = " ".join(f"{value:.4f}" for value in values)
        plain(panel).axvline(0, color="grey", linewidth=0.8)
        panel.set(xlim=(-1.05, 1.05), xlabel="r with the LPC")
        panel.set_title(wrapped(label.split(",")[0], figure.get_figwidth() / columns - 0.9, small()), fontsize=small())
        panel.set_yticks(range(len(phases)), phases, fontsize=small())
        panel.set_ylim(len(phases) - 0.4, -0.6)
    for unused in axes.flat[len(MEASURES) :]:
        unused.set_axis_off()
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), loc="outside lower center", fontsize=small(), frameon=False, ncols=2
    )
    return keep_numbers(figure, numbers)


def plot_phases_by_alpha(routing_by_alpha: Mapping[float, Sequence[Entries]], title_suffix: str = "") -> Figure:
    """Return the mean LPC in each phase (panel) against the price of experts, a dot per seed; episodes count alike.

    Args:
        routing_by_alpha: by `lpc_alpha`, the routing data of each seed.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for alpha, seeds in sorted(routing_by_alpha.items()):
        for data in seeds:
            for name, mean in lpc_by_phase(data).items():
                points.setdefault(name, []).append((alpha, mean))
    if not points:
        raise NothingToShow("no cache tells lpc_alpha and phases")
    alphas = sorted(routing_by_alpha)
    columns = panels_in_a_row(min(len(points), 4), 1.5)
    title = f"LPC by phase and price of experts (dots: seeds, line: mean){title_suffix}"
    figure, axes = new_figure(-(-len(points) // columns), columns, 2.6, 2.2, title, sharey=True)
    for panel, (phase, pairs) in zip(axes.flat, points.items(), strict=False):
        x = [alphas.index(alpha) for alpha, _ in pairs]
        panel.plot(x, [lpc for _, lpc in pairs], "o", color=LPC_COLOR, markersize=3, alpha=0.55)
        means = [np.mean([lpc for other, lpc in pairs if other == alpha]) for alpha in sorted({a for a, _ in pairs})]
        panel.plot(sorted(set(x)), means, color=LPC_COLOR, linewidth=1.2)
        plain(panel).set_title(phase, fontsize=small())
        panel.set_xticks(range(len(alphas)), [number_text(alpha) for alpha in alphas], fontsize=small())
        panel.set(xlabel="lpc_alpha", xlim=(-0.5, len(alphas) - 0.5))
    for panel in axes[:, 0]:
        panel.set_ylabel("mean LPC")
    axes[0, 0].set_ylim(0, 1.08 * max(lpc for pairs in points.values() for _, lpc in pairs))  # which all share
    for unused in axes.flat[len(points) :]:
        unused.set_axis_off()
    rows = [{"phase": phase, "lpc_alpha": a, "mean_lpc": lpc} for phase, pairs in points.items() for a, lpc in pairs]
    return keep_numbers(figure, rows)
