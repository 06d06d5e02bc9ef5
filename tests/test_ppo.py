"""Learning from reward: formulas by hand, one update against plain PyTorch, toys whose optimum is known, real runs."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import ROOT, config_for, metrics, run_folder, train_script, wait_for, weights

from basics.config import load_keys
from basics.errors import UserError
from eval_mop import evaluate
from policy.agent import load_agent
from policy.observation import observation_vector
from results.checkpoints import load_checkpoint, save_checkpoint
from results.tables import read_metrics, read_metrics_by_task
from training.imitation import ImitationTrainer
from training.ppo import PPOTrainer, generalized_advantages
from training.run import train

TASK = "BabyAI-GoToObj-v0"


def ppo_config(folder, policy="mixture", **changes):
    defaults = {name: key.default for name, key in load_keys(policy, "ppo").items()}
    own = {"objective": "ppo", "num_envs": 4, "unroll_len": 8, "num_minibatches": 2, "num_updates": 6} | changes
    return (
        defaults
        | config_for(folder, policy)
        | {name: defaults[name] for name in ("lr", "max_grad_norm", "aux_weight")}
        | own
    )


# ------------------------------------------------------------------------------------------------------------ formulas


def test_advantages_worked_by_hand():
    """Two environments, three steps, gamma 0.5, lambda 0.5; the first one's episode ends with its second step."""
    reward = torch.tensor([[1.0, 0.0], [4.0, 0.0], [2.0, 8.0]])
    value = torch.tensor([[2.0, 1.0], [2.0, 2.0], [4.0, 4.0], [8.0, 8.0]])
    goes_on = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    # surprises, first: 1 + 1 - 2 = 0, 4 - 2 = 2, 2 + 4 - 4 = 2; second: 0 + 1 - 1 = 0, 0 + 2 - 2 = 0, 8 + 4 - 4 = 8
    expected = torch.tensor([[0 + 0.25 * 2, 0 + 0.25 * 2], [2.0, 0 + 0.25 * 8], [2.0, 8.0]])
    assert torch.equal(generalized_advantages(reward, value, goes_on, 0.5, 0.5), expected)


def test_with_lambda_1_advantages_are_returns_less_what_was_expected():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(9, 5, generator=generator), torch.randn(10, 5, generator=generator)
    goes_on = (torch.rand(9, 5, generator=generator) > 0.3).float()
    returns = [value[-1]]
    for t in reversed(range(9)):
        returns.insert(0, reward[t] + 0.9 * goes_on[t] * returns[0])
    computed = generalized_advantages(reward, value, goes_on, 0.9, 1.0)
    torch.testing.assert_close(computed, torch.stack(returns[:-1]) - value[:-1])


