"""Turns PyTorch checkpoints into the safetensors folder that the runtime reads.

A checkpoint is opened only in a separate process, with ``torch.load(weights_only=True)`` and after its size has been
checked; the runtime itself never does. What that process wrote is read back with the runtime's own strict reader and
compared before the result appears under its final name. Names follow these rules:

* Nested dictionaries are joined with dots: ``{"model": {"w": t}}`` becomes ``model.w``.
* ``base_model.model.`` and ``.base_layer.``, which LoRA training leaves in names, are removed.
* ``X.lora_A.default.weight`` [r, in] and ``X.lora_B.default.weight`` [out, r] are merged:
  ``X.weight += alpha / r * B A``, computed in float32 and rounded once to the weight's own type.
* Nothing else is renamed, and nothing is left out unless ``select`` or ``drop`` says so; that is reported.

The config.json of an upstream DreamZero checkpoint is rewritten to the fields that the runtime reads; what is dropped
is reported, and a field that is not known is an error.
"""

import argparse
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import ConfigError, WeightError
from ._core import Embodiment, SafetensorsFile, WeightStore, check_config
from .upstream_config import MODEL_TYPE, runtime_config
from .upstream_embodiment import TAGS, joint_limits, read_json, upstream_embodiment

WORKER = Path(__file__).with_name("_convert_worker.py")
TORCH_ENDINGS = (".pt", ".pth", ".bin")
PICKLE_LIMIT = 64 << 20  # bytes; the structure of the largest checkpoints takes a few MB


@dataclass(frozen=True)
class Base:
    """Another checkpoint whose tensors join the result under a prefix; tensors of the main one take precedence."""

    prefix: str
    path: Path


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote."""

    path: Path
    files: list[str]
    tensors: int
    nbytes: int
    notes: list[str]  # everything that was dropped, merged, replaced or written twice


def convert(
    src: str | Path,
    dst: str | Path,
    *,
    base: Sequence[Base] = (),
    select: str | None = None,
    drop: Sequence[str] = (),
    lora_alpha: float | None = None,
    shard_bytes: int = 5_000_000_000,
    max_bytes: int = 200_000_000_000,
    embodiment: str | None = None,
    joints: str | Path | None = None,
    report: Callable[[str], None] = print,
) -> Conversion:
    """Converts a checkpoint into a folder with model.safetensors, or shards and their index.

    Args:
        src: .pt, .pth, .bin or .safetensors file, or a folder with one of these or with shards and an index. A
            config.json beside it is rewritten if it is upstream's, else copied.
        dst: folder to make; it must not exist or be empty.
        base: further checkpoints, for files that hold only what was fine-tuned.
        select: the part of a nested checkpoint to keep, e.g. ``state_dict``.
        drop: names, with all below them, to leave out, e.g. ``optimizer``.
        lora_alpha: numerator of the LoRA scale alpha / r; by default what config.json says.
        shard_bytes: largest file to write, unless a single tensor is larger.
        max_bytes: largest input and output accepted.
        embodiment: also write embodiment.json from experiment_cfg beside the checkpoint, for this tag.
        joints: JSON file with the limits of its joints, which no checkpoint says; see `joint_limits`.
        report: called with one line for everything noteworthy.

    Raises:
        WeightError: the checkpoint is malformed, too large, or holds anything but tensors.
        ConfigError: an option, config.json or the experiment configuration does not fit.
        ImportError: torch, or PyYAML for `embodiment`, is not installed.
    """
    src, dst = Path(src), Path(dst)
    if dst.exists() and (not dst.is_dir() or any(dst.iterdir())):
        raise ConfigError(f"convert: {dst} exists and is not an empty folder")
    folder = src if src.is_dir() else src.parent
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    robot = _robot(folder, embodiment, joints, config)
    job = {
        "sources": [
            _source(p, prefix, max_bytes) for p, prefix in [(src, ""), *((Path(b.path), b.prefix) for b in base)]
        ],
        "select": select,
        "drop": list(drop),
        "lora": _lora(config, lora_alpha),
        "shard_bytes": shard_bytes,
        "max_bytes": max_bytes,
    }
    dst.parent.mkdir(parents=True, exist_ok=True)
    _check_space(dst.parent, sum(f["bytes"] for s in job["sources"] for f in s["files"]))
    with tempfile.TemporaryDirectory(prefix=".wamcore-convert-", dir=dst.parent) as temporary:
        out = Path(temporary) / "out"
        out.mkdir()
        result = _run_worker(job, out, Path(temporary))
        _verify(out, result["tensors"])
        notes = list(result["notes"])
        if config is not None:
            notes += _write_config(folder / "config.json", out / "config.json")
        if robot is not None:
            notes.append(_write_robot(out / "embodiment.json", robot))
        elif config is not None:
            notes.append(_missing_robot(folder))
        if dst.exists():
            dst.rmdir()
        out.rename(dst)
    for note in notes:
        report(note)
    files = sorted({t["file"] for t in result["tensors"]})
    nbytes = sum((dst / f).stat().st_size for f in files)
    return Conversion(dst, files, len(result["tensors"]), nbytes, notes)


def _write_config(source: Path, path: Path) -> list[str]:
    """Writes config.json, rewritten if it is upstream's, and returns what is to be told about it."""
    config = read_json(source)
    if config.get("model_type") == MODEL_TYPE:
        config, notes = runtime_config(config)
        path.write_text(json.dumps(config, indent=1) + "\n")
        check_config(str(path))  # the runtime's own reader must accept it
        return [*notes, "config.json is rewritten to what inference needs, with the sampler of upstream's code"]
    shutil.copyfile(source, path)
    try:
        check_config(str(path))
    except ConfigError as e:
        return [f"config.json is copied, but the runtime will refuse it: {e}"]
    return ["config.json is copied as it is"]


