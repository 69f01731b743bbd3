"""An include never points up: reads every #include of the C++ code and checks it against the table of layers."""

import re
from pathlib import Path

import pytest

# layer -> the layers it may include, besides itself. Public headers (csrc/include) are open to all but kernels.
BELOW = {
    "kernels": set(),
    "include": set(),
    "core": {"include", "kernels"},
    "io": {"include", "core", "kernels"},
    "backend": {"include", "core", "kernels"},
    "model": {"include", "core", "kernels", "io", "backend"},
    "flow": {"include", "core", "kernels", "io", "backend", "model"},
    "session": {"include", "core", "kernels", "io", "backend", "model", "flow"},
    "safety": {"include", "core"},
    "hal": {"include", "core"},
    "runtime": {"include", "core", "safety", "hal"},  # sessions only through the public wamcore/policy.h
    "bindings": {
        "include", "kernels", "core", "io", "backend", "model", "flow", "session", "safety", "hal", "runtime",
    },
}  # fmt: skip

# <headers> that are no part of the standard library -> the places that may use them.
FOREIGN = {
    re.compile(r"^(pybind11|nanobind)/|^Python\.h$"): re.compile(r"^csrc/bindings/"),
    re.compile(r"^cuda|^cublas|^cutlass/|^cute/|^mma\.h$"): re.compile(r"^(kernels|csrc/backend)/cuda/"),
    re.compile(r"^(torch|ATen|c10)/"): re.compile(r"(?!)"),
    # the system's own interfaces stay out of public headers; the C interface of drivers is C
    re.compile(r"\.h$"): re.compile(r"^(csrc/(?!include/)|csrc/include/wamcore/hal_abi\.h$|kernels/)"),
}
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]', re.M)
SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}


def layer_of(path: str) -> str:
    parts = path.split("/")
    return "kernels" if parts[0] == "kernels" else parts[1]


def resolve(name: str, file: str, root: Path) -> str | None:
    """The file that `#include "name"` in `file` means, relative to the root."""
    for folder in (str(Path(file).parent), "csrc/include", "kernels/include", "csrc"):
        path = Path(root, folder, name).resolve()
        if path.is_file():
            return path.relative_to(root).as_posix()
    return None


def violations(file: str, text: str, root: Path) -> list[str]:
    found = []
    layer = layer_of(file)
    for quote, name in INCLUDE.findall(text):
        if quote == "<":
            for pattern, allowed in FOREIGN.items():
                if pattern.search(name):
                    if not allowed.search(file):
                        found.append(f"{file}: <{name}> does not belong here")
                    break
            continue
        target = resolve(name, file, root)
        if target is None:
            found.append(f'{file}: "{name}" is no file of ours')
        elif (to := layer_of(target)) != layer and to not in BELOW[layer]:
            found.append(f'{file}: {layer} may not include {to} ("{name}")')
    return found


def sources(root: Path) -> list[str]:
    files = [p for top in ("csrc", "kernels") for p in (root / top).rglob("*") if p.suffix in SUFFIXES]
    return sorted(p.relative_to(root).as_posix() for p in files)


def test_every_folder_is_a_known_layer(root: Path):
    assert sources(root), "no sources found"
    unknown = {layer_of(file) for file in sources(root)} - set(BELOW)
    assert not unknown, f"folders of csrc that the table of layers does not name: {sorted(unknown)}"


def test_no_include_points_up(root: Path):
    found = [v for file in sources(root) for v in violations(file, (root / file).read_text(), root)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "file, line, complaint",
    [
        ("kernels/cpu/x.cpp", '#include "wamcore/error.h"', "kernels may not include include"),
        ("csrc/include/wamcore/x.h", '#include "core/arena.h"', "include may not include core"),
        ("csrc/include/wamcore/x.h", "#include <cuda_runtime.h>", "<cuda_runtime.h> does not belong here"),
        ("csrc/include/wamcore/x.h", "#include <unistd.h>", "<unistd.h> does not belong here"),
        ("csrc/core/x.cpp", "#include <pybind11/pybind11.h>", "does not belong here"),
        ("csrc/safety/x.cpp", '#include "wamcore/kernels/gemm.h"', "safety may not include kernels"),
        ("csrc/core/x.cpp", "#  include <torch/torch.h>", "does not belong here"),
        ("csrc/core/x.cpp", '#include "no/such/file.h"', "no file of ours"),
    ],
)
def test_the_check_catches(file: str, line: str, complaint: str, root: Path):
    assert any(complaint in v for v in violations(file, line, root))


@pytest.mark.parametrize(
    "file, line",
    [
        ("csrc/core/x.cpp", '#include "wamcore/kernels/team.h"'),
        ("csrc/core/x.cpp", "#include <vector>\n#include <sys/mman.h>"),
        ("csrc/bindings/x.cpp", "#include <pybind11/pybind11.h>"),
    ],
)
def test_the_check_allows(file: str, line: str, root: Path):
    assert violations(file, line, root) == []
