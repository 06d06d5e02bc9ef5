"""Episodes as films: minigrid's pictures beside the routing weights and the LPC, as GIF, or MP4 where ffmpeg is."""

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from basics.errors import UserError
from basics.files import atomic_write
from browser.replay import episode_steps, frames
from plotting.steps import plot_episode
from plotting.style import Page, page
from results.routing_data import RoutingData

DPI = 100
CURSOR = (232, 89, 12)


def film_frames(task_id: str, data: RoutingData, episode: int, sizes=None) -> Iterator[Image.Image]:
    """Yield one picture per step and one of the end: the level, and the episode's timelines with a cursor."""
    steps = episode_steps(data, episode)
    with page(Page(5.2, 8)):
        figure = plot_episode(data, episode, sizes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    lines = Image.open(buffer).convert("RGB")
    panels = [axes.get_window_extent() for axes in figure.axes]
    scale = lines.width / figure.bbox.width
    top = lines.height - max(panel.y1 for panel in panels) * scale
    bottom = lines.height - min(panel.y0 for panel in panels) * scale
    first, last = figure.axes[-1].get_xlim()
    left, right = panels[-1].x0 * scale, panels[-1].x1 * scale
    for step, picture in enumerate(frames(task_id, data, episode)):
        level = Image.fromarray(picture)
        level.thumbnail((lines.height, lines.height), Image.Resampling.LANCZOS)
        frame = Image.new(
            "RGB", (level.width + lines.width + level.width % 2, lines.height - lines.height % 2), "white"
        )
        frame.paste(level, (0, (lines.height - level.height) // 2))
        frame.paste(lines, (level.width, 0))
        time = steps.timestep[min(step, len(steps) - 1)]
        x = level.width + left + (time - first) / max(last - first, 1e-9) * (right - left)
        ImageDraw.Draw(frame).line([(x, top), (x, bottom)], CURSOR, 2)
        yield frame.crop((0, 0, frame.width - frame.width % 2, frame.height))


def save_film(
    path: Path,
    task_id: str,
    data: RoutingData,
    episode: int,
    sizes=None,
    steps_per_second: float = 4,
    on_frame: Callable[[], object] | None = None,
) -> Path:
    """Write an episode as a film, GIF or MP4 by the path's suffix; return the path. The last state stays a second.

    Raises:
        UserError: MP4 without ffmpeg on this machine, or ffmpeg failed.
        NothingToShow: the episode cannot be played again.
    """

    def each_frame():
        for frame in film_frames(task_id, data, episode, sizes):
            if on_frame is not None:
                on_frame()
            yield frame

    if path.suffix == ".gif":
        pictures = [frame.quantize(128, dither=Image.Dither.NONE) for frame in each_frame()]
        durations = [round(1000 / steps_per_second)] * (len(pictures) - 1) + [1000]
        with atomic_write(path, "wb") as file:
            pictures[0].save(file, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
        return path
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise UserError(f"{path}: an MP4 needs the program ffmpeg, which is not installed; a GIF needs nothing")
    pictures = [np.asarray(frame) for frame in each_frame()]
    height, width, _ = pictures[0].shape
    pictures += [pictures[-1]] * max(1, round(steps_per_second))
    command = [ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", str(steps_per_second), "-i", "-", "-pix_fmt", "yuv420p", "-movflags", "frag_keyframe+empty_moov"]
    done = subprocess.run(
        [*command, "-f", "mp4", "-"], input=b"".join(map(np.ndarray.tobytes, pictures)), capture_output=True
    )
    if done.returncode:
        raise UserError(f"{path}: ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
    with atomic_write(path, "wb") as file:
        file.write(done.stdout)
    return path
