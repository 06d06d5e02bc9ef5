"""The word-level encoder: its vocabulary against minigrid's missions, and its compiled twin against its definition."""

import numpy as np
import pytest
import torch

from basics.errors import UserError
from fast_babyai.generator import LevelGenerator
from fast_babyai.reference import babyai_tasks
from policy.compiled.initialisation import initialise
from policy.compiled.words import PackedReader
from policy.words import MOST_WORDS, VOCABULARY, WordNumbers, WordReader, word_numbers


@pytest.mark.parametrize("task", babyai_tasks())
def test_every_tasks_missions_are_in_the_vocabulary(task):
    missions = LevelGenerator(task).missions(range(50))
    for mission, numbers in zip(missions, WordNumbers().embed(missions), strict=True):
        words = [VOCABULARY[int(number) - 1] for number in numbers if number]
        assert " ".join(words).replace(" ,", ",") == mission


def test_the_longest_mission_fits():
    put = "put a red ball in front of you next to a red box in front of you"
    for joined in (f"{put} and {put}, then {put} and {put}", f"{put} and {put} after you {put} and {put}"):
        assert len(word_numbers(joined)) == MOST_WORDS
        with pytest.raises(UserError, match="has 73 words"):
            word_numbers(f"{joined} and")


@pytest.mark.parametrize("mission", ["go to the pink ball", "go to the red ball!", "Go to the red ball"])
def test_an_unknown_word_is_refused_by_name(mission):
    with pytest.raises(UserError, match="is not in its vocabulary") as error:
        word_numbers(mission)
    assert repr(mission) in str(error.value)


def test_a_mission_without_words_is_refused():
    with pytest.raises(UserError, match="has 0 words"):
        word_numbers("  ")


@pytest.fixture
def reader():
    torch.manual_seed(0)
    reader = WordReader(embedding_size=6, hidden_size=19, queries=3)
    initialise(reader)
    return reader


def pack(reader):
    return PackedReader(reader.embedding, reader.gru, reader.query)


def numbers_of(missions):
    return torch.from_numpy(WordNumbers().embed(missions))


MISSIONS = [
    "go to the red ball",
    "put a key next to the box on your left and open the door after you pick up a grey object",
    "open a door",
    "go to a red ball",
]


def test_a_definition_worked_step_by_step(reader):
    """One mission, word after word, by the formulas of GRU and attention."""
    weight_ih, weight_hh, bias_ih, bias_hh = (weight.detach() for weight in reader.gru.parameters())
    state, states = torch.zeros(19), []
    for number in word_numbers(MISSIONS[1]):
        i = weight_ih @ reader.embedding.weight[number].detach() + bias_ih
        h = weight_hh @ state + bias_hh
        r, z = torch.sigmoid(i[:19] + h[:19]), torch.sigmoid(i[19:38] + h[19:38])
        state = (1 - z) * torch.tanh(i[38:] + r * h[38:]) + z * state
        states.append(state)
    states = torch.stack(states)
    expected = [torch.softmax(states @ query, 0) @ states for query in reader.query.weight.detach()]
    computed = reader(numbers_of(MISSIONS))[1]
    torch.testing.assert_close(computed, torch.cat([*expected, states[-1]]), atol=1e-5, rtol=1e-5)


def test_the_compiled_reader_equals_its_definition_gradients_too(reader):
    numbers = numbers_of(MISSIONS)
    towards = torch.randn(len(MISSIONS), reader.size, generator=torch.Generator().manual_seed(1))
    results, grads = [], []
    for read in (reader, pack(reader)):
        reader.zero_grad()
        results.append(read(numbers))
        (results[-1] * towards).sum().backward()
        grads.append({name: parameter.grad.clone() for name, parameter in reader.named_parameters()})
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    assert grads[0].keys() == {"embedding.weight", "query.weight"} | {
        f"gru.{kind}_{part}_l0" for kind in ("weight", "bias") for part in ("ih", "hh")
    }
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-5, rtol=1e-4, msg=name)
        assert grad.abs().max() > 1e-3


def test_what_is_read_does_not_depend_on_company(reader):
    """Bit for bit: levels come in another order with another number of environments."""
    together = pack(reader)(numbers_of(MISSIONS)).detach().numpy()
    for mission, expected in zip(MISSIONS, together, strict=True):
        np.testing.assert_array_equal(pack(reader)(numbers_of([mission]))[0].detach().numpy(), expected)


def test_the_order_of_words_counts(reader):
    first, second = pack(reader)(numbers_of(["put the ball next to the box", "put the box next to the ball"])).detach()
    assert (first - second).abs().max() > 1e-3
