"""The stub _core.pyi against the compiled module: the same names, arguments, and a word on each of them."""

import ast
import re
from pathlib import Path

import pytest
import wamcore
from wamcore import _core

TREE = ast.parse((Path(__file__).resolve().parents[2] / "python/wamcore/_core.pyi").read_text())
CLASSES = {node.name: node for node in TREE.body if isinstance(node, ast.ClassDef)}
FUNCTIONS = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef)}
PUBLIC = [name for name in CLASSES if name[0] != "_"]  # the others are bases that exist only in the stub
ENUMS = (_core.Mode, _core.Status, _core.StopKind)
SPECIAL = ("__init__", "__enter__", "__exit__", "__len__", "__contains__")


def stub_members(name):
    """Name -> node of what a class of the stub holds, with the bases that exist only there."""
    out = {}
    for base in CLASSES[name].bases:
        if isinstance(base, ast.Name) and base.id.startswith("_"):
            out |= stub_members(base.id)
    for node in CLASSES[name].body:
        if isinstance(node, ast.FunctionDef):
            out[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            out[node.target.id] = node
    return out


def signature(thing):
    """A docstring's first line if it is a signature, as pybind11 writes it, else ""."""
    line = (thing.__doc__ or "").split("\n")[0]
    return line if re.match(r"\w+\(", line) else ""


def check_arguments(where, stub, thing):
    line = signature(thing)
    if not line or stub.name in SPECIAL[1:]:  # the language says what those take
        return
    wanted = [a for a in re.findall(r"[(,] ?(\w+): ", line) if a != "self"]
    got = [a.arg for a in (*stub.args.args, *stub.args.kwonlyargs) if a.arg != "self"]
    if "**kwargs" in line:  # the stub spells the options out
        got = got[: len(wanted)]
    assert got == wanted, f"{where}: the stub differs from {line}"


def test_names():
    module = {name for name in dir(_core) if name[0] != "_"}
    values = {node.target.id for node in TREE.body if isinstance(node, ast.AnnAssign)} - {"__version__"}
    assert module == set(PUBLIC) | set(FUNCTIONS) | values
    for name, stub in FUNCTIONS.items():
        check_arguments(name, stub, getattr(_core, name))


@pytest.mark.parametrize("name", PUBLIC)
def test_members(name):
    cls, stub = getattr(_core, name), stub_members(name)
    have = {m for m in vars(cls) if m[0] != "_" or (m in SPECIAL and signature(vars(cls)[m]))}
    if cls in ENUMS:
        have -= {"__init__"}  # nobody calls it
    assert set(stub) == have
    for member, node in stub.items():
        thing, where = vars(cls)[member], f"{name}.{member}"
        thing = getattr(thing, "__func__", thing)
        if isinstance(node, ast.AnnAssign):
            assert isinstance(thing, cls) if cls in ENUMS else thing.fset, f"{where} cannot be assigned to"
        elif isinstance(thing, property):
            assert [d.id for d in node.decorator_list] == ["property"] and not thing.fset, where
        else:
            check_arguments(where, node, thing)


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_says_what_it_is(name):
    cls = getattr(_core, name)
    assert cls.__doc__
    for member, thing in vars(cls).items():
        if member[0] != "_" and cls not in ENUMS:
            text = getattr(thing, "__func__", thing).__doc__ or ""
            assert len(text.strip().split("\n")) > 1 or (isinstance(thing, property) and text), f"{name}.{member}"


@pytest.mark.parametrize("name", ["SafetyFilter", "Runner", "VirtualRunner"])
def test_options_are_known(name):
    options = [a.arg for a in stub_members(name)["__init__"].args.kwonlyargs]
    limits = wamcore.JointLimits(["a"], [-1], [1], [1], [10])
    robot = (wamcore.Policy(), wamcore.MockHal(joints=["a"]))
    for option in options:
        with pytest.raises((wamcore.ConfigError, TypeError)) as refused:
            getattr(wamcore, name)(*(robot if "Runner" in name else ()), limits, **{option: object()})
        assert "unknown option" not in str(refused.value)
        assert re.search(rf"\b{option}\b", getattr(wamcore, name).__doc__), f"{name}: {option} is not described"
