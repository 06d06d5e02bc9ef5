"""How long does a reader wait? Seconds from a click to a figure, for one checkpoint and its routing cache.

    python batch_eval.py --num_episodes 1000
    python benchmarks/waiting.py --checkpoint checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt

The first figure is what a notebook shows on opening: what routing depends on. Processor time stands beside the clock's,
since it is the same on a busy machine.
"""

import argparse
import io
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import routing_viz
from basics.errors import UserError, run_script
from plotting_utils import NothingToShow
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

    print(f"{time.process_time():6.2f} s of the processor for importing")
    began, used = time.perf_counter(), time.process_time()
    routing = routing_viz.load_routing(ref, arguments.cache_dir, True, 1, 1)
    read = time.perf_counter() - began, time.process_time() - used
    print(f"{len(routing.data.episodes):,} episodes, {len(routing.data):,} steps")
    print(f"{read[0]:6.2f} s, {read[1]:.2f} s of the processor  reading the cache")
    figures = {name: make for tab in routing_viz.tab_figures(routing).values() for name, make in tab.items()}
    figures["strongest expert"] = lambda: routing_viz.heatmap_figure(routing, "overall")
    for name, make in figures.items():
        began, used = time.perf_counter(), time.process_time()
        try:
            figure = make()
        except NothingToShow as error:
            print(f"     -    {name}: {error}")
            continue
        figure.savefig(io.BytesIO(), format="png")
        clock, processor = time.perf_counter() - began, time.process_time() - used
        print(f"{clock:6.2f} s, {processor:.2f} s of the processor  {name}")


if __name__ == "__main__":
    run_script(main)
