"""bench/device_check without a GPU: a program plays the C++ half, and the CPU's other backend plays the GPU."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from wamcore import _core
from wamcore.cli.bench import kernel_benches

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))
import device_check  # noqa: E402
import device_sessions  # noqa: E402

# Plays tests/device/main.cpp: rows as its first argument lists them, each with the exit status that ends the program.
PROGRAM = """
import json, os, signal, sys
if sys.argv[1] == "gpu":
    print("A GPU, compute capability 9.0"); sys.exit(0)
if sys.argv[1] == "golden":
    print("prefill0 0.01"); print("denoise0.video 0.02"); sys.exit(0)
rows = json.loads(os.environ["ROWS"])
if "--list" in sys.argv:
    for index in range(len(rows)):
        print(json.dumps({"index": index, "kernel": "gemm_sm90", "shape": f"row {index}"}))
    sys.exit(0)
start = int(sys.argv[sys.argv.index("--from") + 1])
log = open(sys.argv[sys.argv.index("--json") + 1], "a")
failed = False
for index, (verdict, end) in list(enumerate(rows))[start:]:
    if end < 0:
        os.kill(os.getpid(), -end)
    failed = failed or verdict == "FAILED"
    log.write(json.dumps({"index": index, "kernel": "gemm_sm90", "shape": f"row {index}", "verdict": verdict,
        "why": "", "error": 0.001, "tolerance": 0.002, "seconds": 0.1}) + "\\n"); log.flush()
    if end:
        sys.exit(end)
sys.exit(1 if failed else 0)
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "device_check"
    path.write_text(f"#!{sys.executable}\n{PROGRAM}")
    path.chmod(0o755)
    return path


def rows_of(program, monkeypatch, rows):
    monkeypatch.setenv("ROWS", json.dumps(rows))
    return device_check.program_rows([program, "kernels"], 300)


def test_rows_go_on_behind_one_that_ended_the_program(program, monkeypatch):
    lost, hung, crashed = ("FAILED", 3), ("FAILED", 4), ("never written", -11)
    rows = rows_of(program, monkeypatch, [("ok", 0), lost, ("ok", 0), hung, crashed, ("ok", 0)])
    assert [r["verdict"] for r in rows] == ["ok", "FAILED", "ok", "FAILED", "FAILED", "ok"]
    assert "status -11" in rows[4]["why"]
    assert {r["kernel"] for r in rows} == {"gemm_sm90"}  # the one that never wrote a row too


def test_what_is_not_run_is_listed_under_its_name(program, monkeypatch):
    real = device_check.execute

    def killed_in_its_second_row(command, limit, environment=None):
        if "--list" in command:
            return real(command, limit, environment)
        Path(command[command.index("--json") + 1]).write_text(
            '{"index": 0, "kernel": "gemm_sm90", "shape": "", "verdict": "ok", "error": 1, "tolerance": 2}\n'
        )
        return None, ""

    monkeypatch.setattr(device_check, "execute", killed_in_its_second_row)
    monkeypatch.setenv("ROWS", json.dumps([("ok", 0)] * 3))
    rows = device_check.program_rows([program, "kernels"], 30)
    assert [(r["kernel"], r["verdict"]) for r in rows] == [("gemm_sm90", v) for v in ("ok", "not run", "not run")]
    assert not device_check.passed(rows)
    # a kernel that ran in part is not recorded as one that ran
    assert device_check.record({"rows": rows, "gpu": "", "commit": "", "date": ""}) == ""
    monkeypatch.setattr(device_check, "execute", lambda *a: (None, ""))  # a program that cannot say what it has
    (one,) = device_check.program_rows([program, "kernels"], 30)
    assert (one["kernel"], one["shape"], one["verdict"]) == ("kernels", "from row 0 on", "not run")


def test_a_program_that_does_not_start_is_a_failure(tmp_path):
    rows = device_check.program_rows([tmp_path / "missing", "kernels"], 5)
    assert [r["verdict"] for r in rows] == ["FAILED"]


