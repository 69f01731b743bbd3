"""Opens PyTorch checkpoints and writes safetensors: the process that `wamcore.convert` starts, and nothing else.

Reads a job as JSON from standard input and answers in a file that the job names. It imports torch, numpy and the
standard library, never anything that could lie beside a checkpoint.
"""

import hashlib
import json
import os
import re
import struct
import sys
from pathlib import Path

if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]  # the package's own modules must not shadow those that torch imports

OLDEST_TORCH = (2, 10)  # older weights_only loaders can be made to corrupt memory (CVE-2026-24747) or worse
MOST_TENSORS = 60000  # in one file; the reader takes 65536


class WeightError(Exception):
    """The checkpoint cannot be converted."""


class ConfigError(Exception):
    """An option does not fit the checkpoint."""


def import_torch():
    try:
        import torch
    except ImportError as e:
        raise ImportError(f"convert: PyTorch cannot be imported: {e}") from e
    version = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if version < OLDEST_TORCH:
        raise ImportError(f"convert: wanted PyTorch 2.10 or newer, whose loader is safe, got {torch.__version__}")
    return torch


class Item:
    """One tensor of the result: where it is, and what is added to it when it is written."""

    def __init__(self, tensor, origin: str):
        self.tensor = tensor
        self.origin = origin
        self.lora = None  # (A, B, scale)

    def materialise(self, torch):
        if self.lora is None:
            return self.tensor.contiguous()
        a, b, scale = self.lora
        return (self.tensor.float() + scale * (b.float() @ a.float())).to(self.tensor.dtype).contiguous()


