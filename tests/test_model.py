"""The policies against their definitions: torch's own GRUs run one by one, and formulas worked by hand."""

import numpy as np
import pytest
import torch

from mixture_of_experts import MixtureOfExpertsPolicy, compute_lpc, drop_experts, per_layer, reset_state
from policy.gru import GRUs, unroll_grus, unroll_in_tensor_operations
from policy.gru_policy import GRUPolicy
from policy.input import LANG_FUSIONS, OBS_ENCODINGS
from policy.kernels import sigmoid, tanh

LAYERS = [[0, 16, 32], [8, 0], [0, 4, 4, 12]]
STEPS, BATCH, LANG_DIM = 9, 5, 6
FORMS = [
    {"obs_encoding": obs_encoding, "lang_fusion": lang_fusion}
    for obs_encoding in OBS_ENCODINGS
    for lang_fusion in LANG_FUSIONS
]


@pytest.fixture
def sequence():
    generator = torch.Generator().manual_seed(0)
    image = torch.stack(
        [torch.randint(0, size, (STEPS, BATCH, 49), generator=generator) for size in (11, 6, 3)], dim=-1
    ).flatten(-2)
    direction = torch.nn.functional.one_hot(torch.randint(0, 4, (STEPS, BATCH), generator=generator), 4)
    carrying = torch.randint(0, 2, (STEPS, BATCH, 1), generator=generator)
    observation = torch.cat([image, direction, carrying], dim=-1).to(torch.uint8)
    language = torch.randn(STEPS, BATCH, LANG_DIM, generator=generator)
    keep = (torch.rand(STEPS, BATCH, generator=generator) > 0.3).float()
    return observation, language, keep


def mixture(**settings):
    torch.manual_seed(1)
    return MixtureOfExpertsPolicy(
        expert_hidden_sizes=LAYERS, router_hidden_size=10, intermediate_dim=12, lang_dim=LANG_DIM, **settings
    )


def unroll(policy, observation, language, keep, activations=None):
    joined = policy.join()
    told = policy.tell(language.flatten(0, 1), joined)
    return policy.unroll(observation, told, policy.initial_state(BATCH), keep, joined, activations)


def by_hand(policy, observation, language, keep):
    """The mixture of section 2 of the design, with one torch.nn.GRU call per router and expert and timestep."""
    hidden_states = {}

    def run(gru, inputs, step_keep):
        before = hidden_states.get(gru, torch.zeros(1, BATCH, gru.hidden_size)) * step_keep[None, :, None]
        _, hidden_states[gru] = gru(inputs[None], before)
        return hidden_states[gru][0]

    logits, routing = [], []
    for t in range(STEPS):
        features = torch.cat([observation[t].float(), language[t]], dim=-1)
        x = features @ policy.input_projection.weight.t() + policy.input_projection.bias
        step_routing = []
        for layer in policy.moe_layers:
            weights = torch.softmax(layer.router.fc(run(layer.router.gru, x, keep[t])), dim=-1)
            mixed = torch.zeros_like(x)
            for e, expert in enumerate(layer.experts):
                output = x if expert.hidden_size == 0 else expert.projection(run(expert.gru, x, keep[t]))
                mixed = mixed + weights[:, e : e + 1] * output
            x = mixed
            step_routing.append(weights)
        logits.append(policy.head(x))
        routing.append(step_routing)
    return torch.stack(logits), [torch.stack(layer) for layer in zip(*routing, strict=True)]