def _robot(folder: Path, tag: str | None, joints: str | Path | None, config: dict | None) -> dict | None:
    """The content of embodiment.json, if one is asked for."""
    if tag is None:
        if joints is not None:
            raise ConfigError("convert: joints wants an embodiment that they belong to")
        return None
    robot = upstream_embodiment(folder, tag, config)
    return robot | {"joints": joint_limits(Path(joints), robot)} if joints else robot


def _missing_robot(folder: Path) -> str:
    """What is still to do when no embodiment.json was asked for."""
    metadata = folder / "experiment_cfg" / "metadata.json"
    tags = sorted(set(read_json(metadata)) & set(TAGS)) if metadata.is_file() else []
    options = " or ".join(f"--embodiment {tag}" for tag in tags)
    return f"no embodiment.json is written: {options + ' writes one' if tags else 'wam.load needs one'}"


def _lora(config: dict | None, alpha: float | None) -> dict:
    """The LoRA settings that config.json names, and the alpha that wins."""
    head = ((config or {}).get("action_head_cfg") or {}).get("config") or {}
    return {"alpha": alpha if alpha is not None else head.get("lora_alpha"), "rank": head.get("lora_rank")}


def _source(path: Path, prefix: str, max_bytes: int) -> dict:
    """The checked files of one checkpoint, as the worker wants them."""
    files = [_torch_file(f) if f.suffix in TORCH_ENDINGS else _safetensors_file(f) for f in _files(path)]
    total = sum(f["bytes"] for f in files)
    if total > max_bytes:
        raise WeightError(f"{path}: wanted at most {max_bytes} bytes, got {total}; raise the limit if that is meant")
    return {"path": str(path), "prefix": prefix, "files": files}


def _files(path: Path) -> list[Path]:
    """The weight files that `path` stands for."""
    if path.is_file():
        if path.suffix not in (*TORCH_ENDINGS, ".safetensors"):
            raise WeightError(f"{path}: wanted {', '.join(TORCH_ENDINGS)} or .safetensors")
        return [path]
    if not path.is_dir():
        raise WeightError(f"{path}: no such file or folder")
    found = []
    for stem, ending in (
        ("model", "safetensors"),
        ("diffusion_pytorch_model", "safetensors"),
        ("pytorch_model", "bin"),
    ):
        single, index = path / f"{stem}.{ending}", path / f"{stem}.{ending}.index.json"
        found += [[single]] if single.is_file() else []
        found += [_shards(index, ending)] if index.is_file() else []
    if not found:
        found = [[f] for f in sorted(path.iterdir()) if f.suffix in TORCH_ENDINGS]  # only where there is just one
    if len(found) != 1:
        raise WeightError(f"{path}: wanted one checkpoint, got {len(found)}; name the file or the folder that is meant")
    return found[0]


