"""The CPU benchmark beside other runtimes, with stand-ins: peers that answer, die or never get ready."""

import argparse
import json
import subprocess
import sys

import pytest

from bench import peers_cpu

WORKERS = {
    "wamcore-float32": """
import json, sys
print(json.dumps({"ready_s": 0.1, "error": 1e-7}), flush=True)
for line in sys.stdin:
    print(json.dumps({"times": [[0.002, 0.004]] * int(line)}), flush=True)
""",
    "torch-eager-float32": """
import json, sys
print(json.dumps({"ready_s": 0.1, "error": 1e-7}), flush=True)
sys.stdin.readline()
""",
    "ggml-float32": "import sys; sys.exit('no such instruction')",
    "openvino-int8": "import time; time.sleep(60)",
}


@pytest.fixture
def stand_ins(monkeypatch):
    started = []

    def run_worker(python, what, folder, threads):
        started.append(what)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{what}_{threads}.log").open("w") as log:
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
            return subprocess.Popen([sys.executable, "-c", WORKERS[what]], **pipes)

    monkeypatch.setattr(peers_cpu, "run_worker", run_worker)
    monkeypatch.setattr(peers_cpu, "READY", 5.0)
    return started


def test_a_peer_that_dies_or_hangs_is_a_result_and_the_others_go_on(stand_ins, tmp_path):
    args = argparse.Namespace(work=tmp_path, rounds=3, passes=2)
    named = dict.fromkeys(peers_cpu.PACKAGES, sys.executable)
    rows = peers_cpu.compare(list(WORKERS), tmp_path / "S", 2, args, named)
    assert rows["wamcore-float32"]["wall_ms"] == {"median": 2.0, "min": 2.0, "n": 6}
    assert rows["wamcore-float32"]["cpu_ms"]["median"] == 4.0
    assert "no answer" in rows["torch-eager-float32"]["did not finish"]
    assert rows["ggml-float32"]["did not finish"] == "no such instruction"
    assert "not ready after" in rows["openvino-int8"]["did not finish"]


def test_what_was_measured_is_not_measured_again_and_what_cannot_be_held_is_left_out(stand_ins, tmp_path, monkeypatch):
    out = tmp_path / "peers.json"
    (tmp_path / "S").mkdir()
    (tmp_path / "S/want.npy").touch()
    python = [f"{family}={sys.executable}" for family in peers_cpu.PACKAGES]
    common = [
        "peers_cpu",
        "--sizes",
        "S",
        "--threads",
        "1",
        "--rounds",
        "1",
        "--work",
        str(tmp_path),
        "--out",
        str(out),
    ]
    for peers in (["wamcore-float32"], ["wamcore-float32", "ggml-float32"]):
        monkeypatch.setattr(sys, "argv", [*common, "--peers", *peers, "--python", *python])
        peers_cpu.main()
    assert stand_ins == ["wamcore-float32", "ggml-float32"]
    monkeypatch.setattr(sys, "argv", [*common, "--isa", "avx2", "--peers", "ggml-float32", "--python", *python])
    for name in peers_cpu.ISA["avx2"]:
        monkeypatch.setenv(name, "")  # and as it was, afterwards
    peers_cpu.main()
    rows = json.loads(out.read_text())["results"]
    assert rows["S, 1 threads, avx2"] == {} and "wall_ms" in rows["S, 1 threads"]["wamcore-float32"]