class Time:
    """time.monotonic() of parts that take what they say."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(device_check.time, "monotonic", lambda: self.now)

    def part(self, name, kept, takes):
        def run(limit):
            self.now += min(takes, limit)
            late = takes > limit
            return [device_check.row(name, f"{limit:g}", *(("not run", "out of time") if late else ("ok", "")))]

        return device_check.Part(name, takes, kept, run)


def test_a_part_has_its_own_time_and_what_was_left(monkeypatch, capsys):
    time = Time(monkeypatch)
    parts = [time.part("quick", 150, 10), time.part("endless", 200, 1000), time.part("last", 100, 20),
             time.part("extra", 0, 5), time.part("too much", 0, 100), time.part("later", 0, 1)]  # fmt: skip
    rows = device_check.run_parts(parts, 450)
    # 450 - 300; 450 - 10 - 100; what was kept; what that left; the same; nothing
    assert [r["shape"] for r in rows] == ["150", "340", "100", "80", "75", "-"]
    assert [r["verdict"] for r in rows] == ["ok", "not run", "ok", "ok", "not run", "not run"]
    out = capsys.readouterr().out
    assert "6 parts, at most 450 s" in out and re.search(r"quick +about +10 s, 150 s kept for it", out)
    assert re.search(r"extra +about +5 s, in what the others leave", out)
    assert "[2 of 6] endless: 1 not run; 340 s of 340 s, 100 s left" in out
    assert "[6 of 6] later: 1 not run; 0 s of 0 s, 0 s left" in out


def test_the_parts_of_both_commands_fit_8_minutes(program):
    args = device_check.arguments().parse_args(["correctness"])
    parts = device_check.correctness_parts(args, program)
    assert {p.name for p in parts} - {"kernels"} <= set(device_check.NAMES)
    assert sum(p.kept for p in parts) == device_check.BUDGET <= 480 - 20
    assert all(0 < p.about < p.kept for p in parts)
    args = device_check.arguments().parse_args(["bench"])
    known = [k for k in device_check.BENCHES if k[1]] + [("gemm", "dreamzero-5b")]
    parts, _ = device_check.bench_parts(known, args, {})
    assert sum(p.kept for p in parts) <= device_check.BUDGET and parts[0].name == "limits"
    assert parts[-1].name == "gemm dreamzero-5b" and parts[-1].kept == 0


def command(program, tmp_path, monkeypatch, rows, *more) -> tuple[int, dict]:
    """`device_check correctness` with nothing but the program's own rows."""
    monkeypatch.setenv("ROWS", json.dumps(rows))
    monkeypatch.delenv("WAMCORE_GOLDEN", raising=False)
    monkeypatch.setattr(device_check, "python_rows", lambda *_: [])
    monkeypatch.setattr(device_check, "sanitizer_rows", lambda *_: [])
    file = tmp_path / "out.json"
    status = device_check.main(["correctness", "--program", str(program), "--json", str(file), *more])
    return status, json.loads(file.read_text())


def test_the_exit_status_and_the_table_tell(program, tmp_path, monkeypatch, capsys):
    status, report = command(program, tmp_path, monkeypatch, [("ok", 0), ("skipped", 0)], "--record")
    out = capsys.readouterr().out
    assert status == 0 and "all passed" in out and "gemm_sm90" in out
    recorded = [line for line in out.splitlines() if line.startswith("| `gemm_sm90` |")]
    assert len(recorded) == 1 and "A GPU, compute capability 9.0" in recorded[0] and report["date"] in recorded[0]
    assert {r["kernel"] for r in report["rows"]} <= set(device_check.NAMES)

    status, report = command(program, tmp_path, monkeypatch, [("ok", 0), ("FAILED", 0)])
    out = capsys.readouterr().out
    assert status == 1 and "FAILED: gemm_sm90, row 1 1.00e-03 of 2.0e-03" in out and "NOT all passed" in out
    assert [r["verdict"] for r in report["rows"]].count("FAILED") == 3  # kernels, programs, programs again


