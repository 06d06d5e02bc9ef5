"""How long does a reader wait? Seconds from a click to a figure, for one checkpoint and its routing cache.

    python batch_eval.py --num_episodes 1000
    python benchmarks/waiting.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt

The first heatmap is what a notebook shows on opening: the cache read, the level's picture, the figure and its PNG.
"""

import argparse
import io
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import routing_viz
from basics.errors import UserError, run_script
from results import paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--cache_dir", default=paths.CACHE_DIR)
    arguments = parser.parse_args()
    ref = paths.checkpoint_ref(Path(arguments.checkpoint))
    if ref is None or not paths.routing_cache_path(arguments.cache_dir, ref).exists():
        raise UserError(
            f"{arguments.checkpoint} has no routing cache in {arguments.cache_dir}: run batch_eval.py first"
        )

    began = time.perf_counter()
    routing = routing_viz.load_routing(ref, arguments.cache_dir, True, 1, 1)
    read = time.perf_counter() - began
    print(f"{len(routing.data.episodes):,} episodes, {len(routing.data):,} steps")
    print(f"{read:6.2f} s  reading the cache")
    figures = {"first heatmap": lambda: routing_viz.heatmap_figure(routing, "overall", {})}
    figures |= {name: make for tab in routing_viz.view_figures(routing).values() for name, make in tab.items()}
    for name, make in figures.items():
        began = time.perf_counter()
        try:
            figure = make()
        except ValueError as error:
            print(f"     -    {name}: {error}")
            continue
        made = time.perf_counter() - began
        figure.savefig(io.BytesIO(), format="png")
        print(f"{time.perf_counter() - began:6.2f} s  {name} ({made:.2f} s of it before drawing)")


if __name__ == "__main__":
    run_script(main)
