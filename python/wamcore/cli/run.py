"""`wamcore run`: drives the simulated arm in closed loop and says how it went."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import numpy as np

from .._core import ConfigError
from ..loading import find, load
from . import machine
from .tables import quantiles, stage_quantiles, table, wilson

TASKS = ("touch", "push", "moving")
MODES = ("automatic", "sync", "async_switch", "blend", "rtc_guided", "rtc_trained", "temporal_ensemble")
ABOUT = """\
The arm stands before three coloured blocks. The model sees one camera, the joints and an instruction, and answers with
chunks: joint targets for the next ticks of the control rate. Tasks: touch a named block; push it to a named side;
touch it while it moves. An episode ends as

  success  the named block was touched, or pushed to the named side
  wrong    another block was
  timeout  neither, within 4.8 s (touch), 9.6 s (push) or 6.4 s (moving)
  stopped  the safety filter, the driver or the model ended the run; the reason is printed

Without --realtime time is virtual: an inference takes a set number of ticks, and a run repeats to the bit. With it the
runner's own threads drive the arm on the machine's clock, as they would a real one."""
DEFINITION = (
    "wall time of one Session.infer: camera frames and joints in, absolute joint targets out; preprocessing, image "
    "encoding, memory update and all flow steps included; no picture is decoded; the prompt is encoded once per episode"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = ABOUT, argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("model", nargs="?", default="tabletop", help="a bundled model or a checkpoint folder (default: tabletop)")
    add("--task", choices=(*TASKS, "all"), default="all", help="what the arm is told to do (default: all)")
    add("--episodes", type=int, default=4, metavar="N", help="of each task (default: 4)")
    add("--seed", type=int, default=0, help="of the first world; pushing adds 1000, moving 2000 (default: 0)")
    add("--steps", type=int, metavar="K", help="flow steps of a chunk (default: as the checkpoint says)")
    add("--mode", choices=MODES, default="automatic", help="how chunks are executed (default: as in Runner)")
    add("--sync", action="store_const", dest="mode", const="sync", help="short for --mode sync: the arm waits")
    add("--realtime", action="store_true", help="on the machine's clock instead of in virtual time; writes no video")
    add("--delay", type=int, metavar="TICKS", help="ticks an inference takes in virtual time (default: measured first)")
    add("--execute", type=int, metavar="TICKS", help="ticks from one inference to the next (default: half a chunk)")
    add("--control-hz", type=float, default=200.0, metavar="HZ", help="rate of joint commands (default: 200)")
    add("--device", default="auto", help='"auto", "cpu" or "cpu-ops"')
    add("--dtype", default="auto", help="of the large products, where the device has a choice: see wamcore.load")
    add("--threads", type=int, help="to compute with (default: all cores)")
    add("--headless", action="store_true", help="for scripts: no line that is rewritten, even on a terminal")
    add("--no-video", action="store_true", help="write no video; no picture that the model imagines is decoded then")
    add("--out", type=Path, metavar="DIR", help="folder for video, plot and JSON (default: runs/<date and time>)")


def check(args: argparse.Namespace) -> None:
    """Raises ConfigError for values that argparse cannot judge."""
    limits = {
        "episodes": (1, 10_000),
        "seed": (0, 2**31),
        "delay": (0, 1000),
        "execute": (1, 10_000),
        "threads": (1, 1024),
    }
    for name, (low, high) in limits.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            raise ConfigError(f"--{name}: wanted {low} to {high}, got {value}")
    if args.realtime and args.delay is not None:
        raise ConfigError("--delay: with --realtime an inference takes what it takes")
    if not 20 <= args.control_hz <= 2000:
        raise ConfigError(f"--control-hz: wanted 20 to 2000 Hz, got {args.control_hz}")


class Line:
    """One line of a terminal, rewritten; on anything else only final lines appear."""

    def __init__(self, live: bool) -> None:
        self.live, self.last = live and sys.stdout.isatty(), 0.0

    def show(self, text: str) -> None:
        if self.live and time.monotonic() - self.last > 0.1:
            self.last = time.monotonic()
            print(f"\r\033[K{text}", end="", flush=True)

    def finish(self, text: str) -> None:
        print(f"\r\033[K{text}" if self.live else text, flush=True)


def run(args: argparse.Namespace) -> int:
    check(args)
    try:
        from ..viz import open_film, plot_joints
        from .closed_loop import ClosedLoop, Settings
    except ImportError as e:
        raise ConfigError(f"the simulator is not installed ({e.name} is missing): pip install 'wamcore[sim]'") from e

    folder = args.out or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    model = load(args.model, device=args.device, threads=args.threads, dtype=args.dtype)
    check_robot(model)
    settings = Settings(args.mode, args.control_hz, args.delay, args.execute, args.steps, args.realtime)
    loop = ClosedLoop(model, settings)
    folder.mkdir(parents=True, exist_ok=True)
    film = None if args.no_video or args.realtime else open_film(folder, model.embodiment.control_hz)
    if film is not None:
        loop.show(film)
    began = time.perf_counter()
    try:
        if args.delay is None and args.mode != "sync" and not args.realtime:
            loop.measure_delay()
        print(headline(args, model, loop), flush=True)
        episodes = play(args, loop)
    finally:
        loop.close()
        if film is not None:
            film.close()
    report = summarise(args, model, loop, episodes, time.perf_counter() - began)
    plot_joints(folder / "joints.png", model.embodiment.joint_names, [e.joints for e in episodes if e.joints])
    report["files"] = {"joints": "joints.png"} | ({"video": film.path.name} if film else {})
    (folder / "run.json").write_text(json.dumps(report, indent=1) + "\n")
    print(tell(report))
    print(f"\nwrote {folder}/")
    for name, what in {**report["files"], "numbers": "run.json"}.items():
        print(f"  {what:<11} {WHAT[name]}")
    return 0


WHAT = {
    "video": "the camera beside what the model imagines",
    "joints": "joint targets and measured joints, with the seams of the chunks",
    "numbers": "everything as JSON",
}


def play(args: argparse.Namespace, loop) -> list:
    """Runs the episodes, with a line for each; the first of every task keeps its joints for the plot."""
    from .closed_loop import Episode

    line, hz, episodes = Line(not args.headless), loop.model.embodiment.control_hz, []
    for task in TASKS if args.task == "all" else (args.task,):
        for i in range(args.episodes):
            place = f"{task:<6} {i + 1}/{args.episodes}"
            episode = Episode(task, args.seed + 1000 * TASKS.index(task) + i, "")
            loop.run(episode, lambda e, s, place=place: line.show(status(place, e, s, hz)), place)
            seconds = loop.policy.seconds[-1] if loop.policy.seconds else 0.0
            line.finish(status(place, episode, seconds, hz, episode.outcome))
            if i > 0:
                episode.joints = None
            episodes.append(episode)
    return episodes


def check_robot(model) -> None:
    """The simulated arm must be the robot the model was trained for."""
    from ..sim import Tabletop

    wanted, has = list(Tabletop.joint_names), list(model.embodiment.joint_names)
    if wanted != has:
        raise ConfigError(f"run: the simulated arm has joints {wanted}, the model is for {has or 'unnamed joints'}")


def headline(args: argparse.Namespace, model, loop) -> str:
    config = json.loads((find(args.model) / "config.json").read_text())["action_head_cfg"]["config"]
    tick_ms, steps = 1e3 / model.embodiment.control_hz, args.steps or config["num_inference_steps"]
    ticks = f"{loop.delay} tick{'s' if loop.delay != 1 else ''} of {tick_ms:.0f} ms, {loop.delay_source}"
    how = "the arm waits for each chunk" if args.mode == "sync" else "the arm moves on while the next chunk is computed"
    clock = "real time" if args.realtime else "virtual time"
    pace = "" if args.mode == "sync" or args.realtime else f" ({ticks})"
    return (
        f"{args.model}: {model.family}, {model.parameters / 1e6:.1f} M parameters on {model.device} in "
        f"{model.dtype} with {model.threads} threads, {steps} flow steps\n"
        f"{how}{pace}; {clock}, joint commands at {args.control_hz:g} Hz\n"
    )


def status(place: str, episode, seconds: float, hz: float, outcome: str = "...") -> str:
    return (
        f"  {place}  {outcome:<7}  {episode.ticks / hz:4.1f} s  {seconds * 1e3:6.1f} ms/chunk  "
        f"seed {episode.seed}  {episode.instruction}"
    )


def summarise(args: argparse.Namespace, model, loop, episodes: list, wall: float) -> dict:
    """Everything of the run as plain data; wall-clock times are under "timing" and nowhere else."""
    policy = loop.policy
    tasks = {}
    for task in dict.fromkeys(e.task for e in episodes):
        mine = [e for e in episodes if e.task == task]
        good = [e.ticks for e in mine if e.outcome == "success"]
        low, high = wilson(len(good), len(mine))
        tasks[task] = {
            "episodes": len(mine),
            "success": len(good),
            "wrong": sum(e.outcome == "wrong" for e in mine),
            "timeout": sum(e.outcome == "timeout" for e in mine),
            "stopped": sum(e.outcome == "stopped" for e in mine),
            "interval_95": [round(low, 4), round(high, 4)],
            "median_s": float(np.median(good)) / model.embodiment.control_hz if good else None,
        }
    simulated = sum(e.ticks for e in episodes) / model.embodiment.control_hz
    options = {k: v for k, v in vars(args).items() if k not in ("command", "debug", "path", "out")}
    reasons = sorted({reason for e in episodes for reason in e.safety})
    return {
        "schema": 1,
        "options": options,
        "model": {
            "path": args.model,
            "family": model.family,
            "parameters": model.parameters,
            "sha256": machine.sha256(find(args.model)),
            "device": model.device,
            "dtype": model.dtype,
            "threads": model.threads,
            "horizon": model.horizon,
            "latent_shape": list(model.latent_shape),
        },
        "loop": {
            "control_hz": model.embodiment.control_hz,
            "servo_hz": args.control_hz,
            "mode": loop.mode,
            "delay_ticks": None if args.realtime else loop.delay,
            "delay_source": "none" if loop.mode == "sync" or args.realtime else loop.delay_source,
            "execute_ticks": loop.execute,
            "frame_offsets": list(loop.session.frame_offsets()),
            "clock": "real" if args.realtime else "virtual",
        },
        "tasks": tasks,
        "episodes": [{k: v for k, v in dataclasses.asdict(e).items() if k != "joints"} for e in episodes],
        "totals": {
            "chunks": sum(e.chunks for e in episodes),
            "ticks": sum(e.ticks for e in episodes),
            "starved_ticks": sum(e.starved_ticks for e in episodes),
            "late_chunks": sum(e.late_chunks for e in episodes),
            "refused_chunks": sum(e.refused_chunks for e in episodes),
            "overruns": sum(e.overruns for e in episodes),
            "commands": sum(e.commands for e in episodes),
            "smoothed_commands": sum(e.smoothed for e in episodes),
            "seam_jump_max_rad": max(e.seam_jump_max for e in episodes),
            "tracking_rms_rad": float(np.sqrt(np.mean([e.tracking_rms**2 for e in episodes]))),
            "safety": {k: sum(e.safety.get(k, 0) for e in episodes) for k in reasons},
            "images_decoded_in_inference": policy.decoded_in_time,
        },
        "timing": {
            "definition": DEFINITION,
            "chunk_ms": quantiles([s * 1e3 for s in policy.seconds]),
            "stages_ms": stage_quantiles(policy.stages),
            "video_decode_ms": quantiles([s * 1e3 for s in policy.decode_seconds]),
            "wall_s": wall,
            "simulated_s": simulated,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": machine.describe(),
        },
    }


def tell(report: dict) -> str:
    """The report for people."""
    rows = [
        (
            name,
            f"{t['success']}/{t['episodes']}",
            f"{t['success'] / t['episodes']:.0%}",
            f"{t['interval_95'][0]:.0%} .. {t['interval_95'][1]:.0%}",
            t["wrong"],
            t["timeout"],
            t["stopped"],
            "-" if t["median_s"] is None else f"{t['median_s']:.2f} s",
        )
        for name, t in report["tasks"].items()
    ]
    timing, totals, loop = report["timing"], report["totals"], report["loop"]
    stages = {"whole chunk": timing["chunk_ms"], **timing["stages_ms"]}
    hz = timing["chunk_ms"]["p50"] and 1e3 / timing["chunk_ms"]["p50"]
    smoothed = totals["smoothed_commands"] / max(1, totals["commands"])
    reasons = {e["reason"]: None for e in report["episodes"] if e["reason"]}
    return "\n".join(
        (
            "",
            table(rows, ("task", "success", "rate", "95 % interval", "wrong", "timeout", "stopped", "median time")),
            "",
            table(
                [(k, f"{q['p50']:.2f}", f"{q['p99']:.2f}", q["n"]) for k, q in stages.items()],
                ("time of a chunk, ms", "p50", "p99", "n"),
            ),
            "",
            f"  control rate {loop['control_hz']:g} Hz (ticks), joint commands {loop['servo_hz']:g} Hz, "
            f"a new chunk every {loop['execute_ticks']} ticks; the model alone could give {hz:.1f} chunks/s",
            f"  safety filter: {totals['refused_chunks']} chunks refused, {totals['chunks']} admitted; "
            f"{smoothed:.0%} of the joint commands smoothed",
            f"  (smoothing a {loop['control_hz']:g} Hz chunk to the joints' limits is normal; refused chunks and stops "
            "are not)",
            f"  {totals['starved_ticks']} of {totals['ticks']} ticks without a fresh target, {totals['overruns']} "
            "joint commands skipped",
            f"  largest jump from chunk to chunk {totals['seam_jump_max_rad'] * 1e3:.2f} mrad; the arm follows its "
            f"targets to {totals['tracking_rms_rad'] * 1e3:.1f} mrad rms",
            f"  {timing['simulated_s']:.0f} s of the arm's time in {timing['wall_s']:.0f} s ({loop['clock']} clock)",
            *(f"  stopped: {reason}" for reason in reasons),
        )
    )
