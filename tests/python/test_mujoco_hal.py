"""The MuJoCo driver: it moves by the time between commands, gives its renderer back, and stops when it must."""

import importlib.util
import threading

import numpy as np
import pytest

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("mujoco is not installed", allow_module_level=True)

import wamcore as wam
from wamcore.hal import MuJoCo
from wamcore.sim import Tabletop

PERIOD = 5_000_000  # ns


@pytest.fixture
def robot():
    hal = MuJoCo(Tabletop(seed=3, task="touch"))
    yield hal
    hal.close()


class Hold(wam.Policy):
    """Chunks that stay where the arm is, plus a slow motion of the first joint."""

    def __init__(self, speed=0.0, spoil=None):
        super().__init__()
        self.speed, self.spoil, self.sequence = speed, spoil, 0

    def infer(self, obs):
        q = np.tile(obs.state, (16, 1))
        q[:, 0] += self.speed * 0.05 * np.arange(16)
        if self.spoil is not None:
            q[:] = self.spoil
        self.sequence += 1
        return wam.ActionChunk(q, 0.05, obs, sequence=self.sequence)

    def dt(self):
        return 0.05

    def horizon(self):
        return 16

    def dof(self):
        return 4


def limits_of(scene) -> wam.JointLimits:
    return wam.JointLimits(
        list(scene.joint_names), scene.position_min, scene.position_max, scene.velocity_max, scene.acceleration_max
    )


def test_description_and_state(robot):
    d = robot.configure(wam.HalConfig())
    assert [j.name for j in d.joints] == ["yaw", "shoulder", "elbow", "wrist"]
    assert d.joints[0].position_max == 1.6 and d.joints[0].velocity == 3.0
    assert [(c.name, c.height, c.width) for c in d.cameras] == [("scene", 64, 96)]
    state = robot.read()
    np.testing.assert_array_equal(state.q, robot.scene.q)
    np.testing.assert_array_equal(state.dq, np.zeros(4))


def test_observe_looks_at_cameras_and_joints(robot):
    obs = wam.observe(robot, tick=5)
    assert obs.tick == 5 and list(obs.cameras) == ["scene"]
    assert obs.cameras["scene"].shape == (1, 64, 96, 3)
    same = Tabletop(seed=3, task="touch")
    np.testing.assert_array_equal(obs.cameras["scene"][0], same.frame())
    same.close()
    np.testing.assert_array_equal(obs.state, robot.scene.q)


def test_time_passes_with_commands_only(robot):
    robot.configure(wam.HalConfig())
    robot.activate(wam.Mode.position)
    q = robot.scene.q
    for i in range(41):
        assert robot.write(wam.Command(q, 10**9 + i * PERIOD, 10**9 + (i + 20) * PERIOD)) == wam.Status.ok
    assert robot.scene.tick == 4  # 40 periods of 5 ms are 4 ticks of 50 ms
    robot.write(wam.Command(q, 10**9 + 10**12, 10**9 + 2 * 10**12))
    assert robot.scene.tick == 6  # a pause does not make the world race


def test_no_command_counts_unless_active(robot):
    robot.configure(wam.HalConfig())
    command = wam.Command(np.zeros(4), 10**9, 2 * 10**9)
    assert robot.write(command) == wam.Status.fault
    robot.activate(wam.Mode.position)
    robot.stop(wam.StopKind.cut)
    assert robot.write(command) == wam.Status.fault


def test_close_gives_the_renderer_back_and_the_robot_may_be_opened_again(robot):
    before = threading.active_count()
    first = robot.picture(96, 64)
    assert threading.active_count() == before + 1
    robot.close()
    assert threading.active_count() == before
    np.testing.assert_array_equal(robot.picture(96, 64), first)


def test_frames_may_be_asked_for_from_any_thread(robot):
    pictures = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: pictures.append(robot.picture(96, 64)))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(*pictures)


