"""Routing data for tests of figures: real levels and real walks of the BabyAI bot, made-up routing weights."""

import numpy as np

from fast_babyai.reference import (
    EVAL_SEED_OFFSET,
    BoundedBot,
    ask_bot,
    bot_solution_steps,
    env_context,
    make_level_env,
    reset_level,
)
from results.routing_data import RoutingData

SIZES = [[0, 16, 32]] * 3


def bot_routing_data(task_id, num_episodes, expert_hidden_sizes=SIZES, max_steps=None, seed=0):
    """Return the bot's walks through evaluation levels; what carries, and what is near doors, uses larger experts."""
    env = make_level_env(task_id, max_steps)
    columns = {"episode": [], "timestep": [], "position": [], "carrying": [], "action": []}
    further = {"direction": [], "target_in_view": []}
    episodes, level_seed = [], EVAL_SEED_OFFSET - 1
    while len(episodes) < num_episodes:
        level_seed += 1
        reset_level(env, level_seed)
        bot_steps = bot_solution_steps(env)
        reset_level(env, level_seed)
        context, events = env_context(env), []
        goals = {(goal["type"], goal["color"]) for goal in context["goals"]}
        bot, done, action, reward = BoundedBot(env), bot_steps < 0, None, 0
        while not done:
            action = ask_bot(bot, action)
            step = (len(episodes), env.step_count, list(env.agent_pos), env.carrying is not None, action)
            for column, value in zip(columns.values(), step, strict=True):
                column.append(value)
            further["direction"].append(env.agent_dir)
            further["target_in_view"].append(sees(env, goals))
            door = env.grid.get(*env.front_pos)
            was_locked, hand, time = getattr(door, "is_locked", False), env.carrying, env.step_count
            ahead = [int(coordinate) for coordinate in env.front_pos]
            _, reward, terminated, truncated, _ = env.step(action)
            if (env.carrying is None) != (hand is None):
                events.append([time, "pick up" if hand is None else "drop", ahead])
            if was_locked and not door.is_locked:
                events.append([time, "unlock", ahead])
            done = terminated or truncated
        if bot_steps >= 0:
            episodes.append(
                {
                    "mission": env.mission,
                    "seed": level_seed,
                    "success": reward > 0,
                    "num_steps": env.step_count,
                    "bot_steps": bot_steps,
                    "events": events,
                    "env_context": context,
                }
            )
    weights = _weights(columns, expert_hidden_sizes, np.random.default_rng(seed))
    lpc = sum(layer @ np.square(sizes) for layer, sizes in zip(weights, expert_hidden_sizes, strict=True))
    return RoutingData(weights=weights, lpc=lpc, episodes=episodes, **columns, **further)


def sees(env, looks):
    """Tell whether the agent sees an object of one of these (type, color)."""
    cells = [(x, y, env.grid.get(x, y)) for x in range(env.width) for y in range(env.height)]
    return any(cell is not None and (cell.type, cell.color) in looks and env.agent_sees(x, y) for x, y, cell in cells)


def _weights(columns, expert_hidden_sizes, generator):
    x, y = np.array(columns["position"]).T
    effort = (
        2.0 * np.array(columns["carrying"]) + np.sin(x / 2) + np.cos(y / 3) + np.exp(-np.array(columns["timestep"]))
    )
    weights = []
    for layer, sizes in enumerate(expert_hidden_sizes):
        place = np.linspace(-2, 2, len(sizes))
        scores = 1.5 * np.outer(effort - 1 + layer / 2, place) + generator.normal(0, 0.5, (len(x), len(sizes)))
        scores = np.exp(scores - scores.max(1, keepdims=True))
        weights.append(scores / scores.sum(1, keepdims=True))
    return weights


def repeated(data, times):
    """Return `times` copies of routing data, as so many more episodes."""
    count = len(data.episodes)
    return RoutingData(
        np.concatenate([data.episode + copy * count for copy in range(times)]),
        np.tile(data.timestep, times),
        np.tile(data.position, (times, 1)),
        [np.tile(layer, (times, 1)) for layer in data.weights],
        np.tile(data.lpc, times),
        np.tile(data.carrying, times),
        np.tile(data.action, times),
        [dict(episode) for _ in range(times) for episode in data.episodes],
        np.tile(data.direction, times),
        np.tile(data.target_in_view, times),
    )
