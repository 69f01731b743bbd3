"""wamcore bench of kernels, layers and chunks: what it writes, how it counts, what it refuses. The GPU's side runs here
on a pretended one: torch's CPU tensors, events that count, and stand-ins for the kernels.
"""

import contextlib
import json
import types

import numpy as np
import pytest
import wamcore
from wamcore import kernels
from wamcore.cli import main
from wamcore.cli.bench import kernel_benches

run = kernel_benches()
from wamcore.bench import arrays, cases, layers, report, stack, timing  # noqa: E402
from wamcore.bench.report import Roofline, Side, Unavailable  # noqa: E402

CASE = cases.Case("model", "case", "float32", flop=4e9, bytes=1e6)


def bench(tmp_path, *args) -> dict:
    """The JSON of a run that must succeed."""
    assert main(["bench", *args, "--smoke", "-n", "1", "--threads", "1", "--json", str(tmp_path / "b.json")]) == 0
    return json.loads((tmp_path / "b.json").read_text())


def check_schema(data: dict) -> None:
    keys = {"schema", "bench", "definition", "device", "scale", "roofline", "rows", "complete", "machine"}
    assert set(data) == keys and data["schema"] == 1 and data["rows"] and data["complete"]
    assert data["machine"]["cpu"] and "commit" in data["machine"] and data["roofline"]["gbs"] > 0
    always = {"model", "case", "dtype", "side", "timed", "baseline", "task", "whole", "flop", "bytes"}
    for row in data["rows"]:
        assert always <= set(row)
        if "unavailable" in row:
            assert row["unavailable"] and "ms" not in row
            continue
        assert set(row["ms"]) == {"p50", "p99", "max", "n"} and 0 < row["ms"]["p50"] <= row["ms"]["p99"]
        assert row["tflops"] == pytest.approx(row["flop"] / row["ms"]["p50"] / 1e9)
        assert set(row["roofline"]) == {"floor_ms", "bound", "fraction"}


@pytest.mark.parametrize("what", ["attention", "gemm", "elementwise", "layer", "forward", "limits"])
def test_every_benchmark_writes_what_it_measured(what, tmp_path, capsys):
    data = bench(tmp_path, what)
    check_schema(data)
    text = capsys.readouterr().out
    for word in ("median", "p99", "TFLOP/s", "GB/s", "roofline, measured in this run", "measured:", "tiny sizes"):
        assert word in text
    ours = [r for r in data["rows"] if r["side"].startswith("wamcore") and "ms" in r]
    assert ours or what == "limits"
    if arrays.load_torch() is not None and what != "limits":
        both = [r for r in data["rows"] if not r["case"].startswith(("quantize_rows", "sampler_step"))]  # a GPU's only
        assert all(r["ratio"] > 0 for r in both if r["side"] in ("wamcore", "torch eager"))


def test_a_chunk_by_steps_and_remembered_frames(tmp_path, capsys):
    data = bench(tmp_path, "chunk", "--no-reference")
    check_schema(data)
    assert "memory update and steps" in capsys.readouterr().out
    for model in ("smoke", "tabletop"):
        names = [r["case"] for r in data["rows"] if r["model"] == model and r["side"] == "wamcore"]
        assert names == [
            f"{s}, {f} frame{'s' * (f > 1)} remembered"
            for s in ("2 executed steps", "1 executed step")
            for f in (1, 3, 5, 7)
        ]
        # the other way of observing, beside each of them
        ours, other = ([r for r in data["rows"] if (r["model"], r["side"]) == (model, side)] for side in (
            "wamcore", "wamcore, one pass"))  # fmt: skip
        assert [r["case"] for r in other] == [r["case"] for r in ours]
        assert all("a pass of its own" in a["timed"] and "in one pass" in b["timed"] and a["flop"] == b["flop"]
                   and a["bytes"] > b["bytes"] and a["ratio"] == b["ratio"] > 0
                   for a, b in zip(ours, other, strict=True))  # fmt: skip
    missing = [r for r in data["rows"] if r["side"] == "PyTorch reference"]
    assert missing and all(r["unavailable"] == "not asked for" and r["model"] == "tabletop" for r in missing)


class Stopped(BaseException):
    """What no command catches."""


def test_what_was_measured_before_an_end_is_on_disk(tmp_path, monkeypatch):
    whole, seen = run.run_case, []

    def stops(case, *more):
        if seen and case.model != "limits":
            raise Stopped
        seen.extend([case.name] if case.model != "limits" else [])
        return whole(case, *more)

    monkeypatch.setattr(run, "run_case", stops)
    with pytest.raises(Stopped):
        bench(tmp_path, "elementwise")
    data = json.loads((tmp_path / "b.json").read_text())
    assert not data["complete"] and {r["case"] for r in data["rows"]} == set(seen) and list(tmp_path.iterdir()) == [
        tmp_path / "b.json"]  # fmt: skip


