"""The policies against their definitions: formulas worked by hand, torch's own modules, and the compiled twin."""

import numpy as np
import pytest
import torch

from basics.config import load_keys
from mixture_of_experts import Expert, MixtureOfExpertsPolicy, compute_lpc, drop_experts, per_layer
from policy.compiled import operations
from policy.compiled.initialisation import initialise, principal_components
from policy.compiled.kernels import log, sigmoid, tanh
from policy.compiled.policies import CompiledGRU, CompiledMixture, accelerate
from policy.gru_policy import GRUPolicy
from policy.observation import look_up
from policy.parser import MISSION_SIZE, mission_numbers

LAYERS = [[0, 16, 32], [8, 0], [0, 4, 4, 12]]
STEPS, BATCH, LANG_DIM = 9, 5, 6
KEYS = load_keys()
FORMS = [
    {"obs_encoding": obs_encoding, "lang_fusion": lang_fusion}
    for obs_encoding in KEYS["obs_encoding"].type.split(" | ")
    for lang_fusion in KEYS["lang_fusion"].type.split(" | ")
] + [
    {"obs_encoding": "onehot", "lang_fusion": "matching", "parsed": True, "lang_dim": MISSION_SIZE},
    {"obs_encoding": "raw", "lang_fusion": "matching", "parsed": True, "match_keys": True, "lang_dim": MISSION_SIZE},
    {"obs_encoding": "onehot", "lang_fusion": "matching", "parsed": True, "match_keys": True, "lang_dim": MISSION_SIZE},
    {"obs_encoding": "onehot", "lang_fusion": "matching", "match_keys": True},
]

MISSIONS = (
    "go to the red ball",
    "pick up a key",
    "open the blue door on your left",
    "put the grey box next to the yellow ball",
    "go to a door, then pick up the purple key and open the green door",
    "put a ball next to a box after you go to the red key and open a yellow door",
    "go to the red object and pick up the green object",
)


@pytest.fixture
def sequence():
    generator = torch.Generator().manual_seed(0)
    image = torch.stack(
        [torch.randint(0, size, (STEPS, BATCH, 49), generator=generator) for size in (11, 6, 3)], dim=-1
    ).flatten(-2)
    direction = torch.nn.functional.one_hot(torch.randint(0, 4, (STEPS, BATCH), generator=generator), 4)
    carrying = torch.randint(0, 2, (STEPS, BATCH, 1), generator=generator)
    observation = torch.cat([image, direction, carrying], dim=-1).to(torch.uint8)
    language = torch.randn(7, LANG_DIM, generator=generator)
    mission = torch.randint(0, 7, (STEPS, BATCH), generator=generator)
    not_done = (torch.rand(STEPS, BATCH, generator=generator) > 0.3).float()
    return observation, language, mission, not_done


def mixture(expert_hidden_sizes=LAYERS, router_hidden_size=10, size=12, lang_dim=LANG_DIM, **form):
    torch.manual_seed(1)
    form = {"obs_encoding": "raw", "lang_fusion": "concat"} | form
    return MixtureOfExpertsPolicy(expert_hidden_sizes, router_hidden_size, size, lang_dim, num_actions=7, **form)


def baseline(**form):
    torch.manual_seed(1)
    form = {"obs_encoding": "raw", "lang_fusion": "concat", "lang_dim": LANG_DIM} | form
    return GRUPolicy(8, 12, num_actions=7, **form)


def unroll(policy, sequence, rule=None):
    observation, language, mission, not_done = sequence
    packed = policy.pack(STEPS, BATCH)
    features = packed.mission_features(language)
    return packed.unroll(observation, features, mission, policy.initial_state(BATCH), not_done, rule)


def step_then_unroll(policy, sequence, rule=None):
    """As training does it: a rollout without gradients, then the unroll that learns from it."""
    observation, language, mission, not_done = sequence
    packed = policy.pack(STEPS, BATCH)
    features, state, logits, used = packed.mission_features(language), policy.initial_state(BATCH), [], []
    values = []
    with torch.no_grad():
        for t in range(STEPS):
            output = packed.step(t, observation[t], features, mission[t], state, not_done[t], rule)
            state = output.state
            logits.append(output.logits.clone())
            values.append(output.value)
            used.append([layer.clone() for layer in output.used_routing])
    output = packed.unroll(observation, features, mission, policy.initial_state(BATCH), not_done, rule)
    torch.testing.assert_close(torch.stack(logits), output.logits)
    torch.testing.assert_close(None if policy.policy.value_head is None else torch.stack(values), output.value)
    for layer, steps in enumerate(zip(*used, strict=True)):
        torch.testing.assert_close(torch.stack(steps), output.used_routing[layer])
    return output


