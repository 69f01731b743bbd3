"""What the tracked files as a whole must keep to."""

import re
from pathlib import Path

# A path of one person's machine: a home folder, or a checkout somewhere under a top-level folder.
MACHINE_PATH = re.compile(rb"(?<![\w.$}/-])/(?:home|root|Users|work|mnt|workspace)/[\w.-]+")


def test_no_tracked_file_names_a_path_of_one_machine(tracked_files: list[Path], root: Path):
    found = []
    for path in tracked_files:
        if path.is_file() and (match := MACHINE_PATH.search(path.read_bytes())):
            found.append(f"{path.relative_to(root)}: {match[0].decode()}")
    assert not found, "\n".join(found)


def test_the_pattern_catches_one():
    assert MACHINE_PATH.search(b'open("' + b"/home" + b'/me/data.txt")')
    assert not MACHINE_PATH.search(b"a/work/b ${X}/root/y")


def test_no_large_file_slips_in(tracked_files: list[Path], root: Path):
    large = [p for p in tracked_files if p.is_file() and p.stat().st_size > 12 * 1024 * 1024]
    assert not large, f"over 12 MiB: {[str(p.relative_to(root)) for p in large]}"