def test_without_a_gpu_it_says_so(tmp_path, capsys):
    program = tmp_path / "device_check"
    program.write_text("#!/bin/sh\necho 'device_check: no CUDA-capable device is detected'\nexit 3\n")
    program.chmod(0o755)
    assert device_check.main(["correctness", "--program", str(program)]) == 2
    assert "no GPU can be checked here: device_check: no CUDA-capable device" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["correctness", "bench"])
def test_without_a_build_it_says_what_to_run(tmp_path, monkeypatch, capsys, command):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no module' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(device_check.sys, "executable", str(python))
    assert device_check.main([command, "--build", str(tmp_path / "nowhere")]) == 2
    assert "run bench/device_check build first" in capsys.readouterr().err


def test_the_program_itself_finds_no_gpu(build_dir, capsys):
    program = build_dir / "tests" / "device" / "device_check"
    if not program.exists():
        pytest.skip("this build has no CUDA")
    if _core.cuda_status()[0]:
        pytest.skip("there is a GPU")
    assert device_check.main(["correctness", "--program", str(program)]) == 2
    # what is missing here but for the plugin is missing to wamcore doctor and to the benchmarks in the same words
    why = capsys.readouterr().err.removeprefix("device_check: no GPU can be checked here: ").strip()
    assert re.fullmatch(r"(no|the) [^:]*\.", why), why
    if "no CUDA plugin" not in _core.cuda_status()[1]:
        assert why == _core.cuda_status()[1]
    done = subprocess.run([program, "kernels", "--nonsense", "1"], capture_output=True, text=True)
    assert done.returncode == 2 and "unknown option --nonsense" in done.stderr


def test_what_is_measured_is_checked(build_dir):
    """Every product and attention of the benchmarks' table is a row of the check, in every kernel that could run it."""
    program = build_dir / "tests" / "device" / "device_check"
    if not program.exists():
        pytest.skip("this build has no CUDA")
    rows = device_check.listed([program, "kernels"]).values()
    seen: dict[str, set[str]] = {}
    for kernel, shape in rows:
        seen.setdefault(kernel, set()).update(re.findall(r"\d+x\d+x\d+|\d+ of \d+, \d+x\d+", shape))
    kernel_benches()
    from wamcore.bench import cases

    for c in cases.gemm("full", "bfloat16"):
        # the mma.sync tiles of twice the rows are those of once
        for kernel in ("gemm_sm90", "gemm_fp8_sm90", *(("gemm_sm80", "gemm_fp8_sm89") if c.m < 3570 else ())):
            assert f"{c.m}x{c.n}x{c.k}" in seen[kernel], (kernel, c.name)
    for c in cases.attention("full", "bfloat16"):
        for kernel in ("attention_sm80", "attention_sm90"):
            assert f"{c.queries} of {c.keys}, {c.heads}x{c.head_dim}" in seen[kernel], (kernel, c.name)
    assert device_check.listed([program, "nonsense"]) == {}


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (0, "========= ERROR SUMMARY: 0 errors", "ok"),
        (9, "========= Invalid __global__ read\n========= ERROR SUMMARY: 3 errors", "FAILED"),
        (0, "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "ok"),
        (0, "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)", "FAILED"),
        (1, "========= ERROR SUMMARY: 0 errors", "FAILED"),  # a row of the program itself failed
        (1, "========= Error: Device not supported. Please refer to the documentation", "unavailable"),
        # a device that it refuses fails the program's first call, which memcheck counts
        (
            3,
            "========= Error: Device not supported.\ncudaMalloc: unknown error\n========= ERROR SUMMARY: 1 error",
            "unavailable",
        ),
        (9, "gemm: Unable to find\n========= ERROR SUMMARY: 3 errors", "FAILED"),  # no words of the sanitizer's
        (139, "killed", "FAILED"),
        (None, "", "not run"),
    ],
)
def test_reports_of_the_sanitizer_are_understood(status, text, verdict):
    assert device_check.judge_sanitizer(("memcheck", "all"), status, text)["verdict"] == verdict