@pytest.mark.parametrize(
    "policy, changes",
    [
        (
            "mixture",
            {"expert_dropout": 0.5, "expert_dropout_threshold": 0.4, "lpc_alpha": 1e-4, "imitation_weight": 0.3},
        ),
        ("baseline", {"normalize_advantage": False, "max_grad_norm": None, "lr_schedule": "constant"}),
    ],
    ids=["mixture", "baseline"],
)
def test_an_update_is_what_plain_pytorch_makes_of_the_same_rollout(tmp_path, policy, changes):
    """The whole update, gradient step by gradient step, by the policy's definition, torch.distributions and
    torch.optim.Adam."""
    numbers = {"reward_scale": 20.0, "entropy_coef": 0.01, "update_epochs": 3, "num_minibatches": 2}
    config = ppo_config(
        tmp_path, policy, num_updates=5, num_envs=24, unroll_len=20, backend="fast", **numbers, **changes
    )
    trainer = PPOTrainer(config)
    trainer.start()
    twin = PPOTrainer(config)
    twin.start()
    for _ in range(3):  # so that states are not all zero, and somebody has found what is rewarded
        trainer.learn(trainer.collect())
        twin.learn(twin.collect())
    rollout, same_rollout = trainer.collect(), twin.collect()
    assert torch.equal(rollout.observation, same_rollout.observation) and rollout.reward.sum() > 0

    agent, noise = twin.agent, twin.noise
    now = rollout.policy.step(
        0,
        torch.from_numpy(observation_vector(trainer.observations)),
        rollout.missions.features,
        torch.from_numpy(rollout.missions.rows(trainer.agent.missions.lookup(trainer.infos["mission"]))),
        trainer.policy_state,
        torch.from_numpy(trainer.not_done),
    )
    values = torch.cat([rollout.value, now.value[None].detach()])
    ended = torch.cat([1 - rollout.not_done[1:], 1 - torch.from_numpy(trainer.not_done)[None]])
    advantage = torch.zeros(20, 24)
    for t in reversed(range(20)):
        delta = 20 * rollout.reward[t] + 0.99 * (1 - ended[t]) * values[t + 1] - values[t]
        advantage[t] = delta + (0.99 * 0.99 * (1 - ended[t]) * advantage[t + 1] if t < 19 else 0)
    target = advantage + rollout.value
    old = torch.distributions.Categorical(logits=rollout.logits).log_prob(rollout.action)
    plain = torch.optim.Adam(
        [{"params": group["params"], "lr_factor": group["lr_factor"]} for group in twin.optimizer.param_groups]
    )
    plain.load_state_dict(twin.optimizer.state_dict())
    for state in plain.state.values():
        state["step"] = state["step"].clone()  # ours counts once for all parameters
    for _ in range(3):
        for envs in torch.randperm(24, generator=noise).chunk(2):
            part = same_rollout.of(envs)
            language = agent.project(same_rollout.missions.numbers)
            output = agent.policy.unroll(
                part.observation, (language,), part.mission, part.state, part.not_done, part.rule
            )
            distribution = torch.distributions.Categorical(logits=output.logits - part.penalty)
            ratio = (distribution.log_prob(part.action) - old[:, envs]).exp()
            better = advantage[:, envs]
            if config["normalize_advantage"]:
                better = (better - better.mean()) / (better.std() + 1e-8)
            surrogate = torch.min(ratio * better, ratio.clamp(0.8, 1.2) * better).mean()
            loss = (
                0.5 * (output.value - target[:, envs]).pow(2).mean() - surrogate - 0.01 * distribution.entropy().mean()
            )
            if policy == "mixture":
                ce = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), part.label.flatten())
                costs = [torch.tensor(layer) for layer in agent.policy.expert_costs]
                lpc = sum((layer * cost).sum(-1).mean() for layer, cost in zip(output.routing, costs, strict=True))
                loss = loss + 0.3 * ce + 1e-4 * lpc
            plain.zero_grad()
            loss.backward()
            if config["max_grad_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(agent.parameters(), config["max_grad_norm"])
            for group in plain.param_groups:
                group["lr"] = group["lr_factor"] * config["lr"] * _factor(config, 3 / 5)
            plain.step()
    before = {name: parameter.clone() for name, parameter in trainer.agent.named_parameters()}
    trainer.learn(rollout)
    moved = 0.0
    for (name, ours), plains in zip(trainer.agent.named_parameters(), agent.parameters(), strict=True):
        torch.testing.assert_close(ours, plains, rtol=1e-3, atol=2e-5, msg=name)
        moved = max(moved, float((ours - before[name]).abs().max().detach()))
    assert moved > 1e-3, "nothing was learned that could have differed"


def _factor(config, progress):
    return 1.0 if config["lr_schedule"] == "constant" else 0.5 * (1 + np.cos(np.pi * progress))


# ---------------------------------------------------------------------------------------------------------------- toys


class Toy:
    """In place of a trainer's environments: episodes of `delay` + 1 steps, rewarded by 1 where the last action is the
    one that a cue calls for, which is seen in the first step alone. Whoever remembers it gets 1 in every episode."""

    RIGHT = np.array([3, 0, 6, 2])  # by cue

    def __init__(self, env, delay):
        self.env, self.delay, self.num_envs = env, delay, env.num_envs
        self.next_episode, self.task_of_env = env.next_episode, env.task_of_env
        self.chooser = np.random.default_rng(0)

    def reset(self, seed):
        self.observations, self.infos = self.env.reset(seed=seed)
        self.observations = {name: np.zeros_like(values) for name, values in self.observations.items()}
        self.t = np.zeros(self.num_envs, int)
        self.cue = self.chooser.integers(0, 4, self.num_envs)
        return self._seen(), self.infos

    def _seen(self):
        image = self.observations["image"].copy()
        image[:, 0, 0, 0] = np.where(self.t == 0, 4 + self.cue, 1)
        return self.observations | {"image": image}

    def step(self, actions):
        ended = self.t == self.delay
        reward = (ended & (actions == self.RIGHT[self.cue])).astype(float)
        self.t = np.where(ended, 0, self.t + 1)
        self.cue = np.where(ended, self.chooser.integers(0, 4, self.num_envs), self.cue)
        return self._seen(), reward, ended, np.zeros(self.num_envs, bool), self.infos

    def close(self):
        self.env.close()


@pytest.mark.parametrize("delay", [0, 1], ids=["bandit", "memory"])
@pytest.mark.parametrize("policy", ["mixture", "baseline"])
def test_the_policy_comes_to_the_optimum_of_a_toy(tmp_path, policy, delay):
    small = {"expert_hidden_sizes": [[0, 8]], "router_hidden_size": 8} if policy == "mixture" else {"hidden_size": 16}
    sizes = {"num_envs": 64, "unroll_len": 8, "num_updates": 100, "backend": "fast", "lr_schedule": "linear"}
    plain = {"obs_encoding": "raw", "lang_fusion": "concat", "lr": 3e-3, "router_lr_factor": 1.0}
    trainer = PPOTrainer(ppo_config(tmp_path, policy, gamma=0.9, reward_scale=1.0, **sizes, **small, **plain))
    trainer.env = Toy(trainer.env, delay)
    trainer.start()
    for _ in range(100):
        trainer.learn(trainer.collect())
    rollout = trainer.collect()
    trainer.env.close()
    episodes = (rollout.not_done == 0).sum()
    assert rollout.reward.sum() / episodes > 0.9
    expected = rollout.value[rollout.not_done == 0].mean().item()
    assert expected == pytest.approx(0.9**delay, abs=0.1)  # as much as there is to be had, discounted


# ---------------------------------------------------------------------------------------------------------------- runs


def script(folder, *flags, wait=True):
    return train_script("train_mop.py", folder, "--objective", "ppo", "--num_envs", "4", *flags, wait=wait)


@pytest.mark.parametrize("policy, value_warmup", [("mixture", 0), ("baseline", 6)])  # resumed while it lasts
def test_a_run_repeats_bit_for_bit_resumes_and_is_evaluated(tmp_path, policy, value_warmup):
    steps = {"num_updates": 8, "value_warmup": value_warmup}
    config = ppo_config(tmp_path / "one", policy, **steps, checkpoint_interval=5, log_interval=2)
    assert train(config) == 0
    other = config | {"checkpoint_dir": str(tmp_path / "other")}
    train(other)
    (run_folder(tmp_path / "other") / "checkpoint_final.pt").unlink()  # what is left when it is killed after update 5
    assert train(other, resume=True) == 0
    assert metrics(tmp_path / "one").equals(metrics(tmp_path / "other"))
    one, again = (weights(run_folder(tmp_path / name) / "checkpoint_final.pt") for name in ("one", "other"))
    assert all(torch.equal(one[name], again[name]) for name in one) and "value_head.weight" in one
    row = metrics(tmp_path / "one").iloc[-1]
    assert row["update"] == 8 and row.env_steps == 8 * 4 * 8 and 0 < row.entropy < np.log(7) and row.value_loss > 0
    assert row.loss == pytest.approx(
        row.policy_loss + 0.5 * row.value_loss - config["entropy_coef"] * row.entropy + row.penalty, rel=1e-4
    )
    agent = load_agent(load_checkpoint(run_folder(tmp_path / "one") / "checkpoint_final.pt"))
    evaluation = evaluate(agent, TASK, 4, max_steps=10)
    assert 0 <= evaluation.metrics["success_rate"] <= 1


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(tmp_path):
    flags = ["--unroll_len", "5", "--checkpoint_interval", "3", "--log_interval", "1", "--lr_schedule", "constant"]
    process = script(tmp_path / "killed", *flags, "--num_updates", "100000", wait=False)
    wait_for((run_folder(tmp_path / "killed") / "checkpoint_6.pt").exists, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = max(int(path.stem.split("_")[1]) for path in run_folder(tmp_path / "killed").glob("checkpoint_*.pt"))
    flags += ["--num_updates", str(saved + 2)]
    for name, more in (("killed", ["--resume"]), ("straight", [])):
        done = script(tmp_path / name, *flags, *more)
        assert done.returncode == 0, done.stderr
    one, other = (weights(run_folder(tmp_path / name) / "checkpoint_final.pt") for name in ("killed", "straight"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics(tmp_path / "killed").equals(metrics(tmp_path / "straight"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    process = script(tmp_path, "--num_updates", "100000", "--log_interval", "1", wait=False)
    wait_for((run_folder(tmp_path) / "metrics.csv").exists, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT and "--resume" in output


def test_all_environments_are_the_students(tmp_path):
    trainer = PPOTrainer(ppo_config(tmp_path, bot_share=0.9, num_envs=16, backend="fast"))
    trainer.start()
    rollout = trainer.collect()
    trainer.env.close()
    assert trainer.alone.all() and (rollout.action == rollout.label).float().mean() < 0.5


def test_what_is_learned_by_the_definition_is_learned_too(tmp_path, monkeypatch, capsys):
    """With an expert of one's own nothing is compiled; the rest is as ever."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "extensions").mkdir()
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    code = page.split("```python\n# extensions/mlp_expert.py\n")[1].split("```")[0]
    (tmp_path / "extensions" / "mlp_expert.py").write_text(code, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "extensions.mlp_expert", raising=False)
    config = ppo_config(tmp_path, extensions="mlp_expert", expert_kind="mlp", checkpoint_interval=4)
    train(config)
    assert "no compiled twin for MLPExpert" in capsys.readouterr().err
    path = run_folder(tmp_path) / "checkpoint_final.pt"
    first = weights(path)
    path.unlink()
    train(config, resume=True)
    assert all(torch.equal(weights(path)[name], first[name]) for name in first)


def test_at_first_the_value_head_learns_alone_where_that_is_wanted(tmp_path):
    """Three updates of two gradient steps each: no other weight moves in the first two, nor what Adam keeps of it."""
    trainer = PPOTrainer(ppo_config(tmp_path, value_warmup=2, update_epochs=1, backend="fast"))
    trainer.start()
    weights = [{name: weight.clone() for name, weight in trainer.agent.policy.state_dict().items()}]
    for _ in range(3):
        trainer.learn(trainer.collect())
        weights.append({name: weight.clone() for name, weight in trainer.agent.policy.state_dict().items()})
    moved = [
        {name.split(".")[0] for name in weights[0] if not torch.equal(before[name], after[name])}
        for before, after in itertools.pairwise(weights)
    ]
    assert moved[:2] == [{"value_head"}, {"value_head"}] and {"head", "moe_layers", "value_head"} <= moved[2]
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {2}


def test_the_bots_labels_are_learned_beside_reward_where_that_is_wanted(tmp_path):
    ce = {}
    for weight in (0.0, 1.0):
        folder = tmp_path / str(weight)
        train(ppo_config(folder, num_updates=40, num_envs=8, imitation_weight=weight, lr=3e-3, backend="fast"))
        ce[weight] = metrics(folder)["ce"].iloc[-1]
    assert ce[1.0] < ce[0.0] - 0.2


def test_a_part_of_a_rollout_is_whole_unrolls_of_its_environments(tmp_path):
    tasks = ["BabyAI-GoToObj-v0", "BabyAI-GoToRedBall-v0"]
    trainer = PPOTrainer(ppo_config(tmp_path, task_id="Two", tasks=tasks, num_envs=8, expert_dropout=0.5))
    trainer.start()
    rollout = trainer.collect()
    trainer.env.close()
    envs = torch.tensor([6, 1, 3])
    part = rollout.of(envs)
    for name in ("observation", "mission", "not_done", "label", "due", "logits", "value", "action", "reward"):
        assert torch.equal(getattr(part, name), getattr(rollout, name)[:, envs]), name
    assert part.task.tolist() == [rollout.task[env] for env in (6, 1, 3)] and set(rollout.task) == {0, 1}
    assert all(torch.equal(layer, whole[envs]) for layer, whole in zip(part.state, rollout.state, strict=True))
    assert all(
        torch.equal(layer, whole[:, envs]) for layer, whole in zip(part.rule.noise, rollout.rule.noise, strict=True)
    )


def test_several_tasks_are_learned_from_reward_side_by_side(tmp_path):
    tasks = ["BabyAI-GoToObj-v0", "BabyAI-GoToRedBall-v0"]
    sizes = {"num_updates": 4, "num_envs": 8, "log_interval": 4, "backend": "fast"}
    train(ppo_config(tmp_path, task_id="Two", tasks=tasks, normalize_lpc="detached", **sizes))
    run = run_folder(tmp_path, "Two")
    rows, row = read_metrics_by_task(run / "metrics_by_task.csv"), read_metrics(run / "metrics.csv").iloc[-1]
    assert rows["task_id"].tolist() == tasks and rows["env_steps"].tolist() == [4 * 4 * 8] * 2
    assert rows["episodes"].sum() == row.episodes
    assert rows["mean_lpc"].mean() > 0 and rows["ce"].mean() == pytest.approx(row.ce, rel=0.1)


def test_minibatches_must_come_out_even(tmp_path):
    with pytest.raises(UserError, match="num_envs is 5, expected a multiple of num_minibatches, 2"):
        train(ppo_config(tmp_path, num_envs=5))
    assert not any(tmp_path.rglob("*.pt"))


# ----------------------------------------------------------------------------------------------------------- init_from


@pytest.fixture(scope="module")
def imitated(tmp_path_factory):
    """A checkpoint of the mixture and one of the baseline that imitation has left."""
    folder = tmp_path_factory.mktemp("imitated")
    for trial, policy in enumerate(("mixture", "baseline")):
        train(config_for(folder, policy, num_updates=3, trial=trial))
    return {
        policy: folder / TASK / f"trial_{trial}" / "checkpoint_final.pt"
        for trial, policy in enumerate(("mixture", "baseline"))
    }


@pytest.mark.parametrize("policy", ["mixture", "baseline"])
def test_reward_begins_where_imitation_ended_and_the_other_way_round(tmp_path, imitated, policy):
    checkpoint = load_checkpoint(imitated[policy])
    assert not any(name.startswith("value_head") for name in checkpoint["policy_state_dict"])
    config = ppo_config(tmp_path, policy, init_from=str(imitated[policy]), seed=5, task_id="BabyAI-GoToLocal-v0")
    trainer = PPOTrainer(config)
    trainer.start()
    trainer.env.close()
    for name, weight in checkpoint["policy_state_dict"].items():
        assert torch.equal(trainer.agent.policy.state_dict()[name], weight), name
    assert torch.equal(trainer.agent.lang_proj.weight, checkpoint["lang_proj_state_dict"]["weight"])
    assert not trainer.optimizer.state and trainer.update == 0
    train(config)
    run = tmp_path / "BabyAI-GoToLocal-v0" / "trial_0" / "seed_5"
    learned = load_checkpoint(run / "checkpoint_final.pt")
    assert learned["config"]["init_from"] == str(imitated[policy])
    assert {"value_head.weight", "value_head.bias"} < learned["policy_state_dict"].keys()

    again = ImitationTrainer(config_for(tmp_path, policy, init_from=str(run / "checkpoint_final.pt")))
    again.start()
    again.env.close()
    assert again.agent.policy.state_dict().keys() == checkpoint["policy_state_dict"].keys()
    assert torch.equal(again.agent.policy.state_dict()["head.weight"], learned["policy_state_dict"]["head.weight"])


def test_words_that_were_learned_are_begun_with(tmp_path):
    words = {"lang_encoder": "words", "lang_fusion": "matching"}
    train(config_for(tmp_path, num_updates=2, **words))
    path = run_folder(tmp_path) / "checkpoint_final.pt"
    trainer = PPOTrainer(ppo_config(tmp_path, init_from=str(path), seed=5, **words))
    assert not torch.equal(
        trainer.agent.words.embedding.weight, load_checkpoint(path)["words_state_dict"]["embedding.weight"]
    )
    trainer.start()
    before = trainer.agent.words.embedding.weight.detach().clone()
    assert torch.equal(before, load_checkpoint(path)["words_state_dict"]["embedding.weight"])
    trainer.learn(trainer.collect())
    trainer.env.close()
    assert not torch.equal(trainer.agent.words.embedding.weight, before), "they go on learning"


def test_the_policy_is_that_of_the_checkpoint_where_the_user_says_nothing_else(tmp_path):
    other = {"lang_fusion": "matching", "match_keys": False, "expert_hidden_sizes": [[0, 8]], "router_hidden_size": 5}
    train(config_for(tmp_path, num_updates=2, **other))
    path = run_folder(tmp_path) / "checkpoint_final.pt"
    config = ppo_config(tmp_path, init_from=str(path), seed=5, lr=2e-4)
    assert config["match_keys"] and config["expert_hidden_sizes"] != other["expert_hidden_sizes"]
    train(config, given=["init_from", "seed", "lr"])
    learned = load_checkpoint(tmp_path / TASK / "trial_0" / "seed_5" / "checkpoint_final.pt")["config"]
    assert {name: learned[name] for name in other} == other and learned["lr"] == 2e-4


def test_a_resumed_run_does_not_begin_again_with_init_from(tmp_path, imitated):
    start = tmp_path / "start.pt"
    start.write_bytes(imitated["mixture"].read_bytes())
    config = ppo_config(tmp_path, init_from=str(start), num_updates=6, checkpoint_interval=4)
    train(config)
    path = run_folder(tmp_path) / "checkpoint_final.pt"
    first = weights(path)
    path.unlink()
    start.unlink()
    train(config, given=["init_from"], resume=True)
    assert all(torch.equal(weights(path)[name], first[name]) for name in first)


def test_what_cannot_be_begun_with_is_said_and_nothing_is_replaced(tmp_path, imitated):
    config = ppo_config(tmp_path / "runs")
    train(config)
    before = (run_folder(tmp_path / "runs") / "checkpoint_final.pt").read_bytes()
    damaged, fusion = tmp_path / "damaged.pt", config["lang_fusion"]
    damaged.write_bytes(imitated["mixture"].read_bytes()[:2000])
    other_encoder = load_checkpoint(imitated["mixture"])
    other_encoder["lang_probes"] = other_encoder["lang_probes"].flip(0)
    save_checkpoint(tmp_path / "other_encoder.pt", other_encoder)
    less = load_checkpoint(imitated["mixture"])
    del less["policy_state_dict"]["head.bias"]
    save_checkpoint(tmp_path / "less.pt", less)
    cases = [
        ({"init_from": str(tmp_path / "none.pt")}, r"none\.pt"),
        ({"init_from": str(damaged)}, r"damaged\.pt: damaged or cut short"),
        ({"init_from": str(imitated["baseline"])}, "the other kind of policy"),
        ({"intermediate_dim": 32, "lang_dim": 16}, r"intermediate_dim 64 \(here 32\), lang_dim 32 \(here 16\)"),
        ({"expert_hidden_sizes": [0, 16]}, r"expert_hidden_sizes .* \(here \[0, 16\]\)"),
        ({"lang_fusion": "film"}, rf"lang_fusion '{fusion}' \(here 'film'\)"),
        ({"init_from": str(tmp_path / "other_encoder.pt")}, r"other_encoder\.pt"),
        ({"init_from": str(tmp_path / "less.pt")}, "they lack head.bias"),
    ]
    for changes, problem in cases:
        with pytest.raises(UserError, match=problem):
            train(config | {"init_from": str(imitated["mixture"])} | changes, given=changes, overwrite=True)
        assert (run_folder(tmp_path / "runs") / "checkpoint_final.pt").read_bytes() == before


def test_what_the_command_line_says_to_flags_of_the_other_objective(tmp_path):
    done = train_script("train_mop.py", tmp_path, "--clip_coef", "0.1")
    assert done.returncode == 2 and "--clip_coef concerns only --objective ppo" in done.stderr, done.stderr
    done = script(tmp_path, "--objective", "pppo")
    assert done.returncode == 2 and "Did you mean 'ppo'" in done.stderr, done.stderr
    mine = tmp_path / "mine.yaml"
    mine.write_text("objective: ppo\nlr: 0.5\nppo:\n  lr: 0.25\n  clip_coef: 0.1\n")
    shown = "import sys, json; from basics.config import *; print(json.dumps(parse_config(config_parser('', 'mixture')"
    for flags, expected in (([], (0.25, 0.1, 40)), (["--objective", "imitation"], (0.5, 0.2, 20))):
        program = f"{shown}.parse_args(sys.argv[1:]), 'mixture')[0]))"
        done = subprocess.run(
            [sys.executable, "-c", program, "--config", mine, *flags], cwd=ROOT, capture_output=True, text=True
        )
        config = json.loads(done.stdout)
        assert (config["lr"], config["clip_coef"], config["unroll_len"]) == expected, done.stderr
    assert not Path(tmp_path, TASK).exists()
