"""The command line: what it prints, and how it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wamcore
from conftest import run
from wamcore import _core
from wamcore.cli import bench, main

TABLETOP = Path(wamcore.__file__).parent / "models" / "tabletop"


def wam(*args, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "wamcore", *map(str, args)], capture_output=True, text=True, **kwargs)


def refused(capsys, *args: str) -> str:
    """The one line a command that must refuse its input prints."""
    assert main([*args]) == 2
    out = capsys.readouterr()
    assert not out.out and "Traceback" not in out.err
    assert out.err.count("\n") == 1, out.err
    return out.err


def test_help_names_every_command():
    text = run([sys.executable, "-m", "wamcore", "--help"])
    for command in ("run", "info", "doctor", "convert", "bench"):
        assert command in text
        assert run([sys.executable, "-m", "wamcore", command, "--help"]).startswith(f"usage: wamcore {command}")


def test_nothing_to_do_is_an_error():
    done = wam()
    assert done.returncode == 2 and "nothing to do" in done.stderr


def test_info_describes_the_bundled_model():
    text = run([sys.executable, "-m", "wamcore", "info", "tabletop"])
    for word in (
        "dreamzero",
        "scene",
        "yaw",
        "20 Hz",
        "model.safetensors",
        "sigma_shift",
    ):
        assert word in text
    facts = json.loads(
        run([sys.executable, "-m", "wamcore", "info", TABLETOP, "--json", "--tensors", "--check-finite"])
    )
    assert facts["family"] == "dreamzero"
    assert facts["embodiment"]["cameras"] == [{"name": "scene", "height": 64, "width": 96}]
    assert [j["name"] for j in facts["embodiment"]["joints"]] == ["yaw", "shoulder", "elbow", "wrist"]
    assert sum(p["parameters"] for p in facts["parts"].values()) == facts["parameters"]
    assert sum(p["tensors"] for p in facts["parts"].values()) == len(facts["tensors"])
    assert facts["chunk"]["rows"] == 16 and len(facts["sha256"]) == 64


def test_a_misspelt_model_names_the_nearest(capsys):
    assert "did you mean 'tabletop'?" in refused(capsys, "info", "tabeltop")
    assert "bundled models: tabletop" in refused(capsys, "info", "zzz")


def test_a_folder_without_a_model_is_refused(capsys, tmp_path):
    assert "config.json" in refused(capsys, "info", str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert "the file" in refused(capsys, "info", str(tmp_path / "file"))


def test_a_damaged_checkpoint_is_refused(capsys, tmp_path):
    for p in TABLETOP.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "WeightError" in refused(capsys, "info", str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    assert "ConfigError" in refused(capsys, "info", str(tmp_path))


def test_weights_that_are_not_numbers_are_refused(capsys, tmp_path):
    for p in TABLETOP.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")  # of the tensors: after the header and its length
    header = json.loads(data[8:begin])
    name, entry = next((k, v) for k, v in sorted(header.items()) if k != "__metadata__" and v["dtype"] == "BF16")
    at = begin + entry["data_offsets"][0]
    data[at : at + 2] = b"\xc0\x7f"  # NaN in bfloat16
    weights.write_bytes(data)
    for flags in ([], ["--check-finite"]):  # what no part of the model reads is looked at on request only
        message = refused(capsys, "info", str(tmp_path), *flags)
        assert "WeightError" in message and name in message


def test_debug_shows_where(capsys):
    with pytest.raises(wamcore.ConfigError):
        main(["info", "--debug", "nosuch"])


def operations(text: str) -> dict[str, int]:
    """How often each operation ran with the kernels that this machine should choose, whatever its weights are."""
    runs: dict[str, int] = {}
    for line in re.finditer(rf"^ +(\w+) +{_core.cpu_isa()} +float32(?:, weights bfloat16)? +(\d+) *$", text, re.M):
        runs[line[1]] = runs.get(line[1], 0) + int(line[2])
    return runs


def test_doctor_runs_the_backends():
    pytest.importorskip("numpy")
    usable, sentence = _core.cuda_status()
    done = wam("doctor")
    assert done.returncode in (0, 1), done.stderr
    assert f"wamcore {wamcore.__version__}" in done.stdout
    assert done.stdout.count("ran a chunk of tabletop") == 4 + usable
    for dtype in ("bfloat16", "int8"):  # they run what machine.describe() says, and their tables show nothing else
        table = done.stdout.partition(f"fused layers, {dtype}, ")[2].partition("\n\n")[0]
        rows = re.findall(rf"^ +(\w+) +{_core.cpu_isa(dtype)} +{dtype}, sums \w+ +([1-9]\d*) *$", table, re.M)
        assert {name for name, _ in rows} == {"gemm", "feed_forward"}
        assert "float32 " not in table.partition("runs\n")[2].replace("sums float32", "")
    assert f"  cuda     {sentence}\n" in done.stdout and (usable or sentence.endswith("."))
    cpu, ops = re.split(r"^  cpu-ops ", done.stdout.partition("kernels are the")[2], flags=re.M)
    fused, plain = (operations(text) for text in (cpu, ops))
    for name in ("gemm", "attention", "norm", "activation", "conv", "frames"):
        assert fused[name] > 0 and plain[name] > 0
    assert fused["feed_forward"] > 0 == plain["feed_forward"]  # the loop over operations has no fused layer
    assert fused["resample"] == 0  # the bundled model's pictures have the right size
    problems = int(done.stdout.split(" problem")[0].split()[-1])
    assert done.returncode == (problems > 0)
    assert done.stdout.count("\n  - ") == problems


def test_bench_writes_what_it_measured(tmp_path):
    text = run([sys.executable, "-m", "wamcore", "bench", "-n", "8", "--no-reference", "--json", tmp_path / "b.json"])
    report = json.loads((tmp_path / "b.json").read_text())
    assert report["chunk_ms"]["wamcore"]["n"] == 8
    assert report["chunk_ms"]["continued"]["n"] + report["chunk_ms"]["new context"]["n"] == 8
    assert "text" not in report["stages_ms"] and "decode_video" not in report["stages_ms"]
    stages = sum(q["p50"] for q in report["stages_ms"].values())
    assert 0.5 < stages / report["chunk_ms"]["wamcore"]["p50"] < 1.5
    for word in ("median", "p99", "denoise", report["machine"]["cpu"], "measured:"):
        assert word in text


@pytest.mark.parametrize("device", ["cpu", "cpu-ops"])
@pytest.mark.parametrize(("threads", "dtype"), [(1, "float32"), (3, "float32"), (2, "int8")])
def test_operation_times_cover_every_operation(device, threads, dtype):
    model = wamcore.load("tabletop", device=device, threads=threads, dtype=dtype)
    session = wamcore.Session(model, steps=2)
    session.set_prompt_tokens([1, 2, 3])
    seen = bench.observations(model, 4)

    def runs():
        return {(o["operation"], o["precision"]): o["runs"] for o in session.operations if o["operation"] != "resample"}

    for observation in seen[:2]:  # no clock runs unless somebody asks
        session.infer(observation)
    assert session.operation_times == []
    before, wall = runs(), 0
    session.time_operations(True)
    for observation in seen[2:]:
        session.infer(observation)
        wall += sum(ns for name, ns in session.trace["stages"].items() if name != "text")
    times, after = session.operation_times, runs()
    session.time_operations(False)
    calls = dict.fromkeys(after, 0)
    for o in times:
        if o["operation"] != "wait":
            calls[o["operation"], o["precision"]] += o["calls"]
    assert calls == {key: after[key] - before[key] for key in after}
    steps = {o["step"] for o in times}
    assert steps >= {"encoders", "patches", "timestep", "modulation", "linear", "norm", "q, k, v", "self-attention"}
    assert steps >= {"output of self-attention", "cross-attention", "feed-forward"}
    assert ("layers" in steps) == (device == "cpu")
    assert 0 < sum(o["ns"] for o in times) <= wall
    flop = {step: sum(o["flop"] for o in times if o["step"] == step) for step in steps}
    width, hidden = 128, 256  # of the model: feed-forward has 4 w h, the output of attention 2 w w, both of all tokens
    assert flop["feed-forward"] / flop["output of self-attention"] == pytest.approx(2 * hidden / width)
    assert session.operation_times == []


def test_bench_traces_operations(tmp_path):
    command = [
        sys.executable,
        "-m",
        "wamcore",
        "bench",
        "-n",
        "2",
        "--steps",
        "1",
        "--no-reference",
        "--trace",
        "--json",
    ]
    text = run([*command, tmp_path / "b.json"])
    trace = json.loads((tmp_path / "b.json").read_text())["trace"]
    assert trace["ms"] == pytest.approx(sum(r["ms"] for r in trace["rows"]) + trace["between_ms"])
    assert trace["between_ms"] >= 0 and trace["peak_gflops"] > 0
    for r in trace["rows"]:
        assert r["step"] in text and r["operation"] in text and 0 <= r["share"] <= 1
        assert (r["gflops"] is None) == (r["operation"] not in ("gemm", "attention", "feed_forward", "conv"))
    assert "GFLOP/s" in text and "of peak" in text


def test_bench_compares_with_the_reference(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    run([sys.executable, "-m", "wamcore", "bench", "-n", "2", "--threads", "1", "--json", tmp_path / "b.json"])
    report = json.loads((tmp_path / "b.json").read_text())
    ((name, times),) = report["references_ms"].items()
    assert name.startswith("PyTorch") and "eager" in name and times["n"] == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["bench", "-n", "0"], "-n: wanted 1 to 100000, got 0"),
        (["bench", "--steps", "0"], "steps"),
        (["bench", "--steps", "1000000"], "steps"),
        (["bench", "--device", "tpu"], "tpu"),
        (["bench", "--trace", "gemm"], "--trace: wanted a model, got the benchmark 'gemm'"),
    ],
)
def test_bad_options_are_refused(capsys, command, message):
    assert message in refused(capsys, *command)
