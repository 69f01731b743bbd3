"""Flight records: written at the end of a run, read back, told and drawn; and what a policy may continue, in Python."""

import json

import numpy as np
import pytest
import wamcore as wam
from robots import DT, HORIZON, SinePolicy, limits, mock
from wamcore import cli


def fly(folder, spoil=None, seconds=6.0, **options):
    """One virtual run; returns what it raised, its own record and the files it left."""
    clock, robot = mock()
    runner = wam.VirtualRunner(SinePolicy(spoil), robot, limits(), clock=clock, dump=str(folder), **options)
    words = ""
    try:
        with runner:
            runner.run(seconds)
    except wam.Error as e:
        words = str(e)
    return words, runner.record(), sorted(folder.glob("*"))


def test_a_record_comes_back_as_it_was(tmp_path):
    words, mine, files = fly(tmp_path)
    assert words == "" and len(files) == 1 and files[0].name.startswith("flight-")
    r = wam.read_record(files[0])
    assert r.why == "asked to stop" and r.joints == ["shoulder", "elbow"]
    for column in ("t_ns", "tick", "command", "reference", "measured", "obs_age", "seam", "chunk"):
        np.testing.assert_array_equal(getattr(r, column), mine[column])
    assert r.phase.tolist() == [wam.PHASES[i] for i in mine["phase"]]
    assert r.reason.tolist() == [wam.REASONS[i] for i in mine["reason"]]
    np.testing.assert_array_equal(r.limits["jerk_max"], limits().jerk)
    assert np.nanmax(r.obs_age) < HORIZON * DT and (r.seam > 0).sum() <= len(set(r.chunk.tolist()))


def test_runs_that_end_at_the_same_time_leave_a_record_each(tmp_path):
    first = fly(tmp_path, seconds=1.0)[2][0]
    draft = first.with_name(f"{first.stem}-2.safetensors.part")  # of a run that writes at this moment
    draft.touch()
    for _ in range(2):
        fly(tmp_path, seconds=1.0)
    names = {f.name for f in tmp_path.glob("*.safetensors")}
    assert names == {first.name, f"{first.stem}-3.safetensors", f"{first.stem}-4.safetensors"} and draft.exists()
    assert len({wam.read_record(tmp_path / n).t_ns[-1] for n in names}) == 1


def test_a_stop_leaves_its_reason_and_its_last_seconds(tmp_path):
    def nan_from_5(call, q):
        return np.full_like(q, np.nan) if call >= 5 else q

    words, _, files = fly(tmp_path, nan_from_5, record=2.0)
    r = wam.read_record(files[0])
    assert "refused" in words and words == r.why
    assert len(r.t_ns) == 400 and r.phase[-1] == "stopped" and "stop" in set(r.reason)


def test_records_that_are_none_are_refused(tmp_path):
    _, _, (file,) = fly(tmp_path, seconds=1.0)
    good = file.read_bytes()
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    wrong = {
        "empty": b"",
        "short": good[:100],
        "cut": good[:-1],
        "no json": good[:8] + b"x" * size + good[8 + size :],
        "another format": good.replace(b"flight record 1", b"flight record 2"),
        "huge header": (1 << 60).to_bytes(8, "little") + good[8:],
    }
    for change in ({"t_ns": None}, {"command": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}):
        text = json.dumps(header | change).encode()
        wrong[str(change)] = len(text).to_bytes(8, "little") + text + good[8 + size :]
    for name, data in wrong.items():
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(wam.InputError, match="no flight record"):
            wam.read_record(tmp_path / "bad")
            pytest.fail(name)
    with pytest.raises(OSError):
        wam.read_record(tmp_path / "missing")


def test_a_folder_that_cannot_be_written_is_heard(tmp_path):
    (tmp_path / "file").write_text("")
    words, _, _ = fly(tmp_path / "file" / "sub", seconds=0.5)
    assert "could not write" in words


def test_inspect_tells_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    _, _, (file,) = fly(tmp_path, lambda call, q: q * np.nan if call >= 5 else q)
    assert cli.main(["inspect", str(file)]) == 0
    said = capsys.readouterr().out
    assert (
        "shoulder" in said and "stopped" in said and "non_finite" not in said.split("changed by")[0].split("ended")[0]
    )
    assert file.with_suffix(".png").stat().st_size > 10_000
    assert cli.main(["inspect", str(tmp_path / "missing")]) == 2
    (tmp_path / "none").write_text("hello")
    assert cli.main(["inspect", str(tmp_path / "none"), "--no-plot"]) == 2


class Continuing(SinePolicy):
    def __init__(self):
        super().__init__()
        self.plans = []

    def continuity(self):
        return "guided"

    def extend(self, obs, targets, frozen):
        self.plans.append((obs.tick, targets, frozen))
        return self.infer(obs)


def test_a_policy_in_python_may_continue_a_plan():
    clock, robot = mock()
    policy = Continuing()
    with wam.VirtualRunner(policy, robot, limits(), clock=clock, delay_ticks=3) as runner:
        runner.run(6.0)
    assert runner.stats["mode"] == "rtc_guided" and runner.stats["continued_chunks"] == len(policy.plans) > 4
    tick, targets, frozen = policy.plans[-1]
    assert frozen == 4 and targets.shape[1] == 2
    wanted = np.multiply.outer(1 - np.cos(0.8 * DT * (tick + np.arange(len(targets)))), [0.3, 0.6])
    np.testing.assert_allclose(targets, wanted, atol=1e-12)


def test_soft_limits_and_jerk_reach_python():
    one = wam.JointLimits(["a"], [-1], [1], [1], [10], [500])
    assert one.jerk.tolist() == [500.0]
    safe = wam.SafetyFilter(one, soft_margin=0.1)
    assert safe.seed([0.0])
    out = np.array([safe.step([1.0])[0] for _ in range(3000)])
    assert out[-1] == 0.9
    assert np.abs(np.diff(out, 3)).max() / 0.002**3 <= 500 * (1 + 1e-4)
    with pytest.raises(wam.ConfigError, match="jerk of joint 'a'"):
        wam.JointLimits(["a"], [-1], [1], [1], [10], [0])
