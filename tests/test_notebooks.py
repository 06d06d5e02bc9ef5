"""The notebooks as people use them: in a real browser, exported, and as scripts."""

import contextlib
import csv
import json
import os
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
from PIL import Image

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
    folder = own_workplace / "plots" / KEYS / "trial_1"
    saved = {path.name for path in folder.iterdir()}
    assert saved >= {
        "routing_heatmap.png",
        "routing_heatmap_by_carrying_phase.png",
        "dependence_solved.png",
        "given_phase_solved.png",
        "map_cell_solved.png",
        "lpc_per_cell_solved.png",
        "mean_over_time_solved.png",
        "episode_0.png",
        "weight_histograms_solved.png",
        "routing_entropy_solved.png",
        "routing_by_distance_solved.png",
        "specialisation_solved.png",
        "decisions_solved.png",
    }
    for path in folder.glob("*.png"):
        assert_is_png(path)
        with open(path.with_suffix(".csv"), encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) > 1, path
    assert sorted(done.stdout.split()[1::2]) == sorted(f"plots/{KEYS}/trial_1/{name}" for name in saved)


def test_figures_for_a_paper_do_not_replace_those_for_the_screen(own_workplace):
    flags = ["--checkpoint", checkpoint_of(ONE_ROOM, 0), "--format", "pdf,svg,png", "--width", "column"]
    done = run(ROUTING, *flags, cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    folder = own_workplace / "plots" / ONE_ROOM / "trial_0"
    assert (folder / "dependence_solved_column.pdf").read_bytes().startswith(b"%PDF")
    assert "What does routing" in (folder / "dependence_solved_column.svg").read_text()  # text, not outlines
    width, _ = Image.open(folder / "dependence_solved_column.png").size
    assert width == pytest.approx(3.25 * 300, abs=2)
    assert not (folder / "dependence_solved.png").exists()


def test_a_format_that_there_is_not_is_an_error(own_workplace):
    done = run(ROUTING, "--format", "bmp", cwd=own_workplace)
    assert done.returncode == 2 and "png, pdf, svg" in done.stderr and "Traceback" not in done.stderr


def test_as_a_script_cross_task_viz_saves_every_figure(own_workplace):
    done = run(CROSS_TASK, cwd=own_workplace)
    assert done.returncode == 0, done.stderr
    pair = "side_by_side_GoToLocal-trial-0-seed-0_UnlockPickup-trial-1-seed-1"
    names = ["success_against_lpc", "lpc_alpha", "learning_curves", "expert_use", pair]
    for name in names:
        assert_is_png(own_workplace / "plots" / "cross_task" / f"{name}.png")
        assert (own_workplace / "plots" / "cross_task" / f"{name}.csv").stat().st_size > 50


def test_a_filtered_figure_does_not_replace_the_one_of_all(own_workplace):
    assert run(CROSS_TASK, cwd=own_workplace).returncode == 0
    everything = (own_workplace / "plots" / "cross_task" / "expert_use.png").read_bytes()
    assert run(CROSS_TASK, "--task", KEYS, cwd=own_workplace).returncode == 0
    assert (own_workplace / "plots" / "cross_task" / "expert_use.png").read_bytes() == everything
    assert_is_png(own_workplace / "plots" / "cross_task" / "expert_use_UnlockPickup.png")


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
        routing_viz.heatmap_figure(routing, "overall").savefig("heatmap.png")


def test_checkpoints_of_the_same_name_are_told_apart_by_their_folder(tmp_path):
    sys.path.insert(0, str(HERE))
    import cross_task_viz

    path = tmp_path / "results.csv"
    for folder, trial in (("checkpoints", 0), ("published", 0), ("checkpoints", 1)):
        checkpoint = f"{folder}/{KEYS}/trial_{trial}/checkpoint_final.pt"
        row = {"checkpoint_path": checkpoint, "task_id": KEYS, "trial": trial, "num_episodes": 8, "success_rate": 0.5}
        tables.upsert_result(path, row | {"trained_on": KEYS})
    names = cross_task_viz.load_results(str(path), None)["name"].tolist()
    assert names == [
        "UnlockPickup trial 0 in checkpoints",
        "UnlockPickup trial 0 in published",
        "UnlockPickup trial 1",
    ]


# --------------------------------------------------------------------------------------------------- with a browser


@contextlib.contextmanager
def opened(notebook, cwd, mode="run", address="", theme=None, **page_settings):
    """Serve a notebook and open it in Chromium; yield the page."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = open(cwd / "server.log", "w", encoding="utf-8")  # noqa: SIM115  (closed below, with the server)
    command = [sys.executable, "-m", "marimo", mode, notebook, "--headless", "--no-token", "--port", str(port)]
    environment = dict(os.environ)
    if theme is not None:
        (cwd / "config" / "marimo").mkdir(parents=True)
        (cwd / "config" / "marimo" / "marimo.toml").write_text(f'[display]\ntheme = "{theme}"\n')
        environment["XDG_CONFIG_HOME"] = str(cwd / "config")
    server = subprocess.Popen(list(map(str, command)), cwd=cwd, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        deadline = time.time() + 60
        while time.time() < deadline and server.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                break
            time.sleep(0.1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=needs.CHROMIUM, args=FLAGS)
            page = browser.new_page(**({"viewport": {"width": 1366, "height": 768}} | page_settings))
            page.set_default_timeout(WAIT)
            page.goto(f"http://127.0.0.1:{port}/{address}")
            yield page
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
        log.close()


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


def figure(page, description):
    """Return the picture with this description, which may be that of a part of the page that comes after a while."""
    picture = page.locator(f"img[alt^='{description}']")
    picture.first.wait_for()
    return picture.first


def click_at(page, picture, across, down):
    """Click into a picture, at shares of its width and height."""
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def player_at(page, step):
    page.locator(f".rlmop-player[data-step='{step}']").wait_for()


@needs.browser
@pytest.mark.parametrize("mode", ["run", pytest.param("edit", marks=needs.patience)])
def test_choose_a_checkpoint_click_a_bar_see_its_means_save_in_three_formats(own_workplace, mode):
    with opened(ROUTING, own_workplace, mode) as page:
        if mode == "edit":
            run_all_cells(page)
        figure(page, "How much of the variance")
        choose(page, "UnlockPickup trial 1")
        page.wait_for_function("location.search.includes('UnlockPickup')")
        page.wait_for_timeout(3000)
        depends = figure(page, "How much of the variance")
        figure(page, "Mean routing given")
        for down in (0.3, 0.5):  # two rows of bars
            click_at(page, depends, 0.45, down)
            page.wait_for_timeout(1000)
            given = page.evaluate("new URLSearchParams(location.search).get('given')")
            figure(page, f"Mean routing given {given}")
        page.locator(".rlmop-picture").first.focus()
        page.keyboard.press("ArrowDown")  # the row below
        page.keyboard.press("Enter")
        page.wait_for_function(f"new URLSearchParams(location.search).get('given') != {given!r}")
        below = page.evaluate("new URLSearchParams(location.search).get('given')")
        figure(page, f"Mean routing given {below}")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Space")
        page.wait_for_function(f"new URLSearchParams(location.search).get('given') == {given!r}")
        open_tab(page, "Save")
        page.locator("marimo-multiselect").nth(1).get_by_role("button").click()  # formats
        for name in ("pdf", "svg"):
            page.get_by_role("option", name=name).click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Save", exact=True).click()
        folder = own_workplace / "plots" / KEYS / "trial_1"
        wait_for_file(page, folder / "routing_heatmap_by_carrying_phase.png")
        assert all((folder / f"routing_heatmap.{kind}").exists() for kind in ("png", "pdf", "svg", "csv"))
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
def test_every_tab_shows_figures_and_a_point_in_a_map_leads_to_its_episodes(own_workplace):
    with opened(ROUTING, own_workplace, address=f"?checkpoint={checkpoint_of(KEYS, 1)}") as page:
        figure(page, "How much of the variance")
        for name, description in (
            ("Over time", "Over time"),
            ("Behaviour", "Behaviour"),
            ("Decisions", "Decisions"),
            ("Distance", "Distance"),
            ("Distributions", "How often an expert has which weight"),
            ("Maps", "more or less than on average, by cell"),
        ):
            open_tab(page, name)
            figure(page, description)
        choose(page, "strongest expert")
        figure(page, "strongest expert")
        choose(page, "more or less than on average, by cell")
        picture = figure(page, "more or less than on average, by cell")
        page.wait_for_timeout(500)
        click_at(page, picture, 0.2, 0.24)  # a cell of the first map
        page.get_by_text("cell (").wait_for()
        page.locator(".rlmop-player canvas").first.wait_for()
        assert page.get_by_role("tab", name="Episodes").get_attribute("data-state") == "active"
        page.get_by_text("steps found").wait_for()
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
def test_the_player_plays_steps_seeks_and_shows_a_level_without_an_expert(own_workplace):
    address = f"?checkpoint={checkpoint_of(KEYS, 1)}&tab=Episodes&episode=3"
    with opened(ROUTING, own_workplace, address=address) as page:
        player = page.locator(".rlmop-player")
        player.locator("canvas").first.wait_for()
        steps = int(player.locator(".rlmop-status").inner_text().split(" of ")[1].split(":")[0])
        player.focus()
        player_at(page, 0)
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        player_at(page, 10)  # no key is lost
        page.keyboard.press("End")
        player_at(page, steps)  # the last state is there
        assert "the end: solved" in player.locator(".rlmop-status").inner_text()
        lines = player.locator("canvas").nth(1).bounding_box()
        page.mouse.click(lines["x"] + 34 + 0.5, lines["y"] + 40)
        player_at(page, 0)
        player.locator("select").first.select_option("30")
        page.keyboard.press("Home")
        player.locator("button").first.click()
        player_at(page, steps)
        player.get_by_role("button", name="GRU 32").last.click()
        player.locator(".rlmop-boards canvas").nth(1).wait_for()
        assert "without GRU 32 in layer 2" in player.inner_text()
        page.get_by_role("button", name="Save as GIF").click()
        path = own_workplace / "plots" / KEYS / "trial_1" / "episode_3.gif"
        page.get_by_text("episode_3.gif").wait_for()
        film = Image.open(path)
        assert film.n_frames == steps + 1
        page.get_by_role("switch").last.click()  # failures only: the bot has none
        page.wait_for_function("new URLSearchParams(location.search).get('episode') === '3'")
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
def test_figure_and_tabs_are_within_a_small_laptops_screen(own_workplace):
    with opened(ROUTING, own_workplace, address=f"?checkpoint={checkpoint_of(KEYS, 1)}") as page:
        for description in ("How much of the variance", "Mean routing given"):
            box = figure(page, description).bounding_box()
            assert box["y"] + box["height"] <= 768 and box["x"] + box["width"] <= 1366
        tabs = page.get_by_role("tab")
        assert all(tabs.nth(place).bounding_box()["y"] < 150 for place in range(tabs.count()))
        assert page.evaluate("document.querySelector('#App').scrollWidth") <= 1366
        assert "success 100 % (" in page.inner_text("body")


@needs.browser
@pytest.mark.parametrize("tab", ["Depends on", "Episodes"])
def test_a_phone_shows_everything_within_its_width(own_workplace, tab):
    phone = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with opened(ROUTING, own_workplace, address=f"?tab={tab}", **phone) as page:
        page.locator(".rlmop-player canvas" if tab == "Episodes" else ".rlmop-picture img").first.wait_for()
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("document.querySelector('#App').scrollWidth") <= 392


FLOOR = """() => {
    const canvas = document.querySelector('marimo-anywidget').shadowRoot?.querySelector('.rlmop-boards canvas')
        || document.querySelector('.rlmop-boards canvas');
    const context = canvas.getContext('2d'), counts = {};
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < pixels.length; i += 4) {
        const key = [pixels[i], pixels[i + 1], pixels[i + 2]].join();
        counts[key] = (counts[key] || 0) + 1;
    }
    const sorted = Object.entries(counts).sort((one, other) => other[1] - one[1]).map(([color]) => color);
    return sorted.slice(0, 2);
}"""


@needs.browser
@pytest.mark.parametrize(("theme", "floor"), [("dark", "35,39,46"), ("light", "255,255,255")])
def test_the_player_wears_the_pages_theme(own_workplace, theme, floor):
    with opened(ROUTING, own_workplace, address="?tab=Episodes", theme=theme) as page:
        page.locator(".rlmop-player canvas").first.wait_for()
        page.wait_for_timeout(500)
        assert floor in page.evaluate(FLOOR)


@needs.browser
def test_what_files_say_stays_text(own_workplace):
    cache = own_workplace / "evaluation_cache" / ONE_ROOM / "trial_0" / "routing_data.json"
    hostile = "**bold** <img src=x onerror=alert(1)> [link](http://example.org)"
    content = json.loads(cache.read_text())
    content["episodes"][0]["mission"] = hostile
    cache.write_text(json.dumps(content))
    with opened(ROUTING, own_workplace, address=f"?checkpoint={checkpoint_of(ONE_ROOM, 0)}&tab=Episodes") as page:
        page.locator(".rlmop-player canvas").first.wait_for()
        assert hostile in page.locator(".rlmop-mission").inner_text()
        assert page.locator("img[src='x']").count() == 0 and page.locator("a[href*='example.org']").count() == 0


@needs.browser
def test_cross_task_viz_filters_compares_and_saves(own_workplace):
    with opened(CROSS_TASK, own_workplace) as page:
        page.get_by_text("2 checkpoints", exact=True).wait_for()
        for name in ("Price of experts", "Learning curves", "Use of experts", "Success and cost"):
            open_tab(page, name)
            figure(page, name)
        open_tab(page, "Difficulty")
        page.get_by_text("Nothing to show: no task has both").wait_for()
        open_tab(page, "Side by side")
        figure(page, "Routing of two checkpoints")
        open_tab(page, "Save")
        page.get_by_role("button", name="Save all figures").click()
        pair = "side_by_side_GoToLocal-trial-0-seed-0_UnlockPickup-trial-1-seed-1.png"
        wait_for_file(page, own_workplace / "plots" / "cross_task" / pair)
        page.locator("marimo-multiselect").first.get_by_role("button").click()  # tasks
        page.get_by_role("option", name=KEYS).click()
        page.get_by_text("1 checkpoint", exact=True).wait_for()
        page.wait_for_function("new URLSearchParams(location.search).get('tasks') === 'BabyAI-UnlockPickup-v0'")
        open_tab(page, "Side by side")
        page.get_by_text("Choose two checkpoints that have a routing cache").wait_for()
    assert "Traceback" not in (own_workplace / "server.log").read_text()


@needs.browser
@pytest.mark.parametrize("notebook", [ROUTING, CROSS_TASK])
def test_with_nothing_trained_the_notebooks_say_what_to_run(notebook, tmp_path):
    with opened(notebook, tmp_path) as page:
        page.get_by_text("make demo").first.wait_for()
        assert page.get_by_text("Traceback").count() == 0
