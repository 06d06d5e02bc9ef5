"""A policy on a GPU runs by its definition: the same training as on the CPU, but for rounding."""

import needs
import pandas as pd
import pytest
import torch

from basics.config import load_keys
from policy.agent import load_agent
from results import checkpoints, tables
from training.run import make_trainer, train

pytestmark = needs.gpu

GPU = "cuda"
SEVERAL = {"tasks": ("BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0"), "task_id": "several", "lpc_alpha": 1e-5}
REWARD = {"objective": "ppo", "num_minibatches": 1, "update_epochs": 1}
FORMS = {
    "imitation": {},
    "dropping experts": {"lpc_alpha": 1e-5, "normalize_lpc": "attached", "expert_dropout": 0.5},
    "many tasks": SEVERAL | {"normalize_lpc": "detached"},
    "words": {"lang_encoder": "words"},
    "words, concat": {"lang_encoder": "words", "lang_fusion": "concat", "obs_encoding": "raw"},
    "reward": REWARD,
    "reward, many tasks": REWARD | SEVERAL,
    "baseline": {"policy": "baseline"},
}


def config_for(folder, device, policy="mixture", **changes):
    config = {name: key.default for name, key in load_keys(policy).items()}
    config |= {"num_envs": 8, "unroll_len": 12, "num_updates": 6, "log_interval": 1, "checkpoint_interval": 3}
    config |= {"task_id": "BabyAI-UnlockPickup-v0", "max_grad_norm": 1e9}
    return config | {"checkpoint_dir": str(folder), "device": device} | changes


def first_update(folder, device, form):
    """Return what the first update measures and its gradients."""
    trainer = make_trainer(config_for(folder, device, **FORMS[form]))
    trainer.start()
    rollout = trainer.collect()
    trainer.learn(rollout)
    row, by_task = trainer.metrics(1.0, 0), trainer.metrics_by_task()
    trainer.env.close()
    gradients = {name: p.grad.cpu() for name, p in trainer.agent.named_parameters() if p.grad is not None}
    return rollout.action.cpu(), row, by_task, gradients


@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_learns_what_the_cpu_learns(tmp_path, form):
    (done, row, by_task, gradients), expected = (first_update(tmp_path, device, form) for device in (GPU, "cpu"))
    assert torch.equal(done, expected[0])
    assert row == pytest.approx(expected[1], rel=1e-3, abs=1e-6, nan_ok=True)
    pd.testing.assert_frame_equal(pd.DataFrame(by_task), pd.DataFrame(expected[2]), rtol=1e-3)
    assert gradients.keys() == expected[3].keys()
    for name, gradient in gradients.items():
        assert (gradient - expected[3][name]).norm() <= 1e-2 * expected[3][name].norm(), name


@pytest.mark.parametrize("form", ["imitation", "reward, many tasks", "baseline"])
def test_what_a_gpu_trained_goes_on_anywhere(tmp_path, form):
    """A run that stopped is resumed, and its policy loaded on the CPU acts as it does on the GPU."""
    config = config_for(tmp_path, GPU, **FORMS[form])
    folder = tmp_path / config["task_id"] / "trial_0"
    assert train(config) == 0
    whole = tables.read_metrics(folder / "metrics.csv")
    (folder / "checkpoint_final.pt").unlink()
    assert train(config, resume=True) == 0
    resumed = tables.read_metrics(folder / "metrics.csv")
    assert resumed["update"].tolist() == whole["update"].tolist() == [1, 2, 3, 4, 5, 6]
    assert resumed.loss.iloc[3] == pytest.approx(whole.loss.iloc[3], rel=1e-2)  # the first after the checkpoint

    checkpoint = checkpoints.load_checkpoint(folder / "checkpoint_final.pt")
    logits = []
    for device in ("cpu", GPU):
        agent = load_agent(checkpoint, device=device)
        packed = agent.fast_policy.pack(1, 4)
        missions = agent.mission_features(packed)
        observation = torch.randint(0, 3, (4, 152), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        mission = torch.from_numpy(missions.rows(agent.missions.lookup(["pick up the red box"] * 4)))
        begun = torch.zeros(4, device=device)
        now = (mission.to(device), agent.policy.initial_state(4), begun)
        with torch.no_grad():
            logits.append(packed.step(0, observation.to(device), missions.features, *now).logits.cpu().clone())
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)


def test_a_policy_on_a_gpu_is_its_definition(tmp_path):
    trainer = make_trainer(config_for(tmp_path, "auto"))
    trainer.env.close()
    assert trainer.device.type == GPU and trainer.agent.fast_policy is trainer.agent.policy
