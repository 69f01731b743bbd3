"""The ``wamcore`` command; also ``python -m wamcore``."""

import argparse
from pathlib import Path

from . import __version__, _core


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    root = Path(_core.__file__).parent  # the compiled part, which is right for editable installs too
    parser = argparse.ArgumentParser(prog="wamcore", description="Runs World Action Models on robots.")
    parser.add_argument("--version", action="version", version=f"wamcore {__version__}")
    where = parser.add_mutually_exclusive_group()
    for flag, path, what in (
        ("--cmake-dir", root / "lib" / "cmake" / "wamcore", "the CMake package, for -Dwamcore_DIR="),
        ("--pkgconfig-dir", root / "lib" / "pkgconfig", "wamcore.pc, for PKG_CONFIG_PATH="),
        ("--include-dir", root / "include", "the C++ headers"),
        ("--lib-dir", root / "lib", "libwamcore"),
    ):
        where.add_argument(
            flag, dest="path", action="store_const", const=path, help=f"print the folder of {what}, and exit"
        )
    args = parser.parse_args(argv)
    if args.path is None:
        parser.error("nothing to do: see --help")
    print(args.path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
