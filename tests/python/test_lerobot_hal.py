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
