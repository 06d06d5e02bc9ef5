"""Write episodes of the BabyAI bot, or of a checkpoint, as a Minari dataset (minari.farama.org).

    python export_demos.py --task_id BabyAI-GoToLocal-v0 --episodes 10000
    python export_demos.py --task_id BabyAI-GoToLocal-v0 --episodes 500 --checkpoint checkpoints/.../checkpoint_final.pt

    import minari
    dataset = minari.load_dataset("babyai/GoToLocal-bot-v0")

Levels are played in the order of their seeds, each once; none is an evaluation level, so that what learns from them can
be evaluated by eval_mop.py. An episode's seed is its level's: `gymnasium.make(task_id).reset(seed=seed)` begins it.
Observations are minigrid's own: image, direction, and the mission at every step. Minari decides where datasets lie
($MINARI_DATASETS_PATH, else ~/.minari/datasets).
"""

import re
import warnings
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from basics.config import Parser, is_name
from basics.errors import UserError, run_script, say
from results.eval_options import natural, positive

EPISODES_AT_ONCE = 1000  # held in memory, then written


def dataset_name(task_id: str, player: str) -> str:
    """Return the id of a dataset, such as babyai/GoToLocal-bot-v0."""
    return f"babyai/{task_id.removeprefix('BabyAI-').removesuffix('-v0')}-{player}-v0"


class BotActor:
    """Takes the bot's actions."""

    def act(self, observations, infos) -> tuple[np.ndarray, list[np.ndarray], None]:
        return infos["bot_action"], [], None


def played_episodes(env, actor) -> Iterator[dict]:
    """Yield the episodes of an `eval_mop.EvalVectorEnv` as they end.

    Returns:
        dicts of seed, mission, image uint8 [T + 1, 7, 7, 3], direction [T + 1], action [T], reward [T], terminated [T],
        truncated [T].
    """
    observations, infos = env.reset()
    steps: list[list[tuple]] = [[] for _ in range(env.num_envs)]
    while infos["running"].any():
        running, seeds = infos["running"], infos["level_seed"].tolist()
        before = {name: observations[name].copy() for name in ("image", "direction")}
        actions, *_ = actor.act(observations, infos)
        missions = infos["mission"]
        observations, rewards, terminated, truncated, infos = env.step(actions)
        for index in np.flatnonzero(running).tolist():
            step = before["image"][index], before["direction"][index], actions[index], rewards[index]
            steps[index].append((*step, terminated[index], truncated[index]))
            if terminated[index] or truncated[index]:
                last = env.final_observations
                image, direction, action, reward, ended, cut = zip(*steps[index], strict=True)
                yield {
                    "seed": seeds[index],
                    "mission": str(missions[index]),
                    "image": np.stack([*image, last["image"][index]]),
                    "direction": np.array([*direction, last["direction"][index]], np.int64),
                    "action": np.array(action, np.int64),
                    "reward": np.array(reward, np.float64),
                    "terminated": np.array(ended, bool),
                    "truncated": np.array(cut, bool),
                }
                steps[index] = []


