"""`lang_fusion: matching` against minigrid's own descriptions, and against numbers worked by hand."""

import gymnasium as gym
import numpy as np
import torch
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX
from minigrid.envs.babyai.core.verifier import ActionInstr, ObjDesc

from fast_babyai.vector_env import FastBabyAIVectorEnv
from policy.attention import DESCRIPTIONS, ParsedMatching
from policy.compiled import operations
from policy.input import DueAction, FittingKeys, InputProjection, SharedReadout
from policy.observation import look_up, observation_vector
from policy.parser import MISSION_SIZE, mission_numbers


def descriptions(instr) -> list[list[ObjDesc]]:
    """What each of a mission's actions is about, in the order in which they are due: four lists, some empty."""

    def of_group(part):
        parts = [part] if isinstance(part, ActionInstr) else [part.instr_a, part.instr_b]
        both = [
            [getattr(part, name) for name in ("desc", "desc_move", "desc_fixed") if hasattr(part, name)]
            for part in parts
        ]
        return both + [[]] * (2 - len(both))

    name = type(instr).__name__
    if name == "BeforeInstr":
        return of_group(instr.instr_a) + of_group(instr.instr_b)
    if name == "AfterInstr":
        return of_group(instr.instr_b) + of_group(instr.instr_a)
    return [*of_group(instr), [], []]


def test_parsed_missions_mark_the_cells_that_minigrids_descriptions_name():
    matching, marked = ParsedMatching(), 0
    env = gym.make("BabyAI-BossLevel-v0")
    for seed in range(40):
        observation, _ = env.reset(seed=seed)
        for step in range(4):
            batch = {"image": observation["image"][None], "direction": np.array([0]), "carrying": np.array([0])}
            language = torch.from_numpy(mission_numbers(observation["mission"]))[None]
            seen = torch.from_numpy(observation_vector(batch))
            scores = look_up(seen, matching(language)).reshape(DESCRIPTIONS // 2, 2, 7, 7)
            for action, described in enumerate(descriptions(env.unwrapped.instrs)):
                for part in range(2):
                    expected = np.zeros((7, 7))
                    for x, y in np.ndindex(7, 7):
                        cell = observation["image"][x, y]
                        kind, color = IDX_TO_OBJECT[cell[0]], IDX_TO_COLOR[cell[1]]
                        if part < len(described) and kind in ("door", "key", "ball", "box"):
                            desc = described[part]
                            expected[x, y] = desc.type in (None, kind) and desc.color in (None, color)
                    np.testing.assert_array_equal(scores[action, part], expected)
                    marked += expected.sum()
            observation, *_ = env.step(step % 3)
    assert marked > 50


def test_keys_that_fit_a_locked_door_seen_in_this_episode_are_marked_and_no_others():
    """Along the bot's walks through levels in which it has to find a key, against a set of colors kept by name."""
    keys, marked, unmarked = FittingKeys(), 0, 0
    env = FastBabyAIVectorEnv("BabyAI-Unlock-v0", num_envs=4)
    observations, infos = env.reset(seed=0)
    not_done, state, locked = torch.ones(4), torch.zeros(4, 6), [set() for _ in range(4)]
    for _ in range(200):
        marks, state = keys(torch.from_numpy(observation_vector(observations)), state * not_done[:, None])
        for image, marks_of_one, locked_colors in zip(observations["image"], marks, locked, strict=True):
            cells = [
                (IDX_TO_OBJECT[kind], IDX_TO_COLOR[color], cell_state == STATE_TO_IDX["locked"])
                for kind, color, cell_state in image.reshape(49, 3).tolist()
            ]
            locked_colors |= {color for kind, color, is_locked in cells if kind == "door" and is_locked}
            expected = [kind == "key" and color in locked_colors for kind, color, _ in cells]
            assert marks_of_one.tolist() == expected
            marked += sum(expected)
            unmarked += sum(kind == "key" for kind, *_ in cells) - sum(expected)
        observations, _, terminated, truncated, infos = env.step(infos["bot_action"])
        not_done = torch.from_numpy(~(terminated | truncated)).float()
        locked = [colors if goes_on else set() for colors, goes_on in zip(locked, not_done.tolist(), strict=True)]
    assert marked > 20 and unmarked > 20


def test_what_cells_share_is_a_column_a_row_and_all():
    shared = SharedReadout(heads=2, size=3)
    with torch.no_grad():
        shared.weight.copy_(torch.randn(shared.weight.shape, generator=torch.Generator().manual_seed(0)))
    weights = shared().reshape(2, 7, 7, 3)
    by_head = shared.weight.reshape(15, 2, 3)
    for head, x, y in ((0, 0, 0), (1, 3, 6), (0, 6, 2)):
        torch.testing.assert_close(weights[head, x, y], by_head[x, head] + by_head[7 + y, head] + by_head[14, head])
    torch.testing.assert_close(shared(operations.product), shared())


def test_what_is_said_of_the_due_action_is_the_same_in_whichever_place_it_stands():
    """One action's description and cells, moved to another of the four places: if that place is due, the result is the
    same, because actions share their weights."""
    torch.manual_seed(0)
    due_action = DueAction(action_size=41, size=6)
    torch.nn.init.zeros_(due_action.fc.weight)
    inputs, state = torch.randn(1, 6), torch.randn(1, 32)
    scores, action = torch.rand(98), torch.rand(41)
    outputs = []
    for place in range(4):
        with torch.no_grad():
            due_action.fc.bias.copy_(40.0 * torch.nn.functional.one_hot(torch.tensor(place), 4))
        all_scores, actions = torch.rand(1, 4, 98), torch.rand(1, 4, 41)
        all_scores[0, place], actions[0, place] = scores, action
        output, due, _ = due_action(inputs, all_scores.flatten(1), actions, state)
        assert due[0, place] > 0.999
        outputs.append(output)
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])


def test_the_loss_on_the_due_action_is_the_mean_of_minus_log_probability_where_there_is_a_label():
    probability = torch.tensor(
        [[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], [[0.2, 0.2, 0.6], [1.0, 0.0, 0.0]]], requires_grad=True
    )
    label = torch.tensor([[1, -1], [2, 0]])
    loss = operations.negative_log_likelihood(probability, label)
    torch.testing.assert_close(loss, -torch.tensor([0.25, 0.6, 1.0]).log().mean())
    loss.backward()
    expected = torch.zeros(2, 2, 3)
    expected[0, 0, 1], expected[1, 0, 2], expected[1, 1, 0] = -1 / 0.25 / 3, -1 / 0.6 / 3, -1 / 3
    torch.testing.assert_close(probability.grad, expected)


def test_an_imitated_mission_can_be_attended_without_a_parse():
    """With any other encoder, queries and keys are learned; scores lie between 0 and 1."""
    projection = InputProjection("onehot", 32, "matching", 16)
    scores = projection.attention(torch.randn(5, 32))
    assert scores.shape == (5, DESCRIPTIONS, 198)
    assert 0 <= scores.min() < scores.max() <= 1
    assert InputProjection("onehot", MISSION_SIZE, "matching", 16, parsed=True).attention is not None
