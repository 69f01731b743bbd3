"""A peer of bench.peers_cpu in its own process: makes one denoise pass ready, says its error, times it when asked.

python denoise_pass.py PEER FOLDER THREADS      # PEER "prepare" writes weights, inputs and the float64 result
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

SIZES = {  # width, layers, heads, latent (height, width); 25 tokens more are actions and state
    "S": (256, 6, 4, (10, 50)),
    "M": (512, 12, 8, (30, 50)),
    "L": (1024, 16, 16, (46, 50)),
}


def serve(what: str, folder: Path, threads: int) -> None:
    """Gets a peer ready, says so and its error, then times as many passes as each line of standard input says."""
    if what == "prepare":
        return prepare(folder)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to the log
    began = time.perf_counter()
    config, inputs = json.loads((folder / "config.json").read_text()), dict(np.load(folder / "inputs.npz"))
    family, *how = what.split("-")
    step = globals()[f"{family}_step"](how, folder, config, inputs, threads)
    for _ in range(3):
        got = step()
    want = np.load(folder / "want.npy")
    error = float(np.linalg.norm(flat(got) - want) / np.linalg.norm(want))
    print(json.dumps({"ready_s": time.perf_counter() - began, "error": error}), file=out)
    for line in sys.stdin:
        step()
        times = []
        for _ in range(int(line)):
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            times.append((time.perf_counter() - wall, time.process_time() - cpu))
        print(json.dumps({"times": times}), file=out)


def flat(outputs) -> np.ndarray:
    """Video and action velocity, one after the other, float64."""
    arrays = [x.detach().float().numpy() if hasattr(x, "detach") else np.asarray(x) for x in outputs]
    return np.concatenate([a.astype(np.float64).ravel() for a in arrays])


def prepare(folder: Path) -> None:
    """Weights, inputs and the float64 result of one size."""
    import torch
    from safetensors.torch import save_file
    from wamcore.reference.dit import CausalWanModel

    config, weights, grid = bundled() if folder.name == "tabletop" else synthetic(*SIZES[folder.name])
    config["frame_seqlen"] = grid[0] * grid[1] // 4
    torch.manual_seed(0)
    model = CausalWanModel(config).eval()
    if weights:
        model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    frames, actions = config["num_frame_per_block"], config["num_action_per_block"]
    draw = np.random.default_rng(0).standard_normal
    inputs = {
        "x": draw((config["out_dim"], frames, *grid)),
        "t": np.full(frames, 500.0),
        "text": draw((config["text_len"], config["text_dim"])),
        "action": draw((actions, config["action_dim"])),
        "t_action": np.full(actions, 500.0),
        "state": draw((config["num_state_per_block"], config["max_state_dim"])),
    }
    inputs = {k: v.astype(np.float32) for k, v in inputs.items()}
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "config.json").write_text(json.dumps({**config, "grid": grid}))
    with torch.inference_mode():
        want = model.double()(*arguments(inputs, torch.float64))[:2]
    np.save(folder / "want.npy", np.concatenate([w.numpy().ravel() for w in want]))


def synthetic(width: int, layers: int, heads: int, grid: tuple[int, int]) -> tuple[dict, None, tuple[int, int]]:
    config = {
        "model_type": "ti2v",
        "text_len": 48,
        "text_dim": 256,
        "in_dim": 16,
        "out_dim": 16,
        "dim": width,
        "ffn_dim": 4 * width,
        "freq_dim": 256,
        "num_heads": heads,
        "num_layers": layers,
        "max_chunk_size": 4,
        "num_frame_per_block": 1,
        "num_action_per_block": 24,
        "num_state_per_block": 1,
        "action_dim": 14,
        "max_state_dim": 14,
        "hidden_size": 256,
        "eps": 1e-6,
        "concat_first_frame_latent": False,
        "patch_size": [1, 2, 2],
        "clip_dim": None,
        "clip_tokens": 0,
        "qk_norm": True,
        "cross_attn_norm": True,
        "local_attn_size": 5,
    }
    return config, None, grid


def bundled() -> tuple[dict, dict, tuple[int, int]]:
    from wamcore import _core
    from wamcore.loading import find

    folder, prefix = find("tabletop"), "action_head.model."
    config = json.loads((folder / "config.json").read_text())["action_head_cfg"]["config"]["diffusion_model_cfg"]
    store = _core.WeightStore(str(folder))
    weights = {n.removeprefix(prefix): np.array(store.f32(n)) for n in store.names() if n.startswith(prefix)}
    _, height, width = _core.Model.load(str(folder), threads=1).latent_shape[1:]
    return config, weights, (height, width)


def arguments(inputs: dict, dtype):
    """Of the reference's forward, batch 1, nothing remembered."""
    import torch

    x, t, text, action, t_action, state = (
        torch.from_numpy(inputs[k])[None].to(torch.float32 if k.startswith("t") and k != "text" else dtype)
        for k in ("x", "t", "text", "action", "t_action", "state")
    )
    return x, t, text, None, None, 1, None, action, t_action, state


