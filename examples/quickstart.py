"""A model looks at a simulated arm once, then drives it for four seconds."""

import wamcore as wam
from wamcore.sim import Tabletop

world = Tabletop(seed=1, task="touch")
robot = wam.hal.MuJoCo(world)
model = wam.load("tabletop")  # or a folder with config.json and *.safetensors
session = wam.Session(model, steps=4)
session.set_prompt(world.instruction)
chunk = session.infer(wam.observe(robot))
print(f"{chunk.horizon} targets {chunk.dt * 1e3:.0f} ms apart, the first {chunk.q[0].round(2)} rad")
with wam.Runner(session, robot, model.embodiment.limits, control_hz=200) as runner:
    runner.wait(4.0)  # s; raises what stopped a thread
print(f"{world.instruction}: {world.success}; {runner.stats['chunks']} chunks")
