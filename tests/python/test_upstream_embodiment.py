"""embodiment.json from the configuration of an upstream checkpoint."""

import copy
import json
import re
from pathlib import Path

import golden
import numpy as np
import pytest
from wamcore import ConfigError, _core
from wamcore.convert import main
from wamcore.upstream_embodiment import TAGS, upstream_embodiment

pytest.importorskip("yaml", reason="conf.yaml needs PyYAML")
import yaml

KEYS = {
    "oxe_droid": (
        {"joint_position": 7, "gripper_position": 1},
        {"joint_position": 7, "gripper_position": 1},
        ["exterior_image_1_left", "exterior_image_2_left", "wrist_image_left"],
        ["joint_position"],
    ),
    "agibot": (
        {"left_arm_joint_position": 7, "waist_position": 2},
        {"left_arm_joint_position": 7, "waist_position": 2, "robot_velocity": 2},
        ["top_head", "hand_left", "hand_right"],
        ["left_arm_joint_position", "waist_position"],
    ),
    "yam": ({"left_joint_pos": 6}, {"left_joint_pos": 6}, ["top", "left", "right"], ["left_joint_pos"]),
}


def statistics(dim: int, rows: int | None = None) -> dict:
    rng = np.random.default_rng()
    shape = (dim,) if rows is None else (rows, dim)
    return {name: rng.normal(size=shape).tolist() for name in ("max", "min", "mean", "std", "q01", "q99")}


def conf_of(tag: str) -> dict:
    state, action, cameras, relative = KEYS[tag]
    base = "groot.vla.data.transform."

    def names(kind, keys):
        return [f"{kind}.{k}" for k in keys]

    steps = [
        {"_target_": base + "VideoToTensor", "apply_to": names("video", cameras)},
        {"_target_": base + "VideoCrop", "apply_to": names("video", cameras), "scale": 0.95, "mode": "random"},
        {"_target_": base + "VideoResize", "apply_to": names("video", cameras), "height": 176, "width": 320},
    ]
    for kind, keys in (("state", state), ("action", action)):
        modes = {name: "q99" for name in names(kind, keys)}
        steps.append({"_target_": base + "StateActionTransform", "normalization_modes": modes})
    orders = {"video": cameras, "state": state, "action": action}
    steps.append({"_target_": base + "ConcatTransform"} | {f"{k}_concat_order": names(k, v) for k, v in orders.items()})
    return {
        "transforms": {tag: {"_target_": base + "ComposedModalityTransform", "transforms": steps}},
        "relative_action": True,
        "relative_action_per_horizon": False,
        "relative_action_keys": relative,
    }


def metadata_of(tag: str) -> dict:
    state, action, cameras, _ = KEYS[tag]

    def modality(dims):
        kind = {"absolute": True, "rotation_type": None, "continuous": True}
        return {key: {**kind, "shape": [dim]} for key, dim in dims.items()}

    video = {name: {"resolution": [320, 180], "channels": 3, "fps": 15.0} for name in cameras}
    stats = {
        "state": {k: statistics(d) for k, d in state.items()},
        "action": {k: statistics(d) for k, d in action.items()},
    }
    modalities = {"video": video, "state": modality(state), "action": modality(action)}
    return {tag: {"statistics": stats, "modalities": modalities, "embodiment_tag": tag}}


def write(folder: Path, metadata, conf, config=None) -> Path:
    (folder / "experiment_cfg").mkdir(parents=True, exist_ok=True)
    (folder / "experiment_cfg" / "metadata.json").write_text(json.dumps(metadata))
    (folder / "experiment_cfg" / "conf.yaml").write_text(yaml.safe_dump(conf))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_every_field_comes_from_the_checkpoint(tmp_path, tag):
    metadata, conf = metadata_of(tag), conf_of(tag)
    made = upstream_embodiment(write(tmp_path, metadata, conf), tag)
    state, action, cameras, relative = KEYS[tag]
    assert made["name"] == tag and made["control_hz"] == (15 if tag == "oxe_droid" else 30)
    assert made["cameras"] == [{"name": name, "height": 180, "width": 320} for name in cameras]
    assert made["composition"] == ("droid" if tag == "oxe_droid" else "grid")
    assert (made["crop_scale"], made["view_hw"], made["frame_offsets"]) == (0.95, [176, 320], [-23, -16, -8, 0])
    assert made["joints"] == []
    for kind, dims in (("state", state), ("action", action)):
        assert [(g["key"], g["dim"], g["mode"]) for g in made[kind]] == [(k, d, "q99") for k, d in dims.items()]
        assert all(g["statistics"] == metadata[tag]["statistics"][kind][g["key"]] for g in made[kind])
    assert [g["key"] for g in made["action"] if g["relative"]] == relative
    assert not any(g["per_horizon"] for g in made["action"])
    fields = {
        "name",
        "control_hz",
        "cameras",
        "composition",
        "crop_scale",
        "view_hw",
        "frame_offsets",
        "state",
        "action",
    }
    assert set(made) == fields | {"joints", "prompt_template"}
    (tmp_path / "embodiment.json").write_text(json.dumps(made))
    read = _core.Embodiment.read(str(tmp_path / "embodiment.json"))  # the runtime's strict reader
    assert (read.state_dim, read.action_dim) == (sum(state.values()), sum(action.values()))
    assert read.cameras == [(name, 180, 320) for name in cameras] and read.frame_offsets == [-23, -16, -8, 0]