def test_a_sanitizer_that_is_not_there_is_unavailable(program, monkeypatch):
    monkeypatch.setattr(device_check.shutil, "which", lambda name: "/nowhere/compute-sanitizer")
    (row,) = device_check.sanitizer_rows("racecheck", program, 5)
    assert (row["kernel"], row["verdict"]) == ("racecheck", "unavailable")
    assert device_check.passed([row])


def test_recorded_sequences_are_found_and_judged(program, tmp_path, monkeypatch):
    config = {"num_heads": 2, "timesteps_video_action": [[400, 900]]}
    files = {
        "dit_i2v_seq.safetensors": {"config": config},
        "dit_i2v_weights.safetensors": {"config": {"num_heads": 2}},
        "vae21_forward.safetensors": {"config": {}},
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"files": files}))
    monkeypatch.setenv("WAMCORE_GOLDEN", str(tmp_path))
    rows = device_check.golden_rows(program, 30)
    assert [(r["shape"], r["verdict"], r["error"]) for r in rows] == [("dit_i2v_seq.safetensors", "ok", 0.02)]


def test_errors_that_are_not_numbers_fail():
    assert device_check.measured("a", "b", float("nan"), 1.0)["verdict"] == "FAILED"
    assert device_check.measured("a", "b", 1.1, 1.0)["verdict"] == "FAILED"
    assert device_check.measured("a", "b", 0.9, 1.0)["verdict"] == "ok"


def test_sessions_are_compared(monkeypatch):
    """The plain loop over operations plays the GPU; one that is wrong is noticed."""
    name, real = device_sessions.bundled()[0], device_sessions.load
    monkeypatch.setattr(device_sessions, "CHUNKS", 2)
    monkeypatch.setattr(
        device_sessions,
        "load",
        lambda m, device, dtype="auto": real(m, device="cpu-ops" if device == "cuda" else device),
    )
    row = device_sessions.session_row("sessions", name, "bfloat16")
    assert row["verdict"] == "ok" and row["error"] < 1e-3
    honest = device_sessions.chunks
    monkeypatch.setattr(
        device_sessions, "chunks", lambda m, seed: honest(m, seed) * (1.5 if m.device == "cpu-ops" else 1.0)
    )
    assert device_sessions.session_row("sessions", name, "bfloat16")["verdict"] == "FAILED"
    assert np.isfinite(row["error"])


def test_a_session_that_fails_or_hangs_never_stops_the_others(tmp_path, monkeypatch):
    """The parent starts the Python half again where it ended, as it does with the C++ half."""
    plays = tmp_path / "plays.py"
    plays.write_text(
        "import sys, time; sys.path.insert(0, sys.argv.pop(1)); import device_check, device_sessions as d\n"
        "row = lambda name, model, dtype: device_check.row(name, model, 'ok', error=0.1, tolerance=0.2)\n"
        "def session(name, model, dtype):\n"
        "    if model == 'hangs': time.sleep(100)\n"
        "    if model == 'lost': return device_check.row(name, model, 'FAILED', 'an illegal address')\n"
        "    if model == 'raises': raise RuntimeError(model)\n"
        "    return row(name, model, dtype)\n"
        "d.session_row, d.TOLERANCE, d.PATIENCE = session, {'bfloat16': 1}, 0.3\n"
        "d.bundled = lambda: ['good', 'lost', 'raises', 'hangs', 'last']\n"
        "import os; os._exit(d.main())\n"
    )
    command = [sys.executable, plays, BENCH, "--kernels", "sm80"]
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    rows = device_check.program_rows(command, 60, environment, "sessions")
    assert [r["verdict"] for r in rows] == ["ok", "FAILED", "FAILED", "FAILED", "ok"]
    assert [r["why"] for r in rows[1:4]] == ["an illegal address", "ended without a result", "hangs"]


