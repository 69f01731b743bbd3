"""openpi-client's ActionChunkBroker, as published, fed recorded traces line by line.

Runs in an environment of its own. A line of JSON in, {"replay": {...}}; a line out: the command of each control tick,
null while the robot waits.
"""

import importlib.metadata
import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.base_policy import BasePolicy


class Recorded(BasePolicy):
    """Returns the recorded chunks in turn and counts the ticks that passed meanwhile."""

    def __init__(self, chunks, delay):
        self.chunks, self.delay, self.waited, self.calls = iter(chunks), delay, 0, 0

    def infer(self, obs):
        self.waited += self.delay if self.calls else 0  # what passes before the first motion is nobody's stall
        self.calls += 1
        return {"actions": np.asarray(next(self.chunks))}

    def reset(self):
        pass


def replay(chunks, delay, execute, ticks):
    policy = Recorded(chunks, delay)
    broker, commands = ActionChunkBroker(policy, execute), []
    while len(commands) < ticks:
        try:
            action = broker.infer({})["actions"].tolist()
        except StopIteration:
            break
        commands += [None] * policy.waited + [action]
        policy.waited = 0
    return commands[:ticks]


print(json.dumps({"openpi-client": importlib.metadata.version("openpi-client"), "numpy": np.__version__}), flush=True)
for line in sys.stdin:
    print(json.dumps(replay(**json.loads(line)["replay"])), flush=True)
