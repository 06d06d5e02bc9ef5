"""The notebooks as people use them: in a real browser, exported, and as scripts."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import needs
import pytest
import untrained
from bot_routing import SIZES, bot_routing_data, repeated

from results import paths, routing_caches, tables

HERE = Path(__file__).resolve().parents[1]
ROUTING, CROSS_TASK = HERE / "routing_viz.py", HERE / "cross_task_viz.py"
ONE_ROOM, KEYS = "BabyAI-GoToLocal-v0", "BabyAI-UnlockPickup-v0"
FLAGS = [  # a browser for a test: no sandbox inside a container, and nothing that calls home
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 90_000  # milliseconds: machines that test may be slow and busy


def write_run(root, task_id, trial, data):
    """Write an untrained checkpoint, the routing of the bot's walks as its cache, its results and its curve."""
    checkpoint = untrained.save(root / "checkpoints", task_id, trial)
    ref = paths.checkpoint_ref(checkpoint.relative_to(root))
    cache = paths.routing_cache_path("evaluation_cache", ref)
    metrics = {"success_rate": 1.0, "path_ratio": 1.0, "mean_lpc": float(data.lpc.mean()), "bot_plan_failures": 0}
    header = {"checkpoint_path": str(ref.path), "expert_hidden_sizes": SIZES, "metrics": metrics}
    routing_caches.write_routing_cache(root / cache, header, data)
    row = {"checkpoint_path": ref.path, "task_id": task_id, "trial": trial, "num_episodes": len(data.episodes)}
    row |= {**metrics, "lpc_alpha": 1e-5, "expert_hidden_sizes": SIZES, "seed": trial, "update": None}
    tables.upsert_result(root / paths.RESULTS_PATH, {**row, "routing_cache": cache})
    curve = [dict.fromkeys(tables.METRICS_COLUMNS, step * 0.1) for step in range(5)]
    tables.write_metrics(checkpoint.parent / paths.METRICS_FILE, curve)
    return checkpoint


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which two checkpoints were trained and evaluated."""
    root = tmp_path_factory.mktemp("workplace")
    for trial, task_id in enumerate((ONE_ROOM, KEYS)):
        write_run(root, task_id, trial, bot_routing_data(task_id, 8))
    return root


@pytest.fixture
def own_workplace(workplace, tmp_path):
    return Path(shutil.copytree(workplace, tmp_path / "copy"))


def checkpoint_of(task_id, trial):
    return f"checkpoints/{task_id}/trial_{trial}/checkpoint_final.pt"


def run(*command, cwd):
    return subprocess.run([sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300)


def assert_is_png(path):
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000


# ------------------------------------------------------------------------------------------------ without a browser


def test_marimo_has_no_complaints():
    done = run("-m", "marimo", "check", "--strict", ROUTING, CROSS_TASK, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_as_a_script_routing_viz_saves_every_figure(own_workplace):
    done = run(ROUTING, "--checkpoint", checkpoint_of(KEYS, 1), cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    saved = {path.name for path in (own_workplace / "plots" / KEYS / "trial_1").iterdir()}
    assert saved >= {
        "routing_heatmap.png",
        "routing_heatmap_by_carrying_phase.png",
        "lpc_per_cell.png",
        "mean_over_time.png",
        "episode.png",
        "weight_histograms.png",
        "routing_entropy.png",
        "routing_by_distance.png",
        "specialisation.png",
    }
    for name in saved:
        assert_is_png(own_workplace / "plots" / KEYS / "trial_1" / name)


def test_as_a_script_cross_task_viz_saves_every_figure(own_workplace):
    done = run(CROSS_TASK, cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    names = ["success_against_lpc", "lpc_alpha", "learning_curves", "expert_use", "side_by_side"]
    for name in names:
        assert_is_png(own_workplace / "plots" / "cross_task" / f"{name}.png")


@pytest.mark.parametrize("notebook", [ROUTING, CROSS_TASK])
def test_with_nothing_trained_the_scripts_say_what_to_run(notebook, tmp_path):
    done = run(notebook, cwd=tmp_path)
    assert done.returncode == 2
    assert "make demo" in done.stderr and "batch_eval.py" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--chekpoint", "x"], "--checkpoint"),
        (["--checkpoint", "x.pt"], "checkpoint_final.pt"),
        (["--checkpoint", "checkpoints/A/trial_0/checkpoint_final.pt"], "no such file"),
        (["--num_episodes", "0"], "--num_episodes"),
    ],
)
def test_mistakes_at_the_command_line(flags, hint, tmp_path):
    done = run(ROUTING, *flags, cwd=tmp_path)
    assert done.returncode == 2 and hint in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_cache_is_named_left_alone_and_the_levels_played_afresh(own_workplace):
    cache = own_workplace / "evaluation_cache" / ONE_ROOM / "trial_0" / "routing_data.json"
    damaged = cache.read_bytes()[:-500]
    cache.write_bytes(damaged)
    flags = ["--checkpoint", checkpoint_of(ONE_ROOM, 0), "--num_episodes", "3"]
    done = run(ROUTING, *flags, cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    assert "damaged routing cache" in done.stderr and "routing_data.json" in done.stderr
    assert cache.read_bytes() == damaged
    assert_is_png(own_workplace / "plots" / ONE_ROOM / "trial_0" / "routing_heatmap.png")


def test_a_cache_of_the_older_form_is_shown(own_workplace):
    cache = own_workplace / "evaluation_cache" / KEYS / "trial_1" / "routing_data.json"
    entries = list(routing_caches.read_routing_cache(cache)["routing_data"])
    cache.write_text(json.dumps({"checkpoint_path": checkpoint_of(KEYS, 1), "routing_data": entries}))
    done = run(ROUTING, "--checkpoint", checkpoint_of(KEYS, 1), cwd=own_workplace)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert_is_png(own_workplace / "plots" / KEYS / "trial_1" / "routing_heatmap.png")


def test_a_baseline_has_no_routing_and_says_so(tmp_path):
    untrained.save(tmp_path / "checkpoints", ONE_ROOM, 0, baseline=True)
    done = run(ROUTING, "--checkpoint", checkpoint_of(ONE_ROOM, 0), "--num_episodes", "2", cwd=tmp_path)
    assert done.returncode == 2 and "baseline" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_results_csv_is_named(own_workplace):
    (own_workplace / "evaluation_results.csv").write_text("a,b\n1,2\n")
    done = run(CROSS_TASK, cwd=own_workplace)
    assert done.returncode == 2 and "not a results CSV" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("notebook", [ROUTING, CROSS_TASK])
def test_exported_to_html_all_figures_are_in_it(notebook, own_workplace):
    done = run("-m", "marimo", "export", "html", notebook, "-o", "page.html", cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    page = (own_workplace / "page.html").read_text()
    assert page.count("data:image/png;base64") >= 5
    assert "Traceback" not in page


def test_a_cache_of_a_thousand_episodes_is_shown(tmp_path):
    sys.path.insert(0, str(HERE))
    import routing_viz

    data = repeated(bot_routing_data(KEYS, 20), 50)
    checkpoint = write_run(tmp_path, KEYS, 0, data)
    with contextlib.chdir(tmp_path):
        ref = paths.checkpoint_ref(checkpoint.relative_to(tmp_path))
        routing = routing_viz.load_routing(ref, "evaluation_cache", True, 10, 10)
        assert len(routing.data.episodes) == 1000 and not routing.warning
        routing_viz.save_figure(routing_viz.heatmap_figure(routing, "overall", {}), routing, "heatmap", "plots")


# --------------------------------------------------------------------------------------------------- with a browser


@contextlib.contextmanager
def opened(notebook, cwd, mode="run"):
    """Serve a notebook and open it in Chromium; yield the page."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(cwd / "server.log", "w", encoding="utf-8")  # noqa: SIM115  (closed below, with the server)
    command = [sys.executable, "-m", "marimo", mode, notebook, "--headless", "--no-token", "--port", str(port)]
    server = subprocess.Popen(list(map(str, command)), cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.time() + 60
        while time.time() < deadline and server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            time.sleep(0.1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=needs.CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1400, "height": 2000})
            page.set_default_timeout(WAIT)
            page.goto(f"http://127.0.0.1:{port}")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


