"""The MuJoCo driver in C++: compiled against the installed package, it moves as the Python one does, to the bit."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("mujoco is not installed", allow_module_level=True)

import wamcore as wam
from robots import PATIENT, until
from test_mujoco_hal import MJCF, Hold
from wamcore.cli import main
from wamcore.hal import MuJoCo, build_driver, load
from wamcore.sim import scene

LIMITS = wam.JointLimits(
    list(scene.JOINTS), scene.POSITION_MIN, scene.POSITION_MAX, scene.VELOCITY_MAX, scene.ACCELERATION_MAX
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_driver("mujoco", folder=tmp_path_factory.mktemp("drivers"))


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "scene.xml"
    path.write_text(scene.mjcf())
    return path


class Wave(Hold):
    """Swings every joint, each at its own pace, by the absolute tick."""

    def infer(self, obs):
        self.sequence += 1
        t = 0.05 * (obs.tick + np.arange(16))[:, None]
        q = np.array([0.0, 1.0, -1.4, -1.0]) + 0.4 * np.sin(t * np.array([0.9, 1.3, 0.7, 1.9]))
        return wam.ActionChunk(q, 0.05, obs, sequence=self.sequence)


def episode(hal, speed=0.4, **options):
    clock = wam.ManualClock()
    loose = dict(first_step_time=10.0)  # the first chunk may be far from where the arm lies
    with wam.VirtualRunner(
        Wave(), hal, LIMITS, [1, 3, 2], clock=clock, record=60.0, safety=loose, control_hz=180, **options
    ) as runner:
        runner.run(6.0)
        record, stats = runner.record(), runner.stats
    return record, stats


def test_an_episode_tick_for_tick_like_the_python_driver(library, world):
    ours, stats = episode(load(str(library)), parameters={"model": str(world)})
    python = MuJoCo(world)
    python.cameras = {}
    theirs, _ = episode(python)
    assert stats["chunks"] > 5 and np.ptp(ours["measured"], 0).min() > 0.3 and stats["refused_chunks"] == 0
    for column in ("t_ns", "tick", "command", "measured", "chunk", "phase", "reason"):
        np.testing.assert_array_equal(ours[column], theirs[column], err_msg=column)


def test_a_command_that_has_expired_moves_nothing(library, world):
    def driven(hal, lives_ms, gaps_ms):
        hal.configure(wam.HalConfig(parameters={"model": str(world)} if not isinstance(hal, MuJoCo) else {}))
        hal.activate(wam.Mode.position)
        start = hal.read().q
        t = 10**9
        for gap in (5, *gaps_ms):
            t += int(gap * 1e6)
            assert hal.write(wam.Command(start + 0.5, t, t + int(lives_ms * 1e6))) == wam.Status.ok
        state = hal.read()
        hal.close()
        return np.concatenate([state.q, state.dq]), np.abs(state.q - start).max(), state.fault_bits

    _, far, healthy = driven(load(str(library)), 500, [5, 95])
    _, near, expired = driven(load(str(library)), 20, [5, 95])
    assert (healthy, expired) == (0, 1) and near < 0.5 * far
    for hal in (load(str(library)), MuJoCo(world, cameras={"scene": (32, 48)})):
        hal.configure(wam.HalConfig(parameters={} if isinstance(hal, MuJoCo) else {"model": str(world)}))
        hal.activate(wam.Mode.position)
        start = hal.read().q
        for lives_ns in (0, -(10**7)):  # it had expired when it was issued
            assert hal.write(wam.Command(start + 0.5, 2 * 10**9, 2 * 10**9 + lives_ns)) == wam.Status.fault
        assert hal.write(wam.Command(start, 2 * 10**9, 3 * 10**9)) == wam.Status.ok
        np.testing.assert_array_equal(hal.read().q, start)
        hal.close()
    rng = np.random.default_rng()
    for _ in range(5):
        gaps = rng.uniform(1, 150, 20)
        ours, _, bits = driven(load(str(library)), 60, gaps)
        theirs, _, same = driven(MuJoCo(world, cameras={"scene": (32, 48)}), 60, gaps)
        np.testing.assert_array_equal(ours, theirs)
        assert bits == same == (gaps > 60).any()


def test_it_describes_the_joints_in_the_wanted_order(library, tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF)
    hal, python = load(str(library), "mujoco"), MuJoCo(path, joints=["tip", "hinge"])
    d = hal.configure(wam.HalConfig(parameters={"model": str(path), "joints": "tip,hinge"}))
    assert [(j.name, j.position_min, j.position_max, j.velocity) for j in d.joints] == [
        (j.name, j.position_min, j.position_max, j.velocity) for j in python.configure(None).joints
    ]
    command = wam.Command([0.3, 0.0], 10**9, 2 * 10**9)
    assert hal.write(command) == wam.Status.fault  # not active
    hal.activate()
    assert hal.write(command) == wam.Status.ok
    hal.stop()
    assert hal.write(command) == wam.Status.fault
    with pytest.raises(wam.RobotError, match="position mode only"):
        hal.activate(wam.Mode.velocity)


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        (("hinge", "hinge"), {"joints": "elbow"}, "wanted a joint with a position actuator, got 'elbow'"),
        (("hinge", "hinge"), {"speed": "9"}, "knows the parameters 'model' and 'joints', got 'speed'"),
        (('hinge" limited="true"', 'hinge" limited="false"'), {}, "joint 'hinge' has no range"),
        (("position name", "motor name"), {}, "no joint has a position actuator"),
        (("<actuator>", "<actuators>"), {}, "arm.xml: "),
    ],
)
def test_what_it_cannot_drive_is_refused(library, tmp_path, change, parameters, message):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF.replace(*change).replace(' kp="80"', "" if "motor name" in change else ' kp="80"'))
    with pytest.raises(wam.RobotError, match=message):
        load(str(library)).configure(wam.HalConfig(parameters={"model": str(path)} | parameters))
    with pytest.raises(wam.RobotError, match="wants the parameter 'model'"):
        load(str(library)).configure()


def test_it_runs_on_the_servo_thread_of_a_runner(library, world):
    hal = load(str(library))
    with wam.Runner(
        Wave(), hal, LIMITS, parameters={"model": str(world)}, **PATIENT | {"safety": {"first_step_time": 9.0}}
    ) as runner:
        until(runner, lambda: runner.stats["chunks"] >= 1)


def test_a_robot_toml_names_it(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    joints = "".join(f'{{name = "{n}", velocity = 3, acceleration = 60, jerk = 3000}},' for n in scene.JOINTS)
    (tmp_path / "robot.toml").write_text(
        f'schema = 1\nname = "world"\ndescription = "scene.xml"\njoints = [{joints}]\n'
        '[units]\nangle = "rad"\nlength = "m"\n[driver]\nkind = "mujoco-native"\n'
    )
    p = wam.read_robot(tmp_path / "robot.toml")
    options = p.runner_options() | {"safety": {"first_step_time": 10.0}}
    with wam.VirtualRunner(Wave(), p.open_driver(), p.limits, **options) as runner:
        runner.run(2.0)
        assert runner.stats["chunks"] > 1
    text = (tmp_path / "robot.toml").read_text().replace("mujoco-native", "mujoco")
    (tmp_path / "robot.toml").write_text(text)
    simulated = wam.read_robot(tmp_path / "robot.toml").open_driver(cameras=[wam.CameraInfo("scene", 32, 48)])
    assert wam.observe(simulated).cameras["scene"].shape == (1, 32, 48, 3)
    simulated.close()


def test_it_is_compiled_once(library, capsys, monkeypatch):
    before = library.stat().st_mtime_ns
    assert main(["build-driver", "mujoco", "--out", str(library.parent)]) == 0
    assert capsys.readouterr().out.strip() == str(library) and library.stat().st_mtime_ns == before
    assert [p.name for p in library.parent.iterdir()] == [library.name]
    assert build_driver("mujoco", folder=library.parent, rebuild=True) == library
    assert library.stat().st_mtime_ns != before


def test_what_is_missing_is_said(tmp_path, monkeypatch, capsys):
    with pytest.raises(wam.ConfigError, match="wanted one of mujoco, got 'gazebo'"):
        build_driver("gazebo")
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    assert main(["build-driver", "mujoco", "--out", str(tmp_path)]) == 2
    assert "found no C++ compiler (no-such-compiler); set CXX" in capsys.readouterr().err
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'the disk is on fire' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(wam.RobotError, match=r"refuses mujoco_driver\.cpp:\nthe disk is on fire"):
        build_driver("mujoco", folder=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    script = "import sys; sys.modules['mujoco'] = None; import wamcore; wamcore.hal.build_driver()"
    path = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert "pip install 'wamcore[sim]'" in done.stderr
