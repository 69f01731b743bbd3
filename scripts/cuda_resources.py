"""Reads what the compiler made of every CUDA kernel and holds it against the checked-in table of limits.

    python scripts/cuda_resources.py libwamcore_cuda.so kernels/cuda/resources.json [--json report.json] [--write]

Each kernel has a row, by its name or by a pattern: the registers it may use (most over all architectures; exactly these
where warps hand registers to each other), whether it is hot (then it may use no stack, spill nothing and touch no local
memory), instructions its machine code must contain ("A|B": one of them), and the architectures where the compiler
emulates these: there the kernel runs to be compared, never for speed, and is held to nothing. A kernel without a row
fails, and so does a row without a kernel. --write makes the register limits what the kernels use now, in the steps of 8
in which a GPU hands them out; rows keep the rest. This says nothing about speed.
"""

import argparse
import fnmatch
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path


def tool(name: str) -> str:
    """The tool of the system, or of the nvidia-cuda-... packages of this environment."""
    if found := shutil.which(name):
        return found
    for folder in map(Path, sys.path):
        for path in sorted(folder.glob(f"nvidia/cu*/bin/{name}")):
            return str(path)
    sys.exit(f"cuda_resources.py: {name} is missing: pip install nvidia-cuda-{name}")


def read(library: str, *flags: str) -> list[str]:
    cuobjdump, nvdisasm = tool("cuobjdump"), tool("nvdisasm")
    path = f"{Path(nvdisasm).parent}:/usr/bin:/bin"
    done = subprocess.run([cuobjdump, *flags, library], capture_output=True, text=True, env={"PATH": path})
    if done.returncode:
        sys.exit(f"cuda_resources.py: {cuobjdump} {' '.join(flags)} failed: {done.stderr.strip()}")
    return done.stdout.splitlines()


def short(names: set[str]) -> dict[str, str]:
    """Mangled names to what the table calls them: without namespaces, arguments and the word void."""
    ordered = sorted(names)
    text = subprocess.run(["c++filt"], input="\n".join(ordered), capture_output=True, text=True, check=True).stdout
    result = {}
    for mangled, name in zip(ordered, text.splitlines(), strict=True):
        name = name.removeprefix("void ").replace("wam::kernels::cuda::", "")
        depth = 0
        for i, c in enumerate(name):  # up to the parenthesis of the arguments, past those inside <...>
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                name = name[:i]
                break
        result[mangled] = re.sub(r"\((?:int|bool|wam::\S*|GemmEpilogue)\)", "", name)
    return result


def kernels(library: str) -> dict[str, dict[str, dict]]:
    """name -> architecture -> registers, stack, local, shared (bytes) and a count of instructions."""
    found: dict[tuple[str, str], dict] = {}
    arch = name = ""
    for line in read(library, "-res-usage"):
        if m := re.search(r"^arch = (\S+)", line):
            arch = m[1]
        elif m := re.search(r"Function (\S+?):", line):
            name = m[1]
        elif m := re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
            found[name, arch] = dict(zip(("registers", "stack", "shared", "local"), map(int, m.groups()), strict=True))
    for line in read(library, "-sass"):
        if m := re.search(r"^\s*code for (\S+)", line):
            arch = m[1]
        elif m := re.search(r"Function : (\S+)", line):
            count = found[m[1], arch]["instructions"] = Counter()
        elif m := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_]*)", line):
            count[m[1]] += 1
    names = short({mangled for mangled, _ in found})
    result: dict[str, dict[str, dict]] = {}
    for (mangled, arch), facts in found.items():
        result.setdefault(names[mangled], {})[arch] = facts
    return result


def complaints(name: str, archs: dict[str, dict], limit: dict) -> list[str]:
    found = []
    for arch, k in sorted(archs.items()):
        count = k["instructions"]
        where = f"{name} on {arch}"
        if k["registers"] > limit["registers"]:
            found.append(f"{where}: {k['registers']} registers, allowed are {limit['registers']}")
        # Its warps hand registers to each other: with fewer at the start, whoever wants more waits for ever.
        if count["USETMAXREG"] and k["registers"] != limit["registers"]:
            found.append(f"{where}: {k['registers']} registers to be shared out, wanted are {limit['registers']}")
        if limit["hot"]:
            found += [f"{where}: {k[kind]} bytes of {kind} in a hot kernel" for kind in ("stack", "local") if k[kind]]
            found += [f"{where}: {count[op]} {op} in a hot kernel" for op in ("LDL", "STL") if count[op]]
        for need in limit.get("needs", []):
            if not any(count[op] for op in need.split("|")):
                found.append(f"{where}: no {need} in its machine code")
    return found


def held(archs: dict[str, dict], limit: dict) -> dict[str, dict]:
    """The architectures on which a kernel is held to its limits."""
    return {arch: k for arch, k in archs.items() if arch not in limit.get("emulated", [])}


def row_of(name: str, limits: dict) -> str | None:
    """The row that a kernel falls under: its own, else the first whose pattern fits."""
    return name if name in limits else next((key for key in limits if fnmatch.fnmatchcase(name, key)), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("table", type=Path)
    parser.add_argument("--json", type=Path, help="write what was read here")
    parser.add_argument("--write", action="store_true", help="set the table's register limits to what is used now")
    args = parser.parse_args()
    table = json.loads(args.table.read_text())
    built = kernels(args.library)
    if args.json:
        args.json.write_text(json.dumps(built, indent=1, sort_keys=True) + "\n")
    limits = table["kernels"]
    built = {name: held(archs, limits.get(row_of(name, limits) or "", {})) for name, archs in built.items()}
    most = {name: max((k["registers"] for k in archs.values()), default=0) for name, archs in built.items()}
    if args.write:
        rows = {}
        for name, registers in most.items():
            key = row_of(name, limits) or name
            known = rows.get(key) or {"hot": True} | limits.get(key, {}) | {"registers": 0}
            rows[key] = known | {"registers": max(known["registers"], -(-registers // 8) * 8)}
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
        text = json.dumps(table | {"kernels": None}, indent=1).replace("null", "{\n" + lines + "\n }")
        args.table.write_text(text + "\n")
        return 0
    rows = {name: row_of(name, limits) for name in built}
    found = [f"{name}: the table has no row for it" for name in sorted(built) if rows[name] is None]
    unused = limits.keys() - set(rows.values())
    found += [f"{name}: in the table, but not in the library" for name in sorted(unused)]
    for name in sorted(built):
        if rows[name] is not None:
            found += complaints(name, built[name], limits[rows[name]])
    size = Path(args.library).stat().st_size
    if size > table["library_bytes"]:
        found.append(f"{args.library}: {size} bytes, allowed are {table['library_bytes']}")
    for name, archs in sorted(built.items()):
        spilled = max((k["instructions"]["LDL"] + k["instructions"]["STL"] for k in archs.values()), default=0)
        stack = max((k["stack"] for k in archs.values()), default=0)
        use = f"{most[name]:>4} registers  {stack:>4} B stack  {spilled:>3} local accesses"
        print(f"  {use}  {name}  {' '.join(sorted(archs))}")
    print("\n".join(["", *found]) if found else f"  {len(built)} kernels within their limits, {size / 1e6:.1f} MB")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