def test_what_a_program_started_ends_with_it(tmp_path):
    said = tmp_path / "pid"
    status, _ = device_check.execute(["sh", "-c", f"sleep 100 & echo $! > {said}; wait"], 1.0)
    assert status is None
    stat = Path(f"/proc/{said.read_text().strip()}/stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("still runs")


# Plays `wamcore bench` and what is asked of the package before.
BENCHES = """
import json, sys
if sys.argv[1] == "-c":
    print(json.dumps([[["gemm", "big"], ["gemm", "dreamzero-14b"], ["layer", "slow"]], USABLE, "a sentence"]))
    sys.exit(0)
name, only = sys.argv[4], sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else ""
rows = [{"case": "a", "dtype": "b"}]
open(sys.argv[sys.argv.index("--json") + 1], "w").write(json.dumps({"bench": name, "only": only, "rows": rows}))
if only == "slow":
    import time; time.sleep(100)
"""


@pytest.mark.parametrize("usable", [True, False])
def test_benchmarks_run_one_after_another(tmp_path, monkeypatch, capsys, usable):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{BENCHES.replace('USABLE', str(usable))}")
    python.chmod(0o755)
    monkeypatch.setattr(device_check.sys, "executable", str(python))
    file = tmp_path / "bench.json"
    monkeypatch.setattr(device_check, "BENCHES", {("limits", ""): 300, ("gemm", "dreamzero-14b"): 150})
    monkeypatch.setattr(device_check, "BUDGET", 4500)  # so that "slow" has four seconds
    status = device_check.main(["bench", "--package", str(tmp_path), "--json", str(file), "--seconds", "4"])
    if not usable:
        assert status == 2 and "no GPU can be measured here: a sentence" in capsys.readouterr().err
        return
    report, out = json.loads(file.read_text()), capsys.readouterr().out
    assert status == 1 and "1 not run" in out and "--only" in out
    assert [(r["kernel"], r["shape"], r["verdict"]) for r in report["rows"]] == [
        ("limits", "", "ok"),
        ("gemm", "dreamzero-14b", "ok"),
        ("gemm", "big", "ok"),
        ("layer", "slow", "not run"),
    ]
    assert report["rows"][-1]["why"] == "out of time after 1 cases"  # which are in the report
    assert [(r["bench"], r["only"]) for r in report["results"]] == [
        ("limits", ""),
        ("gemm", "dreamzero-14b"),
        ("gemm", "big"),
        ("layer", "slow"),
    ]
    more = ["bench", "--package", str(tmp_path), "--json", str(file), "--only"]
    assert device_check.main([*more, "gemm big"]) == 0
    assert [r["shape"] for r in json.loads(file.read_text())["rows"]] == ["big"]
    assert device_check.main([*more, "nothing"]) == 2 and "got 'nothing'" in capsys.readouterr().err


def test_every_benchmark_with_time_of_its_own_is_in_the_table():
    done = subprocess.run([sys.executable, "-c", device_check.ASK], capture_output=True, text=True, check=True)
    known = {tuple(k) for k in json.loads(device_check.last_line_json(done.stdout))[0]}
    assert {k for k in device_check.BENCHES if k[1]} <= known
    assert ("forward", "fast-wam-action") in known and ("gemm", "fast-wam-action") not in known


def test_names_are_those_of_the_record_and_of_the_checks(root):
    recorded = re.findall(r"^\| `([^|]+)` \|", (root / "docs" / "verified_on_device.md").read_text(), re.M)
    assert recorded == list(device_check.NAMES)
    sources = "".join(p.read_text() for p in (root / "tests" / "device").glob("*.cpp"))
    kernels = set(re.findall(r'add\("([a-z][\w, ]+)",', sources)) | set(
        re.findall(r'"((?:gemm|attention)_\w*sm\d\d)"', sources)
    )
    assert kernels <= set(device_check.NAMES) and len(kernels) >= 13


def test_a_plugin_of_somebodys_choice_that_is_missing_is_named():
    done = subprocess.run(
        [sys.executable, "-c", "from wamcore import _core; print(_core.cuda_status())"],
        env={**os.environ, "WAMCORE_CUDA_PLUGIN": "/nowhere/plugin.so"},
        capture_output=True,
        text=True,
    )
    assert "WAMCORE_CUDA_PLUGIN names /nowhere/plugin.so, which is not there." in done.stdout, done.stderr
