"""Publish trained checkpoints: what others open in a notebook without training anything.

    python publish.py checkpoints/BabyAI-BossLevel-v0/trial_0/checkpoint_final.pt ...

Each goes to published/<task_id>/trial_<N>/checkpoint_final.pt, the policy and its config only, without what resuming
needs; it is evaluated on 512 levels, greedily and by sampled actions, and its row stands in
published/evaluation_results.csv. Publishing again replaces both.
"""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from basics.config import Parser
from basics.errors import UserError, run_script, say
from basics.files import atomic_write
from results import paths
from results.eval_options import natural

HERE = Path(__file__).parent
NUM_EPISODES = 512


def published(checkpoint: dict) -> dict:
    """Return what of a checkpoint is published: all but the state that resuming needs."""
    config = checkpoint["config"] | {"checkpoint_dir": paths.PUBLISHED}
    return {name: part for name, part in checkpoint.items() if name != "resume_state"} | {"config": config}


def deflate(path: Path) -> None:
    """Compress a checkpoint, which is a zip archive that torch.save leaves as large as it is; torch.load reads both."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as small:
        for entry in whole.infolist():
            small.writestr(entry.filename, whole.read(entry))
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="PATH", help="final checkpoints of training runs")
    parser.add_argument(
        "--trial", type=natural, default=0, help="the number under which they are published [%(default)s]"
    )
    arguments = parser.parse_args()
    from results.checkpoints import load_checkpoint, save_checkpoint  # PyTorch takes seconds to import

    chosen = {}
    for path in map(Path, arguments.checkpoints):
        checkpoint = load_checkpoint(path)
        task_id = checkpoint["config"].get("task_id")
        if task_id is None:
            raise UserError(f"{path}: its config does not say which task it was trained on")
        if task_id in chosen:
            raise UserError(
                f"{path}: there is one checkpoint for {task_id} already; give the other a --trial of its own"
            )
        chosen[task_id] = checkpoint
    for task_id, checkpoint in chosen.items():
        path = paths.checkpoint_path(paths.PUBLISHED, task_id, arguments.trial)
        save_checkpoint(path, published(checkpoint))
        deflate(path)
        say(f"saved {path}, {path.stat().st_size / 1e6:.2f} MB")
    command = [sys.executable, str(HERE / "batch_eval.py"), "--checkpoint_dir", paths.PUBLISHED]
    command += ["--results_path", str(Path(paths.PUBLISHED) / paths.RESULTS_PATH), "--skip_routing", "--sampled"]
    return subprocess.run([*command, "--num_episodes", str(NUM_EPISODES)]).returncode


if __name__ == "__main__":
    run_script(main)
