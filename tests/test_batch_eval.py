"""Every checkpoint once, whatever happens in between: interruptions, damage, two batches at a time."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from test_results import Malicious
from untrained import make_checkpoint, save

import batch_eval
from basics.errors import UserError
from results import checkpoints, paths, routing_caches, tables
from results.pathways import mean_routing

ROOT = Path(__file__).parent.parent
TASKS = ("BabyAI-GoToObj-v0", "BabyAI-GoToRedBallGrey-v0")
SMALL = ("--num_episodes", "3", "--backend", "minigrid")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(folder, monkeypatch, capsys):
    """Run batch_eval.py in this process; return its exit status and what it printed to stdout and stderr."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["batch_eval.py", *SMALL, *map(str, flags)])
        status = batch_eval.main()
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def start_process(*flags):
    command = [sys.executable, ROOT / "batch_eval.py", *SMALL, *map(str, flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def save_four(**changes):
    for task in TASKS:
        for trial in (0, 1):
            save("checkpoints", task, trial, max_steps=12, **changes)


def rows():
    return tables.read_result_rows("evaluation_results.csv")


def caches():
    return sorted(str(path) for path in Path("evaluation_cache").rglob("*.json"))


def to_evaluate(output):
    return int(re.search(r"(\d+) to evaluate", output)[1])


def change_row(change):
    """Rewrite the CSV as a user might; `change` gets each row and returns it, or None to delete it."""
    kept = [row for row in map(change, rows()) if row is not None]
    with open("evaluation_results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, kept[0])
        writer.writeheader()
        writer.writerows(kept)


# ------------------------------------------------------------------------------------------------------ once, and again


def test_rows_and_caches_once(batch):
    save_four()
    status, output, _ = batch()
    assert status == 0 and to_evaluate(output) == 4
    table = tables.read_results("evaluation_results.csv")
    assert list(table.columns[: len(tables.RESULT_COLUMNS)]) == tables.RESULT_COLUMNS
    assert len(table) == 4 and set(table["task_id"]) == set(TASKS) and (table["num_episodes"] == 3).all()
    assert table["success_rate"].between(0, 1).all() and (table["mean_lpc"] > 0).all()
    for row in rows():
        cache = routing_caches.read_routing_cache(row["routing_cache"])
        assert cache["checkpoint_path"] == row["checkpoint_path"] and len(cache["episodes"]) == 3
        assert cache["metrics"]["mean_lpc"] == float(row["mean_lpc"])
        assert row["routing_cache"] == f"evaluation_cache/{row['task_id']}/trial_{row['trial']}/routing_data.json"
        assert json.loads(row["expert_hidden_sizes"]) == cache["expert_hidden_sizes"]

    before = {path: os.stat(path).st_mtime_ns for path in [*caches(), "evaluation_results.csv"]}
    status, output, _ = batch()
    assert status == 0 and to_evaluate(output) == 0
    assert before == {path: os.stat(path).st_mtime_ns for path in [*caches(), "evaluation_results.csv"]}


def test_what_makes_a_checkpoint_be_evaluated_again(batch):
    save_four()
    batch()

    def evaluated_by(*flags):
        change_row(lambda row: row | {"note": "kept"})
        count = to_evaluate(batch(*flags)[1])
        fresh = [row["checkpoint_path"] for row in rows() if row["note"] != "kept"]
        assert len(fresh) == count and len(rows()) == 4
        return sorted(fresh)

    change_row(lambda row: None if row["checkpoint_path"].endswith("Obj-v0/trial_1/checkpoint_final.pt") else row)
    assert evaluated_by() == ["checkpoints/BabyAI-GoToObj-v0/trial_1/checkpoint_final.pt"]

    path = Path("checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt")
    path.touch()  # the same content
    assert evaluated_by() == []
    checkpoints.save_checkpoint(path, make_checkpoint(seed=5, task_id=TASKS[0], max_steps=12))
    assert evaluated_by() == [str(path)]

    os.remove(caches()[1])
    assert evaluated_by("--skip_routing") == []
    assert evaluated_by() == ["checkpoints/BabyAI-GoToObj-v0/trial_1/checkpoint_final.pt"]

    assert len(evaluated_by("--num_episodes", "4")) == 4
    assert evaluated_by("--num_episodes", "4") == []
    assert len(evaluated_by("--force")) == 4


def test_sampled_actions_add_a_column_and_change_nothing_else(batch):
    save("checkpoints", TASKS[0], max_steps=12)
    cache = paths.routing_cache_path(paths.CACHE_DIR, paths.checkpoint_ref(next(Path("checkpoints").rglob("*.pt"))))
    _, table, _ = batch()
    greedy, greedy_cache = rows()[0], json.loads(cache.read_text())
    assert "sampled" not in table and "success_rate_sampled" not in greedy
    _, table, _ = batch("--sampled")
    (row,) = rows()
    sampled = row.pop("success_rate_sampled")
    assert f"{float(sampled):.3f}" in table and "sampled" in table
    cached = json.loads(cache.read_text())
    for each in (greedy, row, greedy_cache, cached):
        del each["evaluated_at"]
    assert row == greedy and cached == greedy_cache
    assert list(rows()[0])[: len(tables.RESULT_COLUMNS)] == tables.RESULT_COLUMNS
    assert tables.read_results("evaluation_results.csv")["success_rate_sampled"].tolist() == [float(sampled)]
    assert "0 to evaluate" in batch("--sampled")[1] and "0 to evaluate" in batch()[1]
    cache.unlink()  # evaluated again without the flag, the row keeps its number
    batch()
    assert rows()[0]["success_rate_sampled"] == sampled and cache.exists()


def test_a_smaller_evaluation_replaces_a_larger_one_only_by_force(batch):
    path = save("checkpoints", max_steps=12)
    batch("--num_episodes", "5")
    before = Path("evaluation_results.csv").read_bytes(), Path(caches()[0]).read_bytes()

    def fewer(*flags):
        status, output, errors = batch("--num_episodes", "2", *flags)
        return status, to_evaluate(output), errors

    status, count, errors = fewer()
    assert status == count == 0 and "GoToObj-v0 trial 0 (5)" in errors
    assert "over 2 episodes" in errors and "--force" in errors
    assert fewer("--skip_routing")[1] == 0  # the row counts
    assert fewer("--results_path", "other.csv")[1] == 0 and not Path("other.csv").exists()  # and so does the cache
    assert (Path("evaluation_results.csv").read_bytes(), Path(caches()[0]).read_bytes()) == before

    assert fewer("--force")[:2] == (0, 1)
    assert rows()[0]["num_episodes"] == "2"
    assert routing_caches.routing_cache_episodes(caches()[0]) == 2 == len(read_cache()["episodes"])
    checkpoints.save_checkpoint(path, make_checkpoint(seed=5, task_id=TASKS[0], max_steps=12))
    os.utime(path, (time.time() + 5, time.time() + 5))
    status, output, _ = batch("--num_episodes", "1")  # what is known of another policy is not kept for this one
    assert status == 0 and to_evaluate(output) == 1 and "1 checkpoint," in output and rows()[0]["num_episodes"] == "1"


def read_cache():
    return routing_caches.read_routing_cache(caches()[0])


def test_a_lost_cache_is_made_up_for_over_as_many_episodes(folder):
    ref = paths.checkpoint_ref(save("checkpoints", max_steps=12))
    row = {"checkpoint_path": str(ref.path), "num_episodes": "1000", "expert_hidden_sizes": "[[0, 1]]", "lesion": ""}
    row["evaluated_at"] = "2999-01-01T00:00:00"
    planned = batch_eval.plan([ref], {tables.result_key(row): row}, {ref: Path("gone.json")}, batch_eval.Lesion(), None)
    assert [(job.num_episodes, job.known_episodes) for job in planned] == [(1000, 1000)]


def test_an_unknown_task_is_told_without_the_encoder(batch):
    save("checkpoints", "BabyAI-GoToObjj-v0", max_steps=12, lang_encoder="no/such-encoder")
    status, _, errors = batch()
    assert status == 1 and "unknown task 'BabyAI-GoToObjj-v0'" in errors and "such-encoder" not in errors


def test_skipped_routing_is_made_up_for(batch):
    save("checkpoints", max_steps=12)
    assert batch("--skip_routing")[0] == 0
    assert caches() == [] and to_evaluate(batch("--skip_routing")[1]) == 0
    assert to_evaluate(batch()[1]) == 1 and len(caches()) == 1
    assert to_evaluate(batch()[1]) == 0


def test_rows_of_older_programs_count_until_the_file_changes(batch):
    path = save("checkpoints", max_steps=12)
    batch()
    older = {name: value for name, value in rows()[0].items() if name in tables.RESULT_COLUMNS}
    change_row(lambda row: older | {"success_rate": "0.987"})
    assert to_evaluate(batch()[1]) == 0 and rows()[0]["success_rate"] == "0.987"
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert to_evaluate(batch()[1]) == 1 and rows()[0]["success_rate"] != "0.987"


def test_a_baseline_has_a_row_and_no_routing(batch):
    save("checkpoints", baseline=True, max_steps=12)
    assert batch()[0] == 0
    assert rows()[0]["mean_lpc"] == rows()[0]["expert_hidden_sizes"] == "" and rows()[0]["success_rate"] != ""
    assert caches() == [] and to_evaluate(batch()[1]) == 0


def test_selection(batch):
    for seed, update in ((None, None), (3, None), (3, 10)):
        save("checkpoints", TASKS[0], 1, seed, update, max_steps=12)
    save("modal_checkpoints", TASKS[1], 2, max_steps=12)

    def chosen(*flags):
        return to_evaluate(batch(*flags, "--skip_routing", "--results_path", f"{len(flags)}-{hash(flags)}.csv")[1])

    assert chosen() == 4 and chosen("--seed", 3) == 2 and chosen("--trial", 2) == 1 and chosen("--update", 10) == 1
    assert chosen("--task", "BabyAI-GoToObj*", "--final_only") == 2
    assert chosen("--checkpoint_dir", "modal_checkpoints") == 1
    for flags, message in [
        (("--task", "BabyAI-GoToObject-v0"), "Did you mean 'BabyAI-GoToObj-v0'"),
        (("--checkpoint_dir", "nowhere"), "nowhere: no such folder"),
        (("--trial", "99"), "none of the 4 checkpoints"),
        (("--workers", "0"), "workers"),
    ]:
        with pytest.raises(UserError, match=message):
            batch(*flags)


def test_no_checkpoints_at_all(batch):
    with pytest.raises(
        UserError, match=r"no checkpoints under checkpoints or modal_checkpoints or published: train_mop.py"
    ):
        batch()


def test_the_same_trial_here_and_on_modal(batch):
    save("checkpoints", max_steps=12)
    save("modal_checkpoints", max_steps=12)
    batch()
    assert caches() == [
        "evaluation_cache/BabyAI-GoToObj-v0/trial_0/from_modal_checkpoints/routing_data.json",
        "evaluation_cache/BabyAI-GoToObj-v0/trial_0/routing_data.json",
    ]
    assert [routing_caches.routing_cache_owner(path).split("/")[0] for path in caches()] == [
        "modal_checkpoints",
        "checkpoints",
    ]
    assert to_evaluate(batch("--checkpoint_dir", "modal_checkpoints")[1]) == 0
    batch("--checkpoint_dir", "modal_checkpoints", "--force")
    assert len(caches()) == 2 and len(rows()) == 2


def test_rows_of_mixtures_tell_their_routing_and_pathways(batch):
    save("checkpoints", max_steps=12)
    save("checkpoints", trial=1, baseline=True, max_steps=12)
    batch()
    mixture, baseline = rows()
    data = routing_caches.read_routing_cache(caches()[0])["routing_data"]
    np.testing.assert_allclose(json.loads(mixture["routing"]), mean_routing(data), atol=2e-5)
    shares = json.loads(mixture["pathways"])
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3) and all(len(name.split("-")) == 3 for name in shares)
    assert baseline["routing"] == baseline["pathways"] == "" and mixture["normalize_lpc"] == "off"


def test_own_pathways_are_a_lesion_of_their_own(batch):
    save("checkpoints", max_steps=12)
    batch()
    assert to_evaluate(batch("--own_pathway", "0.3", "--skip_routing")[1]) == 1
    assert to_evaluate(batch("--own_pathway", "0.3", "--skip_routing")[1]) == 0
    assert tables.read_results("evaluation_results_lesions.csv")["lesion"].tolist() == ["own0.3"]


def test_a_lesion_passes_over_baselines(batch):
    save("checkpoints", max_steps=12)
    save("checkpoints", trial=1, baseline=True, max_steps=12)
    status, output, _ = batch("--lesion", "0:2")
    assert status == 0 and to_evaluate(output) == 1 and "1 baseline passed over" in output


def test_lesions_have_their_own_rows_and_caches(batch):
    save("checkpoints", max_steps=12)
    batch()
    normal = Path("evaluation_results.csv").read_bytes(), Path(caches()[0]).read_bytes()
    assert to_evaluate(batch("--lesion", "0:2,1:2")[1]) == 1
    assert to_evaluate(batch("--disable_experts", "1:2,0:2")[1]) == 0
    assert to_evaluate(batch("--disable_experts", "1:2,0:2", "--min_router_weight", "0.1")[1]) == 1

    assert (Path("evaluation_results.csv").read_bytes(), Path(caches()[-1]).read_bytes()) == normal
    lesions = tables.read_results("evaluation_results_lesions.csv")
    assert lesions["lesion"].tolist() == ["0-2_1-2", "0-2_1-2_min0.1"]
    assert "routing" not in lesions, "of a policy that is no longer whole"
    assert [Path(path).parent.name for path in caches()] == ["lesion_0-2_1-2", "lesion_0-2_1-2_min0.1", "trial_0"]
    assert routing_caches.read_routing_cache(caches()[0])["lesion"] == "0-2_1-2"


# ---------------------------------------------------------------------------------------------------------- damage


def damage_in_every_way():
    """Return the checkpoints that cannot be evaluated, with what must be said about each."""
    good = Path("checkpoints/BabyAI-GoToObj-v0/trial_0/checkpoint_final.pt")
    reasons = {}

    def spoil(trial, reason, task="BabyAI-GoToObj-v0"):
        path = paths.checkpoint_path("checkpoints", task, trial)
        path.parent.mkdir(parents=True)
        reasons[str(path)] = reason
        return path

    spoil(10, "damaged or cut short").write_bytes(good.read_bytes()[:5000])
    spoil(11, "not a PyTorch checkpoint").write_text("I am a text file")
    checkpoints.save_checkpoint(
        spoil(12, "unknown task 'BabyAI-GoToTheMoon-v0'", "BabyAI-GoToTheMoon-v0"),
        make_checkpoint(task_id="BabyAI-GoToTheMoon-v0"),
    )
    torch.save(make_checkpoint() | {"config": Malicious("executed")}, spoil(13, "refused, and not executed"))
    shutil.copy(good, spoil(14, "was trained on BabyAI-GoToObj-v0, but lies in", "BabyAI-GoToDoor-v0"))
    other_sizes = make_checkpoint()
    other_sizes["config"]["router_hidden_size"] = 7
    checkpoints.save_checkpoint(spoil(15, "the weights do not fit the config"), other_sizes)
    return reasons


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_checkpoints_are_reported_and_the_others_evaluated(batch, workers):
    save_four()
    reasons = damage_in_every_way()
    status, output, errors = batch("--workers", workers)
    assert status == 1 and len(rows()) == 4 and len(caches()) == 4
    assert not Path("executed").exists()
    report = errors[errors.rindex("could not be evaluated:") :]
    for path, reason in reasons.items():
        assert re.search(rf"{re.escape(path)}: .*{reason}", report), report
    assert "Traceback" not in errors and output.count("failed") == len(reasons)

    status, output, _ = batch("--workers", workers)
    assert status == 1 and to_evaluate(output) == len(reasons)


def test_a_damaged_csv_stops_everything_before_it_is_touched(batch):
    save("checkpoints", max_steps=12)
    Path("evaluation_results.csv").write_bytes(b"checkpoint_path,trial\na.pt\n")
    with pytest.raises(UserError, match=r"evaluation_results.csv: damaged: line 2"):
        batch()
    assert Path("evaluation_results.csv").read_bytes() == b"checkpoint_path,trial\na.pt\n" and caches() == []


# --------------------------------------------------------------------------------------------------- interruptions


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_in_the_middle_it_goes_on_where_it_stopped(folder, batch, workers):
    save_four()
    process = start_process("--workers", workers, "--num_episodes", 40)
    wait_for(lambda: caches() and rows())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(tables.read_results("evaluation_results.csv"))
    for path in caches():
        routing_caches.read_routing_cache(path)
    assert 1 <= done < 4
    status, output, _ = batch("--num_episodes", "40")
    assert status == 0 and to_evaluate(output) <= 4 - done and len(rows()) == 4 and len(caches()) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_at_once_and_leaves_no_process(folder, workers):
    save_four()
    process = start_process("--workers", workers, "--num_episodes", 2000)
    assert "4 to evaluate" in process.stdout.readline()
    time.sleep(4)  # evaluation has begun, or is about to
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= workers * (workers > 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_a_worker_that_is_killed_costs_its_checkpoint_only(folder):
    save_four()
    process = start_process("--workers", 2)

    def workers():
        return [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]

    wait_for(lambda: len(workers()) == 2)
    workers()[0].kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "died with exit code -9" in errors and "1 of 4 could not be evaluated" in errors
    assert len(rows()) == 3


def test_two_batches_at_once_lose_no_row(folder):
    save_four()
    first = start_process("--task", TASKS[0])
    second = start_process("--task", TASKS[1])
    outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert first.returncode == second.returncode == 0, outputs
    assert len(tables.read_results("evaluation_results.csv")) == 4


def test_workers_get_the_same_results(batch):
    save_four()
    batch()
    alone = {row["checkpoint_path"]: row for row in rows()}
    batch("--force", "--workers", 2)
    assert len(rows()) == 4
    for row in rows():
        assert row | {"evaluated_at": ""} == alone[row["checkpoint_path"]] | {"evaluated_at": ""}


# ------------------------------------------------------------------------------------------------------------- scale


def test_of_two_hundred_checkpoints_the_new_one_is_found(folder):
    path = save("checkpoints", trial=0, max_steps=12)
    content = path.read_bytes()
    state = {"checkpoint_size": len(content), "checkpoint_sha256": batch_eval.sha256(path)}
    all_rows = []
    for trial in range(200):
        path = paths.checkpoint_path("checkpoints", TASKS[0], trial)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        cache = paths.routing_cache_path("evaluation_cache", paths.checkpoint_ref(path))
        cache.parent.mkdir(parents=True)
        cache.write_text(json.dumps({"checkpoint_path": str(path), "routing_data": []}))
        row = dict.fromkeys(tables.RESULT_COLUMNS, "1") | {"checkpoint_path": str(path), "num_episodes": 3}
        all_rows.append(row | state | {"checkpoint_mtime_ns": path.stat().st_mtime_ns})
    with open("evaluation_results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, all_rows[0])
        writer.writeheader()
        writer.writerows(all_rows[:-1])

    process = start_process()
    assert process.stdout.readline() == "200 checkpoints, 1 to evaluate\n"
    assert process.wait() == 0
    process.communicate()
    assert len(rows()) == 200


# ------------------------------------------------------------------------------------------------------------ odd files


def test_odd_files_are_reported_one_by_one_and_links_just_work(folder):
    good = save("elsewhere", TASKS[0], 7, max_steps=12)
    os.rename(good, folder / "sound.pt")

    def place(trial, root="checkpoints", task=TASKS[0]):
        path = paths.checkpoint_path(root, TASKS[0], trial)
        path = Path(str(path).replace(TASKS[0], task))
        path.parent.mkdir(parents=True)
        return path

    place(0).symlink_to(folder / "sound.pt")
    loop = place(1)
    loop.symlink_to(loop.name)
    place(2).mkdir()
    os.mkfifo(place(3))
    place(4).symlink_to(folder / "gone.pt")
    shutil.copy(folder / "sound.pt", place(5, task="task\udcff"))
    place(6).symlink_to("/dev/zero")
    place(8).write_bytes(b"")
    seeded = place(9)
    (seeded.parent / "seed_3").mkdir()
    (seeded.parent / "seed_3" / "checkpoint_final.pt").symlink_to("../../../../sound.pt")
    expected = {
        "trial_1/": "symbolic links", "trial_2/": "directory", "trial_3/": "pipe", "trial_4/": "no such file",
        "trial_5/": "rename it", "trial_6/": "device", "trial_8/": "empty",
    }  # fmt: skip
    for workers in (1, 2):
        process = start_process("--workers", workers)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1 and "unexpected" not in errors and "Traceback" not in errors, errors
        assert f"{len(expected)} of {len(expected) + (2 if workers == 1 else 0)} could not be evaluated" in errors
        reasons = errors.split("could not be evaluated:")[1].strip().splitlines()
        for trial, reason in expected.items():
            (line,) = (line for line in reasons if trial in line)
            assert reason in line
        assert len(rows()) == 2 and len(caches()) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_checkpoint_that_may_not_be_read_is_reported(batch):
    save("checkpoints", max_steps=12).chmod(0)
    status, _, errors = batch()
    assert status == 1 and "Permission denied" in errors and "Traceback" not in errors


def test_output_that_is_no_file_is_refused_and_stays_what_it_is(batch):
    save("checkpoints", max_steps=12)
    with pytest.raises(UserError, match=r"device: cannot be read: not a file"):
        Path("device").symlink_to("/dev/null")
        batch("--results_path", "device")
    assert not os.path.isfile("/dev/null") and not os.path.exists("/dev/null.lock")