DRAWN = """() => {
    const all = (root) => [...root.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
    const canvas = all(document).find(e => e.tagName === 'CANVAS' && e.width > 300);
    if (!canvas) return '';
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let sum = 0, ink = 0;
    for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3] > 0 && pixels[i] + pixels[i + 1] + pixels[i + 2] < 600) ink += 1;
        sum = (sum * 31 + pixels[i] + 2 * pixels[i + 1] + 3 * pixels[i + 2]) % 1000003;
    }
    return ink > 1000 ? canvas.width + 'x' + canvas.height + ':' + sum : '';
}"""


def drawn_heatmap(page, other_than=""):
    """Wait until the interactive heatmap shows something else than before; return a digest of its pixels."""
    deadline = time.time() + WAIT / 1000
    while time.time() < deadline:
        digest = page.evaluate(DRAWN)
        if digest and digest != other_than:
            page.wait_for_timeout(500)
            if page.evaluate(DRAWN) == digest:
                return digest
        page.wait_for_timeout(200)
    raise AssertionError("the heatmap did not appear, or did not change")


def run_all_cells(page):
    """Press the editor's run button, for marimo runs no cell of an edited notebook unasked; again if none starts."""
    page.get_by_test_id("cell-editor").first.wait_for()
    button = page.get_by_test_id("chrome-controls-bottom-right").get_by_test_id("run-button")
    deadline = time.time() + WAIT / 1000
    while "yellow" in button.get_attribute("class") and time.time() < deadline:
        button.click()
        page.wait_for_timeout(10_000)


