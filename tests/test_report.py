"""The report: one file that a browser without a network shows, plays and explains."""

import re
import shutil
import subprocess

import pytest
import untrained
from bot_routing import SIZES, bot_routing_data

import report
from basics.errors import UserError
from browser.film import film_frames, save_film
from browser.replay import scene
from fast_babyai.reference import make_level_env, reset_level
from results import paths, routing_caches, tables

KEYS = "BabyAI-UnlockPickup-v0"
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def walks():
    return bot_routing_data(KEYS, 6)


@pytest.fixture
def workplace(tmp_path, monkeypatch, walks):
    """A folder with one evaluated checkpoint, and its lesion."""
    monkeypatch.chdir(tmp_path)
    checkpoint = untrained.save("checkpoints", KEYS, 0)
    cache = paths.routing_cache_path("evaluation_cache", paths.checkpoint_ref(checkpoint))
    metrics = {"success_rate": 1.0, "path_ratio": 1.0, "mean_lpc": float(walks.lpc.mean()), "bot_plan_failures": 0}
    header = {"checkpoint_path": str(checkpoint), "expert_hidden_sizes": SIZES, "metrics": metrics}
    routing_caches.write_routing_cache(cache, header, walks)
    row = {"checkpoint_path": checkpoint, "task_id": KEYS, "trial": 0, "num_episodes": 6, **metrics, "lpc_alpha": 1e-5}
    row |= {"expert_hidden_sizes": SIZES, "seed": 0, "routing_cache": cache}
    tables.upsert_result(paths.RESULTS_PATH, row)
    lesioned = row | {"success_rate": 0.5, "lesion": "0-2_1-2_2-2"}
    tables.upsert_result(paths.lesion_results_path(paths.RESULTS_PATH), lesioned)
    tables.write_metrics(checkpoint.parent / paths.METRICS_FILE, [dict.fromkeys(tables.METRICS_COLUMNS, 0.5)] * 2)
    return tmp_path


def test_the_page_holds_figures_captions_and_three_episodes_and_names_no_other_file(workplace):
    page = report.report_html(paths.RESULTS_PATH)
    assert page.count("data:image/png;base64,") >= 6 and page.count("<figcaption>") >= 9
    assert page.count('class="play"') == 3
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page) and "@import" not in page
    assert "100.0 (61.0–100.0)" in page and "10⁻⁵" in page  # Wilson, of 6 episodes


def test_with_nothing_evaluated_it_says_so(workplace):
    with pytest.raises(UserError, match="no results"):
        report.report_html(paths.RESULTS_PATH, "BabyAI-Go*")


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_browser_without_a_network_plays_it(workplace):
    from playwright.sync_api import sync_playwright

    (workplace / "report.html").write_text(report.report_html(paths.RESULTS_PATH))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(offline=True).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"file://{workplace}/report.html")
        player = page.locator(".rlmop-player").first
        player.locator("select").first.select_option("60")
        player.locator("button").first.click()
        page.wait_for_function("document.querySelector('.rlmop-player').innerText.includes('the end: solved')")
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 300)")
        assert not problems
        browser.close()


def test_a_scene_is_the_level_before_every_step_and_after_the_last(walks):
    drawn = scene(KEYS, walks, 2, SIZES)
    steps = walks.select(walks.episode == 2)
    assert len(drawn["agent"]) == len(steps) + 1 == len(drawn["hand"])
    env = make_level_env(KEYS)
    reset_level(env, walks.episodes[2]["seed"])
    cells = list(drawn["cells"])
    for step, action in enumerate([*steps.action.tolist(), None]):
        for when, index, content in drawn["changes"]:
            if when == step - 1:
                cells[index] = content
        expected = env.grid.encode().transpose(1, 0, 2).reshape(-1, 3).tolist()
        assert cells == expected
        assert drawn["agent"][step] == [*env.agent_pos, env.agent_dir]
        assert drawn["hand"][step] == (None if env.carrying is None else list(env.carrying.encode()))
        if action is not None:
            env.step(action)


def test_films_have_a_picture_per_step_and_mp4_needs_ffmpeg(walks, tmp_path, monkeypatch):
    steps = int((walks.episode == 1).sum())
    frames = list(film_frames(KEYS, walks, 1, SIZES))
    assert len(frames) == steps + 1 and len({frame.size for frame in frames}) == 1
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="ffmpeg"):
        save_film(tmp_path / "film.mp4", KEYS, walks, 1, SIZES)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="an MP4 needs ffmpeg, which is not installed")
def test_an_mp4_shows_every_step_and_stays_a_second_on_the_last_state(walks, tmp_path):
    steps = int((walks.episode == 1).sum())
    path = save_film(tmp_path / "film.mp4", KEYS, walks, 1, SIZES, steps_per_second=4)
    command = ["ffmpeg", "-loglevel", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pictures = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    width, height = next(film_frames(KEYS, walks, 1, SIZES)).size
    assert len(pictures) == (steps + 1 + 4) * width * height * 3
