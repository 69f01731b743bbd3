"""`wamcore bench runtime`: paired worlds, and a measurement that goes on where it was interrupted."""

import importlib.util
import json

import numpy as np
import pytest

for package in ("mujoco", "matplotlib"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

from wamcore.cli import bench_runtime, main  # noqa: E402
from wamcore.cli.bench_cells import paired  # noqa: E402

COMMON = ["--delays", "1", "--haste", "2", "--execute", "4", "--steps", "1", "--threads", "1", "--first-seed", "7"]


def bench(folder, *args: str) -> dict:
    assert main(["bench", "runtime", *COMMON, "--out", str(folder), *args]) == 0
    return json.loads((folder / "runtime.json").read_text())


def test_an_interrupted_measurement_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_runtime, "BATCH", 2)  # the first run leaves half of one
    monkeypatch.setattr(bench_runtime.bench_toy, "sweep", lambda: [])
    whole = bench(tmp_path / "whole", "--seeds", "2", "--modes", "sync", "rtc_guided")
    first = bench(tmp_path / "parts", "--seeds", "1", "--modes", "rtc_guided")
    again = bench(tmp_path / "parts", "--seeds", "2", "--modes", "sync", "rtc_guided", "--resume")
    assert [c["mode"] for c in first["cells"]] == ["rtc_guided"] and first["cells"][0]["episodes"] == 1
    assert again["cells"] == whole["cells"] and len(again["cells"]) == 2
    for cell in again["cells"]:
        assert cell["episodes"] == 2 == cell["success"] + len(cell["failed"]) and cell["jerk_share"]["max"] <= 1 + 1e-6
        assert cell["obs_age_s"]["p50"] <= cell["obs_age_s"]["p99"] <= cell["obs_age_s"]["p999"]
    capsys.readouterr()
    assert main(["bench", "runtime", *COMMON, "--seeds", "1", "--out", str(tmp_path / "parts")]) != 0
    assert "--resume" in capsys.readouterr().err
    other = ["bench", "runtime", *COMMON, "--haste", "3", "--seeds", "1", "--resume", "--out", str(tmp_path / "parts")]
    assert main(other) != 0
    assert "was measured with" in capsys.readouterr().err
    assert main(["bench", "runtime", "--seeds", "1", "--resume", "--out", str(tmp_path / "none")]) != 0


def test_differences_are_paired():
    rng = np.random.default_rng()
    a, b = (rng.choice(["success", "wrong"], 400) for _ in range(2))
    one = dict(enumerate(a.tolist()))
    other = {seed: b[seed] for seed in rng.permutation(400).tolist()} | {1000: "wrong"}  # a world that one has not seen
    d = paired(one, other)
    each = 100.0 * (a == "success") - 100.0 * (b == "success")
    assert d["points"] == pytest.approx(each.mean(), abs=0.01) and d["episodes"] == 400
    assert d["half_width_95"] == pytest.approx(1.96 * each.std(ddof=1) / 20, abs=0.01)
    assert paired(one, one) == {"points": 0.0, "half_width_95": 0.0, "episodes": 400}


def test_the_servo_cycle_is_timed():
    cost = bench_runtime.servo_cost(2.0)
    assert 0 < cost["p50"] <= cost["p99"] <= cost["p999"] and cost["n"] >= 900
