"""Episodes of one mode and delay, added up; kept in a folder so that a long measurement may be interrupted."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._core import JointLimits
from .tables import wilson

COUNTS = ("ticks", "starved_ticks", "late_chunks", "refused_chunks", "chunks")
BATCH = 50  # episodes between two looks at the disk


class Sums:
    """Adds up the episodes of one mode and delay.

    Args:
        limits: JointLimits of the arm.
        period: s of a servo cycle.
        tick: s of a control tick.
    """

    def __init__(self, limits: JointLimits, period: float, tick: float):
        self.limits, self.period, self.tick = limits, period, tick
        self.outcomes: dict[int, str] = {}  # by the world's seed
        self.arrays: dict[str, list[np.ndarray]] = {
            "seam": [],  # [n] rad, largest joint
            "jump": [],  # [n, dof] rad
            "jerk": [],  # [n, dof] rad/s^3
            "age": [],  # [n] s
            "seconds": [],  # [episodes] s until it was decided
        }
        self.delays = np.zeros(32, np.int64)
        self.count = dict.fromkeys(COUNTS, 0)
        self.limited = self.following = 0

    def add(self, episode, stats: dict, record: dict[str, np.ndarray]) -> None:
        self.outcomes[episode.seed] = episode.outcome
        for key in COUNTS:
            self.count[key] += stats[key]
        for rows, n in stats["delay_ticks"].items():
            self.delays[rows] += n
        command, reference, chunk = record["command"], record["reference"], record["chunk"]
        seams = np.flatnonzero((chunk[1:] != chunk[:-1]) & (chunk[1:] >= 0) & (chunk[:-1] >= 0)) + 1
        seams = seams[seams + 1 < len(chunk)]
        speed = np.abs(reference[seams + 1] - reference[seams])
        jump = np.abs(command[seams] - command[seams - 1]) - speed
        following = record["phase"] == 1
        self.following += int(following.sum())
        self.limited += int((following & (record["reason"] != 0)).sum())
        new = {
            "seam": record["seam"][seams],
            "jump": np.where(np.isfinite(jump), jump, 0.0).clip(0),
            "jerk": np.abs(np.diff(command, 3, axis=0)) / self.period**3,
            "age": record["obs_age"][following],
            "seconds": np.array([episode.ticks * self.tick]),
        }
        for name, values in new.items():
            self.arrays[name].append(values)

    def save(self, path: Path) -> None:
        """Writes what was added; the file appears whole or not at all."""
        draft = path.with_suffix(".tmp")
        with draft.open("wb") as f:
            np.savez_compressed(
                f,
                seeds=np.array(list(self.outcomes), np.int64),
                outcomes=np.array(list(self.outcomes.values())),
                delays=self.delays,
                counts=np.array([*self.count.values(), self.limited, self.following]),
                **{name: np.concatenate(values) for name, values in self.arrays.items()},
            )
        draft.rename(path)

    def load(self, path: Path) -> None:
        """Adds what another wrote."""
        with np.load(path) as part:
            self.outcomes |= zip(part["seeds"].tolist(), part["outcomes"].tolist(), strict=True)
            self.delays += part["delays"]
            *counts, limited, following = part["counts"].tolist()
            for name in self.arrays:
                self.arrays[name].append(part[name])
        for key, n in zip(COUNTS, counts, strict=True):
            self.count[key] += n
        self.limited += limited
        self.following += following

    def result(self) -> dict:
        """Plain data: counts and quantiles."""
        n, good = len(self.outcomes), list(self.outcomes.values()).count("success")
        low, high = wilson(good, n)
        per_tick = float(self.limits.velocity.max()) * self.tick
        seam, jump, jerk, age, seconds = (np.concatenate(x) for x in self.arrays.values())
        share = (jerk / self.limits.jerk).max(1, initial=0)
        at = lambda a, q: float(np.quantile(a, q)) if a.size else 0.0  # noqa: E731
        return {
            "episodes": n,
            "success": good,
            "interval_95": [round(low, 4), round(high, 4)],
            "failed": {str(seed): o for seed, o in sorted(self.outcomes.items()) if o != "success"},
            "seconds_p50": at(seconds, 0.5),
            "seam_rad": {"p50": at(seam, 0.5), "p99": at(seam, 0.99), "max": at(seam, 1)},
            "seam_vmax_dt": {"p50": at(seam, 0.5) / per_tick, "p99": at(seam, 0.99) / per_tick},
            "jump_rad": {"p50": at(jump.max(1, initial=0), 0.5), "p99": at(jump.max(1, initial=0), 0.99)},
            "jerk_rad_s3": {"rms": float(np.sqrt(np.mean(jerk**2))) if jerk.size else 0.0, "p99": at(jerk, 0.99)},
            "jerk_share": {"p50": at(share, 0.5), "p99": at(share, 0.99), "max": at(share, 1)},
            "obs_age_s": {"p50": at(age, 0.5), "p99": at(age, 0.99), "p999": at(age, 0.999)},
            "delay_rows": {str(i): int(v) for i, v in enumerate(self.delays) if v},
            "limited": self.limited / max(1, self.following),
            **self.count,
        }


def paired(one: dict[int, str], other: dict[int, str]) -> dict:
    """Difference of success, in points, on the worlds that both have seen, with its 95 % interval; outcomes by seed."""
    seeds = one.keys() & other.keys()
    d = 100.0 * np.array([(one[s] == "success") - (other[s] == "success") for s in seeds], float)
    n = len(d)
    half = 1.96 * float(d.std(ddof=1)) / np.sqrt(n) if n > 1 else 100.0
    return {"points": round(float(d.mean()) if n else 0.0, 2), "half_width_95": round(float(half), 2), "episodes": n}
