"""What is subtracted from an agent's logits for what it has done before, and what that changes."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import save

from basics.config import load_keys
from basics.errors import UserError
from eval_mop import evaluate
from fast_babyai.rules import NUM_ACTIONS
from policy.agent import Agent, load_agent, make_encoder
from policy.repetition import Repetitions
from results.checkpoints import load_checkpoint, save_checkpoint
from results.paths import run_dir
from training.imitation import ImitationTrainer
from training.ppo import PPOTrainer
from training.run import train

ROOT = Path(__file__).parent.parent
TASK = "BabyAI-PutNextLocal-v0"
LEFT, FORWARD = 0, 2
NOBODY, BOTH = np.zeros(2, bool), np.ones(2, bool)


def config_for(**changes):
    config = {name: key.default for name, key in load_keys("mixture", changes.get("objective", "imitation")).items()}
    sizes = {"num_envs": 4, "unroll_len": 30, "task_id": TASK, "backend": "fast"}
    return config | sizes | changes


def agent_for(penalty):
    config = config_for(repetition_penalty=penalty, num_actions=NUM_ACTIONS)
    torch.manual_seed(0)
    return Agent(config, make_encoder("parser")).eval()


def seen(directions, carrying):
    return {"direction": np.array(directions), "carrying": np.array(carrying, np.int8)}


def test_every_repetition_counts_in_its_place_until_the_episode_ends():
    repetitions = Repetitions(2, 0.5)
    here, there = np.array([[3, 4], [3, 4]]), np.array([[3, 5], [3, 4]])
    nothing = seen([0, 1], [0, 0])
    assert not repetitions.penalties(nothing, here, BOTH).any()
    repetitions.note(np.array([LEFT, FORWARD]))
    expected = np.zeros((2, NUM_ACTIONS), np.float32)
    expected[0, LEFT] = expected[1, FORWARD] = 0.5
    np.testing.assert_array_equal(repetitions.penalties(nothing, here, NOBODY), expected)
    repetitions.note(np.array([LEFT, LEFT]))
    expected[0, LEFT], expected[1, LEFT] = 1.0, 0.5
    np.testing.assert_array_equal(repetitions.penalties(nothing, here, NOBODY), expected)

    assert not repetitions.penalties(nothing, there, NOBODY)[0].any()  # another cell
    assert not repetitions.penalties(seen([1, 0], [0, 0]), here, NOBODY).any()  # another direction
    assert not repetitions.penalties(seen([0, 1], [1, 1]), here, NOBODY).any()  # with something in its hands
    expected[1] = 0
    np.testing.assert_array_equal(repetitions.penalties(nothing, here, np.array([False, True])), expected)


def test_counts_end_at_255_and_nothing_is_counted_without_a_penalty():
    one, where = seen([2], [1]), np.array([[1, 1]])
    repetitions, without = Repetitions(1, 0.5), Repetitions(1, 0.0)
    for _ in range(300):
        for each in (repetitions, without):
            each.penalties(one, where, np.zeros(1, bool))
            each.note(np.array([LEFT]))
    assert repetitions.penalties(one, where, np.zeros(1, bool))[0, LEFT] == 127.5
    assert not without.penalties(one, where, np.zeros(1, bool)).any() and not without.counts.size


def test_what_was_counted_is_saved_and_loaded():
    repetitions, same = Repetitions(2, 0.5), Repetitions(2, 0.5)
    generator = np.random.default_rng(0)
    for each in (repetitions, same):
        each.penalties(seen([0, 0], [0, 0]), np.array([[9, 9], [9, 9]]), BOTH)
        each.note(np.array([LEFT, LEFT]))
    for _ in range(50):
        where, action = generator.integers(0, 8, (2, 2)), generator.integers(0, NUM_ACTIONS, 2)
        repetitions.penalties(seen(generator.integers(0, 4, 2), [0, 1]), where, NOBODY)
        repetitions.note(action)
    assert (repetitions.counts != same.counts).any()
    same.load(repetitions.state())
    np.testing.assert_array_equal(repetitions.counts, same.counts)


def counted(data):
    """Return how often each step's actions had been taken before in its place, [S, num_actions], counted one by one."""
    counts, before = Counter(), []
    places = zip(data.episode.tolist(), map(tuple, data.position.tolist()), data.direction, data.carrying, strict=True)
    for place, action in zip(places, data.action.tolist(), strict=True):
        before.append([counts[place, other] for other in range(NUM_ACTIONS)])
        counts[place, action] += 1
    return np.array(before)


def test_an_agent_acts_by_its_policys_logits_less_half_a_nat_per_repetition():
    how = {"num_episodes": 12, "num_envs": 5, "along_the_bot": True}  # the same steps with and without a penalty
    with_penalty, plain = (evaluate(agent_for(penalty), "BabyAI-GoToSeq-v0", **how)[1] for penalty in (0.5, 0.0))
    np.testing.assert_array_equal(with_penalty.action, plain.action)
    before = counted(plain)
    assert before.max() > 0  # the bot goes through a room twice
    np.testing.assert_allclose(with_penalty.logits, plain.logits - 0.5 * before, atol=0.01)  # they are float16


