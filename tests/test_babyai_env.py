"""The reference environment against minigrid and its bot, run by hand."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from minigrid.core.constants import DIR_TO_VEC
from minigrid.utils.baby_ai_bot import BabyAIBot

from basics.errors import UserError
from fast_babyai.factory import make_vec_env
from fast_babyai.reference import (
    BabyAIEnv,
    BoundedBot,
    ask_bot,
    babyai_tasks,
    bot_solution_steps,
    make_level_env,
    render_level,
    reset_level,
)
from fast_babyai.rules import EVAL_SEED_OFFSET, training_level_seed


def test_there_are_96_tasks():
    assert len(babyai_tasks()) == 96


@pytest.mark.parametrize("task", ["BabyAI-GoToLocal-v0", "BabyAI-UnlockPickup-v0", "BabyAI-SynthS5R2-v0"])
def test_steps_and_labels_equal_minigrid_and_its_bot_run_by_hand(task):
    num_envs, chooser = 3, np.random.default_rng(0)
    env = make_vec_env(task, num_envs, backend="minigrid", autoreset_mode="Disabled")
    level_seeds = [7, 8, EVAL_SEED_OFFSET]
    observations, infos = env.reset(seed=level_seeds)
    by_hand = [gym.make(task).unwrapped for _ in level_seeds]
    seen = [twin.reset(seed=seed)[0] for twin, seed in zip(by_hand, level_seeds, strict=True)]
    bots = [BabyAIBot(twin) for twin in by_hand]
    labels = [bot.replan() for bot in bots]
    for _ in range(12):
        for i, twin in enumerate(by_hand):
            assert np.array_equal(observations["image"][i], seen[i]["image"])
            assert observations["direction"][i] == seen[i]["direction"]
            assert observations["carrying"][i] == (twin.carrying is not None)
            assert infos["bot_action"][i] == labels[i]
            assert tuple(infos["agent_pos"][i]) == tuple(twin.agent_pos)
            assert infos["mission"][i] == seen[i]["mission"]
        actions = np.where(chooser.random(num_envs) < 0.7, labels, chooser.integers(0, 3, num_envs))
        observations, rewards, terminated, truncated, infos = env.step(actions)
        for i, twin in enumerate(by_hand):
            seen[i], reward, end, cut, _ = twin.step(int(actions[i]))
            assert (reward, end, cut) == (rewards[i], terminated[i], truncated[i])
            if not (end or cut):
                labels[i] = bots[i].replan(int(actions[i]))
        if (terminated | truncated).any():
            return


def test_bot_steps_are_the_length_of_the_bots_own_solution():
    env = make_vec_env("BabyAI-PutNextLocal-v0", 2, backend="minigrid", autoreset_mode="Disabled")
    _, infos = env.reset(seed=[3, 4])
    for i, seed in enumerate([3, 4]):
        twin = gym.make("BabyAI-PutNextLocal-v0").unwrapped
        twin.reset(seed=seed)
        bot, steps, ended = BabyAIBot(twin), 0, False
        action = None
        while not ended:
            action = bot.replan(action)
            _, reward, ended, _, _ = twin.step(action)
            steps += 1
        assert reward > 0
        assert infos["bot_steps"][i] == steps


def test_following_the_bot_succeeds_and_autoresets_in_the_same_step():
    env = make_vec_env("BabyAI-GoToObj-v0", 4, backend="minigrid")
    _, infos = env.reset(seed=0)
    first_levels = infos["level_seed"]
    assert first_levels.tolist() == [0, 1, 2, 3]
    for _ in range(40):
        before = infos
        _, rewards, terminated, truncated, infos = env.step(infos["bot_action"])
        assert not truncated.any() and ((rewards > 0) == terminated).all()
        for i in np.flatnonzero(terminated):
            assert infos["level_seed"][i] == before["level_seed"][i] + 4
            assert infos["final_info"]["level_seed"][i] == before["level_seed"][i]
            assert set(infos["final_obs"][i]) == {"image", "direction", "carrying"}
    assert infos["bot_plan_failures"].sum() == 0


def test_training_levels_are_dealt_out_once_per_pass_and_never_meet_evaluation_levels():
    train_levels, num_envs = 10, 4
    dealt = [training_level_seed(5, env, num_envs, episode, train_levels) for episode in range(5) for env in range(4)]
    assert dealt[:10] == list(range(10))
    assert sorted(dealt[10:20]) == list(range(10)) and dealt[10:20] != list(range(10))
    assert dealt == [training_level_seed(5, e, num_envs, j, train_levels) for j in range(5) for e in range(4)]
    assert dealt[10:] != [training_level_seed(6, e, num_envs, j, train_levels) for j in range(5) for e in range(4)][10:]
    assert training_level_seed(5, 3, 4, 100, None) == 403 < EVAL_SEED_OFFSET


def test_a_student_that_opens_a_box_is_cut_short_and_counted():
    task = "BabyAI-PickupLoc-v0"
    env = BabyAIEnv(task)

    def turned_to_a_box(env, seed):
        env.reset(seed=seed)
        for _ in range(3):
            env.step(env.env.actions.left)
            front = env.env.grid.get(*env.env.front_pos)
            if front is not None and front.type == "box":
                return True
        return False

    seed = next(seed for seed in range(200) if turned_to_a_box(env, seed))
    _, reward, terminated, truncated, info = env.step(env.env.actions.toggle)
    assert (reward, terminated, truncated) == (0, False, True)
    assert info["bot_plan_failures"] == 1
    evaluated = BabyAIEnv(task, expert=False)  # without labels nothing is cut short
    assert turned_to_a_box(evaluated, seed)
    assert evaluated.step(evaluated.env.actions.toggle)[3] is False


def test_missions_that_babyai_terminates_as_failed_are_no_success():
    env = BabyAIEnv("BabyAI-OpenDoorsOrderN4Debug-v0")
    env.reset(seed=4)
    level = env.env
    assert level.mission == "open the grey door, then open the blue door" and level.instrs.instr_a.strict
    (blue,) = (door for door in env.env_context["doors"] if door["color"] == "blue")
    for direction, step in enumerate(DIR_TO_VEC):  # stand in front of the door that must not be opened yet
        beside = np.array(blue["position"]) - step
        if level.grid.get(*beside) is None:
            level.agent_pos, level.agent_dir = tuple(beside), direction
    _, reward, terminated, _, _ = env.step(level.actions.toggle)
    assert terminated and reward == 0


def test_max_steps_can_be_overridden():
    env = make_vec_env("BabyAI-GoTo-v0", 1, backend="minigrid", max_steps=3, autoreset_mode="Disabled", expert=False)
    env.reset(seed=[0])
    assert [bool(env.step([0])[3][0]) for _ in range(3)] == [False, False, True]


def test_the_bot_never_hangs_on_a_plan_that_does_not_settle():
    env = make_level_env("BabyAI-GoToLocal-v0")
    reset_level(env, 0)
    bot = BoundedBot(env)

    class Restless:
        """A subgoal that always wants another one first."""

        reason = None

        def update_agent_attributes(self): ...

        def replan_after_action(self, action): ...

        def is_exploratory(self):
            return False

        def replan_before_action(self):
            bot.stack.pop()
            bot.stack.append(Restless())

    bot.stack.append(Restless())
    assert ask_bot(bot) is None


def test_levels_the_bot_cannot_solve_are_passed_over_and_counted():
    env = make_vec_env("BabyAI-GoTo-v0", 2, backend="minigrid", max_steps=12)
    _, infos = env.reset(seed=0)
    assert infos["bot_plan_failures"].sum() > 0  # the bot needs more than 12 steps for most mazes
    for seed, steps in zip(infos["level_seed"], infos["bot_steps"], strict=True):
        twin = make_level_env("BabyAI-GoTo-v0", max_steps=12)
        reset_level(twin, int(seed))
        assert bot_solution_steps(twin) == steps <= 12
    with pytest.raises(UserError, match="solved none of 100 levels"):
        make_vec_env("BabyAI-GoTo-v0", 1, backend="minigrid", max_steps=1).reset(seed=0)


def test_env_context_describes_the_level():
    env = make_vec_env("BabyAI-UnlockPickup-v0", 1, backend="minigrid", autoreset_mode="Disabled")
    env.reset(seed=[1])
    (context,) = env.env_contexts
    level = env.envs[0].env
    assert context["grid_size"] == [11, 6] and context["room_grid_shape"] == [2, 1]
    assert context["agent_start_pos"] == list(level.agent_pos)
    assert context["agent_start_room"] == [level.agent_pos[0] // 5, 0]
    (door,) = context["doors"]
    assert door["state"] == "locked" and level.grid.get(*door["position"]).color == door["color"]
    (key,) = context["keys"]
    assert key["color"] == door["color"]
    (goal,) = context["goals"]
    assert goal["type"] == "box" and goal in context["boxes"]
    assert len(context["walls"]) == 11 * 2 + 4 * 3 - 1


def test_a_saved_state_is_gone_on_from():
    env = make_vec_env("BabyAI-PutNextLocal-v0", 3, backend="minigrid")
    chooser = np.random.default_rng(1)
    env.reset(seed=4)
    actions = chooser.integers(0, 7, (60, 3))
    for step in range(30):
        env.step(actions[step])
    state = env.get_state()
    twin = make_vec_env("BabyAI-PutNextLocal-v0", 3, backend="minigrid")
    twin.set_state(state)
    for step in range(30, 60):
        for one, other in zip(env.step(actions[step]), twin.step(actions[step]), strict=True):
            if isinstance(one, dict):
                assert one.keys() == other.keys()
                for name in one.keys() - {"final_info", "final_obs"}:
                    assert np.array_equal(one[name], other[name]), name
            else:
                assert np.array_equal(one, other)


def test_gymnasiums_own_checks():
    check_env(BabyAIEnv("BabyAI-GoToLocal-v0"), skip_render_check=True)


def test_render_level_replays_actions():
    before, after = render_level("BabyAI-GoToObj-v0", 0), render_level("BabyAI-GoToObj-v0", 0, [0])
    assert before.shape == after.shape == (256, 256, 3) and before.dtype == np.uint8
    assert not np.array_equal(before, after)


def test_unknown_tasks_and_backends_are_named():
    with pytest.raises(UserError, match="'BabyAI-GoToLocal-v0'"):
        make_vec_env("BabyAI-GoToLocal-v1", 1)
    with pytest.raises(UserError, match="expected one of fast, minigrid"):
        make_vec_env("BabyAI-GoToLocal-v0", 1, backend="slow")


def test_level_generation_prints_nothing(capsys):
    env = make_vec_env("BabyAI-SynthLoc-v0", 1, backend="minigrid", autoreset_mode="Disabled")
    for seed in range(20):
        env.reset(seed=[seed])
    assert capsys.readouterr().out == ""
