"""The LeRobot adapter on a robot that has LeRobot's interface and degrees."""

import numpy as np
import pytest
import wamcore as wam
from robots import SinePolicy
from wamcore.hal import LeRobot


class Follower:
    """Two joints in degrees and a camera, as LeRobot's followers are."""

    def __init__(self, extra=()):
        names = ("elbow.pos", "shoulder.pos")
        self.action_features = dict.fromkeys((*names, *extra), float)
        self.observation_features = {**dict.fromkeys(names, float), "front": (4, 6, 3)}
        self.is_connected, self.at, self.sent, self.log = False, dict.fromkeys(names, 0.0), [], []

    def connect(self, calibrate=True):
        self.is_connected = True
        self.log.append("connect")

    def disconnect(self):
        self.is_connected = False
        self.log.append("disconnect")

    def get_observation(self):
        return {**self.at, "front": np.full((4, 6, 3), 7, np.uint8)}

    def send_action(self, action):
        assert set(action) == set(self.at) and all(isinstance(v, float) for v in action.values())
        self.at = dict(action)
        self.sent.append(action)
        return action


def test_a_run_in_degrees():
    robot = Follower()
    hal = LeRobot(robot, units=np.pi / 180, joints=["shoulder", "elbow"])
    limits = wam.JointLimits(["shoulder", "elbow"], [-2, -2], [2, 2], [2, 2], [20, 20])
    policy = SinePolicy()
    with wam.VirtualRunner(policy, hal, limits) as runner:
        runner.run(3.0)
        record = runner.record()
    assert robot.log == ["connect", "disconnect"] and not robot.is_connected
    at = record["command"][-1]
    assert abs(np.deg2rad(robot.sent[-2]["elbow.pos"])) > 0.3  # the second joint of the policy is the elbow
    np.testing.assert_allclose(np.rad2deg(at), [robot.sent[len(record["command"])][f"{j}.pos"] for j in hal.joints])
    assert policy.seen[-1].cameras["front"].shape == (1, 4, 6, 3)


def test_a_robot_that_was_connected_stays_so():
    robot = Follower()
    robot.connect()
    hal = LeRobot(robot, units=np.pi / 180)
    hal.configure(wam.HalConfig())
    hal.activate(wam.Mode.position)
    hal.close()
    assert robot.log == ["connect"] and robot.is_connected


def test_what_it_cannot_drive_is_refused():
    with pytest.raises(wam.RobotError, match="joint positions only"):
        LeRobot(Follower(extra=("base.vel",)), units=1.0)
    with pytest.raises(wam.RobotError, match="an order of"):
        LeRobot(Follower(), units=1.0, joints=["elbow"])
    with pytest.raises(TypeError, match="units"):  # what its numbers count cannot be guessed
        LeRobot(Follower())
    with pytest.raises(wam.RobotError, match="units name no"):
        LeRobot(Follower(), units={"elbow": 1.0})
    with pytest.raises(wam.RobotError, match="other than 0"):
        LeRobot(Follower(), units=0.0)


def losing(robot, name, which):
    """Makes the exchanges of those numbers (from 0) get lost on the wire."""
    whole, calls = getattr(robot, name), iter(range(10**9))

    def exchange(*args):
        if next(calls) in which:
            raise ConnectionError("there is no status packet")
        return whole(*args)

    setattr(robot, name, exchange)


@pytest.mark.parametrize("name", ["get_observation", "send_action"])
def test_a_packet_lost_on_the_wire_is_a_hiccup(name):
    robot = Follower()
    losing(robot, name, {0, 20, 21, 40})  # the first while it is activated
    limits = wam.JointLimits(["elbow", "shoulder"], [-2, -2], [2, 2], [2, 2], [20, 20])
    with wam.VirtualRunner(SinePolicy(), LeRobot(robot, units=np.pi / 180), limits) as runner:
        runner.run(3.0)
        assert runner.stats["safety"]["estop"] == 0 and len(robot.sent) > 100
    assert not robot.is_connected


@pytest.mark.parametrize("name", ["get_observation", "send_action"])
def test_a_cable_that_is_out_ends_the_run(name):
    robot = Follower()
    losing(robot, name, range(60, 10**6))
    limits = wam.JointLimits(["elbow", "shoulder"], [-2, -2], [2, 2], [2, 2], [20, 20])
    runner = wam.VirtualRunner(SinePolicy(), LeRobot(robot, units=np.pi / 180), limits)
    runner.start()
    with pytest.raises(wam.RobotError, match="no status packet"):
        runner.run(3.0)
    sent = len(robot.sent)
    runner.stop()
    assert 50 < sent < 65 and len(robot.sent) == sent  # nothing after the third loss
