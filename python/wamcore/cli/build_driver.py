"""`wamcore build-driver`: compiles a robot driver against what is installed here."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..hal.build import DRIVERS, build_driver


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "It prints the shared library, for wamcore.hal.load or the [driver] table of a robot.toml."
    parser.add_argument("driver", choices=DRIVERS, help="mujoco: the physics of an MJCF file, in C++")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where it is kept (default: the user's cache folder)")
    parser.add_argument("--rebuild", action="store_true", help="compile even if it is there")


def run(args: argparse.Namespace) -> int:
    print(build_driver(args.driver, folder=args.out, rebuild=args.rebuild))
    return 0