@golden.parametrize("prompts")
def test_prompt_templates_are_upstreams(case):
    for key, prompt in case.json().items():
        tag, _, instruction = key.partition("|")
        if tag in TAGS and re.fullmatch(r"[A-Za-z ]+", instruction):
            assert TAGS[tag]["prompt_template"].replace("{}", instruction.lower()) == prompt


@golden.parametrize("transforms_metadata")
def test_real_metadata_is_understood(tmp_path, case):
    for name, metadata in case.json().items():
        tag = metadata["embodiment_tag"]
        conf = conf_of(tag)
        orders = conf["transforms"][tag]["transforms"][-1]
        for kind in ("video", "state", "action"):
            orders[f"{kind}_concat_order"] = [f"{kind}.{key}" for key in metadata["modalities"][kind]]
        conf["relative_action_keys"] = [
            k for k in metadata["modalities"]["action"] if k in metadata["modalities"]["state"]
        ]
        made = upstream_embodiment(write(tmp_path / name, {tag: metadata}, conf), tag)
        assert sum(g["dim"] for g in made["action"]) == (8 if tag == "oxe_droid" else 22)
        assert sum(g["relative"] for g in made["action"]) == (2 if tag == "oxe_droid" else 6)


def test_the_model_may_override_the_camera_size(tmp_path):
    config = {"action_head_cfg": {"config": {"target_video_height": 160, "target_video_width": 320}}}
    made = upstream_embodiment(write(tmp_path, metadata_of("oxe_droid"), conf_of("oxe_droid")), "oxe_droid", config)
    assert all((c["height"], c["width"]) == (160, 320) for c in made["cameras"])


def test_statistics_by_horizon_and_groups_without_normalisation(tmp_path):
    metadata, conf = metadata_of("oxe_droid"), conf_of("oxe_droid")
    metadata["oxe_droid"]["statistics"]["action"]["joint_position"] = statistics(7, rows=24)
    conf |= {"relative_action": False, "relative_action_per_horizon": True}
    del conf["transforms"]["oxe_droid"]["transforms"][3]["normalization_modes"]["state.gripper_position"]
    made = upstream_embodiment(write(tmp_path, metadata, conf), "oxe_droid")
    joints, gripper = made["action"]
    assert joints["per_horizon"] and joints["relative"] and np.shape(joints["statistics"]["q01"]) == (24, 7)
    assert not gripper["per_horizon"] and not gripper["relative"]
    assert [g["mode"] for g in made["state"]] == ["q99", "none"]


def change(tree, path, value):
    """A copy of a nested structure with one value replaced, or removed when `value` is Ellipsis."""
    tree = copy.deepcopy(tree)
    node = tree
    for key in path[:-1]:
        node = node[key]
    if value is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return tree


T = ("transforms", "oxe_droid", "transforms")
M = ("oxe_droid", "modalities")
S = ("oxe_droid", "statistics", "action", "joint_position")