def gradients(policy, output):
    """Of something that depends on all that a policy returns."""
    policy.zero_grad()
    parts = [output.logits, *output.state, *output.routing, *output.used_routing]
    parts += [part for part in (output.due, output.value) if part is not None]
    sum((part * torch.linspace(-1, 1, part.numel()).view(part.shape)).sum() for part in parts).backward()
    return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}


def dropout(layer, routing, t):
    shape = (STEPS, *routing.shape[-2:])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(layer))
    return drop_experts(routing, noise[t], 0.9, 0.5)


def by_hand(policy, observation, language, not_done):
    """The mixture, written down once more: one torch.nn.GRU call per router and expert and timestep."""
    hidden_states = {}

    def run(gru, inputs, going_on):
        before = hidden_states.get(gru, torch.zeros(1, BATCH, gru.hidden_size)) * going_on[None, :, None]
        _, hidden_states[gru] = gru(inputs[None], before)
        return hidden_states[gru][0]

    logits, routing = [], []
    for t in range(STEPS):
        features = torch.cat([observation[t].float(), language[t]], dim=-1)
        x = features @ policy.input_projection.weight.t() + policy.input_projection.bias
        step_routing = []
        for layer in policy.moe_layers:
            if layer.normalize:
                x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            weights = torch.softmax(layer.router.fc(run(layer.router.gru, x, not_done[t])), dim=-1)
            mixed = torch.zeros_like(x)
            for e, expert in enumerate(layer.experts):
                output = x if expert.state_size == 0 else expert.projection(run(expert.gru, x, not_done[t]))
                mixed = mixed + weights[:, e : e + 1] * output
            x = mixed
            step_routing.append(weights)
        logits.append(policy.head(x))
        routing.append(step_routing)
    return torch.stack(logits), [torch.stack(layer) for layer in zip(*routing, strict=True)]