def wamcore_step(how, folder, config, inputs, threads):
    from wamcore import _core

    grid = tuple(config.pop("grid"))
    dit = _core.components.Dit(
        json.dumps(config), str(folder / "model.safetensors"), grid, threads=threads, dtype=how[0]
    )
    dit.set_context(inputs["text"])
    times = np.concatenate([inputs["t"], inputs["t_action"][:1]])
    return lambda: dit.denoise(inputs["x"], times, 1, inputs["action"], inputs["state"])[:2]


def reference(folder: Path, config: dict, dtype):
    from safetensors.torch import load_file
    from wamcore.reference.dit import CausalWanModel

    model = CausalWanModel(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(dtype).requires_grad_(False)


def torch_step(how, folder, config, inputs, threads):
    import torch

    torch.set_num_threads(threads)
    way, dtype = how[0], getattr(torch, how[1])
    model, given = reference(folder, config, dtype), arguments(inputs, dtype)
    if way == "freeze":
        torch._inductor.config.freezing = True
    if way != "eager":
        model = torch.compile(model, mode="max-autotune" if way == "autotune" else None, dynamic=False)
    mode = torch.inference_mode if way == "eager" else torch.no_grad

    def step():
        with mode():
            return model(*given)[:2]

    return step


NAMES = ("x", "t", "text", "action", "t_action", "state")


def exported(folder: Path, config: dict, inputs: dict) -> tuple[Path, dict[str, np.ndarray]]:
    """The reference's forward with the inputs that change alone as an ONNX file, and those inputs."""
    import torch

    class Pass(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = reference(folder, config, torch.float32)

        def forward(self, x, t, text, action, t_action, state):
            return self.model(x, t, text, None, None, 1, None, action, t_action, state)[:2]

    path, given = folder / "model.onnx", [a for a in arguments(inputs, torch.float32) if isinstance(a, torch.Tensor)]
    if not path.exists():
        torch.onnx.export(Pass().eval(), tuple(given), str(path), dynamo=True, input_names=NAMES, external_data=True)
    return path, {n: a.numpy() for n, a in zip(NAMES, given, strict=True)}


def onnxruntime_step(how, folder, config, inputs, threads):
    import onnxruntime

    path, feed = exported(folder, config, inputs)
    if how[0] == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        rounded = folder / "model_int8.onnx"
        if not rounded.exists():
            quantize_dynamic(
                path, rounded, weight_type=QuantType.QInt8, per_channel=True, use_external_data_format=True
            )
        path = rounded
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def openvino_step(how, folder, config, inputs, threads):
    import openvino

    core, (path, feed) = openvino.Core(), exported(folder, config, inputs)
    model = core.read_model(path)
    if how[0] == "int8":
        import nncf

        rounded = folder / "openvino_int8.xml"
        if not rounded.exists():
            data = nncf.Dataset([feed] * 3)
            tables = nncf.IgnoredScope(types=["Gather"], validate=False)  # it stumbles over them
            model = nncf.quantize(
                model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=3, ignored_scope=tables
            )
            openvino.save_model(model, rounded, compress_to_fp16=False)
        model = core.read_model(rounded)
    # What int8 leaves over is bfloat16 only where the CPU has it; elsewhere it would be emulated, six times as slow.
    halves = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if how[0] == "bfloat16" or (how[0] == "int8" and halves) else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=False))

    def step():
        request.infer()
        return [request.get_output_tensor(i).data for i in range(2)]

    return step


def ggml_step(how, folder, config, inputs, threads):
    from ggml_pass import load

    if "WAMCORE_CPU_ISA" in os.environ:
        raise RuntimeError("ggml chooses its instructions when it is built, not when it runs")
    denoise = load(folder, config, inputs, how[0], threads)
    return lambda: denoise(inputs)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
