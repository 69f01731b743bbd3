"""From camera frames, robot state and an instruction to what the model takes, and from its output to robot units."""

import ast
import html
import re

import torch
import torch.nn.functional as F

from .embodiments import EMBODIMENTS
from .normalize import denormalize, normalize

CROP = 0.95
MARKERS = ("<LAPA>", "<DREAM>", "<COTRAIN>")


def view_pixels(frames, size, crop=CROP):
    """Crop the centre of camera frames and resize it.

    Computed in float32 with the antialiased bilinear kernel of torch: the truncation at the end makes the bytes depend
    on its rounding.

    Args:
        frames: uint8 [T, H, W, 3].
        size: (height, width) of the result, in pixels.
        crop: part of each side that is kept.
    """
    x = frames.permute(0, 3, 1, 2).float() / 255
    height, width = x.shape[2:]
    h, w = int(crop * height), int(crop * width)
    top, left = round((height - h) / 2), round((width - w) / 2)  # halves go to the even number
    x = x[:, :, top : top + h, left : left + w]
    x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
    return (x * 255).to(torch.uint8).permute(0, 2, 3, 1)


def compose(views, layout):
    """Views of one size as one picture.

    Args:
        views: uint8 [T, H, W, 3] each, in the order of the embodiment; three, or one for "single".
        layout: "wrist_on_top" (third view stretched over the first two), "quad" (first, third / second, black) or
            "single".

    Raises:
        ValueError: unknown layout.
    """
    if layout == "single":
        return views[0]
    first, second, third = views
    if layout == "wrist_on_top":
        return torch.cat([third.repeat_interleave(2, 2), torch.cat([first, second], 2)], 1)
    if layout == "quad":
        left, right = torch.cat([first, second], 1), torch.cat([third, torch.zeros_like(third)], 1)
        return torch.cat([left, right], 2)
    raise ValueError(f"compose: wanted layout wrist_on_top, quad or single, got {layout!r}")


def model_pixels(images, size=None, dtype=torch.float32):
    """Composed pictures uint8 [T, H, W, 3] to float [3, T, h, w] in [-1, 1], resized (bilinear) where size is given."""
    x = (images.permute(0, 3, 1, 2).to(dtype) / 255 - 0.5) / 0.5
    if size is not None and size[0]:
        x = F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
    return x.transpose(0, 1)


def state_vector(states, statistics, keys, width, mode="q99"):
    """Normalised states side by side, padded with zeros.

    Args:
        states: dict of key -> float [T, dim], robot units.
        statistics: dict of key -> dict of statistics.
        keys: order of the vector.
        width: length of the padded vector.

    Returns: float [T, width].
    """
    x = torch.cat([normalize(states[k], statistics[k], mode) for k in keys], -1)
    return F.pad(x, (0, width - x.shape[-1]))


def action_targets(actions, states, statistics, keys, relative_keys=(), mode="q99"):
    """Normalised model output to robot units, offsets added to the state at the start of the block.

    Args:
        actions: float [..., horizon, width].
        states: dict of key -> float [T, dim], raw; the last row counts. A relative key without a state stays relative.
        statistics: dict of key -> dict of statistics, each [dim] or [horizon, dim].
        keys: order of the action vector.

    Returns: dict of key -> float [..., horizon, dim], absolute.
    """
    targets, start = {}, 0
    for key in keys:
        width = torch.as_tensor(next(iter(statistics[key].values()))).shape[-1]
        value = denormalize(actions[..., start : start + width], statistics[key], mode)
        start += width
        if key in relative_keys and key in states:
            value = value.to(states[key].dtype) + states[key][-1]
        targets[key] = value
    return targets


def clean_text(text):
    """Text as the tokenizer wants it; repairing broken unicode (ftfy upstream) is left to the caller."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def prompt(instruction, tag):
    """The text for an instruction.

    Args:
        instruction: str; where it reads as a Python literal, its value, or the first of a list, is taken instead.
        tag: name of the embodiment.

    Raises:
        ValueError: no prompt is known for this embodiment.
    """
    if tag not in EMBODIMENTS:
        raise ValueError(f"prompt: wanted an embodiment of {sorted(EMBODIMENTS)}, got {tag!r}")
    for marker in MARKERS:
        instruction = instruction.replace(marker, "")
    try:
        value = ast.literal_eval(instruction)
        instruction = str(value[0] if isinstance(value, (list, tuple)) and value else value)
    except (ValueError, SyntaxError, TypeError):
        pass
    return clean_text(instruction.lower().join(EMBODIMENTS[tag].prompt))