def wait_for_file(page, path):
    deadline = time.time() + WAIT / 1000
    while not path.exists() and time.time() < deadline:
        page.wait_for_timeout(200)
    assert_is_png(path)


def choose(page, option):
    page.locator("select").filter(has_text=option).first.select_option(label=option)


@needs.browser
@pytest.mark.parametrize("mode", ["run", pytest.param("edit", marks=needs.patience)])
def test_choose_a_checkpoint_change_the_analysis_save_the_figure(own_workplace, mode):
    with opened(ROUTING, own_workplace, mode) as page:
        if mode == "edit":
            run_all_cells(page)
        first = drawn_heatmap(page)
        choose(page, f"{KEYS} trial 1 (checkpoints)")
        second = drawn_heatmap(page, other_than=first)
        choose(page, "by_carrying_phase")
        drawn_heatmap(page, other_than=second)
        page.get_by_role("button", name="Save this heatmap").click()
        wait_for_file(page, own_workplace / "plots" / KEYS / "trial_1" / "routing_heatmap_by_carrying_phase.png")
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
def test_every_tab_shows_figures_and_the_player_plays(own_workplace):
    with opened(ROUTING, own_workplace) as page:
        drawn_heatmap(page)
        for name in ("Cost per cell", "Over time", "Distributions", "Distance to objects", "What experts do", "Where"):
            page.get_by_role("tab", name=name).click()
            page.locator("[role=tabpanel][data-state=active] img").first.wait_for()
        page.get_by_role("tab", name="Episode player").click()
        thumb = page.get_by_role("slider").last
        frame = page.locator("img[src^='data:image/png'], img[src*='@file']").last
        frame.wait_for()
        before = frame.get_attribute("src")
        thumb.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            "before => [...document.querySelectorAll('img')].every(image => image.src !== before)", arg=before
        )
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
def test_cross_task_viz_filters_compares_and_saves(own_workplace):
    with opened(CROSS_TASK, own_workplace) as page:
        page.get_by_text("2 checkpoints", exact=True).wait_for()
        for name in ("Price of experts", "Learning curves", "Use of experts", "Success and cost"):
            page.get_by_role("tab", name=name).click()
            page.locator("[role=tabpanel][data-state=active] img").first.wait_for()
        page.get_by_role("tab", name="Difficulty").click()
        page.get_by_text("Nothing to show: no task has both").wait_for()
        page.get_by_role("button", name="Save all figures").click()
        wait_for_file(page, own_workplace / "plots" / "cross_task" / "side_by_side.png")
        page.locator("marimo-multiselect").first.get_by_role("button").click()  # tasks
        page.get_by_role("option", name=KEYS).click()
        page.get_by_text("1 checkpoint", exact=True).wait_for()
        page.get_by_text("Choose two checkpoints that have a routing cache").wait_for()
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
@pytest.mark.parametrize("notebook", [ROUTING, CROSS_TASK])
def test_with_nothing_trained_the_notebooks_say_what_to_run(notebook, tmp_path):
    with opened(notebook, tmp_path) as page:
        page.get_by_text("make demo").first.wait_for()
        assert page.get_by_text("Traceback").count() == 0
