"""An inference leaves Python to the other threads."""

import sys
import threading
import time

import numpy as np
import pytest
import wamcore as wam


@pytest.fixture
def turns():
    """A list whose only number a second thread counts up whenever it gets the interpreter; nobody is made to yield."""
    count, stop = [0], threading.Event()

    def run():
        while not stop.is_set():
            count[0] += 1
            time.sleep(1e-4)  # s; gives the interpreter back, which nobody would take from this thread

    before = sys.getswitchinterval()
    sys.setswitchinterval(100)  # s: only who lets go of the interpreter lets others in
    thread = threading.Thread(target=run)
    try:
        thread.start()
        yield count
    finally:
        stop.set()
        sys.setswitchinterval(before)
        thread.join()


def test_infer_releases_the_gil(turns):
    model = wam.load("tabletop", threads=1)
    session = wam.Session(model, steps=16)
    session.set_prompt("touch the red block")
    pictures = {n: np.zeros((h, w, 3), np.uint8) for n, h, w in model.embodiment.cameras}
    limits = model.embodiment.limits
    seen = wam.Observation(pictures, (np.array(limits.position_min) + limits.position_max) / 2)

    def turns_while(work):
        before = turns[0]
        work()
        return turns[0] - before

    assert turns_while(lambda: sum(range(3_000_000))) == 0, "the other thread got in although nobody let it"
    assert sum(turns_while(lambda: session.infer(seen)) for _ in range(5)) > 0
    targets = np.tile(seen.state, (4, 1))
    assert sum(turns_while(lambda: session.extend(seen, targets, 2)) for _ in range(5)) > 0
