"""Finds golden data and hands it to tests.

WAMCORE_GOLDEN lists folders, separated by ':'; each has a manifest.json. Without it ../shared/reference/*/golden is
taken, from the root of the repository. A test is parametrized with the cases whose file names start with some prefix:

    @golden.parametrize("dit_i2v", "dit_ti2v")
    def test_model(case):
        tensors = case.tensors()                              # name -> numpy array
        weights = golden.weights("dit_i2v_weights")           # the same, from whichever folder has the file
        golden.check(mine, tensors["video_pred"], 1e-4, "video_pred")

Data that is not there makes a skip with a reason. Under WAMCORE_REQUIRE_GOLDEN=1 such a skip is a failure for the kinds
below, which are DreamZero's; a file of no known kind is another family's and may skip. Two folders may hold files of
the same name: equal ones count once, different ones are two cases, and neither can be had by name.
"""

import filecmp
import functools
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]

# kind of a file: the first pattern that its stem matches from the start; none: it is of a family that does not run yet
KINDS = (
    ("weights", r"(dit_t?i2v|vae\d+_(enc|dec)|t5|clip)_weights$"),
    ("dit_block", r"dit_block_"),
    ("dit_train", r"dit_.*_train"),
    ("dit_sequence", r"dit_"),
    ("vae_taps", r"vae\d+_forward_(enc|dec)_taps"),
    ("vae", r"vae\d+_forward"),
    ("t5", r"t5_"),
    ("clip", r"clip_"),
    ("schedulers", r"schedulers"),
    ("head", r"head_"),
    ("preprocess", r"pre_"),
    ("normalizer", r"normalizer"),
    ("metadata", r"transforms_metadata"),
    ("prompts", r"prompts"),
)


@dataclass(frozen=True)
class Case:
    """One golden file."""

    path: Path
    entry: dict = field(repr=False)  # of the manifest; empty if the file is not listed there

    @property
    def name(self):
        return self.path.stem

    @property
    def kind(self):
        """One of the names in KINDS, or "unknown"."""
        return next((kind for kind, pattern in KINDS if re.match(pattern, self.name)), "unknown")

    @property
    def config(self):
        return self.entry.get("config") or {}

    def tensors(self):
        """Name -> numpy array."""
        return load_file(self.path)

    def json(self):
        return json.loads(self.path.read_text())


def folders():
    listed = os.environ.get("WAMCORE_GOLDEN")
    if listed:
        return [Path(p) for p in listed.split(":") if p]
    return sorted((ROOT.parent / "shared" / "reference").glob("*/golden"))


@functools.cache
def all_cases():
    """Stem -> Cases of that name in all folders, without copies; one that is only listed counts if no file exists."""
    found = {}
    for folder in folders():
        manifest = folder / "manifest.json"
        listed = json.loads(manifest.read_text())["files"] if manifest.exists() else {}
        on_disk = [p.name for p in folder.glob("*.safetensors")]
        for name in dict.fromkeys([*listed, *sorted(on_disk)]):
            case = Case(folder / name, listed.get(name, {}))
            same = found.setdefault(case.name, [])
            if not case.path.exists():
                same.extend([] if same else [case])
            elif not any(c.path.exists() and filecmp.cmp(c.path, case.path, shallow=False) for c in same):
                same[:] = [*(c for c in same if c.path.exists()), case]
    return found


def cases(*prefixes):
    """All cases whose file name starts with one of the prefixes (none given: all)."""
    return [case for same in all_cases().values() for case in same if case.name.startswith(prefixes or "")]


def parametrize(*prefixes, kinds=None):
    """Run a test once for every case of these prefixes (and kinds), under the name of its file."""
    chosen = [case for case in cases(*prefixes) if kinds is None or case.kind in kinds]
    params = [pytest.param(case, id=case.name) for case in chosen]  # pytest numbers equal names
    return pytest.mark.parametrize("case", params or [pytest.param(None, id="no-golden-data")])


def skip(reason, case=None):
    """Leave a test out, or fail it if golden data is required and the case is of an implemented family."""
    excused = case is not None and case.kind == "unknown"
    if os.environ.get("WAMCORE_REQUIRE_GOLDEN") == "1" and not excused:
        pytest.fail(f"golden data is required: {reason}")
    pytest.skip(reason)


def need(case):
    """Skip unless the data of a parametrized case is there."""
    if case is None:
        skip(f"no golden data in {[str(f) for f in folders()] or 'any folder'}; set WAMCORE_GOLDEN")
    if not case.path.exists():
        skip(f"{case.path.name} is listed in the manifest but absent", case)
    if not case.entry:
        skip(f"{case.path.name} is not listed in the manifest", case)


def case(name):
    """The case of this name, whichever folder has it; skips if there is none, fails if folders disagree about it."""
    found = [c for c in all_cases().get(name, ()) if c.path.exists()]
    if not found:
        skip(f"no {name} in {[str(f) for f in folders()]}")
    if len(found) > 1:
        pytest.fail(f"{name}: the files {[str(c.path) for c in found]} differ")
    return found[0]


def weights(name):
    """Tensors of a weights file, whichever folder has it."""
    return case(name).tensors()


def error(got, want):
    """max|got - want| / max|want|, infinite for NaN; shapes must agree."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shape {got.shape}, wanted {want.shape}"
    value = np.abs(got - want).max(initial=0) / (np.abs(want).max(initial=0) + 1e-12)
    return value if np.isfinite(value) else float("inf")


def check(got, want, tolerance, what):
    """Assert that error(got, want) is within tolerance, naming what was compared; prints the error."""
    e = error(got, want)
    print(f"{e:.2e} {what}")
    assert e <= tolerance, f"{what}: error {e:.2e} above {tolerance:.0e}"
