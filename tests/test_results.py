"""Paths and formats: what is written is read back, what is damaged is named and left alone, nothing is lost."""

import base64
import json
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import plotting_utils
from basics import files
from basics.errors import UserError
from basics.files import ArtifactError
from results import checkpoints, paths, routing_caches, tables
from results.paths import CheckpointRef
from results.routing_data import RoutingData

ROOT = Path(__file__).parent.parent
TASK = "BabyAI-GoToObj-v0"


def small_routing_data(num_episodes=3, steps=4, seed=0):
    rng = np.random.default_rng(seed)
    total = num_episodes * steps
    episodes = [
        {
            "mission": f'go to the "{i}" ball',
            "seed": 1_000_000_000 + i,
            "success": i == 0,
            "num_steps": steps,
            "bot_steps": 3,
            "env_context": {"grid_size": [8, 8], "agent_start_pos": [1, i], "goals": [], "doors": []},
        }
        for i in range(num_episodes)
    ]
    return RoutingData(
        np.repeat(np.arange(num_episodes), steps),
        np.tile(np.arange(steps), num_episodes),
        rng.integers(0, 8, (total, 2)),
        [rng.dirichlet([1, 1, 1], total), rng.dirichlet([1, 1], total)],
        rng.random(total) * 3000,
        rng.integers(0, 2, total),
        rng.integers(0, 7, total),
        episodes,
        rng.integers(0, 4, total),
        rng.integers(0, 2, total),
        rng.normal(size=(total, 7)),
    )


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_disk_that_takes_no_more_is_an_error_for_people_and_the_old_file_stays(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data(num_episodes=20, steps=50)
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=r"routing_data.json: cannot be written: File too large"):
            routing_caches.write_routing_cache(path, {}, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and os.listdir(tmp_path) == [path.name]


def test_a_folder_without_permission_is_named(tmp_path):
    tables.upsert_result(tmp_path / "results.csv", row())
    with tempfile.TemporaryDirectory() as folder:  # where others may look in, too
        os.chmod(folder, 0o555)
        user = os.geteuid()
        if user == 0:  # root may write everywhere: become nobody
            os.seteuid(65534)
        try:
            with pytest.raises(ArtifactError, match=r"results.csv: cannot be written: Permission denied"):
                tables.upsert_result(Path(folder, "results.csv"), row())
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o700)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with files.atomic_write(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_text() == "new"


def test_files_have_the_permissions_that_the_user_chose(tmp_path):
    previous = os.umask(0o027)
    try:
        with files.atomic_write(tmp_path / "file") as file:
            file.write("for the group")
    finally:
        os.umask(previous)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_what_killed_processes_left_is_removed_after_a_while(tmp_path):
    old, recent = tmp_path / ".file.1-abc.tmp", tmp_path / ".file.2-abc.tmp"
    for leftover in (old, recent):
        leftover.write_text("half")
    os.utime(old, (0, 0))
    with files.atomic_write(tmp_path / "file") as file:
        file.write("whole")
    assert sorted(os.listdir(tmp_path)) == [recent.name, "file"]


def test_what_a_killed_process_left_is_removed_by_the_next_write_into_its_folder(tmp_path):
    program = (
        "import sys, time\nfrom basics import files\n"
        "with files.atomic_write(sys.argv[1]) as file: print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "a"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    with files.atomic_write(tmp_path / "b") as file:
        file.write("while the other one is at work")
    assert len(os.listdir(tmp_path)) == 2
    process.kill()
    process.communicate()
    with files.atomic_write(tmp_path / "b") as file:
        file.write("after it was killed")
    assert os.listdir(tmp_path) == ["b"]


def test_a_file_keeps_its_rights(tmp_path):
    path = tmp_path / "results.csv"
    tables.upsert_result(path, row("a"))
    path.chmod(0o600)
    tables.upsert_result(path, row("b"))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "results.csv"
    tables.upsert_result(path, row("a"))
    os.chown(path, 12345, 12345)
    tables.upsert_result(path, row("b"))
    assert path.stat().st_uid == path.stat().st_gid == 12345


def test_what_is_no_file_is_neither_replaced_nor_waited_for(tmp_path):
    pipe, device, folder, loop = (tmp_path / name for name in ("pipe", "device", "folder", "loop"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/null")
    folder.mkdir()
    loop.symlink_to(loop)
    for path in (pipe, device, folder, loop):
        with pytest.raises(ArtifactError, match=f"{path.name}: cannot be written"):
            tables.upsert_result(path, row("a"))
        with pytest.raises(ArtifactError, match=f"{path.name}: (cannot be read|not a file)"):
            files.read_bytes(path)
    assert not os.path.isfile("/dev/null") and sorted(os.listdir(tmp_path)) == ["device", "folder", "loop", "pipe"]
    with pytest.raises(ArtifactError, match="no path"):
        files.read_bytes("a\0b")


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_an_error_for_people(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, PAYLOAD)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ArtifactError, match=r"checkpoint_final.pt: cannot be written: File too large"):
            checkpoints.save_checkpoint(path, PAYLOAD | {"policy_state_dict": {"w": torch.rand(9000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    program = (
        "import sys, time\nfrom basics import files\n"
        "with files.atomic_write(sys.argv[1]) as file:\n"
        "    file.write('new'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, path], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_text() == "old"


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_paths():
    assert paths.checkpoint_path("checkpoints", TASK, 2) == Path(f"checkpoints/{TASK}/trial_2/checkpoint_final.pt")
    assert paths.checkpoint_path("c", TASK, 2, seed=7, update=500) == Path(f"c/{TASK}/trial_2/seed_7/checkpoint_500.pt")
    assert paths.plot_path(TASK, 1, "routing_heatmap") == Path(f"plots/{TASK}/trial_1/routing_heatmap.png")
    assert paths.plot_path(TASK, 1, "x", seed=3, plots_dir="p") == Path(f"p/{TASK}/trial_1/seed_3/x.png")


def test_routing_cache_paths():
    final = CheckpointRef(Path("x"), TASK, 1)
    numbered = CheckpointRef(Path("x"), TASK, 1, seed=3, update=500)
    assert paths.routing_cache_path("cache", final) == Path(f"cache/{TASK}/trial_1/routing_data.json")
    assert paths.routing_cache_path("cache", numbered, "lesion_0-2") == Path(
        f"cache/{TASK}/trial_1/seed_3/update_500/lesion_0-2/routing_data.json"
    )


def test_find_checkpoints_in_order_and_filtered(tmp_path):
    here, modal = tmp_path / "checkpoints", tmp_path / "modal_checkpoints"
    places = [(here, TASK, 10), (here, TASK, 9), (here, "BabyAI-BossLevel-v0", 1), (modal, TASK, 1)]
    for root, task, trial in places:
        for seed in (None, 3):
            for update in (None, 1000, 500):
                path = paths.checkpoint_path(root, task, trial, seed, update)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    for stray in ("checkpoint_best.pt", "metrics.csv", ".checkpoint_final.pt.1-a.tmp", "checkpoint_final.pt.bak"):
        (here / TASK / "trial_9" / stray).touch()

    found = paths.find_checkpoints([here, modal, tmp_path / "nowhere"])
    assert len(found) == 4 * 2 * 3
    assert [(ref.seed, ref.update) for ref in found[:6]] == [
        (None, 500), (None, 1000), (None, None), (3, 500), (3, 1000), (3, None),
    ]  # fmt: skip
    assert [ref.trial for ref in found[::6]] == [1, 9, 10, 1]
    assert all(paths.checkpoint_ref(ref.path) == ref and ref.path.exists() for ref in found)

    def count(**choice):
        return len(paths.find_checkpoints([here, modal], **choice))

    assert count(task=TASK) == 18 and count(task="BabyAI-Boss*") == 6 and count(task="GoToObj") == 0
    assert count(trial=1) == 12 and count(seed=3) == 12 and count(update=500) == 8 and count(final_only=True) == 8
    assert len(paths.find_checkpoints(modal)) == 6


@pytest.mark.parametrize("path", ["checkpoint_final.pt", "task/trial_x/checkpoint_final.pt", "task/trial_1/best.pt"])
def test_other_paths_are_no_checkpoints_of_ours(path):
    assert paths.checkpoint_ref(path) is None


PAYLOAD = {
    "policy_state_dict": {"head.weight": torch.arange(6.0).reshape(2, 3)},
    "lang_proj_state_dict": {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)},
    "config": {"task_id": TASK, "lr": 1e-3, "expert_hidden_sizes": [[0, 16]], "seed": None},
    "optimizer_state_dict": {"step": 3},
}


def test_checkpoints_come_back(tmp_path):
    path = tmp_path / "deep" / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, PAYLOAD)
    loaded = checkpoints.load_checkpoint(path)
    assert loaded.keys() == PAYLOAD.keys() and loaded["config"] == PAYLOAD["config"]
    assert torch.equal(loaded["policy_state_dict"]["head.weight"], PAYLOAD["policy_state_dict"]["head.weight"])
    assert os.listdir(path.parent) == ["checkpoint_final.pt"]


class Malicious:
    """A pickle of this would create a file when loaded by an unsuspecting program."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("container", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, container):
    victim, path = tmp_path / "executed", tmp_path / "checkpoint_final.pt"
    payload = PAYLOAD | {"config": Malicious(victim)}
    if container == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps({"config": Malicious(victim)}))

    with pytest.raises(ArtifactError, match=r"checkpoint_final.pt: refused, and not executed"):
        checkpoints.load_checkpoint(path)
    assert not victim.exists()

    pickle.loads(pickle.dumps(payload["config"]))  # the attack is real: it works on those who let it
    assert victim.exists()


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bytes_changed(path):
    content = bytearray(path.read_bytes())
    content[70:90] = b"\xff" * 20
    path.write_bytes(content)


def a_weight_changed(path):
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)


def a_list(path):
    torch.save([1, 2], path)


def other_keys(path):
    torch.save({"model": {}, "config": {}}, path)


def strange_config(path):
    torch.save(PAYLOAD | {"config": [1]}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncated, "damaged or cut short"),
        (bytes_changed, "damaged|refused|not a PyTorch"),
        (a_weight_changed, "damaged or cut short"),
        (lambda path: path.write_text("I am a text file"), "not a PyTorch checkpoint"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: (path.unlink(), path.mkdir()), "directory"),
        (a_list, "holds a list"),
        (other_keys, "lacks policy_state_dict, lang_proj_state_dict"),
        (strange_config, "config is not a dict"),
    ],
)
def test_damaged_checkpoints_are_named_with_the_reason(tmp_path, damage, reason):
    path = tmp_path / "checkpoint_final.pt"
    checkpoints.save_checkpoint(path, PAYLOAD)
    damage(path)
    with pytest.raises(ArtifactError, match=f"checkpoint_final.pt: .*({reason})"):
        checkpoints.load_checkpoint(path)


def test_errors_survive_the_way_home_from_a_worker():
    error = pickle.loads(pickle.dumps(ArtifactError("a.pt", "damaged")))
    assert isinstance(error, ArtifactError) and str(error) == "a.pt: damaged" and error.reason == "damaged"


# ------------------------------------------------------------------------------------------------------------ results


def row(name="a", **changes):
    return {"checkpoint_path": f"checkpoints/{name}.pt", "task_id": TASK, "trial": 1, "success_rate": 0.5} | changes


def test_rows_are_written_read_and_replaced(tmp_path):
    path = tmp_path / "deep" / "results.csv"
    tables.upsert_result(path, row("a", path_ratio=float("nan"), expert_hidden_sizes=[[0, 16]], seed=None))
    tables.upsert_result(path, row("b", seed=7, mean_lpc=12.25))
    tables.upsert_result(path, row("a", success_rate=0.75, update=100))

    table = tables.read_results(path)
    assert list(table.columns) == [*tables.RESULT_COLUMNS, "seed", "update", "trained_on"]
    assert table["trained_on"].tolist() == table["task_id"].tolist()  # where nothing else is told
    assert table["success_rate"].tolist() == [0.75, 0.5]
    assert table["checkpoint_path"].tolist() == ["checkpoints/a.pt", "checkpoints/b.pt"]
    assert table["trial"].dtype == "Int64" and table["seed"][1] == 7 and table["seed"].isna()[0]
    assert np.isnan(table["path_ratio"][0]) and table["mean_lpc"][1] == 12.25


def test_the_same_checkpoint_by_another_spelling_is_the_same_row(tmp_path):
    path = tmp_path / "results.csv"
    tables.upsert_result(path, row("a"))
    tables.upsert_result(path, row("a") | {"checkpoint_path": "./checkpoints/../checkpoints/a.pt"})
    tables.upsert_result(path, row("a") | {"checkpoint_path": os.path.abspath("checkpoints/a.pt")})
    assert len(tables.read_results(path)) == 1
    tables.upsert_result(path, row("a", lesion="0-2"))
    assert len(tables.read_results(path)) == 2


def test_an_older_csv_keeps_its_rows_and_columns(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "\ufeffnote,success_rate,checkpoint_path,lr,trial\r\n"
        '"good, ""really""",0.90,checkpoints/old.pt,1e-3,01\r\n'
        ",,checkpoints/empty.pt,,\r\n",
        encoding="utf-8",
    )
    tables.upsert_result(path, row("new", lr=0.002))
    rows = tables.read_result_rows(path)
    assert list(rows[0]) == [*tables.RESULT_COLUMNS, "note"]
    assert rows[0]["note"] == 'good, "really"'
    assert (rows[0]["success_rate"], rows[0]["lr"], rows[0]["trial"]) == ("0.90", "1e-3", "01")
    assert [other["checkpoint_path"] for other in rows] == [f"checkpoints/{n}.pt" for n in ("old", "empty", "new")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("checkpoint_path,trial\na.pt,1\nb.pt\n", "line 3 has 1 cells instead of 2"),
        ("checkpoint_path,trial\na.pt,1,2\n", "line 2 has 3 cells"),
        ("name,trial\na.pt,1\n", "no column checkpoint_path"),
        ("checkpoint_path,checkpoint_path\na,b\n", "does not name the columns"),
        ('checkpoint_path,trial\n"a.pt,1\n', "damaged"),
        (b"checkpoint_path\n\xff\xfe\n", "damaged"),
        (b"\x00\x00\x00\x00", "damaged|no column"),
    ],
)
def test_a_damaged_csv_is_named_and_left_alone(tmp_path, content, reason):
    path = tmp_path / "results.csv"
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"results.csv: .*({reason})"):
        tables.upsert_result(path, row())
    with pytest.raises(ArtifactError, match=r"results\.csv"):
        tables.read_results(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("success_rate", "excellent"), ("success_rate", 5), ("trial", "first"), ("trial", 1.5), ("trial", 1e30),
        ("num_episodes", 0), ("task_id", ""), ("task_id", "a/b"), ("mean_lpc", -1), ("update", "x"), ("seed", -1),
        ("success_rate", "inf"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_named_and_the_rest_stays_usable(tmp_path, capsys, column, value):
    path = tmp_path / "results.csv"
    tables._write_csv(path, [*tables.RESULT_COLUMNS, "seed", "update"], [row("a", **{column: value}), row("b")])
    assert tables.read_results(path)["checkpoint_path"].tolist() == ["checkpoints/b.pt"]
    warned = capsys.readouterr().err
    assert f"results.csv: line 2: {column} is" in warned and warned.count("\n") == 1
    assert len(tables.read_result_rows(path)) == 2  # what is added to it loses nothing
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(ArtifactError, match=f"line 2: {column} is"):
        tables.read_results(path)


def test_a_line_of_another_length_costs_only_itself_in_reading(tmp_path, capsys):
    path = tmp_path / "results.csv"
    tables.upsert_result(path, row("a"))
    path.write_text(path.read_text() + "torn,line\n")
    assert len(tables.read_results(path)) == 1 and "line 3 has 2 cells" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [b'"a.pt"x,1\n', b'"a.pt,1\n', b"a\xff.pt,1\n", b'"a.pt,1\nb.pt,2"x\n'])
def test_a_line_that_is_no_csv_costs_only_itself_in_reading(tmp_path, capsys, bad):
    path = tmp_path / "results.csv"
    for name in "abc":
        tables.upsert_result(path, row(name))
    lines = path.read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:2], bad, *lines[2:]])
    path.write_bytes(content)
    assert tables.read_results(path)["checkpoint_path"].tolist() == [f"checkpoints/{name}.pt" for name in "abc"]
    warned = capsys.readouterr().err
    assert "results.csv: line 3" in warned and warned.count("\n") == 1
    with pytest.raises(ArtifactError, match=r"results.csv: damaged"):  # nothing is written into it
        tables.upsert_result(path, row("d"))
    assert path.read_bytes() == content


def test_what_a_spreadsheet_leaves_is_read(tmp_path):
    path = tmp_path / "results.csv"
    content = "checkpoint_path,task_id,trial,num_episodes,success_rate,path_ratio,mean_lpc,,\r\n"
    content += "a.pt,BabyAI-GoTo-v0,3.0,100,0.5,NA,nan,,\r\n,,,,,,,,\r\n"
    path.write_text(content)
    table = tables.read_results(path)
    assert len(table) == 1 and table["trial"][0] == 3
    assert table[["path_ratio", "mean_lpc"]].isna().all(axis=None)
    tables.upsert_result(path, row("b"))
    assert [each["checkpoint_path"] for each in tables.read_result_rows(path)] == ["a.pt", "checkpoints/b.pt"]


HOSTILE = [
    "\0",
    "a\rb",
    "\r",
    "\n",
    "\r\n",
    "x" * 200_000,
    '"',
    ',"',
    "\ud800",
    "\u2028",
    "\x1a",
    "\ufffd",
    "=1+1",
    " ",
    "\ufeff",
    "'",
]


def test_what_is_written_can_be_read_whatever_it_is(tmp_path):
    path = tmp_path / "results.csv"
    for number, value in enumerate(HOSTILE):
        tables.upsert_result(path, row(f"{number}", lang_encoder=value, lr=[value], note={value: value}))
        rows = tables.read_result_rows(path)
        assert [each["checkpoint_path"] for each in rows] == [f"checkpoints/{n}.pt" for n in range(number + 1)]
    again = tmp_path / "again.csv"
    for each in rows:
        tables.upsert_result(again, each)
    assert tables.read_result_rows(again) == rows  # nothing changes by being read and written once more
    assert [each["lang_encoder"] for each in rows][2:6:3] == ["\\u000d", "x" * 200_000]
    assert len(tables.read_results(path)) == len(HOSTILE)
    with pytest.raises(UserError, match="rename it"):
        tables.upsert_result(path, row("\udcff"))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=r"file/results.csv: cannot be written"):
        tables.upsert_result(tmp_path / "file" / "results.csv", row())


