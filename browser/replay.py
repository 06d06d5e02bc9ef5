"""Episodes played again in minigrid, for the player and for films: the level before every step, and after the last."""

from collections.abc import Iterator

import numpy as np

from fast_babyai.reference import make_level_env, reset_level
from plotting.data import NothingToShow
from plotting.style import expert_colors, expert_names, layer_sizes
from plotting.variables import ACTION_NAMES
from results.routing_data import RoutingData

OUTCOMES = {True: "solved", False: "not solved", None: "outcome unknown"}


def episode_steps(data: RoutingData, episode: int) -> RoutingData:
    """Return the steps of one episode.

    Raises:
        NothingToShow: it has none, or does not tell its level or its actions, so that it cannot be played again.
    """
    steps = data.select(data.episode == episode)
    if len(steps) == 0:
        raise NothingToShow(f"episode {episode} has no steps in this data")
    if data.episodes[episode].get("seed") is None or (steps.action < 0).any():
        raise NothingToShow(
            "this cache does not tell which level was played, or which actions: there is nothing to replay"
        )
    return steps


def scene(task_id: str, data: RoutingData, episode: int, sizes=None) -> dict:
    """Return an episode as the player in the browser draws it (player.js), of plain values for JSON.

    `cells` are the level's at the start, row by row, as minigrid's [type, color, state]; `changes` [step, cell,
    content] are what the action of a step made of them; `agent` [x, y, direction] and `hand` (what is carried, or null)
    are those before every step and after the last one.
    """
    steps, about = episode_steps(data, episode), data.episodes[episode]
    env = make_level_env(task_id)
    reset_level(env, about["seed"])

    def content(cell) -> list[int]:
        return [1, 0, 0] if cell is None else [int(number) for number in cell.encode()]

    def agent() -> list[int]:
        return [int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir)]

    def hand() -> list[int] | None:
        return None if env.carrying is None else content(env.carrying)

    cells = [content(env.grid.get(x, y)) for y in range(env.height) for x in range(env.width)]
    agents, hands, changes = [agent()], [hand()], []
    for step, action in enumerate(steps.action.tolist()):
        x, y = (int(coordinate) for coordinate in env.front_pos)  # nothing else changes by an action
        inside = 0 <= x < env.width and 0 <= y < env.height
        before = content(env.grid.get(x, y)) if inside else None
        env.step(action)
        if inside and content(env.grid.get(x, y)) != before:
            changes.append([step, y * env.width + x, content(env.grid.get(x, y))])
        agents.append(agent())
        hands.append(hand())
    sure = []
    if steps.logits.shape[1]:
        logits = steps.logits.astype(np.float64)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        chosen = np.take_along_axis(odds, steps.action[:, None].astype(int), 1)[:, 0]
        sure = (chosen / odds.sum(1)).round(3).tolist()
    names = [
        expert_names(layer, weights.shape[1])
        for layer, weights in zip(layer_sizes(data, sizes), data.weights, strict=True)
    ]
    return {
        "episode": episode,
        "mission": about["mission"] or "unknown mission",
        "outcome": OUTCOMES[about["success"]],
        "width": env.width,
        "height": env.height,
        "cells": cells,
        "changes": changes,
        "agent": agents,
        "hand": hands,
        "events": [[time, what] for time, what, _ in about.get("events") or ()],
        "actions": steps.action.tolist(),
        "action_names": ACTION_NAMES,
        "sure": sure,
        "weights": [weights.astype(float).round(4).tolist() for weights in steps.weights],
        "lpc": np.nan_to_num(steps.lpc.astype(float)).round(1).tolist(),
        "names": names,
        "colors": expert_colors(max(map(len, names))),
    }


def frames(task_id: str, data: RoutingData, episode: int) -> Iterator[np.ndarray]:
    """Yield minigrid's picture (uint8 [height, width, 3]) before every step of an episode and after the last."""
    steps = episode_steps(data, episode)
    env = make_level_env(task_id, render_mode="rgb_array")
    reset_level(env, data.episodes[episode]["seed"])
    yield env.render()
    for action in steps.action.tolist():
        env.step(action)
        yield env.render()