def test_the_evaluation_script_tries_another_penalty_than_the_checkpoints(tmp_path):
    path = save(tmp_path, TASK, max_steps=30)
    command = [sys.executable, ROOT / "eval_mop.py", "--checkpoint", path, "--num_episodes", "6"]

    def printed(*flags):
        return subprocess.run([*command, *flags], capture_output=True, text=True)

    as_it_is, without = printed(), printed("--repetition_penalty", "0")
    agent = load_agent(load_checkpoint(path))
    for process, penalty in ((as_it_is, 0.5), (without, 0.0)):
        agent.repetition_penalty = penalty
        assert f"{evaluate(agent, TASK, 6, max_steps=30).metrics['mean_lpc']:.4g}" in process.stdout
    assert as_it_is.stdout != without.stdout
    refused = printed("--repetition_penalty", "-1")
    assert refused.returncode == 2 and "expected float >= 0" in refused.stderr


def test_greedily_it_does_what_the_penalty_has_left_the_largest_logit():
    data = evaluate(agent_for(3.0), TASK, 12, max_steps=60, num_envs=5).routing_data
    counts = counted(data)
    logits = data.logits.astype(np.float32)
    chosen = np.take_along_axis(logits, data.action[:, None].astype(int), 1)[:, 0]
    np.testing.assert_allclose(chosen, logits.max(1), atol=0.01)
    unpenalised = (logits + 3 * counts).argmax(1)
    assert 0 < (unpenalised != data.action).mean() < 1


def test_who_would_turn_for_ever_gets_away():
    visited = {}
    for penalty in (0.0, 0.5):
        agent = agent_for(penalty)
        with torch.no_grad():
            agent.policy.head.weight *= 0.01
            agent.policy.head.bias.copy_(torch.tensor([2.0, 0, 1, -9, -9, -9, -9]))
        data = evaluate(agent, "BabyAI-GoToObj-v0", 10, max_steps=40).routing_data
        visited[penalty] = len({(e, *p) for e, p in zip(data.episode.tolist(), data.position.tolist(), strict=True)})
    assert visited[0.0] == 10 and visited[0.5] > 20


def test_what_is_learned_from_reward_is_what_acted():
    trainer = PPOTrainer(config_for(objective="ppo"))
    trainer.start()
    for _ in range(2):
        rollout = trainer.collect()
    output = rollout.unroll(rollout.policy, rollout.missions)
    assert rollout.penalty.max() >= 1
    assert torch.equal(rollout.logits, output.logits - rollout.penalty)


def test_while_it_imitates_the_bot_a_student_may_repeat_itself():
    losses = []
    for penalty in (0.0, 0.5):
        trainer = ImitationTrainer(config_for(repetition_penalty=penalty))
        trainer.start()
        for _ in range(3):
            trainer.learn(trainer.collect())
        losses.append(trainer.metrics(1.0, 0)["loss"])
    assert losses[0] == losses[1]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Return the config of a run from reward that is to go on, and its checkpoint's path."""
    config = config_for(objective="ppo", num_updates=4, checkpoint_interval=2, unroll_len=8)
    config |= {"checkpoint_dir": str(tmp_path_factory.mktemp("stopped"))}
    train(config)
    folder = run_dir(config["checkpoint_dir"], TASK, 0)
    (folder / "checkpoint_final.pt").unlink()
    return config, folder / "checkpoint_2.pt"


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (None, "repetitions is no dict but a NoneType"),
        ({"places": torch.zeros(1, dtype=torch.int64)}, "repetitions lacks counts"),
        ({"places": torch.zeros(2, dtype=torch.int64), "counts": torch.zeros(1, dtype=torch.uint8)}, "counts is uint8"),
        ({"places": torch.zeros(1), "counts": torch.zeros(1, dtype=torch.uint8)}, "places is float32"),
        ({"places": torch.full((1,), 2**40), "counts": torch.ones(1, dtype=torch.uint8)}, "they are no places"),
        ({"places": torch.full((1,), -1), "counts": torch.ones(1, dtype=torch.uint8)}, "they are no places"),
        ({"places": [1], "counts": torch.ones(1, dtype=torch.uint8)}, "repetitions"),
    ],
)
def test_damaged_counts_are_refused(stopped, damage, complaint):
    config, path = stopped
    whole = load_checkpoint(path)
    assert len(whole["resume_state"]["repetitions"]["places"]) > 8
    try:
        save_checkpoint(path, whole | {"resume_state": whole["resume_state"] | {"repetitions": damage}})
        with pytest.raises(UserError, match=complaint):
            train(config, resume=True)
    finally:
        save_checkpoint(path, whole)