def test_a_missing_csv_is_no_table_but_no_rows(tmp_path):
    with pytest.raises(ArtifactError, match=r"no such file; batch_eval.py"):
        tables.read_results(tmp_path / "results.csv")
    assert tables.read_result_rows(tmp_path / "results.csv") == []
    (tmp_path / "results.csv").touch()
    assert tables.read_result_rows(tmp_path / "results.csv") == []
    assert len(tables.read_results(tmp_path / "results.csv")) == 0


def write_rows(path, name):
    for number in range(8):
        tables.upsert_result(path, row(f"{name}-{number}"))


def test_two_processes_lose_no_row(tmp_path):
    path = tmp_path / "results.csv"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_rows, args=(path, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(tables.read_results(path)) == 16


def test_metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    tables.write_metrics(path, [dict.fromkeys(tables.METRICS_COLUMNS, 1.5) | {"path_ratio": float("nan")}])
    table = tables.read_metrics(path)
    assert list(table.columns) == tables.METRICS_COLUMNS
    assert table["loss"][0] == 1.5 and np.isnan(table["path_ratio"][0])
    path.write_text("updates,loss\n1,2\n")
    with pytest.raises(ArtifactError, match=r"metrics.csv: damaged: the column update"):
        tables.read_metrics(path)


def test_metrics_of_older_and_newer_programs_are_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("update,loss,ce,entropy,note\n1,0.5,0.25,1.5,good\n2,NA,,1.25,\n,,,,\n")
    table = tables.read_metrics(path)
    assert list(table.columns) == [*tables.METRICS_COLUMNS, "entropy", "note"]
    assert table["update"].tolist() == [1, 2] and table["entropy"].tolist() == [1.5, 1.25]
    assert table["accuracy"].isna().all() and np.isnan(table["loss"][1]) and table["note"][0] == "good"
    tables.write_metrics(path, [*table.to_dict("records"), {"update": 3, "loss": 0.1, "margin": 0.7}])
    again = tables.read_metrics(path)
    assert list(again.columns) == [*tables.METRICS_COLUMNS, "entropy", "note", "margin"]
    assert again["margin"].tolist()[2] == 0.7 and again["entropy"].tolist()[:2] == [1.5, 1.25]
    assert again["note"][0] == "good" and np.isnan(again["entropy"][2])


# ------------------------------------------------------------------------------------------------------------- caches

HEADER = {
    "checkpoint_path": "checkpoints/a.pt",
    "expert_hidden_sizes": [[0, 16, 32], [0, 16]],
    "metrics": {"success_rate": 1 / 3, "path_ratio": float("nan"), "mean_lpc": 1.5, "bot_plan_failures": 0},
}


def assert_equal_data(data, other):
    assert len(data) == len(other) and data.episodes == other.episodes
    for name in ("episode", "timestep", "position", "carrying", "action", "direction", "target_in_view", "logits"):
        np.testing.assert_array_equal(getattr(data, name), getattr(other, name), name)
    for layer, other_layer in zip(data.weights, other.weights, strict=True):
        np.testing.assert_allclose(layer, other_layer, atol=6e-6)
    np.testing.assert_allclose(data.lpc, other.lpc, rtol=1e-6, atol=1e-5)


def test_a_cache_has_the_form_of_the_design(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data()
    routing_caches.write_routing_cache(path, HEADER, data)
    cache = json.loads(path.read_text())
    assert cache["num_episodes"] == 3 and cache["checkpoint_path"] == "checkpoints/a.pt" and cache["evaluated_at"]
    assert cache["metrics"]["path_ratio"] is None
    assert cache["version"] == 2
    logits = [np.frombuffer(base64.b64decode(episode.pop("logits")), "<f2") for episode in cache["episodes"]]
    np.testing.assert_array_equal(np.concatenate(logits).reshape(-1, 7), data.logits)
    assert cache["episodes"] == data.episodes
    assert set(cache["routing_data"][0]) == {
        "episode", "timestep", "position", "layer_routing", "lpc", "carrying", "action", "direction", "target_in_view",
    }  # fmt: skip
    assert [(entry["episode"], entry["timestep"]) for entry in cache["routing_data"]] == [
        (episode, timestep) for episode in range(3) for timestep in range(4)
    ]


def test_a_cache_comes_back(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data()
    routing_caches.write_routing_cache(path, HEADER, data)
    cache = routing_caches.read_routing_cache(path)
    assert_equal_data(cache["routing_data"], data)
    assert cache["expert_hidden_sizes"] == HEADER["expert_hidden_sizes"]
    assert cache["metrics"]["success_rate"] == 1 / 3 and np.isnan(cache["metrics"]["path_ratio"])
    assert cache["routing_data"][5]["env_context"] is cache["episodes"][1]["env_context"]
    assert routing_caches.routing_cache_owner(path) == "checkpoints/a.pt"
    assert routing_caches.routing_cache_owner(tmp_path / "nothing.json") is None


def test_a_cache_of_version_1_comes_back_without_what_came_later(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data()
    routing_caches.write_routing_cache(path, HEADER, data)
    cache = json.loads(path.read_text())
    del cache["version"]
    for entry in cache["routing_data"]:
        del entry["direction"], entry["target_in_view"]
    for episode in cache["episodes"]:
        del episode["logits"]
    path.write_text(json.dumps(cache))
    older = routing_caches.read_routing_cache(path)["routing_data"]
    assert (older.direction == -1).all() and (older.target_in_view == -1).all() and older.logits.shape == (12, 0)
    data.direction[:], data.target_in_view[:], data.logits = -1, -1, data.logits[:, :0]
    assert_equal_data(older, data)


def test_logits_that_do_not_fit_the_steps_are_damage(tmp_path):
    path = tmp_path / "routing_data.json"
    routing_caches.write_routing_cache(path, HEADER, small_routing_data())
    cache = json.loads(path.read_text())
    cache["episodes"][0]["logits"] = cache["episodes"][0]["logits"][:8]
    path.write_text(json.dumps(cache))
    with pytest.raises(ArtifactError, match="number of logits"):
        routing_caches.read_routing_cache(path)


def test_a_cache_of_many_blocks_comes_back(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data(num_episodes=50, steps=1000)
    routing_caches.write_routing_cache(path, HEADER, data)
    assert_equal_data(routing_caches.read_routing_cache(path)["routing_data"], data)


def test_a_cache_without_steps_comes_back(tmp_path):
    path = tmp_path / "routing_data.json"
    routing_caches.write_routing_cache(path, HEADER, RoutingData.from_entries([]))
    assert json.loads(path.read_text())["routing_data"] == []
    assert len(routing_caches.read_routing_cache(path)["routing_data"]) == 0


@pytest.mark.parametrize("layout", [{}, {"indent": 2}, {"indent": 0, "separators": (",", ":")}])
def test_a_cache_laid_out_otherwise_is_read(tmp_path, layout):
    path, data = tmp_path / "routing_data.json", small_routing_data()
    routing_caches.write_routing_cache(path, HEADER, data)
    path.write_text(json.dumps(json.loads(path.read_text()), **layout))
    assert_equal_data(routing_caches.read_routing_cache(path)["routing_data"], data)
    assert routing_caches.routing_cache_owner(path) == "checkpoints/a.pt"


def test_an_older_cache_is_read(tmp_path):
    path, data = tmp_path / "routing_data.json", small_routing_data()
    older = {"checkpoint_path": "a.pt", "num_episodes": 3, "metrics": {"path_ratio": float("nan")}}
    path.write_text(json.dumps(older | {"routing_data": list(data)}))  # with env_context in each entry, and NaN
    cache = routing_caches.read_routing_cache(path)
    assert [entry["env_context"] for entry in cache["routing_data"]] == [entry["env_context"] for entry in data]
    assert [episode["num_steps"] for episode in cache["episodes"]] == [4, 4, 4]
    assert cache["episodes"][1]["mission"] is None and np.isnan(cache["metrics"]["path_ratio"])


def cut(content):
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda content: content[:40],
        lambda content: b"",
        lambda content: b"no json at all",
        lambda content: b"[]",
        lambda content: b"\x80" + content,
        lambda content: content.replace(b'"timestep":2', b'"timestep":"x"'),
        lambda content: content.replace(b'"position"', b'"place"'),
        lambda content: content.replace(b'{"episode":1', b'{"episode":7'),
        lambda content: content.replace(b'{"episode":1', b'"episode":1', 1),
        lambda content: content.replace(b'"env_context"', b'"context"'),
        lambda content: content.replace(b'"layer_1":', b'"layer_5":', 1),
        lambda content: content + content,
    ],
)
def test_a_damaged_cache_is_named_and_left_alone(tmp_path, damage):
    path = tmp_path / "routing_data.json"
    routing_caches.write_routing_cache(path, HEADER, small_routing_data())
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=r"routing_data.json: damaged routing cache: .*--force"):
        routing_caches.read_routing_cache(path)
    assert path.read_bytes() == damaged


def of_entry(name, value, row=5):
    def change(cache):
        cache["routing_data"][row][name] = value

    return change


def of_weights(value):
    return of_entry("layer_routing", {"layer_0": value, "layer_1": [0.5, 0.5]})


def of_episode(name, value):
    def change(cache):
        cache["episodes"][1][name] = value

    return change


def of_context(name, value):
    def change(cache):
        cache["episodes"][1]["env_context"][name] = value

    return change


def swapped(cache):
    cache["routing_data"][3], cache["routing_data"][8] = cache["routing_data"][8], cache["routing_data"][3]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (of_entry("position", [32767, 32767]), r"entry 5: its position \[32767, 32767\] lies outside"),
        (of_entry("position", [8, 0]), "entry 5: its position"),
        (of_entry("position", [-1, -1]), "entry 5: its position"),
        (of_entry("position", [1.5, 2]), "entry 5: its position"),
        (of_entry("position", [10**9, 2]), "entry 5: its position"),
        (of_entry("position", None), "entry"),
        (of_weights([-0.5, 1.0, 0.5]), "entry 5: its layer_0"),
        (of_weights([5, 5, 5]), "entry 5: its layer_0"),
        (of_weights([None, None, None]), "entry 5: its layer_0"),
        (of_weights([0.5, 0.5]), "3 numbers"),
        (of_weights([[0.5], 0.25, 0.25]), "sequence"),
        (of_entry("lpc", -3), "entry 5: its lpc"),
        (of_entry("action", 9), "entry 5: its action"),
        (of_entry("timestep", 0), "entry 5: its timestep 0 is not in order"),
        (swapped, "is not in order"),
        (lambda cache: cache["routing_data"].reverse(), "is not in order"),
        (of_episode("success", 5), "episode 1: success is 5"),
        (of_episode("seed", -1), "episode 1: seed"),
        (of_episode("mission", ["a"]), "episode 1: mission"),
        (of_episode("bot_steps", "x"), "episode 1: bot_steps"),
        (of_episode("env_context", [1]), "episode 1: its env_context"),
        (of_context("grid_size", [10**6, 10**6]), "episode 1: grid_size"),
        (of_context("grid_size", [0, 8]), "episode 1: grid_size"),
        (of_context("grid_size", "8x8"), "episode 1: grid_size"),
        (of_context("room_grid_shape", [0, 0]), "episode 1: room_grid_shape"),
        (of_context("walls", [[9, 9]]), "episode 1: walls"),
        (of_context("walls", [[-1, 2]]), "episode 1: walls"),
        (of_context("doors", [{"type": "door", "position": [99, 1]}]), "episode 1: its objects"),
        (of_context("doors", ["a door"]), "episode 1: doors"),
        (of_context("goals", [{"position": [1, 1]}]), "episode 1: goals"),
        (lambda cache: cache.update(expert_hidden_sizes=[[0, 16]]), "expert_hidden_sizes"),
        (lambda cache: cache.update(expert_hidden_sizes="x"), "expert_hidden_sizes"),
        (lambda cache: cache.update(metrics=[1]), "metrics"),
        (lambda cache: cache.update(metrics={"success_rate": "good"}), "metrics, success_rate"),
        (lambda cache: cache.update(episodes={"a": 1}), "episodes are"),
        (lambda cache: cache.update(episodes=[{"mission": "m"}] * 3), "episode 0 has no env_context"),
    ],
)
@pytest.mark.parametrize("by_lines", [True, False])
def test_what_no_evaluation_can_have_seen_is_named(tmp_path, change, named, by_lines):
    path = tmp_path / "routing_data.json"
    routing_caches.write_routing_cache(path, HEADER, small_routing_data())
    cache = json.loads(path.read_text())
    change(cache)
    if by_lines:
        entries = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in cache.pop("routing_data"))
        header = ",\n".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in cache.items())
        path.write_text("{\n" + header + ',\n"routing_data":[\n' + entries + "\n]}\n")
    else:
        path.write_text(json.dumps(cache, indent=1))
    with pytest.raises(ArtifactError, match=rf"routing_data.json: damaged routing cache: .*{named}"):
        routing_caches.read_routing_cache(path)


