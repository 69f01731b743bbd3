"""Episodes of a session that drives the simulated arm, and what was measured in them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .. import sim
from .._core import (
    PHASES,
    ActionChunk,
    ConfigError,
    Model,
    Observation,
    Policy,
    RobotError,
    Runner,
    Session,
    VirtualRunner,
)
from ..hal.mujoco import MuJoCo
from ..viz import Film, JointTrace
from ..viz.video import CAMERA, Shot, compose

TIME_LIMIT = {"touch": 4.8, "push": 9.6, "moving": 6.4}  # s, as the bundled model's evaluation has it
LAST_LOOK = 0.6  # s for which the video stays on the outcome


@dataclass
class Settings:
    """How to run; see `wamcore run --help`."""

    mode: str = "automatic"  # how chunks are executed, as in Runner
    servo_hz: float = 200.0
    delay: int | None = None  # control ticks; None: as measured
    execute: int | None = None  # control ticks between two inferences; None: half a chunk
    steps: int | None = None  # flow steps; None: as the checkpoint says
    realtime: bool = False  # threads on the machine's clock instead of virtual time
    soft: int | None = None  # rows after the frozen ones that guidance still pulls, as in Runner; None: its default


class Watched(Policy):
    """A session, with the clock stopped around every inference. Pictures are decoded after the clock has stopped."""

    def __init__(self, session: Session):
        super().__init__()
        self.session, self.imagine = session, False
        self.seconds: list[float] = []  # of each inference
        self.stages: list[dict[str, int]] = []  # ns of each inference
        self.decode_seconds: list[float] = []  # of the pictures for the video
        self.decoded_in_time = 0  # pictures decoded inside an inference: none, ever
        self.begin()

    def begin(self) -> None:
        """Starts an episode."""
        self.chunks: list[ActionChunk] = []
        self.imagined: list[tuple[float, np.ndarray]] = []  # of the newest chunk: (s after its observation, picture)

    def infer(self, obs: Observation) -> ActionChunk:
        return self._timed(self.session.infer, obs)

    def extend(self, obs: Observation, targets: np.ndarray, frozen: int) -> ActionChunk:
        return self._timed(self.session.extend, obs, targets, frozen)

    def continuity(self) -> str:
        return self.session.continuity()

    def _timed(self, infer: Callable[..., ActionChunk], *args) -> ActionChunk:
        began = time.perf_counter()
        chunk = infer(*args)
        self.seconds.append(time.perf_counter() - began)
        trace = self.session.trace
        self.stages.append(trace["stages"])
        self.decoded_in_time += trace["counts"]["images_decoded"]
        self.chunks.append(chunk)
        if self.imagine:
            began = time.perf_counter()
            pictures = self.session.decode()
            self.decode_seconds.append(time.perf_counter() - began)
            span = chunk.horizon * chunk.dt / max(1, len(pictures))
            self.imagined = [((i + 1) * span, picture) for i, picture in enumerate(pictures)]
        return chunk

    def dt(self) -> float:
        return self.session.dt()

    def horizon(self) -> int:
        return self.session.horizon()

    def dof(self) -> int:
        return self.session.dof()

    def frame_offsets(self) -> list[int]:
        return self.session.frame_offsets()

    def epoch(self) -> int:
        return self.session.epoch()


@dataclass
class Episode:
    """What came of one episode."""

    task: str
    seed: int
    instruction: str
    outcome: str = "timeout"  # or "success", "wrong", "stopped"
    reason: str = ""  # of "stopped": what the runner said
    ticks: int = 0
    chunks: int = 0
    starved_ticks: int = 0
    late_chunks: int = 0
    refused_chunks: int = 0
    overruns: int = 0  # joint commands skipped because one before came late
    commands: int = 0  # joint commands toward a target
    smoothed: int = 0  # of them, those that the safety filter changed
    seam_jump_max: float = 0.0  # rad
    obs_age_p99: float = 0.0  # s
    tracking_rms: float = 0.0  # rad between command and measured joints
    safety: dict[str, int] = field(default_factory=dict)
    joints: JointTrace | None = None


def offsets(model: Model, execute: int) -> list[int]:
    """Control ticks of the frames of an observation when a chunk is replaced after `execute` ticks.

    A checkpoint names them for chunks that are run to their end; those of shorter ones lie closer together.
    """
    return [round(tick * execute / model.horizon) for tick in model.embodiment.frame_offsets]


class ClosedLoop:
    """One arm, one session, episode after episode: in virtual time, or in real time with the threads of a real robot.

    Args:
        model: what to run; its embodiment must be the scene's.
        settings: how.
    """

    def __init__(self, model: Model, settings: Settings):
        self.model, self.settings, self.film = model, settings, None
        self.execute = settings.execute or max(1, model.horizon // 2)
        if self.execute > model.horizon:
            raise ConfigError(f"--execute: wanted at most {model.horizon} ticks, a chunk, got {self.execute}")
        stride = max(self.execute, min(settings.delay or 0, model.horizon))  # no chunk comes before the last one
        pulled = {"trained_prefix": False} if settings.mode == "rtc_guided" else {}
        self.session = Session(model, steps=settings.steps, frame_offsets=offsets(model, stride), **pulled)
        self.world = sim.Tabletop()
        self.tick = 1.0 / model.embodiment.control_hz  # s
        sizes = {name: (height, width) for name, height, width in model.embodiment.cameras}
        self.hal = MuJoCo(self.world, cameras=sizes)
        self.policy = Watched(self.session)
        self.delay = settings.delay if settings.delay is not None else 0
        self.delay_source = "given"
        self.mode = settings.mode  # what "automatic" came to, once an episode has run

    def show(self, film: Film) -> None:
        """From now on, pictures go into `film`; in virtual time only, where making them takes no time from the arm."""
        self.film, self.policy.imagine = film, True

    def close(self) -> None:
        """Frees the renderer."""
        self.hal.close()

    def measure_delay(self, inferences: int = 6) -> None:
        """Sets the injected inference delay to what this machine needs, in whole control ticks, at least one."""
        self.world.reset(0, "touch")
        self.session.set_prompt(self.world.instruction)
        seconds = []
        for i in range(inferences):
            frames = 1 if i == 0 else len(self.session.frame_offsets())
            pictures = {
                name: np.stack([self.hal.picture(w, h)] * frames) for name, h, w in self.model.embodiment.cameras
            }
            observation = Observation(pictures, self.world.q, i)
            began = time.perf_counter()
            self.session.infer(observation)
            seconds.append(time.perf_counter() - began)
        self.session.reset()
        self.delay = max(1, math.ceil(float(np.median(seconds[1:])) / self.tick))
        self.delay_source = "measured"

    def options(self) -> dict:
        """Options of the runner."""
        s = self.settings
        return {
            "control_hz": s.servo_hz,
            "mode": s.mode,
            "execute_horizon": self.execute,
            "record": max(TIME_LIMIT.values()) + 5.0,
            **({} if s.soft is None else {"soft_ticks": s.soft}),
        }

    def runner(self) -> Runner | VirtualRunner:
        """A runner for one episode. In virtual time an inference takes a set number of ticks, else what it takes."""
        limits = self.model.embodiment.limits
        if self.settings.realtime:
            return Runner(self.policy, self.hal, limits, **self.options())
        return VirtualRunner(self.policy, self.hal, limits, delay_ticks=self.delay, **self.options())

    def run(self, episode: Episode, progress: Callable[[Episode, float], None], title: str) -> Episode:
        """Runs one episode to its end.

        Args:
            episode: names task and seed; the rest is filled in.
            progress: called every control tick with the episode and the last inference's time, s.
            title: small print of the video.
        """
        self.session.reset()
        self.policy.begin()
        episode.instruction = self.world.reset(episode.seed, episode.task)
        self.session.set_prompt(episode.instruction)
        runner = self.runner()
        advance = runner.wait if self.settings.realtime else runner.run
        try:
            runner.start()
            limit = round(TIME_LIMIT[episode.task] / self.tick)
            while not self.world.done and runner.running and self.world.tick < limit:
                if self.film:
                    self._film(episode, title, runner.tick)
                advance(self.tick)
                episode.ticks = self.world.tick
                progress(episode, self.policy.seconds[-1] if self.policy.seconds else 0.0)
            if self.world.done:
                episode.outcome = "success" if self.world.success else "wrong"
        except RobotError as e:  # the run has ended itself and the arm stands; the next episode starts afresh
            episode.outcome, episode.reason = "stopped", str(e)
        finally:
            stats = runner.stats  # before the stop, which counts as one
            self.mode = stats["mode"]
            tick = runner.tick if self.film else 0
            runner.stop()
            self.stats, self.record = stats, runner.record()  # of the last episode
        for _ in range(round(LAST_LOOK / self.tick) if self.film else 0):
            self._film(episode, title, tick, episode.outcome)
        self._account(episode, stats, self.record)
        return episode

    def _film(self, episode: Episode, title: str, tick: int, verdict: str = "") -> None:
        age = (tick - self.policy.chunks[-1].obs_tick) * self.tick if self.policy.chunks else 0.0
        shot = Shot(
            camera=self.hal.picture(*CAMERA),
            imagined=self.policy.imagined,
            age=age,
            instruction=episode.instruction,
            status=f"{title}   {episode.ticks * self.tick:4.1f} s   chunk {len(self.policy.chunks)}",
            verdict=verdict,
        )
        self.film.add(compose(shot))

    def _account(self, episode: Episode, stats: dict, record: dict[str, np.ndarray]) -> None:
        episode.chunks, episode.refused_chunks = stats["chunks"], stats["refused_chunks"]
        episode.starved_ticks, episode.late_chunks = stats["starved_ticks"], stats["late_chunks"]
        episode.overruns = stats["overruns"]
        episode.seam_jump_max, episode.obs_age_p99 = stats["seam_jump"]["max"], stats["obs_age"]["p99"]
        following = record["phase"] == PHASES.index("follow")
        episode.commands = int(following.sum())
        episode.smoothed = int((following & (record["reason"] != 0)).sum())
        episode.safety = {name: count for name, count in stats["safety"].items() if count}
        t, error = record["tick"] * self.tick, record["command"] - record["measured"]
        episode.tracking_rms = float(np.sqrt(np.mean(error**2))) if error.size else 0.0
        rows = np.arange(self.model.horizon)
        episode.joints = JointTrace(
            title=f"{episode.task}: “{episode.instruction}” ({episode.outcome})",
            t=t,
            command=record["command"],
            measured=record["measured"],
            chunk=record["chunk"],
            targets=[((c.obs_tick + rows) * self.tick, c.q.copy()) for c in self.policy.chunks],
        )
