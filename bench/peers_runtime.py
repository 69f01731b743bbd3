"""Chunk execution beside LeRobot's and openpi-client's: the same recorded chunks, the same guided sampling.

    python bench/peers_runtime.py --out runs/peers

Each peer runs in a process and an environment of its own, which this script makes under --environments; one that cannot
be installed is a line of the report. Needs wamcore with its simulator, and torch for the guided part.

Two comparisons:

* replay: chunks of the bundled model, recorded in the closed loop in mode async_switch (nothing continues anything), go
  through each side's own merging: LeRobot's ActionQueue (RTC on: a chunk replaces the queue, rows that are past are
  dropped), openpi's broker (the next chunk is asked for when one is used up; the robot waits), our Runner in modes
  async_switch and blend. A peer gives one action a control tick, which its consumer sends as it is; our Runner commands
  at servo rate. jerk is of what is commanded at servo rate; starved: ticks after the first command without one.
* guided: at every inference of a recorded rtc_guided run, the same model samples from the same observation, the same
  noise and the same rest of the chunk in execution, with the same Euler steps; LeRobot's RTCProcessor.denoise_step, as
  published, guides the PyTorch reference, ours the session. The rest of the chunk is handed to LeRobot relative to the
  new state and scaled with each row's statistics, which 0.4.4 leaves to its user. Then old rows up to the delay and new
  rows from there, as LeRobot's queue and our time line both execute them. jump: what the target moves from the last old
  row to the first new one beyond what the old chunk would have, largest joint; gap: between new row and old row there;
  bend: the largest second difference of the executed rows from two before the seam to four after it, in rad per
  tick squared, so that a jump put off by a row counts all the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
from wamcore import ManualClock, MockHal, Observation, Session, VirtualRunner
from wamcore.cli import bench_toy, closed_loop, machine
from wamcore.loading import find, load

HERE = Path(__file__).resolve().parent
PEERS = {
    "lerobot": (["--no-deps", "lerobot==0.4.4"], ["numpy<2.4"]),
    "openpi": (["openpi-client==0.1.2", "numpy<2", "typing_extensions"], []),  # which it imports undeclared
}
VARIANTS = {  # of LeRobot's processor: its defaults, and the paper's schedule to the end of the old chunk
    "LeRobot RTC (defaults)": {"schedule": "LINEAR", "strength": 10.0, "execution_horizon": 10},
    "LeRobot RTC (EXP)": {"schedule": "EXP", "strength": 10.0, "execution_horizon": 16},
}


class Peer:
    """A peer's process; it is asked line by line."""

    def __init__(self, name: str, folder: Path):
        python = folder / name / "bin" / "python"
        if not python.exists():
            venv.create(folder / name, with_pip=True)
            for packages in PEERS[name]:
                if packages:
                    command = [python, "-m", "pip", "install", "--quiet", *packages]
                    subprocess.run(command, check=True, capture_output=True, text=True)
            if name == "lerobot":  # torch of this interpreter behind the environment's own packages, where there is one
                try:
                    import torch

                    site = next((folder / name / "lib").glob("python*/site-packages"))
                    (site / "torch.pth").write_text(str(Path(torch.__file__).parent.parent) + "\n")
                except ImportError:
                    subprocess.run([python, "-m", "pip", "install", "--quiet", "torch<2.11"], check=True)
        self.process = subprocess.Popen(
            [python, HERE / "peers" / f"{name}_peer.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions = json.loads(self.process.stdout.readline() or '{"error": "its process ended"}')
        if "error" in self.versions:
            raise RuntimeError(self.versions["error"])

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Recording(closed_loop.Watched):
    """Keeps what every inference was asked and what it answered."""

    def __init__(self, session: Session):
        super().__init__(session)
        self.continued: list[tuple[Observation, np.ndarray, int]] = []

    def extend(self, obs, targets, frozen):
        newest = {name: frames[-1:].copy() for name, frames in obs.cameras.items()}
        self.continued.append((Observation(newest, obs.state.copy(), obs.tick), targets.copy(), frozen))
        return super().extend(obs, targets, frozen)


def record(model, args, mode: str, delay: int, worlds: int):
    """Runs episodes; yields, of each, the policy with what it kept."""
    # all of the old chunk is recorded: how much of it pulls is each side's own affair
    settings = closed_loop.Settings(mode=mode, delay=delay, execute=args.execute, soft=-1)
    loop = closed_loop.ClosedLoop(model, settings)
    loop.world.haste = args.haste
    try:
        for seed in range(args.first_seed, args.first_seed + worlds):
            loop.policy = Recording(loop.session)
            loop.run(closed_loop.Episode("moving", seed, ""), lambda *_: None, "")
            yield loop.policy
    finally:
        loop.close()


# --- replay


class Replay(closed_loop.Policy):
    """Answers with the recorded chunks in turn."""

    def __init__(self, chunks):
        super().__init__()
        self.chunks, self.at = chunks, 0

    def infer(self, obs):
        chunk = self.chunks[min(self.at, len(self.chunks) - 1)]
        self.at += 1
        return closed_loop.ActionChunk(chunk.q, chunk.dt, obs, sequence=self.at)

    def dt(self):
        return self.chunks[0].dt

    def horizon(self):
        return self.chunks[0].horizon

    def dof(self):
        return self.chunks[0].dof


def ours(model, chunks, mode: str, delay: int, execute: int, ticks: int) -> tuple[np.ndarray, int]:
    """Commands [n, dof] at servo rate of a run that is given the chunks, and its starved ticks."""
    clock, limits = ManualClock(1), model.embodiment.limits
    robot = MockHal(clock, joints=list(model.embodiment.joint_names), start=chunks[0].q[0])
    runner = VirtualRunner(
        Replay(chunks), robot, limits, delay_ticks=delay, mode=mode, execute_horizon=execute, clock=clock
    )
    with runner:
        runner.run_until(ticks)
        starved = runner.stats["starved_ticks"]
    record = runner.record()
    moving = (record["chunk"] >= 0) & (record["tick"] < ticks)
    return record["command"][moving], starved


def held(commands: list) -> np.ndarray:
    """Commands [ticks, dof]; where there is none the joints keep the one before."""
    out, last = [], next(c for c in commands if c is not None)
    for c in commands:
        last = last if c is None else c
        out.append(last)
    return np.array(out)


def smoothness(commands: np.ndarray, hz: float) -> dict:
    """Largest step of a joint between two commands, rad, and third differences, rad/s^3; commands [n, dof] at `hz`."""
    step, jerk = np.abs(np.diff(commands, axis=0)), np.abs(np.diff(commands, 3, axis=0)) * hz**3
    return {"step": step.max(1), "jerk": jerk.max(1)}


def replays(model, args, peers: dict[str, Peer]) -> list[dict]:
    """The table of the first comparison."""
    out, servo, hz = [], 200.0, model.embodiment.control_hz
    per_tick = round(servo / hz)
    for delay in args.delays:
        sums: dict[str, list] = {}
        for policy in record(model, args, "async_switch", delay, args.worlds):
            # until the last chunk arrives; the first was taken up at a stand
            chunks = policy.chunks
            ticks = chunks[-1].obs_tick + delay
            if len(chunks) < 2 or ticks < 4:
                continue
            q = [c.q.tolist() for c in chunks]
            if "lerobot" in peers:
                seen = [c.obs_tick for c in chunks]
                commands = peers["lerobot"].ask(replay={"chunks": q, "obs_ticks": seen, "delay": delay, "ticks": ticks})
                add(sums, "LeRobot queue", np.repeat(held(commands), per_tick, 0), commands.count(None), ticks)
            if "openpi" in peers:
                commands = peers["openpi"].ask(
                    replay={"chunks": q, "delay": delay, "execute": args.execute, "ticks": ticks}
                )
                add(sums, "openpi broker", np.repeat(held(commands), per_tick, 0), commands.count(None), len(commands))
            for mode in ("async_switch", "blend"):
                commands, starved = ours(model, chunks, mode, delay, args.execute, ticks)
                add(sums, f"wamcore {mode}", commands, starved, ticks)
        for name, parts in sums.items():
            step, jerk = (np.concatenate([p[0][k] for p in parts]) for k in ("step", "jerk"))
            out.append(
                {
                    "delay": delay,
                    "who": name,
                    "traces": len(parts),
                    "step_p99_rad": float(np.quantile(step, 0.99)),
                    "step_max_rad": float(step.max()),
                    "jerk_p99_rad_s3": float(np.quantile(jerk, 0.99)),
                    "jerk_max_rad_s3": float(jerk.max()),
                    "starved_ticks": sum(p[1] for p in parts),
                    "ticks": sum(p[2] for p in parts),
                }
            )
    return out


def add(sums: dict, name: str, commands: np.ndarray, starved: int, ticks: int) -> None:
    if len(commands) > 3:
        sums.setdefault(name, []).append((smoothness(commands, 200.0), starved, ticks))


# --- guided sampling


class Reference:
    """The bundled model in PyTorch, with somebody else's guidance."""

    def __init__(self, path: Path):
        import torch
        from wamcore.reference.checkpoint import load_checkpoint
        from wamcore.reference.normalize import normalize

        self.torch, self.normalize = torch, normalize
        self.head = load_checkpoint(path)
        self.head.options["solver"] = "euler"
        robot = json.loads((path / "embodiment.json").read_text())
        (self.state_group,), (action,) = robot["state"], robot["action"]
        self.low, self.high = (np.array(action["statistics"][k]) for k in ("q01", "q99"))

    def chunk(self, obs: Observation, plan: np.ndarray, delay: int, noise, peer: Peer, variant: dict) -> np.ndarray:
        """Absolute targets [horizon, dof]."""
        torch, head = self.torch, self.head
        cfg, state, rows = head.dit.cfg, np.array(obs.state), len(plan)
        padded = torch.zeros(1, cfg["num_state_per_block"], cfg["max_state_dim"])
        normalized = self.normalize(torch.tensor(state), self.state_group["statistics"], self.state_group["mode"])
        padded[0, :, : len(state)] = normalized.float()
        left = 2 * (plan - state - self.low[:rows]) / (self.high - self.low)[:rows] - 1

        def guided(action, velocity, sigmas, i, _):
            x, v = (a[:, :, : len(state)].tolist() for a in (action, velocity))
            request = {"x": x, "velocity": v, "left_over": [left.tolist()], "delay": delay, "time": float(sigmas[i])}
            out = velocity.clone()
            out[:, :, : len(state)] = torch.tensor(peer.ask(guide={**request, **variant}))
            return out

        head.guided = guided
        text = torch.zeros(1, cfg["text_len"], dtype=torch.int64)
        seen = torch.zeros_like(text)
        text[0, :3], seen[0, :3] = torch.tensor([1, 2, 3]), 1
        frame = np.ascontiguousarray(next(iter(obs.cameras.values())))
        given = tuple(torch.tensor(n)[None] for n in noise)
        with torch.no_grad():
            out = head.infer(torch.tensor(frame), (text, seen), None, padded, given, plan=())
        return (out.action[0, :, : len(state)].numpy() + 1) / 2 * (self.high - self.low) + self.low + state


def guided(model, args, peer: Peer) -> list[dict]:
    """The table of the second comparison, on the bundled model."""
    reference, rng = Reference(find("tabletop")), np.random.default_rng(args.first_seed)
    dim, out = reference.head.dit.cfg["action_dim"], []
    options = {"steps": reference.head.options["num_inference_steps"], "solver": "euler", "guidance": 1.0}
    session = Session(model, **options, trained_prefix=False)
    sessions = {"wamcore rtc_guided": session}
    if (trained := Session(model, **options)).continuity() == "trained":
        sessions["wamcore rtc_trained"] = trained
    for s in sessions.values():
        s.set_prompt_tokens([1, 2, 3])
    for delay in args.delays:
        seams: dict[str, list] = {}
        for policy in record(model, args, "rtc_guided", delay, args.guided_worlds):
            for obs, plan, _ in policy.continued:
                if len(plan) <= delay:
                    continue  # the old chunk ends before: nobody has a seam there
                video = rng.standard_normal(model.latent_shape).astype(np.float32)
                noise = (video, rng.standard_normal((model.horizon, dim)).astype(np.float32))
                soft = plan[: delay + 3]  # frozen rows, that of the seam, and soft_ticks, as our Runner gives them
                for name, continuing in sessions.items():
                    continuing.reset()
                    note(seams, name, continuing.extend(obs, soft, delay + 1, noise=noise).q, plan, delay)
                session.reset()
                note(seams, "unguided", session.infer(obs, noise=noise).q, plan, delay)
                for name, variant in VARIANTS.items():
                    note(seams, name, reference.chunk(obs, plan, delay, noise, peer, variant), plan, delay)
        out += [summary(name, delay, "bundled model", np.array(pairs)) for name, pairs in seams.items()]
    return out


def note(seams: dict, name: str, new: np.ndarray, plan: np.ndarray, delay: int) -> None:
    """Adds (jump, gap, bend) of one seam, rad and rad per tick squared."""
    gap = np.abs(new[delay] - plan[delay]).max()
    jump = np.abs(new[delay] - plan[delay - 1]) - np.abs(plan[delay] - plan[delay - 1])
    executed = np.concatenate([plan[max(0, delay - 2) : delay], new[delay : delay + 5]])
    bend = np.abs(np.diff(executed, 2, axis=0)).max()
    seams.setdefault(name, []).append((jump.clip(0).max(), gap, bend))


def summary(name: str, delay: int, flow: str, pairs: np.ndarray) -> dict:
    jump, gap, bend = pairs.T
    at = lambda a, q: float(np.quantile(a, q))  # noqa: E731
    return {
        "flow": flow,
        "delay": delay,
        "who": name,
        "seams": len(pairs),
        "jump_p50_rad": at(jump, 0.5),
        "jump_p99_rad": at(jump, 0.99),
        "gap_p50_rad": at(gap, 0.5),
        "gap_p99_rad": at(gap, 0.99),
        "bend_p50_rad_tick2": at(bend, 0.5),
        "bend_p99_rad_tick2": at(bend, 0.99),
    }


def toy(peer: Peer, n: int = 500) -> list[dict]:
    """The second comparison on the exact flow of two modes; rad of its one joint."""
    flow, out, horizon = bench_toy.Bimodal(), [], bench_toy.HORIZON
    for steps in (4, 10):
        for delay in (3, 8):
            rng = np.random.default_rng(0)
            plan = flow.sample(rng, n, 50)
            seed = int(rng.integers(1 << 30))
            left = horizon - bench_toy.EXECUTED
            chunks = {"wamcore rtc_guided": flow.sample(np.random.default_rng(seed), n, steps, plan, delay + 1)}
            for name, variant in VARIANTS.items():
                x = np.random.default_rng(seed).standard_normal((n, horizon))
                for k in range(steps):
                    sigma = 1 - k / steps
                    request = {"x": x[..., None].tolist(), "velocity": flow.velocity(x, sigma)[..., None].tolist()}
                    request |= {"left_over": plan[:, :left, None].tolist(), "delay": delay, "time": sigma}
                    x = x - np.array(peer.ask(guide={**request, **variant}))[..., 0] / steps
                chunks[name] = x
            for name, new in chunks.items():
                pairs: dict[str, list] = {}
                for old_row, new_row in zip(plan, new, strict=True):
                    note(pairs, name, new_row[:, None], old_row[:, None], delay)
                out.append(summary(name, delay, f"two modes, {steps} steps", np.array(pairs[name])))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for peers.json")
    add("--environments", type=Path, default=Path("build/peers"), help="where the peers' environments are made")
    add("--worlds", type=int, default=50, help="recorded episodes of each delay to replay")
    add("--guided-worlds", type=int, default=25, help="recorded episodes of each delay whose inferences are guided")
    add("--first-seed", type=int, default=2000)
    add("--delays", type=int, nargs="+", default=[1, 2, 4])
    add("--haste", type=float, default=2.0, help="moving blocks glide that much faster than trained")
    add("--execute", type=int, default=4, help="control ticks between two inferences")
    args = parser.parse_args()
    if min(args.delays) < 1 or args.worlds < 1 or args.guided_worlds < 1:
        parser.error("--delays, --worlds and --guided-worlds want 1 or more")
    peers, missing = {}, {}
    for name in PEERS:
        try:
            peers[name] = Peer(name, args.environments)
        except (subprocess.CalledProcessError, OSError, RuntimeError) as e:
            said = (getattr(e, "stderr", "") or str(e)).strip().splitlines()
            missing[name] = said[-1] if said else type(e).__name__
    model = load("tabletop", threads=1)
    report = {
        "schema": 1,
        "definition": __doc__,
        "options": {k: v for k, v in vars(args).items() if k not in ("out", "environments")},
        "peers": {name: peer.versions for name, peer in peers.items()},
        "could_not_be_installed": missing,
        "replay": replays(model, args, peers),
        "guided": [*guided(model, args, peers["lerobot"]), *toy(peers["lerobot"])] if "lerobot" in peers else [],
        "machine": machine.describe(),
    }
    for peer in peers.values():
        peer.close()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "peers.json").write_text(json.dumps(report, indent=1) + "\n")
    for part in ("replay", "guided"):
        print(f"\n{part}")
        for r in report[part]:
            print("  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items()))
    for name, why in missing.items():
        print(f"{name} could not be installed: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