def test_unroll_equals_the_definition_and_so_do_its_gradients(sequence):
    observation, language, keep = sequence
    policy = mixture()
    output = unroll(policy, observation, language, keep)
    logits, routing = by_hand(policy, observation, language, keep)
    torch.testing.assert_close(output.logits, logits)
    for computed, expected in zip(output.routing, routing, strict=True):
        torch.testing.assert_close(computed, expected)

    def gradients(logits, routing):
        policy.zero_grad()
        (logits.square().sum() + compute_lpc(routing, LAYERS).sum()).backward()
        return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    fused, plain = gradients(output.logits, output.routing), gradients(logits, routing)
    for name in plain:
        torch.testing.assert_close(fused[name], plain[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_an_unroll_that_starts_from_a_rollouts_activations_has_the_same_gradients(sequence, form):
    observation, language, keep = sequence

    def gradients(policy, activations):
        policy.zero_grad()
        output = unroll(policy, observation, language, keep, activations)
        output.logits.square().sum().backward()
        return output, {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    for policy in (mixture(**form), GRUPolicy(8, 12, LANG_DIM, **form)):
        kept = policy.empty_activations(STEPS, BATCH)
        state, logits = policy.initial_state(BATCH), []
        with torch.no_grad():
            joined = policy.join().as_arrays()
            for t in range(STEPS):
                told = policy.tell(language[t], joined)
                stepped = policy.step(observation[t], told, state, keep[t], joined, kept, t)
                state = stepped.state
                logits.append(stepped.logits)
        output, from_kept = gradients(policy, kept)
        expected_output, expected = gradients(policy, None)
        torch.testing.assert_close(output.logits, expected_output.logits)
        torch.testing.assert_close(torch.stack(logits), expected_output.logits)
        for name in expected:
            torch.testing.assert_close(from_kept[name], expected[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_single_steps_equal_the_unroll(sequence, form):
    observation, language, keep = sequence
    policy = mixture(**form)
    output = unroll(policy, observation, language, keep)
    state = policy.initial_state(BATCH)
    for t in range(STEPS):
        logits, state, routing = policy(observation[t], language[t], reset_state(state, keep[t] == 0))
        torch.testing.assert_close(logits, output.logits[t])
        torch.testing.assert_close(routing[1], output.routing[1][t])
    for computed, expected in zip(state, output.state, strict=True):
        torch.testing.assert_close(computed, expected)


@pytest.mark.parametrize("form", FORMS)
def test_every_input_form_learns_from_every_parameter(sequence, form):
    observation, language, keep = sequence
    for policy in (mixture(**form), GRUPolicy(8, 12, LANG_DIM, **form)):
        output = unroll(policy, observation, language, keep)
        assert output.logits.shape == (STEPS, BATCH, 7)
        output.logits.square().sum().backward()
        for name, parameter in policy.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_gru_policy_equals_torchs_gru(sequence):
    observation, language, keep = sequence
    policy = GRUPolicy(8, 12, LANG_DIM)
    output = unroll(policy, observation, language, keep)
    state = policy.initial_state(BATCH)
    for t in range(STEPS):
        logits, state, _ = policy(observation[t], language[t], reset_state(state, keep[t] == 0))
        torch.testing.assert_close(logits, output.logits[t])


@pytest.mark.parametrize("sizes", [[2, 4], [3], [16, 33, 1]])
def test_the_recurrence_and_its_gradients_equal_torchs(sizes):
    torch.manual_seed(0)
    grus = [torch.nn.GRU(3, size) for size in sizes]
    keep = (torch.rand(STEPS, BATCH) > 0.3).float()
    inputs = torch.randn(STEPS, BATCH, 3, requires_grad=True)
    state = torch.randn(BATCH, sum(sizes), requires_grad=True)
    direction = torch.randn(STEPS, BATCH, sum(sizes))

    def stepped():
        hidden, now = [], state.split(sizes, dim=1)
        for t in range(STEPS):
            before = [h * keep[t, :, None] for h in now]
            now = [gru(inputs[t : t + 1], h[None])[1][0] for gru, h in zip(grus, before, strict=True)]
            hidden.append(torch.cat(now, dim=1))
        return torch.stack(hidden)

    def gradients(hidden):
        wanted = [inputs, state, *(weight for gru in grus for weight in gru.parameters())]
        return torch.autograd.grad((hidden * direction).sum(), wanted, retain_graph=True)

    expected = stepped()
    for unroll in (unroll_grus, unroll_in_tensor_operations):
        hidden = unroll(inputs, state, keep, GRUs.of(grus))
        torch.testing.assert_close(hidden, expected)
        for computed, wanted in zip(gradients(hidden), gradients(expected), strict=True):
            torch.testing.assert_close(computed, wanted, rtol=1e-4, atol=1e-4)


def test_what_other_devices_compute_is_the_same(sequence, monkeypatch):
    """A GPU runs tensor operations where the CPU runs compiled functions; here both run on the CPU."""
    observation, language, keep = sequence

    def results(policy):
        policy.zero_grad()
        output = unroll(policy, observation, language, keep)
        (output.logits.square().sum() + sum(layer.square().sum() for layer in output.routing)).backward()
        return output.logits, *(parameter.grad for parameter in policy.parameters())

    form = {"obs_encoding": "onehot", "lang_fusion": "attention"}
    for policy in (mixture(**form), GRUPolicy(8, 12, LANG_DIM, **form)):
        with monkeypatch.context() as patched:
            compiled = results(policy)
            patched.setattr(torch.Tensor, "is_cpu", False)
            for computed, expected in zip(results(policy), compiled, strict=True):
                torch.testing.assert_close(computed, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("compiled, function", [(sigmoid, torch.sigmoid), (tanh, torch.tanh)])
def test_compiled_functions_are_as_exact_as_float32(compiled, function):
    x = torch.cat([torch.linspace(-100, 80, 9001), torch.linspace(-1, 1, 2001)])
    expected = function(x.double())
    computed = torch.tensor([compiled(np.float32(value)) for value in x.tolist()]).double()
    torch.testing.assert_close(computed, expected, rtol=3e-7, atol=3e-7)


def test_onehot_encoding_by_hand():
    policy = mixture(obs_encoding="onehot")
    observation = torch.zeros(1, 152, dtype=torch.uint8)
    observation[0, 3:6] = torch.tensor([4, 5, 2])  # the second cell: a locked grey door
    observation[0, 147 + 3] = 1  # facing up
    observation[0, 151] = 1  # carrying
    features = policy.input_projection.encoder(observation)[0]
    assert features.shape == (985,)
    second_cell = features[20:40]
    assert second_cell.nonzero().flatten().tolist() == [4, 11 + 5, 17 + 2]
    assert features[-5:].tolist() == [0, 0, 0, 1, 1]
    assert features.sum() == 49 * 3 + 2


def test_attention_scores_depend_on_what_a_cell_holds_not_where_it_is():
    policy = mixture(lang_fusion="attention")
    observation = torch.zeros(1, 152, dtype=torch.uint8)
    observation[0, 0:3] = observation[0, 60:63] = torch.tensor([6, 0, 0])  # two red balls: cells 0 and 20
    attention = policy.input_projection.attention
    scores = attention(observation, attention.answers(torch.randn(1, LANG_DIM), attention.keys())).reshape(-1, 49)
    assert torch.equal(scores[:, 0], scores[:, 20])
    assert not torch.equal(scores[:, 0], scores[:, 1])


def test_lpc_by_hand():
    routing = [torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])]
    lpc = compute_lpc(routing, [[0, 16, 32], [0, 16, 32]])
    assert lpc.tolist() == pytest.approx([0.3 * 256 + 0.2 * 1024, 2 * 1024])
    assert compute_lpc([torch.tensor([1.0, 0.0, 0.0])] * 3, [[0, 16, 32]] * 3) == 0
    assert compute_lpc([torch.tensor([0.0, 0.0, 1.0])] * 3, [[0, 16, 32]] * 3) == 3072
    assert compute_lpc([torch.tensor([0.25, 0.75])], [0, 2]) == 3  # a flat list is one layer


def test_expert_dropout_drops_as_often_as_eq_3_says_and_renormalises():
    torch.manual_seed(0)
    routing = torch.tensor([0.05, 0.02, 0.93]).expand(200_000, 3)
    used = drop_experts(routing, torch.rand(routing.shape), probability=0.8, threshold=0.1)
    dropped = (used == 0).float().mean(0)
    assert dropped.tolist() == pytest.approx([0.8 * 0.5, 0.8 * 0.8, 0.0], abs=0.01)
    torch.testing.assert_close(used.sum(-1), torch.ones(len(used)))
    only_last = (used[:, 0] == 0) & (used[:, 1] == 0)
    assert torch.equal(used[only_last], torch.tensor([0.0, 0.0, 1.0]).expand(int(only_last.sum()), 3))


def test_parameter_names_are_the_contract():
    policy = MixtureOfExpertsPolicy()
    names = set(policy.state_dict())
    assert policy.input_projection.weight.shape == (64, 152 + 32)
    gru = {f"gru.{kind}_{side}_l0" for kind in ("weight", "bias") for side in ("ih", "hh")}
    expected = {"input_projection.weight", "input_projection.bias", "head.weight", "head.bias"}
    for layer in range(3):
        expected |= {f"moe_layers.{layer}.router.{name}" for name in gru | {"fc.weight", "fc.bias"}}
        for expert in (1, 2):  # expert 0 is the identity
            prefix = f"moe_layers.{layer}.experts.{expert}."
            expected |= {prefix + name for name in gru | {"projection.weight", "projection.bias"}}
    assert names == expected


def test_other_input_forms_add_parameters_and_rename_none():
    plain = set(MixtureOfExpertsPolicy().state_dict())
    for lang_fusion in ("film", "attention"):
        assert plain < set(MixtureOfExpertsPolicy(lang_fusion=lang_fusion).state_dict())


def test_a_flat_list_of_sizes_means_one_layer():
    assert per_layer([0, 16, 32]) == [[0, 16, 32]]
    assert per_layer([[0, 16], [32]]) == [[0, 16], [32]]
    assert len(MixtureOfExpertsPolicy(expert_hidden_sizes=[0, 16, 32]).moe_layers) == 1