@pytest.mark.parametrize("normalize_layers", [False, True])
@pytest.mark.parametrize("run", [lambda policy: policy, accelerate], ids=["definition", "compiled"])
def test_the_mixture_is_what_its_formula_says_and_so_are_its_gradients(sequence, run, normalize_layers):
    observation, language, mission, not_done = sequence
    policy = mixture(normalize_layers=normalize_layers)
    output = unroll(run(policy), sequence)
    logits, routing = by_hand(policy, observation, language[mission], not_done)
    torch.testing.assert_close(output.logits, logits)
    for computed, expected in zip(output.routing, routing, strict=True):
        torch.testing.assert_close(computed, expected)

    def gradients_of(logits, routing):
        policy.zero_grad()
        (logits.square().sum() + compute_lpc(routing, policy.expert_costs).sum()).backward()
        return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    computed, expected = gradients_of(output.logits, output.routing), gradients_of(logits, routing)
    for name in expected:
        torch.testing.assert_close(computed[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", [mixture, baseline])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_the_compiled_twin_equals_the_definition_and_learns_from_every_parameter(sequence, form, kind):
    onehot = form["obs_encoding"] == "onehot"
    policy = kind(**form, value_head=onehot, **({"normalize_layers": onehot} if kind is mixture else {}))
    if form.get("parsed"):
        sequence = sequence[0], torch.stack(list(map(torch.from_numpy, map(mission_numbers, MISSIONS)))), *sequence[2:]
    compiled = accelerate(policy)
    assert type(compiled) in (CompiledMixture, CompiledGRU)
    for rule in (None, dropout) if kind is mixture else (None,):
        expected_output = unroll(policy, sequence, rule)
        expected = gradients(policy, expected_output)
        for way in (unroll, step_then_unroll):
            output = way(compiled, sequence, rule)
            for name, value in output._asdict().items():
                torch.testing.assert_close(value, expected_output._asdict()[name])
            for name, grad in gradients(policy, output).items():
                torch.testing.assert_close(grad, expected[name], rtol=1e-3, atol=1e-4, msg=name)
                assert grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", [mixture, baseline])
def test_an_agent_computes_the_same_in_any_company(sequence, kind):
    """An agent's numbers depend neither on its place in the batch nor on the batch's size, to the last bit."""
    observation, language, mission, not_done = sequence
    policy = accelerate(kind(obs_encoding="onehot", lang_fusion="attention"))
    together = unroll(policy, sequence)
    for agent in range(BATCH):
        rows = slice(agent, agent + 1)
        packed = policy.pack(STEPS, 1)
        features = packed.mission_features(language[mission[:, rows].flatten()])
        alone = packed.unroll(
            observation[:, rows], features, torch.arange(STEPS)[:, None], policy.initial_state(1), not_done[:, rows]
        )
        assert torch.equal(alone.logits[:, 0], together.logits[:, agent])
        for layer, everyone in zip(alone.state, together.state, strict=True):
            assert torch.equal(layer[0], everyone[agent])


def test_the_baseline_is_torchs_gru(sequence):
    observation, language, mission, not_done = sequence
    policy = baseline()
    inputs = policy.input_projection(observation.flatten(0, 1), language[mission].flatten(0, 1), []).hidden
    first = int((not_done[1:] == 0).any(1).int().argmax()) + 1  # until an episode ends, one call of torch's GRU
    hidden, _ = policy.gru(inputs.unflatten(0, (STEPS, BATCH))[:first])
    torch.testing.assert_close(unroll(accelerate(policy), sequence).logits[:first], policy.head(hidden))


def test_what_has_no_twin_runs_by_its_definition_and_says_so(capsys):
    class Doubling(Expert):
        def forward(self, inputs, state):
            return 2 * inputs, state

    policy = mixture()
    policy.moe_layers[1].experts[0] = Doubling(12, 0)
    assert accelerate(policy) is policy
    assert "no compiled twin for Doubling" in capsys.readouterr().err


def test_a_rule_for_a_policy_without_routers_is_refused(sequence):
    for policy in (baseline(), accelerate(baseline())):
        with pytest.raises(ValueError, match="no routers"):
            unroll(policy, sequence, dropout)


def test_operations_equal_torchs_and_so_do_their_gradients():
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, requires_grad=True)

    label = torch.randint(0, 7, (4, 5), generator=generator)
    functional = torch.nn.functional
    cases = [
        (operations.product, torch.matmul, (random(5, 3), random(3, 17))),
        (operations.product, torch.matmul, (random(5, 3), random(17, 3).t())),
        (operations.linear, functional.linear, (random(2, 5, 3), random(4, 3), random(4))),
        (operations.layer_norm, lambda x: functional.layer_norm(x, x.shape[-1:]), (random(2, 3, 8),)),
        (operations.mean, torch.mean, (random(3, 4),)),
        (operations.exponential, torch.exp, (random(3, 4),)),
        (
            lambda logits: operations.log_prob_and_entropy(logits, label)[0],
            lambda logits: torch.distributions.Categorical(logits=logits).log_prob(label),
            (random(4, 5, 7),),
        ),
        (
            lambda logits: operations.log_prob_and_entropy(logits, label)[1],
            lambda logits: torch.distributions.Categorical(logits=logits).entropy(),
            (random(4, 5, 7),),
        ),
        (
            lambda logits: operations.cross_entropy(logits, label)[0],
            lambda logits: functional.cross_entropy(logits.flatten(0, 1), label.flatten()),
            (random(4, 5, 7),),
        ),
    ]
    for ours, torchs, arguments in cases:
        results = ours(*arguments), torchs(*arguments)
        torch.testing.assert_close(*results)
        direction = torch.randn(results[0].shape, generator=generator)
        computed, expected = (torch.autograd.grad((result * direction).sum(), arguments) for result in results)
        torch.testing.assert_close(computed, expected)


def test_normalized_values_have_mean_0_and_standard_deviation_1():
    values = 5 + 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    normalized = operations.normalized(values)
    torch.testing.assert_close(normalized, (values - values.mean()) / values.std())
    assert operations.normalized(torch.ones(3, 4)).abs().max() == 0  # every step came out as expected


def test_accuracy_counts_the_first_of_equally_large_logits():
    logits, label = torch.tensor([[1.0, 3.0, 3.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([1, 1, 0])
    _, accuracy = operations.cross_entropy(logits, label)
    assert accuracy.item() == pytest.approx(2 / 3)


def test_samples_come_as_often_as_the_softmax_says():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    uniform = np.random.default_rng(0).random(100_000, np.float32)
    chosen = operations.sample(logits.expand(len(uniform), -1).contiguous(), uniform)
    shares = np.bincount(chosen, minlength=4) / len(chosen)
    assert shares == pytest.approx(logits.softmax(-1).numpy(), abs=0.01)
    assert operations.sample(logits[None], np.array([np.nextafter(np.float32(1), np.float32(0))])) == [3]


def test_weights_begin_as_pytorchs_do():
    layer = torch.nn.ModuleDict({"linear": torch.nn.Linear(25, 4000), "gru": torch.nn.GRU(3, 100)})
    initialise(layer)
    for parameter, bound in (
        (layer["linear"].weight, 1 / 5),
        (layer["linear"].bias, 1 / 5),
        (layer["gru"].weight_hh_l0, 0.1),
    ):
        assert parameter.abs().max() <= bound
        assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)  # of the uniform distribution
        assert parameter.mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("missions, embed_dim", [(40, 12), (9, 30)])
def test_principal_components_are_those_of_a_singular_value_decomposition(missions, embed_dim):
    rng = np.random.default_rng(0)
    embeddings = (5 + rng.normal(size=(missions, embed_dim)) * np.linspace(1, 0.01, embed_dim)).astype(np.float32)
    weight, bias = principal_components(embeddings, 6)
    centred = embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    expected = directions[:6] * np.sqrt(missions) / np.maximum(spread[:6], 0.1 * spread[0])[:, None]
    signs = np.sign((weight * expected).sum(1, keepdims=True))
    assert weight * signs == pytest.approx(expected, abs=1e-5)
    projected = embeddings @ weight.T + bias
    assert projected.mean(0) == pytest.approx(np.zeros(6), abs=1e-4)
    assert projected[:, 0].std() == pytest.approx(1, abs=1e-4)


def test_one_mission_has_no_components():
    weight, bias = principal_components(np.ones((4, 5), np.float32), 3)
    assert weight.shape == (0, 5) and bias.shape == (0,)


@pytest.mark.parametrize("exponent", [-100, -10, -1, 0, 1, 10, 100])
def test_the_compiled_logarithm_is_as_exact_as_float32(exponent):
    for value in np.linspace(1, 2, 501, dtype=np.float32) * np.float32(2.0**exponent):
        assert log(value) == pytest.approx(np.log(np.float64(value)), rel=3e-7, abs=1.5e-7)


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
    scores = look_up(observation, attention(torch.randn(1, LANG_DIM))).reshape(-1, 49)
    assert torch.equal(scores[:, 0], scores[:, 20])
    assert not torch.equal(scores[:, 0], scores[:, 1])


def test_lpc_by_hand():
    policy = mixture([[0, 16, 32], [0, 16, 32]])
    routing = [torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])]
    lpc = compute_lpc(routing, policy.expert_costs)
    assert lpc.tolist() == pytest.approx([0.3 * 256 + 0.2 * 1024, 2 * 1024])
    costs = [[0, 256, 1024]] * 3
    assert compute_lpc([torch.tensor([1.0, 0.0, 0.0])] * 3, costs) == 0
    assert compute_lpc([torch.tensor([0.0, 0.0, 1.0])] * 3, costs) == 3072
    assert compute_lpc([torch.tensor([0.25, 0.75])], [[0, 4]]) == 3
    assert compute_lpc([torch.tensor([[0.25, 0.75]])], [[0, 0]]).tolist() == [0]  # identities only


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
    policy = mixture([[0, 16, 32]] * 3, 64, 64, 32)
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
    plain = set(mixture([[0, 16, 32]] * 3, 64, 64, 32).state_dict())
    for lang_fusion in ("film", "attention"):
        assert plain < set(mixture([[0, 16, 32]] * 3, 64, 64, 32, lang_fusion=lang_fusion).state_dict())


def test_a_flat_list_of_sizes_means_one_layer():
    assert per_layer([0, 16, 32]) == [[0, 16, 32]]
    assert per_layer([[0, 16], [32]]) == [[0, 16], [32]]
    assert len(mixture([0, 16, 32]).moe_layers) == 1
