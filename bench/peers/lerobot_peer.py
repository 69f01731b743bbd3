"""LeRobot's own real-time chunking, fed line by line: its ActionQueue and its RTCProcessor, as published, unmodified.

Runs in an environment of its own. A line of JSON in, a line out:
  {"replay": {...}}  a recorded trace through the queue: the command of each control tick, null where it has none
  {"guide": {...}}   one guided velocity
"""

import importlib.metadata
import importlib.util
import json
import logging
import sys
import types


def bare(name: str, folder: str) -> None:
    """A package without its __init__, whose imports want all of LeRobot's dependencies."""
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


root = next(iter(importlib.util.find_spec("lerobot").submodule_search_locations))
for part in ("policies", "policies.rtc", "configs"):
    bare(f"lerobot.{part}", f"{root}/{part.replace('.', '/')}")

import torch  # noqa: E402
from lerobot.configs.types import RTCAttentionSchedule  # noqa: E402
from lerobot.policies.rtc.action_queue import ActionQueue  # noqa: E402
from lerobot.policies.rtc.configuration_rtc import RTCConfig  # noqa: E402
from lerobot.policies.rtc.modeling_rtc import RTCProcessor  # noqa: E402

logging.disable(logging.WARNING)
torch.set_num_threads(1)


def replay(chunks, obs_ticks, delay, ticks):
    """Each chunk arrives `delay` ticks after its observation; one action is taken a tick."""
    queue, commands, arrived = ActionQueue(RTCConfig(enabled=True)), [], 0
    before = {}  # index in the queue when the inference of a chunk started
    for tick in range(ticks):
        for k, seen in enumerate(obs_ticks):
            if seen == tick:
                before[k] = queue.get_action_index()
        while arrived < len(chunks) and (tick >= obs_ticks[arrived] + delay or arrived == 0):
            chunk = torch.tensor(chunks[arrived], dtype=torch.float64)
            # the robot stands until the first chunk: none of its rows is past
            queue.merge(chunk, chunk, delay if arrived else 0, before.get(arrived, 0))
            arrived += 1
        action = queue.get()
        commands.append(None if action is None else action.tolist())
    return commands


def guide(x, velocity, left_over, delay, time, schedule, strength, execution_horizon):
    """Velocity of LeRobot's denoise_step; x, velocity [batch, rows, dim], left_over [batch, rows left, dim]."""
    config = RTCConfig(
        enabled=True,
        prefix_attention_schedule=RTCAttentionSchedule[schedule],
        max_guidance_weight=strength,
        execution_horizon=execution_horizon,
    )
    x, velocity, left_over = (torch.tensor(a, dtype=torch.float32) for a in (x, velocity, left_over))
    return RTCProcessor(config).denoise_step(x, left_over, delay, time, lambda _: velocity).tolist()


print(json.dumps({"lerobot": importlib.metadata.version("lerobot"), "torch": torch.__version__}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    out = replay(**request["replay"]) if "replay" in request else guide(**request["guide"])
    print(json.dumps(out), flush=True)
