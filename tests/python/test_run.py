"""`wamcore run`: the closed loop is deterministic, and its files hold what they should."""

import importlib.util
import json
import subprocess
import sys

import pytest

for package in ("mujoco", "PIL", "matplotlib"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)

from wamcore.cli import main  # noqa: E402


def episodes(folder, *args: str) -> dict:
    command = ["run", "--headless", "--steps", "1", "--threads", "1", "--out", str(folder), *args]
    assert main(command) == 0
    return json.loads((folder / "run.json").read_text())


def without_timing(report: dict) -> dict:
    report = json.loads(json.dumps(report))
    report.pop("timing")
    report["options"].pop("no_video")
    report["files"].pop("video", None)
    return report


@pytest.fixture(scope="module")
def touched(tmp_path_factory):
    """A run with everything written, shared by the tests that look at it."""
    folder = tmp_path_factory.mktemp("run") / "touch"
    return folder, episodes(folder, "--task", "touch", "--episodes", "2", "--seed", "3", "--delay", "2")


def test_the_same_seed_gives_the_same_numbers(touched, tmp_path):
    _, first = touched
    again = episodes(
        tmp_path, "--task", "touch", "--episodes", "2", "--seed", "3", "--delay", "2", "--no-video"
    )  # the video changes nothing
    assert without_timing(first) == without_timing(again)


def test_what_is_reported(touched):
    _, report = touched
    assert report["model"]["family"] == "dreamzero" and len(report["model"]["sha256"]) == 64
    assert report["loop"]["mode"] == "rtc_guided" and report["loop"]["delay_ticks"] == 2
    assert report["loop"]["clock"] == "virtual"
    assert [e["seed"] for e in report["episodes"]] == [3, 4]
    for e in report["episodes"]:
        assert e["outcome"] in ("success", "wrong", "timeout", "stopped") and e["instruction"].startswith("touch the ")
        assert e["ticks"] <= 96
    counts = report["tasks"]["touch"]
    assert sum(counts[k] for k in ("success", "wrong", "timeout", "stopped")) == counts["episodes"] == 2
    timing = report["timing"]
    assert timing["chunk_ms"]["n"] >= sum(e["chunks"] for e in report["episodes"])
    assert {"preprocess", "encode", "memory", "denoise"} <= set(timing["stages_ms"])
    assert "decode_video" not in timing["stages_ms"]  # no picture is made on the action path
    assert report["totals"]["images_decoded_in_inference"] == 0
    assert 0 < report["totals"]["smoothed_commands"] <= report["totals"]["commands"]


def test_the_bundled_model_does_its_tasks(tmp_path):
    """The whole way from cameras to joints, in virtual time: what the arm does here is the same on every run."""
    report = episodes(tmp_path, "--task", "all", "--episodes", "3", "--delay", "1", "--steps", "4", "--no-video")
    assert sum(t["success"] for t in report["tasks"].values()) >= 8, report["tasks"]
    assert not any(t["stopped"] for t in report["tasks"].values())


def test_pictures_and_video(touched):
    folder, report = touched
    from PIL import Image

    with Image.open(folder / report["files"]["joints"]) as plot:
        assert plot.format == "PNG" and min(plot.size) > 300
    video = folder / report["files"]["video"]
    wanted = report["totals"]["ticks"] + 2 * 12  # and 0.6 s on the outcome of each episode
    if video.suffix == ".gif":
        with Image.open(video) as film:
            assert film.n_frames >= wanted // 4  # equal pictures are merged
        return
    import imageio_ffmpeg

    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    assert wanted <= frames <= wanted + 4 and seconds == pytest.approx(frames / 20, abs=0.1)
    film = imageio_ffmpeg.read_frames(str(video))
    width, height = next(film)["size"]
    picture = next(film)
    assert (width, height) == (720, 408) and len(set(picture)) > 20
    film.close()


def test_without_ffmpeg_the_video_is_a_gif(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    import numpy as np
    from PIL import Image
    from wamcore.viz import open_film

    film = open_film(tmp_path, 20.0)
    for i in range(8):
        film.add(np.full((408, 720, 3), 30 * i, np.uint8))
    film.close()
    with Image.open(tmp_path / "run.gif") as gif:
        assert gif.n_frames == 4 and gif.info["duration"] == 100


def test_sync_waits_and_nothing_starves(tmp_path):
    report = episodes(tmp_path, "--task", "moving", "--episodes", "1", "--sync", "--no-video")
    assert report["loop"]["mode"] == "sync" and report["loop"]["delay_ticks"] == 0
    assert report["totals"]["starved_ticks"] == 0
    assert "video" not in report["files"] and not list(tmp_path.glob("run.mp4"))
    assert report["timing"]["video_decode_ms"]["n"] == 0


def test_real_time_runs_the_threads_of_a_robot(tmp_path, capsys):
    report = episodes(tmp_path, "--task", "touch", "--episodes", "1", "--realtime")
    assert report["loop"]["clock"] == "real" and report["loop"]["delay_ticks"] is None
    assert report["totals"]["chunks"] >= 1 and report["totals"]["ticks"] >= 5
    assert report["timing"]["wall_s"] > 0.9 * report["timing"]["simulated_s"]  # nothing runs ahead of the clock
    assert report["files"] == {"joints": "joints.png"} and not list(tmp_path.glob("run.mp4"))
    out = capsys.readouterr().out
    assert "real time, joint commands at 200 Hz" in out and "(real clock)" in out
    assert "of the joint commands smoothed" in out and "acceleration" not in out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--steps", "0"], "steps"),
        (["--steps", "1000000"], "steps"),
        (["--episodes", "0"], "--episodes"),
        (["--delay", "-1"], "--delay"),
        (["--delay", "1", "--realtime"], "--delay: with --realtime an inference takes what it takes"),
        (["--execute", "17"], "at most 16"),
        (["--threads", "0"], "--threads: wanted 1 to 1024, got 0"),
        (["--control-hz", "1"], "--control-hz"),
        (["nosuch"], "nosuch"),
    ],
)
def test_bad_options_leave_nothing_behind(capsys, tmp_path, option, message):
    assert main(["run", "--headless", "--out", str(tmp_path / "out"), *option]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_the_simulator_one_line_says_so(tmp_path):
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "mujoco":
            raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
sys.meta_path.insert(0, Refuse())
from wamcore.cli import main
raise SystemExit(main(["run", "--headless"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "pip install 'wamcore[sim]'" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