def _shards(index: Path, ending: str) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightError(f"{index}: wanted a weight_map from names to files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if not re.fullmatch(rf"[\w-][\w.-]*\.{ending}", name) or ".." in name:
            raise WeightError(f"{index}: wanted the name of a .{ending} file beside the index, got {name!r}")
        if not (index.parent / name).is_file():  # a link will do: Hugging Face's cache is made of them
            raise WeightError(f"{index}: {name!r} is missing")
    if ending == "safetensors":
        WeightStore(str(index))  # index and shards agree
    return [index.parent / name for name in names]


def _torch_file(path: Path) -> dict:
    """Checks the archive around the pickle: what it declares must fit what is there."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise WeightError(
            f"{path}: not a zip archive as torch.save writes since version 1.6; save it again with a newer one"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as e:
        raise WeightError(f"{path}: damaged archive: {e}") from e
    declared = sum(e.file_size for e in entries)
    pickles = [e for e in entries if e.filename.rsplit("/", 1)[-1] == "data.pkl"]
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise WeightError(f"{path}: the archive is compressed, which torch.save never does")
    if declared > size:
        raise WeightError(f"{path}: the archive declares {declared} bytes, the file has {size}")
    if len({e.filename for e in entries}) != len(entries):
        raise WeightError(f"{path}: the archive has two entries of one name")
    if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT:
        raise WeightError(f"{path}: wanted one data.pkl of at most {PICKLE_LIMIT} bytes in the archive")
    return {"path": str(path), "bytes": size, "kind": "torch"}


def _safetensors_file(path: Path) -> dict:
    file = SafetensorsFile(str(path))
    tensors = [{"name": e.name, "dtype": e.dtype, "shape": e.shape, "offset": e.offset} for e in file.entries]
    return {"path": str(path), "bytes": path.stat().st_size, "kind": "safetensors", "tensors": tensors}


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise WeightError(f"convert: {folder} has {free} bytes free, the result may take {needed}")


def _run_worker(job: dict, out: Path, temporary: Path) -> dict:
    """What the worker answers; errors it reports are raised here."""
    if importlib.util.find_spec("torch") is None:
        raise ImportError("convert: PyTorch is not installed; pip install 'wamcore[convert]', or convert elsewhere")
    answer = temporary / "answer.json"
    status = _spawn(json.dumps({**job, "out": str(out), "answer": str(answer)}))
    if status < 0:
        raise WeightError(
            f"convert: the process that reads the checkpoint was killed by signal {-status}; out of memory?"
        )
    if not answer.is_file():
        raise WeightError(f"convert: the reading process failed with status {status}")
    result = json.loads(answer.read_text())
    if "error" in result:
        kind = {"ImportError": ImportError, "ConfigError": ConfigError}.get(result["kind"], WeightError)
        raise kind(result["error"])
    return result


def _spawn(request: str) -> int:
    """Runs the process that opens checkpoints; its answer comes in a file, its progress on standard error."""
    done = subprocess.run([sys.executable, str(WORKER)], input=request.encode(), stdout=subprocess.DEVNULL)
    return done.returncode


def _verify(out: Path, written: list[dict]) -> None:
    """Reads the result with the strict reader and compares it with what the worker says it wrote."""
    store = WeightStore(str(out))
    wanted = {t["name"]: t for t in written}
    if store.names() != sorted(wanted):
        raise WeightError(f"convert: wrote {len(wanted)} tensors, read back {len(store)} or other names")
    for tensor in written:
        entry = store.entry(tensor["name"])
        if (entry.dtype, entry.shape) != (tensor["dtype"], tuple(tensor["shape"])):
            raise WeightError(f"convert: wrote {tensor}, read back {entry}")
        if _digest(out / tensor["file"], entry.offset, entry.nbytes) != tensor["sha256"]:
            raise WeightError(f"convert: the bytes of {tensor['name']} changed on their way to {tensor['file']}")


def _digest(path: Path, offset: int, nbytes: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while nbytes > 0:
            piece = file.read(min(nbytes, 1 << 24))
            if not piece:
                break
            digest.update(piece)
            nbytes -= len(piece)
    return digest.hexdigest()


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([KMGT]?)B?", text.strip().upper())
    if not match or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"wanted a size such as 5GB or 800MB, got {text!r}")
    return int(match[1]) * 1000 ** " KMGT".index(match[2] or " ")


def _base(text: str) -> Base:
    prefix, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(f"wanted PREFIX=PATH, got {text!r}")
    return Base(prefix, Path(path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the ``convert`` command."""
    parser.add_argument("src", type=Path, help=".pt, .pth, .bin or .safetensors file, or a folder with one checkpoint")
    parser.add_argument("dst", type=Path, help="folder to make")
    parser.add_argument(
        "--base", type=_base, action="append", default=[], metavar="PREFIX=PATH",
        help="another checkpoint that SRC completes or fine-tunes; its names get PREFIX (repeatable)",
    )  # fmt: skip
    parser.add_argument("--select", metavar="NAME", help="keep only this part of a nested checkpoint, e.g. state_dict")
    parser.add_argument(
        "--drop", action="append", default=[], metavar="NAME", help="leave out NAME and all below it (repeatable)"
    )
    parser.add_argument("--lora-alpha", type=float, metavar="A", help="LoRA scale is A / rank; default: config.json")
    parser.add_argument("--shard-size", type=_size, default="5GB", metavar="SIZE", help="largest file (default: 5GB)")
    parser.add_argument("--max-size", type=_size, default="200GB", metavar="SIZE", help="refuse more (default: 200GB)")
    parser.add_argument(
        "--embodiment", choices=sorted(TAGS), help="write embodiment.json from experiment_cfg beside the checkpoint"
    )
    parser.add_argument(
        "--joints", type=Path, metavar="FILE",
        help="with --embodiment: JSON list of each joint's name, position_min, position_max, velocity_max and "
        "acceleration_max, which no checkpoint says; without them the model runs, but no robot accepts it",
    )  # fmt: skip
    parser.add_argument("--embodiment-only", action="store_true", help="write nothing but embodiment.json into DST")


def run(args: argparse.Namespace) -> int:
    """Runs the ``convert`` command; returns the exit status."""
    try:
        if args.embodiment_only:
            _write_embodiment(args)
            return 0
        done = convert(
            args.src,
            args.dst,
            base=args.base,
            select=args.select,
            drop=args.drop,
            lora_alpha=args.lora_alpha,
            shard_bytes=args.shard_size,
            max_bytes=args.max_size,
            embodiment=args.embodiment,
            joints=args.joints,
        )
    except (WeightError, ConfigError, ImportError, OSError) as e:
        print(f"wamcore convert: {e}", file=sys.stderr)
        return 1
    size = f"{done.tensors} tensors, {done.nbytes / 1e6:.1f} MB in {len(done.files)} file(s)"
    print(f"{done.path}: {size}, read back and compared")
    return 0


def _write_robot(path: Path, robot: dict) -> str:
    """Writes a new embodiment.json and says so; the runtime's own reader must accept it."""
    with path.open("x") as file:
        file.write(json.dumps(robot, indent=1) + "\n")
    try:
        Embodiment.read(str(path))
    except ConfigError:
        path.unlink()
        raise
    joints = f"{len(robot['joints'])} joints" if robot["joints"] else "no joint limits: give --joints before driving it"
    return f"embodiment.json describes {robot['name']}, with {joints}"


def _write_embodiment(args: argparse.Namespace) -> None:
    if args.embodiment is None:
        raise ConfigError("--embodiment-only wants --embodiment")
    folder = args.src if args.src.is_dir() else args.src.parent
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    robot = _robot(folder, args.embodiment, args.joints, config)
    args.dst.mkdir(parents=True, exist_ok=True)
    print(f"{args.dst}: {_write_robot(args.dst / 'embodiment.json', robot)}")


def main(argv: Sequence[str] | None = None) -> int:
    """The ``wamcore convert`` command by itself."""
    parser = argparse.ArgumentParser(
        prog="wamcore convert",
        description="Turns a PyTorch checkpoint into the safetensors folder that the runtime reads.",
    )
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
