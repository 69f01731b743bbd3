"""`wamcore convert`: what it accepts comes out bit for bit, what it refuses leaves nothing behind."""

import importlib.util
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import wamcore
from wamcore import ConfigError, WeightError, _convert_worker, _core
from wamcore import convert as module
from wamcore.convert import Base, convert, main

torch = pytest.importorskip("torch", reason="converting needs torch")
SEED = int(np.random.default_rng().integers(2**31))


@pytest.fixture(autouse=True)
def one_process(request, monkeypatch):
    """Importing torch once a conversion is slow: only tests marked so start the real process."""
    if "process" not in request.fixturenames:
        monkeypatch.setattr(module, "_spawn", _convert_worker.serve)


@pytest.fixture
def process():
    """Asked for by tests in which the worker runs as it does in earnest."""


@pytest.fixture(autouse=True)
def fresh_random_numbers(record_property):
    record_property("seed", SEED)
    torch.manual_seed(SEED)


def save(path: Path, tree) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tree, path)
    return path


def save_safetensors(path: Path, tensors: dict, padding: int = 0) -> Path:
    header, data = {}, b""
    names = {torch.float32: "F32", torch.bfloat16: "BF16"}
    for name, t in tensors.items():
        raw = t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": names[t.dtype], "shape": list(t.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode() + b" " * padding
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def read(folder: Path) -> dict:
    """Every tensor of a converted folder as torch sees it, through the strict reader's account of the files."""
    dtypes = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    dtypes |= {"i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8}
    dtypes |= {"bool": torch.bool}
    result = {}
    for file in sorted(folder.glob("*.safetensors")):
        for e in _core.SafetensorsFile(str(file)).entries:
            data = torch.from_file(str(file), size=file.stat().st_size, dtype=torch.uint8)
            result[e.name] = data[e.offset : e.offset + e.nbytes].clone().view(dtypes[e.dtype]).reshape(e.shape)
    assert sorted(result) == _core.WeightStore(str(folder)).names()
    return result


def same(a, b) -> bool:
    raw = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)


def quiet(*args, **kwargs):
    lines = []
    return convert(*args, report=lines.append, **kwargs), lines


