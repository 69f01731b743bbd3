"""Runs a command and fails when it and its children took more CPU time than they may.

    python scripts/budget.py SECONDS COMMAND ...

CPU time, because the wall clock of a busy machine says nothing about the work.
"""

import resource
import subprocess
import sys


def main(budget: float, command: list[str]) -> int:
    code = subprocess.run(command).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"  {' '.join(command[:2])} took {cpu:.0f} CPU-s (budget {budget:.0f})", flush=True)
    if code == 0 and cpu > budget:
        print(f"budget.py: over the budget: wanted <= {budget:.0f} CPU-s, got {cpu:.0f}", file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
