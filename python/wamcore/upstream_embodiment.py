"""embodiment.json from the experiment configuration that an upstream DreamZero checkpoint carries."""

import json
import math
from pathlib import Path

from . import ConfigError

LIMIT = 16 << 20  # bytes of a configuration file

_GRID = (
    "A multi-view video shows that a robot {{}} The video is split into four views: {views}, and the bottom-right view "
    "is a black screen{why}. The robot {{}}"
)
# What upstream's code says about each robot, and its files do not.
TAGS = {
    "oxe_droid": {
        "control_hz": 15,
        "composition": "droid",
        "prompt_template": (
            "A multi-view video shows that a robot {} The video is split into three views: The top view shows the "
            "camera view from the robot's wrist, the bottom-left view shows the camera view from the left exterior "
            "camera, and the bottom-right view shows the camera view from the right exterior camera. During training, "
            "one of the two bottom exterior views may be a black screen (dropped view). The robot {}"
        ),
    },
    "agibot": {
        "control_hz": 30,
        "composition": "grid",
        "prompt_template": _GRID.format(
            views="The top-left view shows the camera view from the robot's head, the top-right view shows the camera "
            "view from the right hand, the bottom-left view shows the camera view from the left hand",
            why=" (inactive view)",
        ),
    },
    "yam": {
        "control_hz": 30,
        "composition": "grid",
        "prompt_template": _GRID.format(
            views="The top-left view shows the top camera, the top-right view shows the right camera, the bottom-left "
            "view shows the left camera",
            why="",
        ),
    },
}
FRAME_OFFSETS = [-23, -16, -8, 0]  # control ticks of the frames of one call, as upstream's client sends them
MODES = ("q99", "min_max", "mean_std", "binary", "scale")
STATISTICS = ("max", "min", "mean", "std", "q01", "q99")