def refuse(tmp_path: Path, src: Path, message: str, kind=WeightError, **options):
    """Converting raises, says why, and leaves nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=message):
        convert(src, tmp_path / "out", report=lambda line: None, **options)
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------------------------------------- what is accepted


def test_every_type_and_layout_comes_out_bit_for_bit(tmp_path):
    wanted = {
        "f32": torch.randn(3, 5),
        "f64": torch.randn(4, dtype=torch.float64),
        "f16": torch.randn(7).half(),
        "bf16": torch.randn(2, 3, 2).bfloat16(),
        "i64": torch.randint(-9, 9, (3,)),
        "i32": torch.randint(-9, 9, (3,), dtype=torch.int32),
        "i16": torch.randint(-9, 9, (3,), dtype=torch.int16),
        "i8": torch.randint(-9, 9, (3,), dtype=torch.int8),
        "u8": torch.randint(0, 99, (5,), dtype=torch.uint8),
        "bool": torch.rand(9) > 0.5,
        "scalar": torch.randn(()),
        "empty": torch.empty(0, 4),
        "transposed": torch.randn(4, 6).T,
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
        "späße.0": torch.randn(1),
    }
    done, _ = quiet(save(tmp_path / "w.pt", wanted), tmp_path / "deep" / "out")
    got = read(done.path)
    assert got.keys() == wanted.keys() and done.tensors == len(wanted) and done.files == ["model.safetensors"]
    assert all(same(got[name], t.detach()) for name, t in wanted.items())
    file = _core.SafetensorsFile(str(done.path / "model.safetensors"))
    sizes = {"f64": 8, "i64": 8, "f32": 4, "i32": 4, "f16": 2, "bf16": 2, "i16": 2}
    assert all(e.offset % sizes.get(e.dtype, 1) == 0 for e in file.entries)
    assert file.metadata == {"format": "pt"}


def test_shards_are_no_larger_than_asked_and_have_an_index(tmp_path):
    wanted = {f"layer.{i}.weight": torch.randn(int(torch.randint(1, 40, ())), 10) for i in range(20)}
    done, _ = quiet(save(tmp_path / "w.bin", wanted), tmp_path / "out", shard_bytes=2000)
    assert len(done.files) > 1 and all("-of-" in f for f in done.files)
    index = json.loads((done.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in wanted.values())
    for file in done.files:
        entries = _core.SafetensorsFile(str(done.path / file)).entries
        assert sum(e.nbytes for e in entries) <= 2000 or len(entries) == 1
        assert all(index["weight_map"][e.name] == file for e in entries)
    got = read(done.path)
    assert all(same(got[name], t) for name, t in wanted.items())


def test_a_converted_folder_converts_to_itself(tmp_path):
    wanted = {f"w{i}": torch.randn(30) for i in range(5)}
    first, _ = quiet(save(tmp_path / "w.pt", wanted), tmp_path / "one", shard_bytes=300)
    second, _ = quiet(first.path, tmp_path / "two")
    assert len(first.files) == 3 and second.files == ["model.safetensors"]
    assert all(same(t, wanted[name]) for name, t in read(second.path).items())


def test_shards_of_pickles_are_joined(tmp_path):
    a, b = {"x": torch.randn(2)}, {"y": torch.randn(3)}
    save(tmp_path / "in" / "pytorch_model-1.bin", a)
    save(tmp_path / "in" / "pytorch_model-2.bin", b)
    names = {"x": "pytorch_model-1.bin", "y": "pytorch_model-2.bin"}
    (tmp_path / "in" / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    done, _ = quiet(tmp_path / "in", tmp_path / "out")
    assert {k: v.tolist() for k, v in read(done.path).items()} == {k: v.tolist() for k, v in (a | b).items()}


def test_files_of_a_download_cache_are_links(tmp_path):
    """Hugging Face keeps contents in blobs/, and in a snapshot nothing but links to them."""
    parts = {"model-1.safetensors": {"x": torch.randn(2)}, "model-2.safetensors": {"y": torch.randn(3)}}
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for number, (name, tensors) in enumerate(parts.items()):
        save_safetensors(blobs / f"{number}", tensors)
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    index = {"weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
    (blobs / "index").write_text(json.dumps(index))
    (snapshot / "model.safetensors.index.json").symlink_to("../../blobs/index")
    done, _ = quiet(snapshot, tmp_path / "out")
    assert read(done.path).keys() == {"x", "y"} and not (done.path / "model.safetensors").is_symlink()
    (blobs / "1").unlink()
    with pytest.raises(WeightError, match=r"'model-2\.safetensors' is missing"):
        convert(snapshot, tmp_path / "again")


def test_nested_dictionaries_are_joined_selected_and_dropped(tmp_path):
    tree = {"model": {"a": {"w": torch.ones(1)}, "b.c": torch.ones(2)}, "epoch": 3, "optimizer": {"lr": 1e-3, "m": {}}}
    src = save(tmp_path / "w.pt", tree)
    refuse(tmp_path, src, r"w\.pt: 'epoch' is int, not a tensor; select the part")
    done, lines = quiet(src, tmp_path / "whole", drop=["epoch", "optimizer"])
    assert read(done.path).keys() == {"model.a.w", "model.b.c"}
    assert "dropped as asked: optimizer (1 entries)" in lines and "dropped as asked: epoch (1 entries)" in lines
    done, lines = quiet(src, tmp_path / "part", select="model")
    assert read(done.path).keys() == {"a.w", "b.c"}
    assert lines == ["dropped by --select model: 2 entries below epoch, optimizer"]
    refuse(
        tmp_path,
        src,
        "--select mode: there is nothing below that name; the top level has epoch",
        ConfigError,
        select="mode",
    )
    refuse(tmp_path, src, "--drop epoc: there is nothing", ConfigError, drop=["epoc", "epoch", "optimizer"])


def test_shared_memory_is_written_in_full_and_reported(tmp_path):
    t = torch.arange(12.0)
    tree = {"shared.weight": t, "tied.weight": t, "slice": t[3:5], "apart": torch.ones(2)}
    done, lines = quiet(save(tmp_path / "w.pt", tree), tmp_path / "out")
    got = read(done.path)
    assert all(same(got[name], value) for name, value in tree.items())
    assert len(lines) == 2 and all("shares memory with" in line and "apart" not in line for line in lines)


def test_config_is_copied_and_output_may_be_an_empty_folder(tmp_path):
    save(tmp_path / "in" / "w.pt", {"a": torch.ones(1)})
    (tmp_path / "in" / "config.json").write_text('{"model_type": "x"}')
    (tmp_path / "out").mkdir()
    done, lines = quiet(tmp_path / "in", tmp_path / "out")
    assert (done.path / "config.json").read_text() == '{"model_type": "x"}'
    assert lines[0].startswith("config.json is copied, but the runtime will refuse it: ")
    assert lines[1:] == ["no embodiment.json is written: wam.load needs one"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]  # no temporary folder


def test_the_calling_process_never_imports_torch(tmp_path):
    src = save(tmp_path / "w.pt", {"a": torch.ones(1)})
    code = "import sys; from wamcore.convert import main; s = main(sys.argv[1:]); sys.exit(s or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, src, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 tensors" in done.stdout and "read back and compared" in done.stdout


# ---------------------------------------------------------------------------------------------- LoRA


def lora_checkpoint(dtype, rank=4):
    """Base and update of one linear layer and of an untouched one, with the merged weight in float64."""
    w, a, b = torch.randn(6, 5).to(dtype), torch.randn(rank, 5), torch.randn(6, rank)
    tree = {
        "action_head.model.base_model.model.blocks.0.q.base_layer.weight": w,
        "action_head.model.base_model.model.blocks.0.q.base_layer.bias": torch.randn(6),
        "action_head.model.base_model.model.blocks.0.q.lora_A.default.weight": a,
        "action_head.model.base_model.model.blocks.0.q.lora_B.default.weight": b,
        "action_head.model.base_model.model.head.weight": torch.randn(2, 2),
    }
    return tree, w.double() + (8 / rank) * b.double() @ a.double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lora_is_merged(tmp_path, dtype):
    tree, merged = lora_checkpoint(dtype)
    done, lines = quiet(save(tmp_path / "w.pt", tree), tmp_path / "out", lora_alpha=8)
    got = read(done.path)
    names = {f"action_head.model.{n}" for n in ("blocks.0.q.weight", "blocks.0.q.bias", "head.weight")}
    assert got.keys() == names
    weight = got["action_head.model.blocks.0.q.weight"]
    assert weight.dtype == dtype
    bound = 2.0**-8 if dtype == torch.bfloat16 else 1e-5
    assert (weight.double() - merged).abs().max() <= bound * merged.abs().max()
    assert same(got["action_head.model.head.weight"], tree["action_head.model.base_model.model.head.weight"])
    assert "merged: 1 LoRA updates, alpha 8" in lines
    assert "renamed: 5 tensors, without base_model.model. and .base_layer." in lines


def test_lora_without_base_takes_it_from_other_checkpoints(tmp_path):
    tree, merged = lora_checkpoint(torch.float32)
    prefix = "action_head.model.base_model.model.blocks.0.q."
    base = {"blocks.0.q.weight": tree.pop(prefix + "base_layer.weight"), "head.weight": torch.zeros(2, 2)}
    base["blocks.0.q.bias"] = tree.pop(prefix + "base_layer.bias")
    src = save(tmp_path / "in" / "w.pt", tree)
    config = {"action_head_cfg": {"config": {"lora_alpha": 8, "lora_rank": 4}}}
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    refuse(tmp_path, src, "there is no action_head.model.blocks.0.q.weight: give the base checkpoint")
    for padding in range(4):  # aligned and unaligned data
        wan = save_safetensors(tmp_path / "wan" / "diffusion_pytorch_model.safetensors", base, padding)
        bases = [Base("action_head.model.", wan.parent), Base("vae.", save(tmp_path / "vae.pth", {"c": torch.ones(1)}))]
        done, lines = quiet(src, tmp_path / f"out{padding}", base=bases)
        got = read(done.path)
        assert torch.allclose(got["action_head.model.blocks.0.q.weight"].double(), merged, atol=1e-5)
        assert same(got["action_head.model.head.weight"], tree["action_head.model.base_model.model.head.weight"])
        assert same(got["action_head.model.blocks.0.q.bias"], base["blocks.0.q.bias"]) and "vae.c" in got
        assert "replaced: 1 tensors of a base by those of the checkpoint: action_head.model.head.weight" in lines


def test_lora_that_does_not_fit_is_refused(tmp_path):
    tree, _ = lora_checkpoint(torch.float32)
    p = "action_head.model.base_model.model.blocks.0.q."
    src = save(tmp_path / "w.pt", tree)
    refuse(tmp_path, src, "config.json names no lora_alpha: give --lora-alpha", ConfigError)
    (tmp_path / "config.json").write_text('{"action_head_cfg": {"config": {"lora_alpha": 4, "lora_rank": 8}}}')
    refuse(tmp_path, src, "config.json says LoRA rank 8, the tensors have 4")
    (tmp_path / "config.json").unlink()
    for change, message in (
        ({p + "lora_B.default.weight": None}, "has lora_A without its partner"),
        (
            {p + "lora_A.default.weight": torch.ones(4, 9)},
            "the LoRA update does not fit: B .6, 4. A .4, 9. for a weight .6, 5.",
        ),
        ({p + "lora_B.default.weight": torch.ones(6, 3)}, "does not fit"),
        ({p + "lora_A.other.weight": torch.ones(4, 5)}, "wanted lora_A or lora_B of the default adapter"),
        ({p + "lora_magnitude_vector.default.weight": torch.ones(6)}, "wanted lora_A or lora_B"),
        ({p + "weight": torch.ones(6, 5)}, "two tensors become 'action_head.model.blocks.0.q.weight'"),
        ({p + "base_layer.weight": torch.ones(6, 5, dtype=torch.int8)}, "wants a floating-point weight"),
    ):
        changed = {k: v for k, v in (tree | change).items() if v is not None}
        refuse(tmp_path, save(src, changed), message, lora_alpha=4)


# ---------------------------------------------------------------------------------------------- what is refused


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_pickle_does_not_run(process, tmp_path):
    src, marker = save(tmp_path / "w.pt", {"a": Evil(tmp_path / "marker")}), tmp_path / "marker"
    marker.unlink(missing_ok=True)
    refuse(tmp_path, src, "the weights-only loader refuses it: GLOBAL io.open")
    assert not marker.exists()


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path):
    for tree, message in (
        (torch.ones(2), "wanted a dictionary of tensors, got Tensor"),
        ([torch.ones(2)], "got list"),
        ({"a": [torch.ones(2)]}, "'a' is list, not a tensor"),
        ({"a": None}, "'a' is NoneType"),
        ({3: torch.ones(1)}, "the top level has key 3, wanted a name"),
        ({"a": {"": torch.ones(1)}}, "a has key ''"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "two entries become 'a.b'"),
        ({}, "no tensors to convert"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "element type torch.complex64 is not supported"),
        ({"a": torch.ones(2).to(torch.float8_e4m3fn)}, "float8_e4m3fn is not supported"),
        ({"a": torch.eye(3).to_sparse()}, "wanted a plain tensor|weights-only loader refuses"),
        ({"a": torch.ones(1).expand(1 << 40)}, "declares 4398046511104 bytes, 4 are stored"),
        ({"a\n": torch.ones(1)}, "control characters"),
    ):
        refuse(tmp_path, save(tmp_path / "w.pt", tree), message)


def test_archives_that_lie_are_refused(tmp_path):
    src = save(tmp_path / "w.pt", {"a": torch.randn(5000)})
    good = src.read_bytes()
    rng = np.random.default_rng(SEED)
    for n in (0, 10, int(rng.integers(20, len(good) - 30)), len(good) - 1):
        src.write_bytes(good[:n])
        refuse(tmp_path, src, "not a zip archive|damaged archive|refuses it")
    torch.save({"a": torch.ones(1)}, src, _use_new_zipfile_serialization=False)
    refuse(tmp_path, src, "not a zip archive as torch.save writes since version 1.6")
    with zipfile.ZipFile(src, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\0" * 1000000)
    refuse(tmp_path, src, "the archive is compressed")
    with zipfile.ZipFile(src, "w") as archive:
        archive.writestr("w/other", b"")
    refuse(tmp_path, src, "wanted one data.pkl")
    # the directory claims more bytes for an entry than the file has
    save(src, {"a": torch.randn(5000)})
    data = bytearray(src.read_bytes())
    at = data.rindex(b"PK\1\2")
    while struct.unpack_from("<I", data, at + 24)[0] < 20000:
        at = data.rindex(b"PK\1\2", 0, at)
    struct.pack_into("<II", data, at + 20, 1 << 30, 1 << 30)
    src.write_bytes(data)
    refuse(tmp_path, src, "declares [0-9]+ bytes, the file has")


def test_random_damage_is_refused_or_harmless(tmp_path):
    wanted = {"a": torch.randn(50), "b": {"c": torch.arange(7)}}
    src = save(tmp_path / "w.pt", wanted)
    good = src.read_bytes()
    at = int(np.random.default_rng(SEED).integers(len(good)))
    src.write_bytes(good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :])
    try:  # one flipped byte: refused, or it hit padding or a value
        done, _ = quiet(src, tmp_path / "out")
    except WeightError:
        assert not (tmp_path / "out").exists()
    else:
        assert {k: (v.dtype, v.shape) for k, v in read(done.path).items()}


def test_sizes_are_limited(tmp_path):
    src = save(tmp_path / "w.pt", {"a": torch.randn(1000)})
    refuse(tmp_path, src, "wanted at most 3000 bytes, got [0-9]+; raise the limit", max_bytes=3000)
    tied = torch.randn(1000)
    src = save(tmp_path / "w.pt", {str(i): tied for i in range(10)})
    refuse(tmp_path, src, "the result would have 40000 bytes, more than the limit of 20000", max_bytes=20000)


def test_damaged_safetensors_and_ambiguous_folders_are_refused(tmp_path):
    src = save_safetensors(tmp_path / "in" / "model.safetensors", {"a": torch.ones(2)})
    src.write_bytes(src.read_bytes()[:-1])
    refuse(tmp_path, src.parent, "are not inside the 7 bytes of data")
    save_safetensors(src, {"a": torch.ones(2)})
    (src.parent / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    refuse(tmp_path, src.parent, "wanted one checkpoint, got 2")
    src.unlink()
    for name in ("../x.safetensors", "/x.safetensors", "x.pt"):
        (src.parent / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        refuse(tmp_path, src.parent, "wanted the name of a .safetensors file beside the index")
    (src.parent / "model.safetensors.index.json").write_text('{"weight_map": {"a": 1}}')
    refuse(tmp_path, src.parent, "wanted a weight_map")
    refuse(tmp_path, tmp_path / "none", "no such file or folder")
    refuse(tmp_path, Path(__file__), "wanted .pt, .pth, .bin or .safetensors")


def test_bases_may_not_disagree(tmp_path):
    src = save(tmp_path / "w.pt", {"a": torch.ones(1)})
    bases = [Base("x.", save(tmp_path / f"{n}.pt", {"b": torch.ones(1)})) for n in "pq"]
    refuse(tmp_path, src, r"'x.b' is in .*p\.pt and in .*q\.pt", base=bases)


def test_an_existing_result_is_not_overwritten(tmp_path):
    src = save(tmp_path / "w.pt", {"a": torch.ones(1)})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    for dst in (tmp_path / "full", src):
        with pytest.raises(ConfigError, match="exists and is not an empty folder"):
            convert(src, dst)


# ---------------------------------------------------------------------------------------------- the separate process


def test_a_missing_torch_is_said_clearly(tmp_path, monkeypatch, capsys):
    src = save(tmp_path / "w.pt", {"a": torch.ones(1)})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refuse(tmp_path, src, r"PyTorch is not installed; pip install 'wamcore\[convert\]'", ImportError)
    assert main([str(src), str(tmp_path / "out")]) == 1
    assert "wamcore convert: convert: PyTorch is not installed" in capsys.readouterr().err


def test_an_old_torch_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    refuse(tmp_path, save(tmp_path / "w.pt", {"a": torch.ones(1)}), "wanted PyTorch 2.10 or newer", ImportError)


def test_a_worker_that_dies_or_fails_is_an_error(process, tmp_path, monkeypatch):
    src, worker = save(tmp_path / "w.pt", {"a": torch.ones(1)}), tmp_path / "worker.py"
    monkeypatch.setattr(module, "WORKER", worker)
    worker.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    refuse(tmp_path, src, "killed by signal 9; out of memory")
    worker.write_text("raise SystemExit(7)")
    refuse(tmp_path, src, "failed with status 7")


@pytest.mark.parametrize("change", ["bytes", "name", "shape"])
def test_what_was_written_is_read_back_and_compared(tmp_path, change):
    done, _ = quiet(save(tmp_path / "w.pt", {"a": torch.randn(3)}), tmp_path / "out")
    digest = module._digest(done.path / done.files[0], 8, 1)
    entry = _core.WeightStore(str(done.path)).entry("a")
    digest = module._digest(done.path / done.files[0], entry.offset, entry.nbytes)
    written = {"name": "a", "dtype": "f32", "shape": [3], "sha256": digest, "file": done.files[0]}
    module._verify(done.path, [written])
    written |= {"bytes": {"sha256": "0" * 64}, "name": {"name": "b"}, "shape": {"shape": [1, 3]}}[change]
    with pytest.raises(WeightError, match="convert: "):
        module._verify(done.path, [written])


# ---------------------------------------------------------------------------------------------- command line


def test_command_line(process, tmp_path, capsys):
    tree, merged = lora_checkpoint(torch.float32)
    src = save(tmp_path / "w.pt", {"m": tree, "epoch": 1})
    base = save(tmp_path / "b.pt", {"x": torch.ones(1), "y": {"z": torch.ones(1)}})
    arguments = [src, tmp_path / "out", "--select", "m", "--base", f"more.={base}", "--drop", "more.y"]
    arguments += ["--lora-alpha", "8", "--shard-size", "1KB", "--max-size", "1 MB"]
    assert main([str(a) for a in arguments]) == 0
    got = read(tmp_path / "out")
    assert "more.x" in got and torch.allclose(got["action_head.model.blocks.0.q.weight"].double(), merged, atol=1e-5)
    printed = capsys.readouterr().out
    assert "dropped by --select m: 1 entries below epoch" in printed and "dropped as asked: more.y" in printed
    assert main([str(src), str(tmp_path / "out")]) == 1
    assert "exists and is not an empty folder" in capsys.readouterr().err
    for bad in (["--shard-size", "0"], ["--max-size", "five"], ["--base", "x"], ["--embodiment", "nobody"]):
        with pytest.raises(SystemExit):
            main([str(src), str(tmp_path / "out2"), *bad])


def test_the_weight_store_reads_and_accounts(tmp_path):
    wanted = {"a": torch.randn(2, 3).bfloat16(), "b": torch.tensor([1.0, float("nan")]), "c": torch.arange(2)}
    done, _ = quiet(save(tmp_path / "w.pt", wanted), tmp_path / "out")
    store = _core.WeightStore(str(done.path))
    assert len(store) == 3 and "a" in store and "z" not in store
    a = store.f32("a")
    assert a.dtype == np.float32 and np.array_equal(a, wanted["a"].float().numpy())
    assert store.unused() == ["b", "c"] and store.entry("c").dtype == "i64"
    with pytest.raises(WeightError, match=r"tensor 'b' .2.: element 1 is not finite"):
        store.check_finite()
    with pytest.raises(WeightError, match="no tensor 'aa' among 3; the nearest is 'a'"):
        store.f32("aa")
    with pytest.raises(wamcore.Error, match=r"wanted floating point .2., got i64"):
        store.f32("c")