def test_json_that_is_nested_too_deeply_is_damage(tmp_path):
    path = tmp_path / "routing_data.json"
    for content in (
        "[" * 100_000,
        '{"routing_data":' + "[" * 100_000,
        '{\n"a":' + "[" * 100_000 + '\n"routing_data":[\n',
    ):
        path.write_text(content)
        with pytest.raises(ArtifactError, match="damaged routing cache"):
            routing_caches.read_routing_cache(path)


def test_episodes_that_do_not_tell_all_are_read(tmp_path):
    path = tmp_path / "routing_data.json"
    routing_caches.write_routing_cache(path, HEADER, small_routing_data())
    cache = json.loads(path.read_text())
    for episode in cache["episodes"]:
        for name in ("mission", "seed", "success", "num_steps", "bot_steps"):
            del episode[name]
    cache["episodes"][0]["success"] = 1  # as some write true
    path.write_text(json.dumps(cache))
    episodes = routing_caches.read_routing_cache(path)["episodes"]
    assert episodes[0]["success"] is True and episodes[1]["success"] is episodes[1]["mission"] is None
    assert episodes[2]["seed"] is None and [episode["num_steps"] for episode in episodes] == [4, 4, 4]


@pytest.mark.parametrize("form", ["inline", "shared", "full"])
def test_a_cache_of_an_older_evaluator_is_read_and_drawn(tmp_path, form):
    """Objects as lists, in each entry's context, or `episodes` as a list of the contexts themselves."""
    path, data = tmp_path / "routing_data.json", small_routing_data()
    contexts = [
        {
            "grid_size": [11, 9], "agent_start_pos": [1, 2], "goals": [], "agent_start_room": [0, 0],
            "doors": [[5, 3, "red", False, True], [5, 4, "blue", True, False]], "keys": [[2, 4, "red"]], "balls": [],
            "boxes": [[8, 2 + number, "blue"]], "target_pos": [8, 2], "room_bounds": [1, 1, 4, 4],
        }
        for number in range(3)
    ]  # fmt: skip
    entries = []
    for entry in data:
        of_step = {name: entry[name] for name in ("position", "layer_routing", "lpc")}
        if form == "inline":
            entries.append(of_step | {"env_context": contexts[entry["episode"]]})
        else:
            entries.append({"episode": entry["episode"]} | of_step)
        if form == "full":
            entries[-1] |= {"carrying": 1, "action_logits": [0.1] * 7, "action": 2, "t_step": 3, "dist_to_key": None}
    cache = {"checkpoint_path": "/checkpoints/x", "num_episodes": 3, "metrics": {"success_rate": 1.0}}
    cache |= {"episodes": contexts} if form != "inline" else {}
    path.write_text(json.dumps(cache | {"routing_data": entries}, indent=2 if form == "shared" else None))
    read = routing_caches.read_routing_cache(path)["routing_data"]
    assert read.position.tolist() == data.position.tolist() and len(read.episodes) == 3
    context = read.episodes[1]["env_context"]
    assert context["doors"][0] == {"type": "door", "color": "red", "position": [5, 3], "state": "locked"}
    assert context["doors"][1]["state"] == "open" and context["boxes"][0]["position"] == [8, 3]
    assert [episode["num_steps"] for episode in read.episodes] == [4, 4, 4]
    for analysis in plotting_utils.get_available_analyses(read):
        if analysis == "overall":
            plotting_utils.plot_overall_routing(read)
        else:
            plotting_utils.plot_grouped_routing(read, analysis)


