"""Pre- and postprocessing in C++ against golden data: pictures and prompts exactly, numbers within tolerance."""

import json

import golden
import numpy as np
import pytest
from wamcore._core import Observation, components
from wamcore.reference.embodiments import EMBODIMENTS, NEGATIVE_PROMPT

TOLERANCE = 1e-4
COMPOSITIONS = {"wrist_on_top": "droid", "quad": "grid"}


def groups(keys, statistics, relative=None):
    out = []
    for key in keys:
        stats = statistics[key]
        group = {"key": key, "dim": len(stats["min"]), "mode": "q99", "statistics": stats}
        if relative is not None:
            group |= {"relative": key in relative, "per_horizon": False}
        out.append(group)
    return out


def embodiment(case, path):
    """Writes the embodiment.json of a golden case."""
    config, known = case.config, EMBODIMENTS[case.config["embodiment"]]
    statistics = golden.case("transforms_metadata").json()[case.name]["statistics"]
    height, width = config["in_hw"]
    description = {
        "name": config["embodiment"],
        "control_hz": 15,
        "cameras": [{"name": name, "height": height, "width": width} for name in known.views],
        "composition": COMPOSITIONS[known.layout],
        "crop_scale": 0.95,
        "view_hw": config["view_hw"],
        "frame_offsets": [0],
        "state": groups(known.state_keys, statistics["state"]),
        "action": groups(known.action_keys, statistics["action"], config["relative_keys"]),
        "joints": [],
        "prompt_template": "{}".join(known.prompt),
    }
    path.write_text(json.dumps(description))
    return description


@golden.parametrize("pre_")
def test_preprocessing(case, tmp_path):
    golden.need(case)
    d, path = case.tensors(), tmp_path / "embodiment.json"
    e = embodiment(case, path)
    raw = {g["key"]: d[f"in.state.{g['key']}"][-1] for g in e["state"]}
    state = np.concatenate([raw[g["key"]] for g in e["state"]])

    obs = Observation({c["name"]: d[f"in.video.{c['name']}"] for c in e["cameras"]}, state)
    pixels, composed = components.ImagePipeline(str(path)).run(obs)
    want = d["out.images"][0]
    print(f"{np.count_nonzero(composed != want)} of {want.size} values differ")
    np.testing.assert_array_equal(composed, want)
    golden.check(pixels, (want / np.float32(255) - 0.5) / 0.5, 1e-6, "scaled")
    if "out.head_resized_160x320_crop" in d:
        small, _ = components.ImagePipeline(str(path), 160, 320).run(obs)
        golden.check(small[:, ::4, ::4].transpose(0, 3, 1, 2), d["out.head_resized_160x320_crop"], TOLERANCE, "resized")

    width = len(state)
    normalized = components.Normalizer(str(path), "state").normalize(state[None])
    golden.check(normalized, d["out.state"][0, :, :width], TOLERANCE, "state")
    assert d["out.state_mask"][0, 0].tolist() == [i < width for i in range(d["out.state_mask"].shape[-1])]

    at = np.cumsum([0] + [g["dim"] for g in e["action"]])
    actions = d["act.normalized"][0, :, : at[-1]]
    relative = components.Normalizer(str(path), "action").denormalize(actions)
    absolute = components.absolute_actions(str(path), actions, state)
    for group, begin, end in zip(e["action"], at, at[1:], strict=False):
        key = group["key"]
        golden.check(
            relative[:, begin:end], d[f"act.unnormalized_relative.action.{key}"][0], TOLERANCE, f"relative {key}"
        )
        golden.check(absolute[:, begin:end], d[f"act.absolute.action.{key}"][0], TOLERANCE, f"absolute {key}")


@golden.parametrize("pre_")
def test_prompts_of_the_preprocessing(case):
    golden.need(case)
    template = "{}".join(EMBODIMENTS[case.config["embodiment"]].prompt)
    mine = components.format_prompt(template, "Put the red cube &amp; the can in the bowl")
    assert [[components.NEGATIVE_PROMPT], [mine]] == case.config["prompt_strings"]


@golden.parametrize("normalizer")
def test_normalizer(case, tmp_path):
    golden.need(case)
    d, path = case.tensors(), tmp_path / "embodiment.json"
    statistics = {k[6:]: v.tolist() for k, v in d.items() if k.startswith("stats.")}
    for mode in sorted({k.split(".")[0] for k in d if k.endswith(".forward")}):
        group = {"key": "x", "dim": d["x"].shape[1], "mode": mode, "statistics": statistics}
        description = {
            "name": "test",
            "control_hz": 1,
            "cameras": [{"name": "c", "height": 1, "width": 1}],
            "composition": "single",
            "crop_scale": 1,
            "view_hw": [1, 1],
            "frame_offsets": [0],
            "state": [group],
            "action": [{**group, "relative": False, "per_horizon": False}],
            "joints": [],
            "prompt_template": "{}",
        }
        path.write_text(json.dumps(description))
        forward = components.Normalizer(str(path), "state").normalize(d["x"])
        golden.check(forward, d[f"{mode}.forward"], TOLERANCE, f"{mode} forward")
        if f"{mode}.inverse" in d:
            inverse = components.Normalizer(str(path), "action").denormalize(d["x"])
            golden.check(inverse, d[f"{mode}.inverse"], TOLERANCE, f"{mode} inverse")


@golden.parametrize("prompts")
def test_prompts(case):
    golden.need(case)
    assert components.NEGATIVE_PROMPT == NEGATIVE_PROMPT
    for key, want in case.json().items():
        if key == "__negative__":
            assert components.NEGATIVE_PROMPT == want
            continue
        tag, raw = key.split("|", 1)
        if tag not in EMBODIMENTS:
            pytest.fail(f"no prompt is known for {tag}")
        assert components.format_prompt("{}".join(EMBODIMENTS[tag].prompt), raw) == want, key
