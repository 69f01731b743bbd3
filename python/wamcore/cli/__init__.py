"""The `wamcore` command. Each subcommand is a module with `add_arguments(parser)` and `run(args) -> int`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from .. import __version__, _core

COMMANDS = {
    "run": "drive the simulated arm with a model, in closed loop",
    "drive": "move the robot of a robot.toml with a model",
    "build-driver": "compile a robot driver against what is installed here",
    "inspect": "what the flight record of a run holds",
    "info": "what is in a checkpoint",
    "doctor": "what this machine and this installation can do",
    "convert": "turn PyTorch files into safetensors",
    "bench": "where the time of an inference goes",
}


def module_of(command: str):
    """The module of a subcommand, imported on demand: help needs neither simulator nor torch."""
    return importlib.import_module("..convert" if command == "convert" else f".{command.replace('-', '_')}", __name__)


def parser_for(command: str | None) -> argparse.ArgumentParser:
    """The parser, with the options of `command` only."""
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
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, what in COMMANDS.items():
        sub = subparsers.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        sub.add_argument("--debug", action="store_true", help="show where an error came from")
        if name == command:
            module_of(name).add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0 done, 1 the command says no, 2 bad input."""
    argv = sys.argv[1:] if argv is None else argv
    command = next((a for a in argv if a in COMMANDS), None)
    parser = parser_for(command)
    args = parser.parse_args(argv)
    if args.path is not None:
        print(args.path)
        return 0
    if args.command is None:
        parser.error("nothing to do: see --help")
    try:
        return module_of(args.command).run(args)
    except BrokenPipeError:  # the reader of a pipe has gone, e.g. `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nwamcore: interrupted", file=sys.stderr)
        return 130
    except (_core.Error, OSError) as e:
        if args.debug:
            raise
        print(f"wamcore {args.command}: {type(e).__name__}: {e}", file=sys.stderr)
        return 2