def write_dataset(
    dataset_id: str, task_id: str, episodes: Iterator[dict], algorithm_name: str, description: str, total: int
) -> None:
    """Write episodes, as `played_episodes` yields them, as a Minari dataset.

    Raises:
        UserError: Minari is not installed, or there is such a dataset already.
    """
    import gymnasium as gym
    from gymnasium import spaces

    minari = import_minari()
    from minari.data_collector import EpisodeBuffer

    if dataset_id in minari.list_local_datasets():
        raise UserError(f"there is a dataset {dataset_id} already: choose another --dataset_id, or delete that one")
    characters = frozenset(map(chr, range(32, 127)))
    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (7, 7, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "mission": spaces.Text(max_length=1000, charset=characters),
        }
    )
    dataset, waiting = None, []

    def write() -> None:
        nonlocal dataset
        if dataset is None:
            with warnings.catch_warnings(action="ignore"):  # of authors and links that Minari would like to know
                dataset = minari.create_dataset_from_buffers(
                    dataset_id,
                    waiting,
                    env=gym.spec(task_id),
                    observation_space=observation_space,
                    action_space=spaces.Discrete(7),
                    algorithm_name=algorithm_name,
                    description=description,
                    jpeg_encoding=False,  # an observation is no picture: its numbers have to stay what they are
                )
        else:
            dataset.update_dataset_from_buffer(waiting)
        waiting.clear()

    for episode in tqdm(episodes, total=total, unit="episode", desc=dataset_id, dynamic_ncols=True):
        steps = len(episode["action"])
        observations = {name: episode[name] for name in ("image", "direction")}
        waiting.append(
            EpisodeBuffer(
                seed=episode["seed"],
                observations=observations | {"mission": [episode["mission"]] * (steps + 1)},
                actions=episode["action"],
                rewards=episode["reward"],
                terminations=episode["terminated"],
                truncations=episode["truncated"],
            )
        )
        if len(waiting) == EPISODES_AT_ONCE:
            write()
    if waiting:
        write()


def import_minari():
    try:
        import minari
    except ImportError:
        raise UserError('Minari is not installed: pip install "minari[hdf5]"') from None
    return minari


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--task_id", required=True, help="the BabyAI task")
    parser.add_argument("--episodes", type=positive, default=1000, metavar="N", help="[default %(default)s]")
    parser.add_argument("--checkpoint", metavar="PATH", help="play a checkpoint's greedy actions instead of the bot's")
    parser.add_argument("--dataset_id", metavar="ID", help="[default babyai/<task>-bot-v0, or -policy-v0]")
    parser.add_argument(
        "--first_level", type=natural, default=0, metavar="SEED", help="level seed to begin with [default %(default)s]"
    )
    parser.add_argument("--max_steps", type=positive, help="step limit of an episode [default: the task's own]")
    parser.add_argument(
        "--num_envs", type=positive, default=128, metavar="N", help="side by side [default %(default)s]"
    )
    arguments = parser.parse_args()
    dataset_id = arguments.dataset_id or dataset_name(arguments.task_id, "policy" if arguments.checkpoint else "bot")
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", dataset_id) or not all(map(is_name, dataset_id.split("/"))):
        raise UserError(f"--dataset_id {dataset_id}: expected an id such as babyai/GoToLocal-bot-v0")
    import_minari()
    from eval_mop import EVAL_SEED_OFFSET, EvalVectorEnv  # the environment takes a while to import

    if arguments.first_level + 2 * arguments.episodes > EVAL_SEED_OFFSET:
        raise UserError(f"--first_level {arguments.first_level}: levels from {EVAL_SEED_OFFSET} on are for evaluation")
    num_envs = min(arguments.num_envs, arguments.episodes)
    env = EvalVectorEnv(
        arguments.task_id,
        num_envs,
        arguments.episodes,
        max_steps=arguments.max_steps,
        expert=arguments.checkpoint is None,
        first_level=arguments.first_level,
    )
    actor, algorithm = BotActor(), "minigrid.utils.baby_ai_bot.BabyAIBot"
    if arguments.checkpoint:
        from policy.actor import PolicyActor  # PyTorch takes seconds to import
        from policy.agent import load_agent
        from results.checkpoints import load_checkpoint

        actor = PolicyActor(load_agent(load_checkpoint(arguments.checkpoint)), num_envs)
        algorithm = f"the policy of {arguments.checkpoint}, greedy"
    description = f"{arguments.episodes} levels of {arguments.task_id} from level seed {arguments.first_level} on"
    try:
        write_dataset(
            dataset_id, arguments.task_id, played_episodes(env, actor), algorithm, description, arguments.episodes
        )
    finally:
        env.close()
    say(f"wrote {dataset_id}")


if __name__ == "__main__":
    run_script(main)
