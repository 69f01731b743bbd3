#!/usr/bin/env bash
# Makes the virtual environment VENV with what the build needs. CMake and Ninja come from the system when they are new
# enough, else from the package index.   usage: PYTHON=python3 make_venv.sh VENV
set -euo pipefail
venv=$1
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
PATH=$(realpath "$venv")/bin:$PATH

# the build requirements, written down once in pyproject.toml
mapfile -t wanted < <(python - <<'PY'
import ast, re
line = re.search(r"^requires = (\[.*\])$", open("pyproject.toml").read(), re.M)
print(*ast.literal_eval(line[1]), sep="\n")
PY
)
version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p' || true)
{ [ -n "$version" ] && printf '3.25\n%s\n' "$version" | sort -CV; } || wanted+=("cmake>=3.25")
command -v ninja >/dev/null || wanted+=(ninja)
python -m pip install "${wanted[@]}"
