"""The flags of the two notebooks, without anything that takes long to import: they are read before all else."""

import argparse
from collections.abc import Sequence

from basics.config import Parser
from results.eval_options import NUM_ENVS, positive
from results.paths import CACHE_DIR, PLOTS_DIR, RESULTS_PATH

FORMATS = ("png", "pdf", "svg")
WIDTHS = ("column", "page", "screen")
OUTCOMES = {"solved": True, "not solved": False, "all": None}


def wants_help(arguments: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & set(arguments))


def routing_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags of routing_viz.py; with `--help`, print them and leave."""
    parser = Parser(prog="routing_viz.py", description="Save all figures of one checkpoint under plots/.")
    parser.add_argument("--checkpoint", metavar="PATH", help="a checkpoint_*.pt [default: the first that is found]")
    parser.add_argument(
        "--task",
        metavar="TASK",
        help="the task that it plays [what it was trained on; of a set the first with a cache]",
    )
    parser.add_argument(
        "--outcome", choices=list(OUTCOMES), default="solved", help="of the episodes shown [%(default)s]"
    )
    add_saving_flags(parser)
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


def cross_task_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the flags of cross_task_viz.py; with `--help`, print them and leave."""
    parser = Parser(
        prog="cross_task_viz.py", description="Save figures that compare checkpoints, in plots/cross_task/."
    )
    parser.add_argument(
        "--results_path", default=RESULTS_PATH, metavar="CSV", help="what batch_eval.py wrote [%(default)s]"
    )
    parser.add_argument("--task", metavar="PATTERN", help="only these tasks or sets of tasks, such as 'BabyAI-GoTo*'")
    add_saving_flags(parser)
    parser.add_argument("--plots_dir", default=PLOTS_DIR, help="where figures go [%(default)s]")
    return parser.parse_args(arguments)


def add_saving_flags(parser: argparse.ArgumentParser) -> None:
    """Declare `--format` and `--width`."""
    parser.add_argument(
        "--format",
        default="png",
        type=formats,
        metavar="png,pdf,svg",
        help="of figures, one or several, separated by commas [%(default)s]",
    )
    parser.add_argument(
        "--width",
        choices=WIDTHS,
        default="screen",
        help="of figures: a column (3.25 in) or page (6.75 in) of a paper, or the screen [%(default)s]",
    )


def formats(text: str) -> list[str]:
    """An argparse type: file formats of figures, separated by commas."""
    chosen = list(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if not chosen or not set(chosen) <= set(FORMATS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(FORMATS)}, separated by commas; got {text!r}")
    return chosen
