"""Which tasks a run is about, as names and patterns in its config say it."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from basics.errors import UserError, did_you_mean
from fast_babyai.reference import babyai_tasks, check_task, matching_tasks, share_out


def resolve_tasks(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose `tasks` are the names of tasks, and `task_weights` one number for each (or None).

    Raises:
        UserError: there are no such tasks, the set has no name of its own, the weights do not fit, or there are fewer
            environments than tasks.
    """
    task_id, weights = config["task_id"], config["task_weights"]
    if config["tasks"] is None:
        if weights is not None:
            raise UserError("task_weights is set, but not tasks, whose shares it tells")
        check_task(task_id)
        return dict(config)
    tasks = matching_tasks(config["tasks"])
    if task_id in babyai_tasks():
        raise UserError(
            f"task_id is {task_id!r}, which is a task: with tasks, it names the set and its folder. Choose a name such"
            f" as --task_id GoTos for these {len(tasks)} tasks"
        )
    if weights is not None:
        weights = _weights_by_name(tasks, weights) if isinstance(weights, dict) else list(weights)
    share_out(tasks, config["num_envs"], weights)
    return {**config, "tasks": tasks, "task_weights": weights}


def _weights_by_name(tasks: Sequence[str], given: Mapping[str, float]) -> list[float]:
    """Return a weight for each task: that of the last name or pattern that fits it, else 1."""
    weights = dict.fromkeys(tasks, 1.0)
    for pattern, weight in given.items():
        fitting = [task for task in tasks if fnmatch.fnmatchcase(task, pattern)]
        if not fitting:
            raise UserError(
                f"task_weights names {pattern!r}, which is none of the tasks.{did_you_mean(pattern, tasks)}"
            )
        weights |= dict.fromkeys(fitting, weight)
    return list(weights.values())