def read_json(path: Path) -> dict:
    """A JSON object from a file; duplicate keys and NaN are errors."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ConfigError(f"{path}: duplicate key among {sorted(k for k, _ in pairs)}")
        return result

    def refuse(literal: str):
        raise ConfigError(f"{path}: {literal} is not JSON")

    if path.stat().st_size > LIMIT:
        raise ConfigError(f"{path}: wanted at most {LIMIT} bytes, got {path.stat().st_size}")
    try:
        document = json.loads(path.read_text("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{path}: not JSON: {e}") from e
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: wanted an object, got {type(document).__name__}")
    return document


def _read_yaml(path: Path) -> dict:
    try:
        import yaml
    except ImportError as e:
        raise ImportError("convert: reading conf.yaml needs PyYAML; pip install 'wamcore[convert]'") from e
    if path.stat().st_size > LIMIT:
        raise ConfigError(f"{path}: wanted at most {LIMIT} bytes, got {path.stat().st_size}")
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        raise ConfigError(f"{path}: not YAML: {e}") from e
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: wanted a mapping, got {type(document).__name__}")
    return document


def upstream_embodiment(folder: Path, tag: str, config: dict | None = None) -> dict:
    """The content of embodiment.json for one robot of a checkpoint.

    Args:
        folder: checkpoint folder with experiment_cfg/metadata.json and experiment_cfg/conf.yaml.
        tag: the robot: oxe_droid, agibot or yam.
        config: the checkpoint's config.json; its target_video_height and _width override the camera sizes.

    Raises:
        ConfigError: a file is missing, malformed or says something this function does not know.
        ImportError: PyYAML is not installed.
    """
    if tag not in TAGS:
        raise ConfigError(f"embodiment: wanted one of {sorted(TAGS)}, got {tag!r}")
    paths = [folder / "experiment_cfg" / name for name in ("metadata.json", "conf.yaml")]
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"{path}: missing; --embodiment wants an upstream DreamZero checkpoint folder")
    metadata, conf = read_json(paths[0]), _Section(_read_yaml(paths[1]), str(paths[1]))
    return _build(tag, _Section(metadata, str(paths[0])).section(tag), conf, config)


def joint_limits(path: Path, robot: dict) -> list[dict]:
    """The limits of a robot's joints, which its owner knows and no checkpoint says.

    Args:
        path: JSON file {"joints": [...]}, one entry for each action channel and in their order: name, position_min and
            position_max (rad, or the channel's unit), velocity_max (rad/s), acceleration_max (rad/s^2).
        robot: content of embodiment.json that they are for.

    Raises:
        ConfigError: the file is malformed or has another number of joints.
    """
    document = _Section(read_json(path), str(path))
    joints, extra = document.need("joints"), sorted(set(document.value) - {"joints"})
    channels = [f"{group['key']}[{i}]" for group in robot["action"] for i in range(group["dim"])]
    if extra:
        raise ConfigError(f"{path}: wanted nothing but 'joints', got {extra}")
    if not isinstance(joints, list) or len(joints) != len(channels):
        got = f"{len(joints)} of them" if isinstance(joints, list) else type(joints).__name__
        raise ConfigError(f"{path}: wanted a list of {len(channels)} joints, for {', '.join(channels)}; got {got}")
    return joints


class _Section:
    """A mapping that complains with the path that leads to it."""

    def __init__(self, value: object, path: str):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: wanted a mapping, got {type(value).__name__}")
        self.value, self.path = value, path

    def need(self, key: str):
        if key not in self.value:
            raise ConfigError(f"{self.path}: missing {key!r}; it has {sorted(map(str, self.value))[:20]}")
        found = self.value[key]
        if isinstance(found, str) and "${" in found:
            raise ConfigError(f"{self.path}.{key}: unresolved reference {found}")
        return found

    def section(self, key: str) -> "_Section":
        return _Section(self.need(key), f"{self.path}.{key}")

    def number(self, key: str, least: float, most: float):
        value = self.need(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigError(f"{self.path}.{key}: wanted a number from {least} to {most}, got {value!r}")
        return value

    def flag(self, key: str) -> bool:
        """A boolean that may be missing."""
        value = self.value.get(key, False)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.path}.{key}: wanted true or false, got {value!r}")
        return value

    def names(self, key: str, prefix: str) -> list[str]:
        """A list of names, each of which must start with the prefix, which is removed."""
        values = self.need(key)
        if not isinstance(values, list) or not all(isinstance(v, str) and v.startswith(prefix) for v in values):
            raise ConfigError(f"{self.path}.{key}: wanted names that start with {prefix!r}, got {values!r}")
        return [v[len(prefix) :] for v in values]


def _transforms(conf: _Section, tag: str) -> dict[str, list[_Section]]:
    """The transforms of a robot by the last word of their class."""
    section = conf.section("transforms").section(tag)
    steps = section.need("transforms")
    if not isinstance(steps, list):
        raise ConfigError(f"{section.path}.transforms: wanted a list, got {type(steps).__name__}")
    found = {}
    for i, value in enumerate(steps):
        step = _Section(value, f"{section.path}.transforms[{i}]")
        found.setdefault(str(step.need("_target_")).rsplit(".", 1)[-1], []).append(step)
    return found


def _only(transforms: dict[str, list[_Section]], kind: str) -> _Section:
    steps = transforms.get(kind, [])
    if len(steps) != 1:
        raise ConfigError(f"conf.yaml: wanted one {kind} among the transforms, got {len(steps)}")
    return steps[0]


def _build(tag: str, metadata: _Section, conf: _Section, config: dict | None) -> dict:
    transforms = _transforms(conf, tag)
    concat, crop, resize = (_only(transforms, kind) for kind in ("ConcatTransform", "VideoCrop", "VideoResize"))
    modes = {}
    for step in transforms.get("StateActionTransform", []):
        if step.value.get("target_rotations"):
            raise ConfigError(f"{step.path}: target_rotations are not supported")
        modes |= step.section("normalization_modes").value
    known = TAGS[tag]
    state = [_group(metadata, "state", key, modes) for key in concat.names("state_concat_order", "state.")]
    action = _actions(metadata, conf, concat.names("action_concat_order", "action."), modes)
    sizes = {group["key"]: group["dim"] for group in state}
    for group in action:
        if group["relative"] and sizes.get(group["key"]) != group["dim"]:
            raise ConfigError(
                f"conf.yaml: action {group['key']!r} is relative, but no state of that name and size exists"
            )
    return {
        "name": tag,
        "control_hz": known["control_hz"],
        "cameras": _cameras(metadata, concat.names("video_concat_order", "video."), config),
        "composition": known["composition"],
        "crop_scale": crop.number("scale", 0.01, 1),
        "view_hw": [resize.number("height", 1, 8192), resize.number("width", 1, 8192)],
        "frame_offsets": FRAME_OFFSETS,
        "state": state,
        "action": action,
        "joints": [],
        "prompt_template": known["prompt_template"],
    }


def _cameras(metadata: _Section, names: list[str], config: dict | None) -> list[dict]:
    head = ((config or {}).get("action_head_cfg") or {}).get("config") or {}
    target = (head.get("target_video_height"), head.get("target_video_width"))
    cameras = []
    for name in names:
        video = metadata.section("modalities").section("video").section(name)
        size = video.need("resolution")
        if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size)):
            raise ConfigError(f"{video.path}.resolution: wanted [width, height] in pixels, got {size!r}")
        if video.need("channels") != 3:
            raise ConfigError(f"{video.path}.channels: wanted 3, got {video.need('channels')!r}")
        height, width = (size[1], size[0]) if None in target else target
        cameras.append({"name": name, "height": height, "width": width})
    return cameras


def _group(metadata: _Section, kind: str, key: str, modes: dict, per_horizon: bool = False) -> dict:
    """Size, normalisation mode and statistics of one group of channels."""
    modality = metadata.section("modalities").section(kind).section(key)
    shape = modality.need("shape")
    if not (isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] > 0):
        raise ConfigError(f"{modality.path}.shape: wanted one size, got {shape!r}")
    if modality.need("rotation_type") is not None:
        raise ConfigError(f"{modality.path}.rotation_type: rotations are not supported")
    mode = modes.get(f"{kind}.{key}", "none")
    if mode not in (*MODES, "none"):
        raise ConfigError(f"conf.yaml: {kind}.{key}: wanted a normalisation mode of {MODES}, got {mode!r}")
    source = metadata.section("statistics").section(kind).section(key)
    statistics = {}
    for name in STATISTICS:
        values = source.need(name)
        rows = values if per_horizon and isinstance(values, list) else [values]
        for row in rows:
            good = isinstance(row, list) and len(row) == shape[0] and all(
                isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in row
            )  # fmt: skip
            if not good:
                raise ConfigError(f"{source.path}.{name}: wanted {shape[0]} finite numbers, got {row!r:.200}")
        statistics[name] = values
    return {"key": key, "dim": shape[0], "mode": mode, "statistics": statistics}


def _actions(metadata: _Section, conf: _Section, keys: list[str], modes: dict) -> list[dict]:
    by_horizon = conf.flag("relative_action_per_horizon")
    relative_on = conf.flag("relative_action") or by_horizon
    listed = conf.need("relative_action_keys") if relative_on else []
    if not isinstance(listed, list) or not set(listed) <= set(keys):
        raise ConfigError(f"{conf.path}.relative_action_keys: wanted some of {keys}, got {listed!r}")
    groups = []
    for key in keys:
        relative = key in listed
        # upstream keeps statistics by step of the horizon as a list of rows
        statistics = metadata.section("statistics").section("action").section(key)
        sample = statistics.need("q01")
        rows = by_horizon and isinstance(sample, list) and bool(sample) and isinstance(sample[0], list)
        group = _group(metadata, "action", key, modes, rows)
        groups.append({**group, "relative": relative, "per_horizon": rows})
    return groups