def test_a_missing_cache_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        routing_caches.read_routing_cache(tmp_path / "routing_data.json")


def test_a_thousand_boss_levels_are_written_and_read_in_seconds_and_little_memory(tmp_path):
    program = """
import re, sys
import numpy as np
from results import routing_caches
from results.routing_data import RoutingData
episodes, steps = 1000, 600
total = episodes * steps
rng = np.random.default_rng(0)
context = {"grid_size": [22, 22], "walls": [[x, y] for x in range(22) for y in range(22)]}
described = [{"mission": "m", "seed": i, "success": True, "num_steps": steps, "bot_steps": 60, "env_context": context}
             for i in range(episodes)]
data = RoutingData(np.repeat(np.arange(episodes), steps), np.tile(np.arange(steps), episodes),
                   rng.integers(0, 22, (total, 2)), [rng.dirichlet([1, 1, 1], total) for _ in range(3)],
                   rng.random(total), rng.integers(0, 2, total), rng.integers(0, 7, total), described)
routing_caches.write_routing_cache(sys.argv[1], {"checkpoint_path": "a.pt"}, data)
cache = routing_caches.read_routing_cache(sys.argv[1])
assert len(cache["routing_data"]) == total
# ru_maxrss would count what the process that runs the tests had when it made this one
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status", encoding="utf-8").read())[1]) / 1024)
"""
    path = tmp_path / "routing_data.json"
    output = subprocess.run(
        [sys.executable, "-c", program, path], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert float(output) < 512, "mebibytes"


def test_finding_and_reading_needs_neither_torch_nor_pandas():
    modules = "checkpoints, paths, routing_caches, tables"
    slow = "{'torch', 'pandas', 'gymnasium'}"
    program = f"import sys; from results import {modules}; assert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
