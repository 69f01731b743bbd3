#!/usr/bin/env bash
# Installs into VENV what building and checking the CUDA plugin needs and the system lacks: the compiler, in a release that
# fits, cuobjdump and nvdisasm. No GPU and no driver take part.
# usage: cuda_tools.sh VENV
set -euo pipefail
bin=$1/bin
wanted=$("$bin/python" - <<'PY'
import re
text = open("pyproject.toml").read()
print(*re.findall(r'"(nvidia-[\w.-]+==[\w.]+)"', text[text.index("if.env.WAMCORE_CUDA"):]))
PY
)
need=()
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [ -z "$nvcc" ] || ! "$nvcc" --version | grep -q 'release 13\.'; then
  need+=(nvidia-cuda-nvcc nvidia-cuda-crt nvidia-nvvm nvidia-cuda-runtime nvidia-cuda-cccl)
fi
packages=()
for name in ${need[@]+"${need[@]}"}; do
  for package in $wanted; do [ "${package%%==*}" = "$name" ] && packages+=("$package"); done
done
command -v cuobjdump >/dev/null || packages+=(nvidia-cuda-cuobjdump==13.2.51)
command -v nvdisasm >/dev/null || packages+=(nvidia-cuda-nvdisasm==13.2.51)
[ ${#packages[@]} = 0 ] || "$bin/python" -m pip install --no-deps "${packages[@]}"
