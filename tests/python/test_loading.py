"""Folders that `wam.load` takes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import wamcore as wam

MODELS = Path(wam.__file__).parent / "models"


def cached(folder: Path) -> Path:
    """The bundled model as Hugging Face's cache would hold it: contents in blobs/, links to them in a snapshot."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((MODELS / "tabletop").iterdir())):
        (blobs / f"{number:040x}").write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def chunk(model) -> np.ndarray:
    session = wam.Session(model, steps=1)
    session.set_prompt("touch the red block")
    return session.infer(wam.Observation({"scene": np.zeros((64, 96, 3), np.uint8)}, [0.0, 1.2, -1.6, -1.2])).q


def test_a_download_cache_of_links(tmp_path):
    folder = cached(tmp_path)
    np.testing.assert_array_equal(chunk(wam.load(folder, threads=1)), chunk(wam.load("tabletop", threads=1)))
    weights = (folder / "model.safetensors").resolve()
    weights.rename(weights.with_suffix(".incomplete"))
    with pytest.raises(wam.WeightError, match=r"is a link to .*blobs/.*, which is missing; was the download finished"):
        wam.load(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "sub/model.safetensors", "/tmp/model.safetensors"])
def test_an_index_names_only_files_beside_it(tmp_path, name):
    folder = cached(tmp_path)
    (folder / "model.safetensors").rename(folder / "shard.safetensors")
    index = {"weight_map": {"action_head.model.head.modulation": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(wam.WeightError, match=r"wanted the name of a \.safetensors file beside the index"):
        wam.load(folder)


def test_threads_stay_on_the_cores_asked_for():
    mine = os.sched_getaffinity(0)
    before = set(os.listdir("/proc/self/task"))
    cores = sorted(mine)[-2:]
    model = wam.load("tabletop", cores=cores)
    assert model.threads == len(cores)
    workers = set(os.listdir("/proc/self/task")) - before
    assert [os.sched_getaffinity(int(w)) for w in workers] == [{core} for core in cores[1:]]
    np.testing.assert_array_equal(chunk(model), chunk(wam.load("tabletop", threads=len(cores))))
    assert os.sched_getaffinity(0) == mine  # the thread that infers was on the first of them only meanwhile


def test_cores_that_the_process_does_not_have_are_refused():
    core = min(os.sched_getaffinity(0))
    for cores, message in [
        ([4095], "wanted cores among .*, got 4095"),
        ([-1], "got -1"),
        ([core, core], f"core {core} is given twice"),
    ]:
        with pytest.raises(wam.ConfigError, match=message):
            wam.load("tabletop", cores=cores)
    with pytest.raises(wam.ConfigError, match="wanted a core for each of 3 threads, got 1"):
        wam.load("tabletop", cores=[core], threads=3)


@pytest.mark.parametrize("device", ["cpu", "cpu-ops", "auto"])
def test_dtype_says_what_runs(device):
    model = wam.load("tabletop", device=device, threads=1)
    assert model.dtype == "float32"
    wanted = wam.load("tabletop", device=device, threads=1, dtype="float32")
    assert wanted.dtype == "float32"
    np.testing.assert_array_equal(chunk(model), chunk(wanted))


def test_a_dtype_that_the_device_does_not_have_is_refused():
    with pytest.raises(
        wam.DeviceError, match=r"^load: device 'cpu' wants dtype auto, float32, bfloat16 or int8, got fp8$"
    ):
        wam.load("tabletop", device="cpu", dtype="fp8")
    with pytest.raises(wam.ConfigError, match=r"^load: dtype wants auto, float32, .* or int8, got 'half'$"):
        wam.load("tabletop", dtype="half")
