"""Installs this checkout into the running environment, showing the compiler's progress and what the build cost.

    python scripts/install.py EXTRAS     e.g. sim,test

Fails when the build took more CPU time than the project allows itself.
"""

import collections
import re
import resource
import subprocess
import sys

BUDGET_S = 300  # CPU seconds for `pip install .` from nothing, without CUDA


def main(extras: str) -> int:
    # Without isolation the compilers' inputs stay where they are, so a second build is incremental.
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", f".[{extras}]"]
    print("$ pip install --no-build-isolation", command[-1], flush=True)
    last = collections.deque(maxlen=200)
    tty = sys.stdout.isatty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout:
            last.append(line)
            if step := re.match(r"\s*\[(\d+)/(\d+)\] (.*)", line):
                done, total, what = int(step[1]), int(step[2]), step[3]
                if tty:
                    print(f"\r\033[K  [{done}/{total}] {what[:90]}", end="", flush=True)
                elif done % max(1, total // 10) == 0 or done == total:
                    print(f"  [{done}/{total}] {what[:90]}", flush=True)
            elif re.match(r"\s*(Collecting|Downloading|Installing collected|Successfully installed)\b", line):
                print(("\r\033[K" if tty else "") + "  " + line.strip()[:150], flush=True)
    if pip.returncode:
        print("".join(last), file=sys.stderr)
        return pip.returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"  pip install took {cpu:.0f} CPU-s (budget {BUDGET_S})", flush=True)
    if cpu > BUDGET_S:
        print(f"install.py: the build is over its budget: wanted <= {BUDGET_S} CPU-s, got {cpu:.0f}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
