"""The drivers for tests, from Python: faults around a driver of any kind, and a flight record as a robot."""

import numpy as np
import pytest
import wamcore as wam
from robots import DOF, NAMES, PATIENT, Arm, SinePolicy, limits, mock, until
from wamcore.hal import FaultInjector, replay


def test_faults_around_a_driver_repeat_with_their_seed():
    def run(seed):
        clock, arm = mock()
        faulty = FaultInjector(arm, clock, seed)
        faulty.inject("read", status=wam.Status.stale, probability=0.2, start=10)
        faulty.inject("write", "drop", probability=0.1)
        faulty.inject("read", "offset", joint=1, value=0.01, start=400, count=50)
        with wam.VirtualRunner(SinePolicy(), faulty, limits(), clock=clock, record=60.0) as runner:
            runner.run(4.0)
            assert runner.stats["stale_reads"] > 50 and faulty.inner is arm
        assert faulty.struck("read") > 100 and faulty.struck("write") > 30 and faulty.struck("frame") == 0
        return arm.commands

    once = run(3)
    assert np.array_equal(once, run(3)) and not np.array_equal(once, run(4))


def test_a_driver_in_python_inside_it_stays_off_the_servo_thread():
    arm, clock = Arm(camera=True), wam.SystemClock()
    faulty = FaultInjector(arm, clock)
    faulty.inject("read", "late", ticks=2)
    with wam.Runner(SinePolicy(), faulty, limits(), control_hz=100, clock=clock, **PATIENT) as runner:
        until(runner, lambda: faulty.struck("read") > 3)
    assert len(arm.threads) == 1 and arm.calls[-1] == "close"


def test_a_nan_from_a_sensor_never_becomes_a_command():
    clock, arm = mock()
    faulty = FaultInjector(arm, clock)
    faulty.inject("read", "offset", value=np.nan, start=300)
    runner = wam.VirtualRunner(SinePolicy(), faulty, limits(), clock=clock)
    runner.start()
    with pytest.raises(wam.RobotError):
        runner.run(10.0)
    assert np.isfinite(arm.commands).all() and runner.stats["phase"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("leap",), "call wants one of 'configure', 'activate'"),
        (("read", "explode"), "kind wants one of 'answer', 'drop'"),
        (("write", "freeze"), "write cannot fail by 'freeze'"),
    ],
)
def test_what_cannot_fail_so_is_refused(arguments, message):
    clock, arm = mock()
    with pytest.raises(wam.ConfigError, match=message):
        FaultInjector(arm, clock).inject(*arguments)


def test_a_flight_is_played_back_from_its_file(tmp_path):
    clock, arm = mock()
    with wam.VirtualRunner(SinePolicy(), arm, limits(), clock=clock, record=60.0, dump=str(tmp_path)) as runner:
        runner.run(3.0)
    path = next(tmp_path.glob("flight-*"))
    clock = wam.ManualClock(5)
    again = replay(path, clock=clock, cameras=[wam.CameraInfo("top", 4, 6)], tolerance=1e-9)
    with wam.VirtualRunner(SinePolicy(), again, limits(), clock=clock, record=60.0) as runner:
        runner.run(2.9)
        record = runner.record()
    flight = wam.read_record(path)
    n = len(record["command"]) - 50  # the second one was told to stop earlier
    assert n > 400 and np.array_equal(record["measured"][:n], flight.measured[:n])
    assert np.array_equal(record["command"][:n], flight.command[:n])
    assert again.deviation == 0.0 and again.compared > n and not again.finished
    assert not wam.observe(again).cameras["top"].any()

    clock = wam.ManualClock(5)
    other = SinePolicy(lambda n, q: q * 1.5)
    runner = wam.VirtualRunner(other, replay(flight, clock=clock, tolerance=0.05), limits(), clock=clock)
    runner.start()
    with pytest.raises(wam.RobotError, match=r"the command of joint '\w+' at .* s is further than 0.05"):
        runner.run(2.9)
    with pytest.raises(wam.ShapeError, match=r"measured: wanted \[2, 2\], got"):
        wam.hal.ReplayHal(NAMES, [1, 2], np.zeros((3, DOF)), np.zeros((2, DOF)))
