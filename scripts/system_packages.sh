#!/usr/bin/env bash
# Makes sure that what only the system can provide is there. As root it installs the missing Debian packages; anybody
# else gets the one line to run.   usage: PYTHON=python3 system_packages.sh build|render|test|aarch64 ...
set -euo pipefail
python=${PYTHON:-python3}
missing=()

need_build() {
  command -v c++ >/dev/null || command -v g++ >/dev/null || missing+=(g++)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  "$python" -c 'import os, sysconfig as s; raise SystemExit(not os.path.exists(s.get_path("include") + "/Python.h"))' ||
    missing+=(python3-dev)
}

# MuJoCo draws off screen through OSMesa or EGL; either will do. EGL also wants a driver: Mesa's software one or a GPU's.
need_render() {
  "$python" - <<'PY' || missing+=("$(osmesa_or_egl)")
import ctypes.util, glob
find = ctypes.util.find_library
drivers = glob.glob("/usr/share/glvnd/egl_vendor.d/*.json") + glob.glob("/etc/glvnd/egl_vendor.d/*.json")
raise SystemExit(not (find("OSMesa") or (find("EGL") and find("OpenGL") and drivers)))
PY
}
# Mesa has dropped OSMesa, so recent releases have only the other.
osmesa_or_egl() {
  if apt-cache show libosmesa6 >/dev/null 2>&1; then echo libosmesa6; else echo "libegl1 libopengl0 libgl1-mesa-dri"; fi
}

need_test() {
  command -v pkg-config >/dev/null || missing+=(pkg-config)
}

need_aarch64() {
  command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
  command -v qemu-aarch64 >/dev/null || command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user)
}

refreshed=
refresh() {  # package lists, once
  [ "$(id -u)" = 0 ] && [ -z "$refreshed" ] && command -v apt-get >/dev/null || return 0
  apt-get -qq update </dev/null
  refreshed=1
}

"$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 10))' || {
  echo "wamcore needs Python 3.10 or newer; $python is $("$python" -V). Set PYTHON=..." >&2
  exit 1
}
for group in "$@"; do "need_$group"; done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # look again with fresh lists: which rendering package exists is read from them
  refresh
  missing=()
  for group in "$@"; do "need_$group"; done
  echo "installing Debian packages: ${missing[*]}"
  # shellcheck disable=SC2048,SC2086  # an entry may hold several names
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends ${missing[*]} </dev/null
else
  echo "Some system packages are missing. Please run:" >&2
  echo "    sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