@pytest.mark.parametrize(
    "where, path, value, message",
    [
        ("conf", ("transforms",), ..., "missing 'transforms'"),
        ("conf", ("transforms", "oxe_droid"), ..., "missing 'oxe_droid'"),
        ("conf", T, {}, "wanted a list"),
        ("conf", (*T, 1), ..., "wanted one VideoCrop among the transforms, got 0"),
        ("conf", (*T, 1, "scale"), 2, "wanted a number from 0.01 to 1, got 2"),
        ("conf", (*T, 2, "height"), "${image_resolution_height}", "unresolved reference"),
        ("conf", (*T, 2, "height"), "???", "wanted a number"),
        ("conf", (*T, 3, "target_rotations"), {"x": "rotation_6d"}, "target_rotations are not supported"),
        ("conf", (*T, 3, "normalization_modes"), {"state.joint_position": "magic"}, "wanted a normalisation mode"),
        ("conf", (*T, 5, "video_concat_order"), ["wrist"], "names that start with 'video.'"),
        ("conf", (*T, 5, "state_concat_order"), ["state.nothing"], "missing 'nothing'"),
        ("conf", (*T, 5, "state_concat_order"), ["state.gripper_position"], "no state of that name and size"),
        ("conf", ("relative_action",), "yes", "wanted true or false"),
        ("conf", ("relative_action_keys",), ["elbow"], "relative_action_keys: wanted some of"),
        ("conf", ("relative_action_keys",), ..., "missing 'relative_action_keys'"),
        ("metadata", ("oxe_droid",), ..., "missing 'oxe_droid'"),
        ("metadata", (*M, "video", "wrist_image_left", "resolution"), [320], "wanted .width, height. in pixels"),
        ("metadata", (*M, "video", "wrist_image_left", "channels"), 1, "wanted 3, got 1"),
        ("metadata", (*M, "action", "joint_position", "rotation_type"), "quaternion", "rotations are not supported"),
        ("metadata", (*M, "action", "joint_position", "shape"), [7, 1], "wanted one size"),
        ("metadata", (*M, "action", "joint_position", "shape"), [6], "wanted 6 finite numbers"),
        ("metadata", (*S, "q99"), [0.0] * 6, "wanted 7 finite numbers"),
        ("metadata", (*S, "q99"), [0.0] * 6 + ["x"], "wanted 7 finite numbers"),
        ("metadata", (*S, "q99"), [[0.0] * 7] * 24, "wanted 7 finite numbers"),
        ("metadata", (*S, "std"), ..., "missing 'std'"),
        ("metadata", (*S, "std"), [float("nan")] * 7, "NaN is not JSON"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, where, path, value, message):
    files = {"metadata": metadata_of("oxe_droid"), "conf": conf_of("oxe_droid")}
    files[where] = change(files[where], path, value)
    with pytest.raises(ConfigError, match=message):
        upstream_embodiment(write(tmp_path, **files), "oxe_droid")


def test_files_that_are_missing_or_malformed_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"metadata.json: missing; --embodiment wants an upstream"):
        upstream_embodiment(tmp_path, "oxe_droid")
    with pytest.raises(ConfigError, match="wanted one of"):
        upstream_embodiment(tmp_path, "unknown")
    folder = write(tmp_path, metadata_of("oxe_droid"), conf_of("oxe_droid"))
    (folder / "experiment_cfg" / "conf.yaml").write_text("a: [1,")
    with pytest.raises(ConfigError, match="not YAML"):
        upstream_embodiment(folder, "oxe_droid")
    (folder / "experiment_cfg" / "conf.yaml").write_text("!!python/object/apply:os.system [true]")
    with pytest.raises(ConfigError, match="not YAML"):
        upstream_embodiment(folder, "oxe_droid")
    for text, message in (("{", "not JSON"), ("[]", "wanted an object"), ('{"a": 1, "a": 2}', "duplicate key")):
        (folder / "experiment_cfg" / "metadata.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            upstream_embodiment(folder, "oxe_droid")


def test_command_line_writes_it_alone_or_beside_weights(tmp_path, capsys):
    config = {"action_head_cfg": {"config": {"target_video_height": 160, "target_video_width": 320}}}
    folder = write(tmp_path / "in", metadata_of("yam"), conf_of("yam"), config)
    assert main([str(folder), str(tmp_path / "robot"), "--embodiment", "yam", "--embodiment-only"]) == 0
    made = json.loads((tmp_path / "robot" / "embodiment.json").read_text())
    assert made["name"] == "yam" and made["cameras"][0]["height"] == 160
    assert "no joint limits: give --joints before driving it" in capsys.readouterr().out
    assert main([str(folder), str(tmp_path / "robot"), "--embodiment", "yam", "--embodiment-only"]) == 1  # it exists
    assert main([str(folder), str(tmp_path / "robot2"), "--embodiment-only"]) == 1
    config = change(config, ("action_head_cfg", "config", "target_video_height"), 99999)
    write(tmp_path / "in", metadata_of("yam"), conf_of("yam"), config)
    assert main([str(folder), str(tmp_path / "robot3"), "--embodiment", "yam", "--embodiment-only"]) == 1
    assert "99999" in capsys.readouterr().err and not list((tmp_path / "robot3").iterdir())
    folder = write(tmp_path / "in", metadata_of("yam"), conf_of("yam"), {})
    torch = pytest.importorskip("torch", reason="converting weights needs torch")
    torch.save({"a": torch.ones(1)}, folder / "w.pt")
    assert main([str(folder), str(tmp_path / "all"), "--embodiment", "yam"]) == 0
    assert json.loads((tmp_path / "all" / "embodiment.json").read_text())["cameras"][0]["height"] == 180