def test_without_torch_the_baselines_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arrays, "load_torch", lambda: None)
    for what in ("attention", "gemm", "elementwise", "layer"):
        rows = bench(tmp_path, what)["rows"]
        assert {r["unavailable"] for r in rows if r["baseline"]} == {"torch is not installed"}
        assert any("ms" in r for r in rows)
    assert "torch is not installed: no baselines" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["attention", "-n", "0"], "-n: wanted 1 to 100000, got 0"),
        (["attention", "--device", "tpu"], "--device: wanted auto, cpu or cuda, got 'tpu'"),
        (["gemm", "--threads", "-1"], "--threads: wanted 1 to 1024, got -1"),
        (["tabletop", "--threads", "0"], "--threads: wanted 1 to 1024, got 0"),
        (["runtime", "--threads", "1000000"], "--threads: wanted 1 to 1024, got 1000000"),
        (["layer", "--seconds", "0"], "--seconds: wanted more than 0, got 0"),
        (["layer", "--peak-gbs", "nan"], "--peak-gbs: wanted more than 0, got nan"),
        (["attention", "--smoke", "--only", "70b"], "--only: wanted a part of a case's name, got '70b'"),
    ],
)
def test_bad_options_are_refused(args, message, capsys):
    assert main(["bench", *args]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(wamcore._core.cuda_status()[0], reason="there is a GPU")
def test_without_a_gpu_the_reason_is_told(capsys):
    assert main(["bench", "attention", "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert "wanted a GPU for --device cuda, got none: " in error and wamcore._core.cuda_status()[1] in error


class Steps:
    """A clock whose calls take what they return."""

    def time(self, call, i):
        return call(i)

    def wait(self):
        pass


def test_sides_are_called_in_turn_and_warm_up_does_not_count():
    order = []

    def call(name):
        return lambda i: order.append((name, i)) or 1e-3

    times = timing.measure({"a": call("a"), "b": call("b")}, Steps(), n=6, seconds=60, warm_up=2)
    assert order[:4] == [("a", 0), ("a", 1), ("b", 0), ("b", 1)] and order[4:8] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
    ]
    assert times == {"a": [1.0] * 6, "b": [1.0] * 6}
    assert len(timing.measure({"a": call("a")}, Steps(), n=100, seconds=0.0)["a"]) == 5


def test_median_p99_floor_and_ratios_by_hand():
    values = iter(range(1, 10_000))  # ms: warm-up takes 1 (of run_case) and 3
    slow = Side("torch", "t", lambda: lambda i: 0.4, task="")
    unfair = Side("torch, half", "t", lambda: lambda i: 0.01, whole=False)
    ours = Side("wamcore", "t", lambda: lambda i: next(values) * 1e-3, baseline=False)
    rows = report.run_case(CASE, [ours, slow, unfair], Steps(), n=101, seconds=60)
    rows = report.judge(rows, CASE, Roofline({"float32": 0.1}, 1000.0, "given"))
    # ours took 5, 6, ... 105 ms: the median is the 51st, the 99th percentile the 100th
    assert rows[0]["ms"] == pytest.approx({"p50": 55.0, "p99": 104.0, "max": 105.0, "n": 101})
    assert rows[0]["tflops"] == pytest.approx(4e9 / 0.055 / 1e12) and rows[0]["gbs"] == pytest.approx(1e6 / 0.055 / 1e9)
    # 4 GFLOP at 0.1 TFLOP/s are 40 ms, 1 MB at 1000 GB/s 1 us
    assert rows[0]["roofline"] == {
        "floor_ms": pytest.approx(40.0),
        "bound": "compute",
        "fraction": pytest.approx(40 / 55),
    }
    assert rows[0]["ratio"] == pytest.approx(400 / 55)  # of the baseline that computes all of it
    assert rows[1]["ratio"] == pytest.approx(400 / 55) and rows[2]["ratio"] == pytest.approx(10 / 55)
    assert Roofline({}, 1.0, "given").floor(CASE) is None
    assert Roofline({"float32": 1e6}, 1.0, "given").floor(CASE) == (pytest.approx(1.0), "memory")


def test_a_baseline_that_refuses_is_a_row_and_our_own_failure_is_not():
    def refuses(error):
        def make():
            raise error

        return make

    ours = Side("wamcore", "t", lambda: lambda i: 1e-3, baseline=False)
    sides = [
        ours,
        Side("a", "t", refuses(RuntimeError("no kernel\nat all"))),
        Side("b", "t", refuses(Unavailable("why"))),
    ]
    rows = report.run_case(CASE, sides, Steps(), n=1, seconds=1)
    assert [r.get("unavailable") for r in rows] == [None, "RuntimeError: no kernel", "why"]
    broken = Side("wamcore", "t", refuses(RuntimeError("broken")), baseline=False)
    with pytest.raises(RuntimeError, match="broken"):
        report.run_case(CASE, [broken], Steps(), n=1, seconds=1)


def test_peaks_can_be_given(tmp_path):
    data = bench(tmp_path, "elementwise", "--peak-tflops", "2", "--peak-gbs", "50", "--only", "ln_modulate")
    assert data["roofline"]["source"] == "TFLOP/s and GB/s given" and data["roofline"]["gbs"] == 50
    (ours, *_) = data["rows"]
    assert ours["roofline"]["floor_ms"] == pytest.approx(ours["bytes"] / 50 / 1e6)


@pytest.mark.parametrize("bench_", ["layer", "forward"])
def test_our_layers_and_torchs_are_the_same_maths(bench_):
    pytest.importorskip("torch")
    made = arrays.Arrays("cpu", 1, seed=int(np.random.default_rng().integers(1 << 30)))
    for case in cases.stack("smoke", "float32", bench_):
        both = layers.Stack(case, made)
        np.testing.assert_allclose(layers.OurLayers(both)(1), layers.TorchLayers(both)(1).numpy(), rtol=1e-3, atol=1e-4)


class PretendTorch:
    """torch whose GPU is the CPU: no device is asked for, events count milliseconds, graphs do nothing."""

    def __init__(self, torch):
        self._torch, self.log = torch, []
        for name in ("randn", "empty", "ones", "tensor"):
            setattr(self, name, self._on_cpu(getattr(torch, name)))
        self.compile = lambda call, dynamic: call
        facts = types.SimpleNamespace(name="Pretended", multi_processor_count=132, total_memory=1 << 37)
        self.cuda = types.SimpleNamespace(
            Event=lambda enable_timing: PretendEvent(self.log),
            synchronize=lambda: self.log.append("wait"),
            Stream=object,
            stream=lambda s: contextlib.nullcontext(),
            CUDAGraph=lambda: types.SimpleNamespace(replay=lambda: self.log.append("replay")),
            graph=lambda g, stream: contextlib.nullcontext(),
            get_device_properties=lambda i: facts,
        )

    def __getattr__(self, name):
        return getattr(self._torch, name)

    def _on_cpu(self, make):
        return lambda *args, device=None, **options: make(*args, **options)


class PretendEvent:
    def __init__(self, log):
        self._log = log

    def record(self):
        self._log.append("event")

    def elapsed_time(self, other):
        return 2.0


def pretended_kernels(torch, monkeypatch):
    """Stand-ins for the GPU's kernels, by torch on bfloat16; e4m3 as the bits that torch makes."""
    f = torch.nn.functional

    def wide(a, scale=None):
        return a.float() if scale is None else a.view(torch.float8_e4m3fn).float() * scale[:, None]

    def attention(q, segments, out, splits=None):
        k, v = (torch.cat(x).transpose(0, 1).float() for x in zip(*segments, strict=True))
        assert splits in (None, 1, 2, 3)
        out.copy_(f.scaled_dot_product_attention(q.transpose(0, 1).float(), k, v).transpose(0, 1))

    def gemm(
        x, w, y, bias=None, activation="none", residual=None, gate=None, gate_row=None, x_scale=None, w_scale=None
    ):
        z = f.linear(wide(x, x_scale), wide(w, w_scale), None if bias is None else bias.float())
        z = f.gelu(z, approximate="tanh") if activation == "gelu_tanh" else z
        if residual is not None:
            z = residual.float() + (gate[gate_row.long()] if gate_row is not None else gate[:1]) * z
        y.copy_(z)

    def gemm_qkv(x, w, q, k, v, **options):
        y = torch.empty(len(x), 3 * q.shape[1])
        gemm(x, w, y, **options)
        for part, to in zip(y.chunk(3, -1), (q, k, v), strict=True):
            to.copy_(part)

    def layer_norm(x, y, eps=1e-6, weight=None, bias=None, shift=None, scale=None, time_row=None, y_scale=None):
        z = f.layer_norm(x.float(), x.shape[-1:], weight, bias, eps)
        row = None if time_row is None else time_row.long()
        z = z if shift is None else z * (1 + scale[row]) + shift[row]
        y.copy_(z) if y_scale is None else quantize_rows(z, y, y_scale)

    def qk_norm_rope(x, y, eps=1e-6, weight=None, cos=None, sin=None):
        z = x.float()
        z = z * torch.rsqrt(z.pow(2).mean((1, 2), keepdim=True) + eps) * weight.view(z.shape[1:])
        if cos is not None:
            a, b = z.unflatten(-1, (-1, 2)).unbind(-1)
            c, s = cos[:, None], sin[:, None]
            z = torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2)
        y.copy_(z)

    def quantize_rows(x, y, scale):
        scale.copy_(x.float().abs().amax(1) / 448)
        y.copy_((x.float() / scale[:, None]).to(torch.float8_e4m3fn).view(torch.uint8))

    for stand_in in (attention, gemm, gemm_qkv, layer_norm, qk_norm_rope, quantize_rows):
        monkeypatch.setattr(kernels, stand_in.__name__, stand_in)
    monkeypatch.setattr(kernels, "add", lambda x, y: y.add_(x))
    monkeypatch.setattr(kernels, "sampler_step", lambda modalities, step, ticket: step.add_(1))


@pytest.fixture
def pretended(monkeypatch):
    """Arrays on a GPU that is none."""
    torch = PretendTorch(pytest.importorskip("torch"))
    made = arrays.Arrays("cpu", 1)
    made.device, made.dtype, made.torch = "cuda", "bfloat16", torch
    pretended_kernels(torch._torch, monkeypatch)
    monkeypatch.setattr(run, "Arrays", lambda device, threads: made)
    monkeypatch.setattr(timing, "GPU_CACHE", 1024)
    return made


@pytest.mark.parametrize("what", ["attention", "gemm", "elementwise", "layer", "forward", "limits"])
def test_the_gpus_side_on_a_pretended_one(what, pretended, tmp_path):
    data = bench(tmp_path, what, "--device", "cuda")
    check_schema(data)
    assert data["device"]["what"] == "Pretended" and "CUDA events" in data["definition"]
    sides = {r["side"] for r in data["rows"]}
    wanted = {
        "attention": {"wamcore", "wamcore, split-KV 2", "wamcore, split-KV 3", "torch SDPA cudnn + concat",
                      "torch SDPA flash + concat", "torch SDPA cudnn", "torch SDPA flash", "torch FlexAttention"},
        "gemm": {"wamcore", "wamcore, bias only", "torch linear", "torch linear + epilogue", "torch _scaled_mm",
                 "wamcore + quantize_rows"},
        "elementwise": {"wamcore", "torch eager", "torch.compile"},
        "limits": {"copy", "product"},
    }.get(what, {"wamcore", "wamcore, CUDA graph", "wamcore e4m3, CUDA graph", "torch eager", "torch.compile",
                 "torch eager, CUDA graph", "torch.compile, CUDA graph"})  # fmt: skip
    assert sides == wanted
    for row in data["rows"]:  # only what no CPU has may be missing
        assert "ms" in row or row["side"] in (
            "torch SDPA cudnn",
            "torch SDPA cudnn + concat",
            "torch _scaled_mm",
            "product",
        ), row


def test_the_gpus_clock_flushes_before_the_events(pretended):
    log, clock = pretended.torch.log, timing.CudaClock(pretended.torch)
    clock._cache = types.SimpleNamespace(zero_=lambda: log.append("flush"))
    assert clock.time(lambda i: log.append(f"call {i}"), 7) == pytest.approx(2e-3)
    assert log == ["flush"] * timing.GPU_FLUSHES + ["event", "call 7", "event", "wait"]


@pytest.mark.parametrize(("fp8", "tolerance"), [(False, 0.03), (True, 0.12)])
def test_the_gpus_order_of_kernels_is_the_same_maths(pretended, fp8, tolerance):
    for case in cases.stack("smoke", "bfloat16", "layer"):
        both = layers.Stack(case, pretended)
        ours, theirs = layers.OurLayers(both, fp8)(0).float(), layers.TorchLayers(both)(0).float()
        moved = (theirs - both.x[0].float()).norm()
        assert (ours - theirs).norm() < tolerance * moved


def test_graphs_are_warmed_up_on_the_stream_that_is_captured(pretended, monkeypatch):
    streams = []
    monkeypatch.setattr(pretended.torch.cuda, "stream", lambda s: streams.append(s) or contextlib.nullcontext())
    monkeypatch.setattr(
        pretended.torch.cuda, "graph", lambda g, stream: streams.append(stream) or contextlib.nullcontext()
    )
    calls = []
    replay = stack.graphed(pretended, lambda: calls.append)
    assert len(set(map(id, streams))) == 1 and calls == [0, 1, 2, 0, 1, 2]
    replay(4)
    assert pretended.torch.log[-1] == "replay"
