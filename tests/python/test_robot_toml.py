"""robot.toml: what it says reaches the runner, and what is wrong in it is refused by file, key, wanted and got."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import wamcore as wam
from robots import PATIENT, SinePolicy, until

URDF = """<robot name="arm">
  <link name="base"/><link name="upper"/><link name="fore"/><link name="finger"/><link name="thumb"/>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" velocity="3"/></joint>
  <joint name="elbow" type="continuous"><parent link="upper"/><child link="fore"/><origin xyz="0.3 0 0"/>
    <limit velocity="4"/></joint>
  <joint name="finger" type="prismatic"><parent link="fore"/><child link="finger"/><origin xyz="0.2 0 0"/>
    <limit lower="0" upper="0.04" velocity="0.5"/></joint>
  <joint name="thumb" type="prismatic"><parent link="fore"/><child link="thumb"/><axis xyz="-1 0 0"/>
    <limit lower="0" upper="0.04" velocity="0.5"/><mimic joint="finger"/></joint>
</robot>"""
TOML = """
schema = 1
name = "arm"
description = "arm.urdf"
joints = [
  {name = "elbow", position = [-90, 90], velocity = 120, acceleration = 600, jerk = 9000},
  {name = "shoulder", acceleration = 600, jerk = 9000},
  {name = "finger", position = [5, 40], velocity = 100, acceleration = 1000, jerk = 10000},
]
[units]
angle = "deg"
length = "mm"
"""


@pytest.fixture
def read(tmp_path):
    """Writes a description and a robot.toml, and reads it."""

    def write(toml=TOML, urdf=URDF):
        (tmp_path / "arm.urdf").write_text(urdf)
        (tmp_path / "robot.toml").write_text(toml)
        return wam.read_robot(tmp_path / "robot.toml")

    return write


def test_limits_come_from_both_files_in_rad_and_m(read):
    p = read()
    assert p.name == "arm" and p.limits.names == ["elbow", "shoulder", "finger"]
    np.testing.assert_allclose(p.limits.position_min, [-np.pi / 2, -2, 0.005])
    np.testing.assert_allclose(p.limits.position_max, [np.pi / 2, 2, 0.04])
    np.testing.assert_allclose(p.limits.velocity, [np.deg2rad(120), 3, 0.1])
    np.testing.assert_allclose(p.limits.acceleration, [np.deg2rad(600), np.deg2rad(600), 1])
    np.testing.assert_allclose(p.limits.jerk, [np.deg2rad(9000), np.deg2rad(9000), 10])
    assert p.grippers == [] and p.workspace is None and p.driver.kind == "mock"
    assert p.actions == p.states == [(0, 1.0, 0.0), (1, 1.0, 0.0), (2, 1.0, 0.0)]


def test_wider_limits_want_a_word(read):
    wide = TOML.replace("[5, 40]", "[5, 50]")
    with pytest.raises(wam.ConfigError, match=r"joints\[2\].position: wanted limits within .*\[0, 40\] mm or wider.*"):
        read(wide)
    fast = TOML.replace("velocity = 100", "velocity = 600")
    with pytest.raises(wam.ConfigError, match=r"joints\[2\].velocity: wanted at most .*500 mm/s.*got 600 mm/s"):
        read(fast)
    p = read(wide.replace("jerk = 10000", "jerk = 10000, wider_than_description = true"))
    assert p.limits.position_max[2] == 0.05
    with pytest.raises(wam.ConfigError, match="wanted it only where a limit is wider"):
        read(TOML.replace("jerk = 10000", "jerk = 10000, wider_than_description = true"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema: wanted 1, the format this version reads, got 2"),
        ("schema = 1", "", "schema: wanted 1, got nothing"),
        ('name = "arm"', 'name = ""', "name: wanted a text, got ''"),
        ('name = "arm"', 'name = "arm"\nspeed = 3', "speed: wanted no such key, got one; is it misspelt?"),
        ('name = "arm"', 'name = "arm"\nname = "leg"', "Cannot overwrite"),
        ("schema = 1", "schema = = 1", "robot.toml: "),
        ("arm.urdf", "leg.urdf", "leg.urdf: No such file"),
        ('angle = "deg"', "", "units.angle: wanted \"rad\" or \"deg\", got nothing"),
        ('"deg"', '"degrees"', "units.angle: wanted \"rad\" or \"deg\", got 'degrees'"),
        ('length = "mm"', 'length = "mm"\nmass = "kg"', "units.mass: wanted no such key"),
        ("acceleration = 600, jerk = 9000},\n  {name = \"f", "jerk = 9000},\n  {name = \"f",
         "joints[1].acceleration: wanted a positive number of deg/s^2, got nothing"),
        ("velocity = 120", "velocity = -120", "joints[0].velocity: wanted a positive number of deg/s, got -120"),
        ("velocity = 120", "velocity = nan", "joints[0].velocity: wanted a positive number of deg/s, got nan"),
        ("velocity = 120", "velocity = true", "joints[0].velocity: wanted a positive number of deg/s, got True"),
        ("velocity = 120", "velocity = '120'", "joints[0].velocity: wanted a positive number of deg/s, got '120'"),
        ("velocity = 120", "velocity = 120, torque = 3", "joints[0].torque: wanted no such key"),
        ("position = [-90, 90], ", "", "joints[0].position: wanted [from, to] in deg, since the description states no"),
        ("[-90, 90]", "[90, -90]", "joints[0].position: wanted two numbers, the first below the second, got [90, -90]"),
        ("[-90, 90]", "[-90]", "joints[0].position: wanted [from, to] in deg, got [-90]"),
        ('name = "elbow"', 'name = "knee"', "joints[0].name: wanted one of ['elbow', 'finger', 'shoulder', 'thumb']"),
        ('name = "finger"', 'name = "thumb"', "joints[2].name: wanted a joint that moves by itself, got 'thumb'"),
        ('name = "finger"', 'name = "elbow"', "joints[2].name: wanted every joint once, got 'elbow' again"),
        ("[units]", 'held = ["elbow"]\n[units]', "held: wanted names of joints that are not in `joints`"),
        ("length", "# length", "units.length: wanted"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(read, old, new, message):
    assert old in TOML
    with pytest.raises(wam.ConfigError, match=re.escape(message)) as refused:
        read(TOML.replace(old, new, 1))
    assert "robot.toml" in str(refused.value) or "arm.urdf" in str(refused.value) or "leg.urdf" in str(refused.value)


def test_a_joint_that_is_left_out_must_be_held(read):
    lines = [line for line in TOML.splitlines() if "finger" not in line]
    with pytest.raises(
        wam.ConfigError, match=r"wanted every joint of arm.urdf here or in `held`, got none of \['finger"
    ):
        read("\n".join(lines))
    lines.insert(1, 'held = ["finger"]')
    assert read("\n".join(lines)).limits.names == ["elbow", "shoulder"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('lower="-2" upper="2"', 'lower="2" upper="-2"', "joint 'shoulder': wanted lower < upper, got 2.0 and -2.0"),
        ('velocity="3"', 'velocity="fast"', "joint 'shoulder': <limit> velocity: wanted a finite number, got 'fast'"),
        ('velocity="3"', "", "joint 'shoulder': <limit> velocity: wanted a finite number, got None"),
        ('<limit lower="-2" upper="2" velocity="3"/>', "", "joint 'shoulder': wanted <limit>, got none"),
        ('name="elbow"', 'name="shoulder"', "joint 'shoulder' is there twice"),
        ('type="continuous"', 'type="floating"', "joint 'elbow': wanted type revolute, continuous, prismatic, fixed"),
        ('child link="fore"', 'child link="hand"', "joint 'elbow' names the link 'hand', which is not there"),
        ('child link="fore"', 'child link="upper"', "link 'upper' hangs on two joints, 'shoulder' and 'elbow'"),
        ('parent link="base"', 'parent link="finger"', "hang on each other in a circle"),
        ('<link name="base"/>', "", "names the link 'base', which is not there"),
        ('xyz="0 0 1"', 'xyz="0 0 0"', "joint 'shoulder': wanted an axis of some length"),
        ('xyz="-1 0 0"', 'xyz="-2 0 0"', "joint 'thumb': wanted an axis of length 1 for a sliding joint, got 2"),
        ('xyz="0 0 1"', 'xyz="0 0"', "joint 'shoulder': <axis> xyz: wanted three numbers, got '0 0'"),
        ('mimic joint="finger"', 'mimic joint="toe"', "joint 'thumb' mimics 'toe'"),
        ('mimic joint="finger"', 'mimic joint="thumb"', "joint 'thumb' mimics 'thumb', which does not move by itself"),
        ("<robot name", "<!DOCTYPE robot><robot name", "without document type"),
        ("<robot", "<robo", "arm.urdf: mismatched tag"),
        ('<robot name="arm">', "<sdf>", "arm.urdf: mismatched tag"),
    ],
)
def test_a_contradictory_urdf_is_refused(read, old, new, message):
    assert old in URDF
    with pytest.raises(wam.ConfigError, match=re.escape(message)):
        read(TOML, URDF.replace(old, new, 1))


def test_how_far_a_chunk_may_begin_is_said_for_every_joint_or_for_none(read):
    assert read().first_step is None and read().runner_options()["safety"] == {}
    every = TOML.replace("{name", "{first_step = 9, name")
    np.testing.assert_allclose(
        read(every).runner_options()["safety"]["max_first_step"], [np.pi / 20, np.pi / 20, 0.009]
    )
    for toml, message in (
        (TOML.replace("{name", "{first_step = 9, name", 1), "joints: wanted first_step for every joint or for none"),
        (every.replace("first_step = 9", "first_step = 0", 1), "joints[0].first_step: wanted a positive number of deg"),
    ):
        with pytest.raises(wam.ConfigError, match=re.escape(message)):
            read(toml)


CHANNELS = """
[channels]
angle = "rad"
length = "m"
actions = ["shoulder", "finger", "elbow"]
states = ["finger", "shoulder"]
[[grippers]]
joint = "finger"
open = 40
closed = 5
model_open = 0
model_closed = 1
hysteresis = 0.3
"""


def test_channels_are_mapped_and_grippers_have_their_own_convention(read):
    p = read(TOML + CHANNELS)
    assert p.grippers == [{"joint": 2, "open": 0.04, "closed": 0.005, "hysteresis": 0.3}]
    assert p.actions[0] == (1, 1.0, 0.0) and p.actions[2] == (0, 1.0, 0.0)
    np.testing.assert_allclose(p.actions[1], (2, -0.035, 0.04))
    assert p.states == [p.actions[1], p.actions[0]]
    degrees = read(TOML + CHANNELS.replace('angle = "rad"', 'angle = "deg"'))
    assert degrees.actions[0] == (1, np.pi / 180, 0.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"shoulder", "finger", "elbow"', '"shoulder", "finger"', "channels.actions: wanted every joint once"),
        ('"finger", "shoulder"', '"toe"', "channels.states: wanted some of"),
        ('joint = "finger"', 'joint = "thumb"', "grippers[0].joint: wanted one of ['elbow', 'shoulder', 'finger']"),
        ("model_closed = 1", "model_closed = 0", "grippers[0]: wanted different numbers for open and closed"),
        ("open = 40", "open = 4000", "grippers[0]: wanted open and closed within the joint's limits"),
        ("hysteresis = 0.3", "hysteresis = 1", "grippers[0].hysteresis: wanted a share from 0 to below 1, got 1"),
        ("hysteresis = 0.3", "hysteresis = -0.1", "grippers[0].hysteresis: wanted a share"),
        ("model_closed = 1", "", "grippers[0].model_closed: wanted what the model says for it, got nothing"),
        ('angle = "rad"', "", "channels.angle: wanted"),
    ],
)
def test_wrong_channels_are_named(read, old, new, message):
    with pytest.raises(wam.ConfigError, match=re.escape(message)):
        read(TOML + CHANNELS.replace(old, new, 1))


class Three(SinePolicy):
    """Three channels in order shoulder, finger (1 = closed), elbow; notes what it is told of the state."""

    def dof(self):
        return 3

    def infer(self, obs):
        two = super().infer(obs).q
        q = np.stack([two[:, 1], np.full(len(two), 0.5), two[:, 0]], 1)
        return wam.ActionChunk(q, self.dt(), obs, sequence=self.calls)

    def continuity(self):
        return "guided"

    def extend(self, obs, targets, frozen):
        self.plan = targets
        return self.infer(obs)


class Four(SinePolicy):
    """Stays where the arm is."""

    def dof(self):
        return 4

    def infer(self, obs):
        self.calls += 1
        self.seen.append(obs)
        return wam.ActionChunk(np.tile(obs.state, (16, 1)), self.dt(), obs, sequence=self.calls)


def test_a_policy_moves_the_joints_that_its_channels_mean(read):
    p = read(TOML + CHANNELS)
    inner, clock = Three(), wam.ManualClock()
    arm = wam.MockHal(clock, joints=p.limits.names, start=[0, 0, 0.04], record_commands=10_000)
    options = p.runner_options() | {"grippers": []}
    with wam.VirtualRunner(p.policy(inner), arm, p.limits, clock=clock, record=60.0, **options) as run:
        run.run(5.0)
        assert run.stats["mode"] == "rtc_guided" and run.stats["refused_chunks"] == 0
        record = run.record()
    last = record["command"][-1]
    np.testing.assert_allclose(last[2], 0.04 - 0.035 * 0.5, atol=1e-9)  # m: half closed
    wanted = 1 - np.cos(0.08 * record["tick"][-1])
    np.testing.assert_allclose(last[:2], [0.3 * wanted, 0.6 * wanted], atol=1e-3)  # elbow, shoulder
    # what the policy saw and what it had planned, in its own terms
    q = record["measured"]
    assert all(len(obs.state) == 2 for obs in inner.seen)
    assert abs(inner.seen[-1].state[0] - 0.5) < 0.05 and np.abs(q[:, 1] - inner.seen[-1].state[1]).min() < 1e-9
    np.testing.assert_allclose(inner.plan[:, 1], 0.5, atol=1e-9)
    with pytest.raises(wam.ConfigError, match="2 action channels, 3 are named"):
        p.policy(SinePolicy())


def test_the_driver_of_the_file(read, root):
    clock = wam.ManualClock()
    arm = read().open_driver(clock, [wam.CameraInfo("top", 4, 6)])
    d = arm.configure()
    assert [j.name for j in d.joints] == ["elbow", "shoulder", "finger"] and d.cameras[0].name == "top"
    np.testing.assert_allclose(arm.position, [0, 0, 0.0225])
    with pytest.raises(wam.ConfigError, match=r"driver.kind: wanted .*got 'real'"):
        read(TOML + '[driver]\nkind = "real"')
    with pytest.raises(wam.ConfigError, match=r"driver.parameters.baud: wanted a text, got 9600"):
        read(TOML + '[driver]\nkind = "mock"\nparameters = {baud = 9600}')
    with pytest.raises(wam.RobotError, match="libnothing"):
        read(TOML + '[driver]\nkind = "library"\nlibrary = "libnothing.so"').open_driver()
    p = read(TOML + '[driver]\nkind = "mock"\nparameters = {port = "usb"}')
    assert p.runner_options()["parameters"] == {"port": "usb"}


LATENCY = """
[latency]
state = 0.02
cameras = {top = 0.055}
"""


def test_latencies_reach_the_runner(read):
    p = read(TOML + LATENCY)
    assert p.runner_options()["camera_latency"] == {"top": 0.055} and p.runner_options()["state_latency"] == 0.02
    assert read().runner_options()["camera_latency"] == {} and read().runner_options()["state_latency"] == 0.0

    class Three(SinePolicy):
        def dof(self):
            return 3

        def infer(self, obs):
            self.calls += 1
            self.seen.append(obs)
            return wam.ActionChunk(np.tile(obs.state, (16, 1)), self.dt(), obs, sequence=self.calls)

    def youngest(profile, camera="top"):
        """The least age of an observation in ticks of the run, once the robot moves by its time line."""
        clock, policy, seen = wam.ManualClock(), Three(), []
        arm = profile.open_driver(clock, [wam.CameraInfo(camera, 4, 6)])
        with wam.VirtualRunner(
            profile.policy(policy), arm, profile.limits, clock=clock, **profile.runner_options()
        ) as run:
            for _ in range(400):
                run.step()
                if len(policy.seen) > len(seen) >= 2:
                    return run.tick - policy.seen[-1].tick
                seen = list(policy.seen)

    assert youngest(read()) == 0
    assert youngest(read(TOML + LATENCY)) == 1  # 0.055 s are one tick of 0.1 s
    with pytest.raises(wam.ConfigError, match="camera_latency names 'top', which is no camera"):
        youngest(read(TOML + LATENCY), camera="wrist")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.02", "-0.02", "latency.state: wanted a number of s, at least 0, got -0.02"),
        ("0.055", "nan", "latency.cameras.top: wanted a number of s, at least 0, got nan"),
        ("{top = 0.055}", "0.055", "latency.cameras: wanted a table, got 0.055"),
        ("state =", "joints =", "latency.joints: wanted no such key"),
    ],
)
def test_wrong_latencies_are_named(read, old, new, message):
    with pytest.raises(wam.ConfigError, match=re.escape(message)):
        read(TOML + LATENCY.replace(old, new))


def test_the_reader_takes_tomli_where_python_has_no_toml(monkeypatch):
    from wamcore.robot import table

    tomllib = pytest.importorskip("tomllib")
    source = Path(table.__file__)
    monkeypatch.setitem(sys.modules, "tomli", SimpleNamespace(loads=tomllib.loads, TOMLDecodeError=ValueError))
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    spec = importlib.util.spec_from_file_location("wamcore.robot.table_of_3_10", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.tomllib is sys.modules["tomli"]


def test_the_example_drives_in_one_command(root, tmp_path, capsys, monkeypatch):
    from wamcore.cli import main

    monkeypatch.chdir(tmp_path)

    robot = str(root / "examples" / "robot.toml")
    assert main(["info", robot]) == 0 and "wrist     -3.000 .. +1.500" in capsys.readouterr().out
    assert main(["drive", robot, "--virtual", "--seconds", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"4.0 s, mode rtc_guided: [1-9]\d* chunks, 0 refused, 0 of \d+ ticks without", out)
    record = wam.read_record(re.search(r"wrote the flight record (runs/flight/flight-\S+)", out)[1])
    assert record.joints == ["yaw", "shoulder", "elbow", "wrist"] and np.ptp(record.command, 0).max() > 0.1
    # on the machine's clock, with threads, in a process of its own: memory stays locked; a busy machine may stop it
    drive = [sys.executable, "-m", "wamcore", "drive", robot, "--seconds", "1", "--dump", "", "--cpu", "0"]
    done = subprocess.run(drive, capture_output=True, text=True, timeout=120)
    assert re.search(r"mode rtc_guided: \d+ chunks", done.stdout) and done.returncode == ("stopped: " in done.stdout)
    assert re.search(r"realtime: .*SCHED_FIFO 80.*, core 0.*locked memory", done.stdout)
    for wrong, told in [
        (["--virtual", "--realtime", "prefer"], "--virtual: no thread"),
        (["--realtime", "ignore", "--cpu", "0"], "--cpu: with --realtime ignore"),
    ]:
        assert main(["drive", robot, *wrong]) == 2 and told in capsys.readouterr().err
    assert main(["drive", str(tmp_path / "none.toml")]) == main(["drive", robot, "--seconds", "0"]) == 2
    custom = str(root / "examples" / "custom_hal.toml")
    assert main(["drive", custom, "--virtual"]) == 2 and "machine's clock" in capsys.readouterr().err


def test_a_driver_in_python_beside_the_file(root, read):
    p = wam.read_robot(root / "examples" / "custom_hal.toml")
    policy = Four()
    with wam.Runner(p.policy(policy), p.open_driver(), p.limits, control_hz=50, **p.runner_options() | PATIENT) as run:
        until(run, lambda: run.stats["chunks"] >= 2)
    assert policy.seen[-1].cameras["scene"].shape == (1, 64, 96, 3)
    for factory, message in [
        ("custom_hal", "driver.factory: wanted \"module:callable\", got 'custom_hal'"),
        ("nowhere_at_all:Arm", "driver.factory: nowhere_at_all:Arm: No module named"),
        ("math:Arm", "driver.factory: math:Arm: module 'math' has no attribute 'Arm'"),
        ("builtins:dict", "driver.factory: wanted a wamcore.Hal, got a dict"),
    ]:
        with pytest.raises(wam.ConfigError, match=re.escape(message)):
            read(TOML + f'[driver]\nkind = "python"\nfactory = "{factory}"').open_driver()