class Converter:
    """Runs one job."""

    def __init__(self, job: dict):
        self.torch = torch = import_torch()
        self.job = job
        self.notes = []
        self.replaced = []  # names in a base that the first source has too
        self.dtypes = {  # torch's, the format's and our name
            torch.float64: ("F64", "f64"),
            torch.float32: ("F32", "f32"),
            torch.float16: ("F16", "f16"),
            torch.bfloat16: ("BF16", "bf16"),
            torch.int64: ("I64", "i64"),
            torch.int32: ("I32", "i32"),
            torch.int16: ("I16", "i16"),
            torch.int8: ("I8", "i8"),
            torch.uint8: ("U8", "u8"),
            torch.bool: ("BOOL", "bool"),
        }
        self.by_name = {ours: dtype for dtype, (_, ours) in self.dtypes.items()}

    def run(self) -> list[dict]:
        items = self.collect()
        self.note_shared(items)
        items = self.merge_lora(self.rename(items))
        if self.replaced:
            some = ", ".join(self.replaced[:3]) + (", ..." if len(self.replaced) > 3 else "")
            self.notes.append(f"replaced: {len(self.replaced)} tensors of a base by those of the checkpoint: {some}")
        total = sum(item.tensor.nbytes for item in items.values())
        if total > self.job["max_bytes"]:
            raise WeightError(f"the result would have {total} bytes, more than the limit of {self.job['max_bytes']}")
        if not items:
            raise WeightError(f"{self.job['sources'][0]['path']}: no tensors to convert")
        return self.write(items)

    # reading

    def collect(self) -> dict[str, Item]:
        """All tensors under their prefixes; those of the first source win over those of its bases."""
        items, dropped = {}, dict.fromkeys(self.job["drop"], 0)
        for number, source in enumerate(self.job["sources"]):
            leaves = {}
            for file in source["files"]:
                read = self.read_torch if file["kind"] == "torch" else self.read_safetensors
                for name, value in read(file).items():
                    if name in leaves:
                        raise WeightError(f"{source['path']}: {name!r} is in more than one file")
                    leaves[name] = value
            if number == 0 and self.job["select"]:
                leaves = self.select(leaves, self.job["select"])
            for name, value in leaves.items():
                name = source["prefix"] + name
                by = next((d for d in dropped if name == d or name.startswith(d + ".")), None)
                if by is not None:
                    dropped[by] += 1
                    continue
                if number == 0 or name not in items:
                    items[name] = Item(self.check(name, value, source["path"]), source["path"])
                elif items[name].origin == self.job["sources"][0]["path"]:
                    self.replaced.append(name)
                else:
                    raise WeightError(f"{name!r} is in {items[name].origin} and in {source['path']}")
        for name, count in dropped.items():
            if count == 0:
                raise ConfigError(f"--drop {name}: there is nothing of that name")
            self.notes.append(f"dropped as asked: {name} ({count} entries)")
        return items

    def read_torch(self, file: dict) -> dict:
        """{name: leaf} of a checkpoint, nested dictionaries joined with dots."""
        import pickle

        path = file["path"]
        try:
            tree = self.torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, AttributeError, KeyError) as e:
            # torch's own text goes on to explain how to switch the protection off
            refused = re.search(r"GLOBAL \S+", str(e)) or re.search(r"Unsupported [^\n.]+", str(e))
            reason = refused[0] if refused else (str(e).strip().splitlines() or [type(e).__name__])[0]
            raise WeightError(f"{path}: the weights-only loader refuses it: {reason}") from None
        if not isinstance(tree, dict):
            raise WeightError(f"{path}: wanted a dictionary of tensors, got {type(tree).__name__}")
        leaves = {}

        def visit(node, name: str, depth: int):
            if not isinstance(node, dict):
                if name in leaves:
                    raise WeightError(f"{path}: two entries become {name!r}")
                leaves[name] = node
                return
            if depth > 32:
                raise WeightError(f"{path}: {name[:80]!r}: dictionaries are nested too deeply")
            for key, value in node.items():
                if not isinstance(key, str) or not key:
                    raise WeightError(f"{path}: {name or 'the top level'} has key {key!r}, wanted a name")
                visit(value, f"{name}.{key}" if name else key, depth + 1)

        visit(tree, "", 0)
        return leaves

    def read_safetensors(self, file: dict) -> dict:
        """Tensors of a file whose header the strict reader has checked; copy-on-write pages, read when used."""
        import numpy

        data = numpy.memmap(file["path"], dtype=numpy.uint8, mode="c") if file["tensors"] else None
        leaves = {}
        for entry in file["tensors"]:
            dtype, shape = self.by_name[entry["dtype"]], tuple(entry["shape"])
            count = dtype.itemsize
            for size in shape:
                count *= size
            raw = data[entry["offset"] : entry["offset"] + count]
            if entry["offset"] % dtype.itemsize:
                raw = raw.copy()
            flat = self.torch.from_numpy(raw) if count else self.torch.empty(0, dtype=self.torch.uint8)
            leaves[entry["name"]] = flat.view(dtype).reshape(shape)
        return leaves

    def select(self, leaves: dict, name: str) -> dict:
        kept = {key[len(name) + 1 :]: value for key, value in leaves.items() if key.startswith(name + ".")}
        if not kept:
            tops = sorted({key.split(".")[0] for key in leaves})[:20]
            raise ConfigError(f"--select {name}: there is nothing below that name; the top level has {', '.join(tops)}")
        rest = sorted({key.split(".")[0] for key in leaves if not key.startswith(name + ".")})
        count = len(leaves) - len(kept)
        if count:
            self.notes.append(f"dropped by --select {name}: {count} entries below {', '.join(rest[:20])}")
        return kept

    def check(self, name: str, value, path: str):
        """A strided tensor of a type that the format has, no larger than what is stored for it."""
        torch = self.torch
        where = f"{path}: {name!r}"
        if not isinstance(value, torch.Tensor):
            hint = "select the part with the weights or drop this"
            raise WeightError(f"{where} is {type(value).__name__}, not a tensor; {hint}")
        value = value.detach()
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise WeightError(f"{where}: wanted a plain tensor, got layout {value.layout} on {value.device}")
        if value.dtype not in self.dtypes:
            raise WeightError(f"{where}: element type {value.dtype} is not supported")
        declared, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if declared > stored:
            raise WeightError(f"{where}: shape {list(value.shape)} declares {declared} bytes, {stored} are stored")
        return value

    def note_shared(self, items: dict[str, Item]) -> None:
        """Tied weights are written in full under each of their names: readers then need no rule for them."""
        spans = {}
        for name, item in items.items():
            if item.tensor.numel():
                begin = item.tensor.data_ptr()
                last = sum((n - 1) * s for n, s in zip(item.tensor.shape, item.tensor.stride(), strict=True))
                spans[name] = (begin, begin + (last + 1) * item.tensor.element_size())
        end, owner = 0, ""
        for name in sorted(spans, key=spans.get):
            if spans[name][0] < end:
                self.notes.append(f"written in full: {name}, which shares memory with {owner} in the checkpoint")
            if spans[name][1] > end:
                end, owner = spans[name][1], name

    # naming and merging

    def rename(self, items: dict[str, Item]) -> dict[str, Item]:
        """Removes what LoRA training inserts into names."""
        renamed, changed = {}, 0
        order = sorted(items, key=lambda n: items[n].origin != self.job["sources"][0]["path"])  # the first source first
        for name in order:
            short = re.sub(r"(^|\.)base_model\.model\.", r"\1", name).replace(".base_layer.", ".")
            changed += short != name
            if short in renamed:
                other = renamed[short]
                if other.origin == items[name].origin:
                    raise WeightError(f"{other.origin}: two tensors become {short!r}")
                self.replaced.append(name)
                continue
            renamed[short] = items[name]
        if changed:
            self.notes.append(f"renamed: {changed} tensors, without base_model.model. and .base_layer.")
        return renamed

    def merge_lora(self, items: dict[str, Item]) -> dict[str, Item]:
        plain, pairs = {}, {}
        for name, item in items.items():
            if "lora_" not in name:
                plain[name] = item
                continue
            match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", name)
            if not match or item.tensor.dim() != 2:
                raise WeightError(
                    f"{item.origin}: {name!r}: wanted lora_A or lora_B of the default adapter, two-dimensional"
                )
            pairs.setdefault(match[1], {})[match[2]] = item.tensor
        for module, pair in pairs.items():
            self.attach(module, pair, plain)
        if pairs:
            self.notes.append(f"merged: {len(pairs)} LoRA updates, alpha {self.job['lora']['alpha']}")
        return plain

    def attach(self, module: str, pair: dict, plain: dict[str, Item]) -> None:
        alpha, rank = self.job["lora"]["alpha"], self.job["lora"]["rank"]
        if alpha is None:
            raise ConfigError("the checkpoint has LoRA updates, but config.json names no lora_alpha: give --lora-alpha")
        if set(pair) != {"A", "B"}:
            raise WeightError(f"{module!r} has lora_{next(iter(pair))} without its partner")
        a, b = pair["A"], pair["B"]
        target = plain.get(f"{module}.weight")
        if target is None:
            raise WeightError(
                f"{module!r} has a LoRA update, but there is no {module}.weight: give the base checkpoint"
            )
        r = a.shape[0]
        if rank is not None and r != rank:
            raise WeightError(f"{module!r}: config.json says LoRA rank {rank}, the tensors have {r}")
        if b.shape[1] != r or tuple(target.tensor.shape) != (b.shape[0], a.shape[1]):
            shapes = f"B {list(b.shape)} A {list(a.shape)} for a weight {list(target.tensor.shape)}"
            raise WeightError(f"{module!r}: the LoRA update does not fit: {shapes}")
        if not target.tensor.is_floating_point():
            raise WeightError(f"{module!r}: a LoRA update wants a floating-point weight, got {target.tensor.dtype}")
        target.lora = (a, b, alpha / r)

    # writing

    def shards(self, items: dict[str, Item]) -> list[list[str]]:
        result, size = [[]], 0
        for name in sorted(items):
            nbytes = items[name].tensor.nbytes
            if result[-1] and (size + nbytes > self.job["shard_bytes"] or len(result[-1]) == MOST_TENSORS):
                result.append([])
                size = 0
            result[-1].append(name)
            size += nbytes
        return result

    def write(self, items: dict[str, Item]) -> list[dict]:
        out, shards = Path(self.job["out"]), self.shards(items)
        written = []
        for number, names in enumerate(shards, 1):
            file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            written += self.write_file(out / file, names, items)
            print(f"[{number}/{len(shards)}] {file}: {len(names)} tensors", file=sys.stderr, flush=True)
        if len(shards) > 1:
            total = sum(item.tensor.nbytes for item in items.values())
            index = {"metadata": {"total_size": total}, "weight_map": {t["name"]: t["file"] for t in written}}
            (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
        return written

    def write_file(self, path: Path, names: list[str], items: dict[str, Item]) -> list[dict]:
        # wide elements first, after a header of a multiple of 8 bytes: then every tensor is aligned in the file
        names = sorted(names, key=lambda n: (-items[n].tensor.element_size(), n))
        header, begin = {"__metadata__": {"format": "pt"}}, 0
        for name in names:
            tensor = items[name].tensor
            end = begin + tensor.nbytes
            dtype = self.dtypes[tensor.dtype][0]
            header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
            begin = end
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        written = []
        with path.open("xb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                tensor = items[name].materialise(self.torch)
                data = memoryview(tensor.reshape(-1).view(self.torch.uint8).numpy())
                file.write(data)
                digest = hashlib.sha256(data).hexdigest()
                ours = self.dtypes[tensor.dtype][1]
                written.append(
                    {"name": name, "dtype": ours, "shape": list(tensor.shape), "sha256": digest, "file": path.name}
                )
        return written


def serve(request: str) -> int:
    """Runs the job that `request` describes in JSON; returns the exit status."""
    job = json.loads(request)
    try:
        converter = Converter(job)
        answer = {"tensors": converter.run(), "notes": converter.notes}
    except (WeightError, ConfigError, ImportError) as e:
        answer = {"error": str(e), "kind": type(e).__name__}
    Path(job["answer"]).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(serve(sys.stdin.read()))
