"""A video with the camera beside what the model imagines, captioned with the instruction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAMERA = (480, 320)  # pixels, width and height
PANEL = (240, 160)  # of one imagined picture
TITLE, CAPTION = 30, 58  # heights of the strips above and below, pixels
SIZE = (CAMERA[0] + PANEL[0], TITLE + CAMERA[1] + CAPTION)

PAPER, INK, FAINT = (18, 20, 24), (240, 240, 240), (160, 166, 176)
VERDICTS = {"success": (46, 160, 82), "wrong": (200, 60, 60), "timeout": (190, 130, 30), "stopped": (200, 60, 60)}


@dataclass
class Shot:
    """One picture of the video.

    Args:
        camera: uint8 [height, width, 3].
        imagined: [(s from the observation, uint8 [h, w, 3])], at most two are shown.
        age: s since the observation the imagined pictures were made from.
        instruction: what the robot was told.
        status: small print.
        verdict: "success", "wrong", "timeout", "stopped" or "" while the episode runs.
    """

    camera: np.ndarray
    imagined: list[tuple[float, np.ndarray]]
    age: float
    instruction: str
    status: str
    verdict: str = ""


def compose(shot: Shot) -> np.ndarray:
    """Draws one picture of the video, uint8 [height, width, 3]."""
    canvas = Image.new("RGB", SIZE, PAPER)
    draw = ImageDraw.Draw(canvas)
    title, large, small = (ImageFont.load_default(size) for size in (15, 22, 14))
    draw.text((10, 7), "camera", FAINT, title)
    draw.text((CAMERA[0] + 10, 7), "imagined by the model", FAINT, title)
    canvas.paste(Image.fromarray(shot.camera).resize(CAMERA, Image.Resampling.BICUBIC), (0, TITLE))
    for row, (ahead, picture) in enumerate(shot.imagined[:2]):
        corner = (CAMERA[0], TITLE + row * PANEL[1])
        canvas.paste(Image.fromarray(picture).resize(PANEL, Image.Resampling.BICUBIC), corner)
        ahead -= shot.age
        _label(draw, corner, f"now {ahead:+.2f} s" if abs(ahead) > 0.005 else "now", small)
    if not shot.imagined:
        draw.text((CAMERA[0] + 20, TITLE + 20), "nothing yet", FAINT, small)
    draw.line([(CAMERA[0], 0), (CAMERA[0], TITLE + CAMERA[1])], PAPER, 3)
    draw.line([(CAMERA[0], TITLE + PANEL[1]), (SIZE[0], TITLE + PANEL[1])], PAPER, 3)
    bottom = TITLE + CAMERA[1]
    draw.text((10, bottom + 6), f"“{shot.instruction}”", INK, large)
    draw.text((10, bottom + 36), shot.status, FAINT, small)
    if shot.verdict:
        _badge(draw, shot.verdict, large)
    return np.asarray(canvas)


def _label(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, font) -> None:
    x, y = corner[0] + 6, corner[1] + 5
    box = draw.textbbox((x, y), text, font)
    draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3), (0, 0, 0))
    draw.text((x, y), text, INK, font)


def _badge(draw: ImageDraw.ImageDraw, verdict: str, font) -> None:
    box = draw.textbbox((0, 0), verdict, font)
    right, top = SIZE[0] - 12, TITLE + CAMERA[1] + 10
    draw.rounded_rectangle((right - box[2] - 24, top, right, top + 38), 8, VERDICTS[verdict])
    draw.text((right - box[2] - 12, top + 18 - (box[1] + box[3]) / 2), verdict, INK, font)


class Film(Protocol):
    """A video file that is being written."""

    path: Path
    pictures: int  # written so far

    def add(self, picture: np.ndarray) -> None:
        """Appends a picture, uint8 [height, width, 3]."""

    def close(self) -> None:
        """Finishes the file."""


class Mp4:
    """H.264 through the ffmpeg that imageio-ffmpeg brings."""

    def __init__(self, path: Path, fps: float):
        import imageio_ffmpeg

        self.path, self.pictures = path, 0
        self._writer = imageio_ffmpeg.write_frames(str(path), SIZE, fps=fps, quality=8, macro_block_size=2)
        self._writer.send(None)

    def add(self, picture: np.ndarray) -> None:
        self._writer.send(np.ascontiguousarray(picture))
        self.pictures += 1

    def close(self) -> None:
        self._writer.close()


class Gif:
    """Where there is no ffmpeg; every second picture, since the format is wasteful."""

    def __init__(self, path: Path, fps: float):
        self.path, self.pictures = path, 0
        self._kept: list[Image.Image] = []
        self._ms = round(2000 / fps / 10) * 10

    def add(self, picture: np.ndarray) -> None:
        if self.pictures % 2 == 0:
            self._kept.append(Image.fromarray(picture).quantize(128))
        self.pictures += 1

    def close(self) -> None:
        if self._kept:
            self._kept[0].save(self.path, save_all=True, append_images=self._kept[1:], duration=self._ms, loop=0)


def open_film(folder: Path, fps: float) -> Film:
    """Begins `run.mp4` in `folder`, or `run.gif` where imageio-ffmpeg is not installed.

    Args:
        folder: an existing folder.
        fps: pictures a second.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # RuntimeError: the wheel has no ffmpeg for this machine
        return Gif(folder / "run.gif", fps)
    return Mp4(folder / "run.mp4", fps)