def test_a_runner_moves_the_arm_within_its_limits(robot):
    runner = wam.VirtualRunner(Hold(speed=0.4), robot, limits_of(robot.scene), record=5.0)
    start = robot.scene.q
    runner.start()
    runner.run(2.0)
    runner.stop()
    moved = robot.scene.q - start
    assert moved[0] > 0.3 and np.abs(moved[1:]).max() < 0.1
    speed = np.diff(runner.record()["command"], axis=0) / 0.005
    assert (np.abs(speed) <= robot.scene.velocity_max * (1 + 1e-9)).all()


@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e6], ids=str)
def test_what_no_stage_vouches_for_never_reaches_the_arm(robot, spoil):
    start = robot.scene.q
    runner = wam.VirtualRunner(Hold(spoil=spoil), robot, limits_of(robot.scene), record=5.0)
    with pytest.raises(wam.RobotError, match="refused"):
        runner.start()
        runner.run(2.0)
    runner.stop()
    np.testing.assert_allclose(robot.scene.q, start, atol=0.02)  # it stands, and sags a little


@pytest.mark.parametrize("method", ["configure", "activate", "read", "write", "frame"])
def test_a_driver_that_throws_ends_the_run_and_says_so(method):
    class Broken(MuJoCo):
        pass

    def throw(self, *args):
        raise ValueError("the cable is loose")

    setattr(Broken, method, throw)
    hal = Broken(Tabletop(seed=3, task="touch"))
    runner = wam.VirtualRunner(Hold(), hal, limits_of(hal.scene))
    with pytest.raises(wam.RobotError, match="the cable is loose"):
        runner.start()
        runner.run(1.0)
    runner.stop()
    assert hal._drawing is None  # closed: nothing leaks


def test_a_driver_that_starts_to_throw_stops_the_arm():
    class Failing(MuJoCo):
        writes = 0

        def write(self, command):
            self.writes += 1
            if self.writes > 50:
                raise OSError("bus error")
            return super().write(command)

    hal = Failing(Tabletop(seed=3, task="touch"))
    runner = wam.VirtualRunner(Hold(), hal, limits_of(hal.scene))
    runner.start()
    with pytest.raises(wam.RobotError, match="bus error"):
        runner.run(5.0)
    assert not hal._active and not runner.running
    runner.stop()


MJCF = """<mujoco>
<default><joint axis="0 1 0" range="-1 1" limited="true" damping="1"/><geom type="capsule" size="0.02"/></default>
<worldbody>
  <camera name="side" pos="0 -1 0.3" xyaxes="1 0 0 0 0 1"/>
  <body>
    <joint name="hinge" limited="true"/><geom fromto="0 0 0 0.3 0 0"/>
    <body pos="0.3 0 0"><joint name="tip"/><geom fromto="0 0 0 0.2 0 0"/></body>
  </body>
</worldbody>
<actuator><position name="a" joint="hinge" kp="80"/><position name="b" joint="tip" kp="80"/></actuator>
</mujoco>"""


def test_any_mjcf_file_with_position_actuators(tmp_path):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF)
    hal = MuJoCo(path, cameras={"side": (48, 64)}, joints=["tip", "hinge"])
    assert hal.scene.joint_names == ("tip", "hinge")
    obs = wam.observe(hal)
    assert obs.cameras["side"].shape == (1, 48, 64, 3) and obs.state.shape == (2,)
    hal.activate(wam.Mode.position)
    for i in range(400):
        hal.write(wam.Command([0.3, 0.0], 10**9 + i * PERIOD, 2 * 10**9 + i * PERIOD))
    assert hal.read().q[0] > 0.15
    hal.close()


@pytest.mark.parametrize(
    ("change", "joints", "message"),
    [
        (("<actuator>", "<actuators>"), None, "arm.xml"),
        (('hinge" limited="true"', 'hinge" limited="false"'), None, "hinge"),
        (("hinge", "hinge"), ["hinge", "elbow"], "elbow"),
    ],
)
def test_an_unusable_mjcf_file_is_refused(tmp_path, change, joints, message):
    path = tmp_path / "arm.xml"
    path.write_text(MJCF.replace(*change))
    with pytest.raises(wam.RobotError, match=message):
        MuJoCo(path, joints=joints)
