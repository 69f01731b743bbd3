"""The denoise pass of denoise_pass.py as one ggml graph on ggml's CPU backend: built once, computed in every pass.

Written for ggml-python 0.0.45, which builds ggml 0.15.3 for the CPU it is installed on, and asked to build it with the
matrix kernels of llamafile, as llama.cpp has them. Operations are ggml's own, its GELU (a table of 16-bit floats) and
flash attention too. "int8" stores the matrices of the layers as q8_0: blocks of 32 weights with a scale each.

Lengths of a ggml tensor are said innermost first: what is [tokens, dim] in numpy is (dim, tokens) here.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import ggml
import numpy as np
from ggml import GGML_TYPE_F32 as F32

TYPES = {np.dtype(np.float32): F32, np.dtype(np.int32): ggml.GGML_TYPE_I32}


def context(tensors: int):
    """Room for what describes tensors; their numbers lie in buffers of the backend."""
    size = tensors * ggml.ggml_tensor_overhead() + ggml.ggml_graph_overhead_custom(tensors, False)
    return ggml.ggml_init(ggml.ggml_init_params(mem_size=size, mem_buffer=None, no_alloc=True))


class Pass:
    """Args: config (its "grid" too), {name: float32 array} of weights and of inputs, "float32" or "int8", threads."""

    def __init__(self, config: dict, weights: dict, inputs: dict, dtype: str, threads: int):
        self.config, self.weights, self.dtype = config, arranged(weights), dtype
        self.fixed, self.ctx, self.given, self.stored = context(4096), context(8192), {}, []
        self.graph = ggml.ggml_new_graph_custom(self.ctx, 8192, False)
        self.backend = ggml.ggml_backend_cpu_init()
        ggml.ggml_backend_cpu_set_n_threads(self.backend, threads)
        for name, array in {**inputs, **positions(config), "times": times(inputs)}.items():
            self.given[name] = self.keep(np.ascontiguousarray(array))
        self.outputs = self.whole()
        for output in self.outputs:
            ggml.ggml_set_output(output)
            ggml.ggml_build_forward_expand(self.graph, output)
        ggml.ggml_backend_alloc_ctx_tensors(self.fixed, self.backend)
        for tensor, raw in self.stored:
            ggml.ggml_backend_tensor_set(tensor, raw.ctypes.data, 0, raw.nbytes)
        self.memory = ggml.ggml_gallocr_new(ggml.ggml_backend_get_default_buffer_type(self.backend))
        if not ggml.ggml_gallocr_alloc_graph(self.memory, self.graph):
            raise MemoryError("ggml: no room for the graph")

    def __call__(self, inputs: dict) -> list[np.ndarray]:
        """Video and action velocity, shaped as the reference shapes them."""
        for name, array in {**inputs, "times": times(inputs)}.items():
            ggml.ggml_backend_tensor_set(self.given[name], array.ctypes.data, 0, array.nbytes)
        status = ggml.ggml_backend_graph_compute(self.backend, self.graph)
        if status != ggml.GGML_STATUS_SUCCESS:
            raise RuntimeError(f"ggml_backend_graph_compute: wanted success, got status {status}")
        c, (height, width) = self.config, self.config["grid"]
        video = np.empty((c["num_frame_per_block"], height // 2, width // 2, 2, 2, c["out_dim"]), np.float32)
        action = np.empty((c["num_action_per_block"], c["action_dim"]), np.float32)
        for tensor, array in zip(self.outputs, (video, action), strict=True):
            ggml.ggml_backend_tensor_get(tensor, array.ctypes.data, 0, array.nbytes)
        return [video.transpose(5, 0, 1, 3, 2, 4).reshape(c["out_dim"], -1, height, width), action]

    def op(self, name: str, *args):
        return getattr(ggml, f"ggml_{name}")(self.ctx, *args)

    def keep(self, array: np.ndarray, kind: int | None = None):
        """A tensor with these numbers, as q8_0 when kind says so."""
        kind = TYPES[array.dtype] if kind is None else kind
        shape = array.shape[::-1]
        tensor = ggml.ggml_new_tensor(self.fixed, kind, len(shape), (ctypes.c_int64 * len(shape))(*shape))
        if kind == ggml.GGML_TYPE_Q8_0:
            raw = np.empty(ggml.ggml_nbytes(tensor), np.uint8)
            source = array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            ggml.ggml_quantize_chunk(kind, source, raw.ctypes.data, 0, shape[1], shape[0], None)
            array = raw
        self.stored.append((tensor, array))
        return tensor

    def weight(self, name: str):
        array = self.weights[name]
        small = self.dtype == "int8" and name.startswith("blocks.") and name.endswith(".weight") and array.ndim == 2
        return self.keep(array, ggml.GGML_TYPE_Q8_0 if small else None)

    def linear(self, name: str, x):
        return self.op("add", self.op("mul_mat", self.weight(f"{name}.weight"), x), self.weight(f"{name}.bias"))

    def rms(self, name: str, x):
        return self.op("mul", self.op("rms_norm", x, self.config["eps"]), self.weight(f"{name}.weight"))

    def modulated(self, x, scale, shift):
        """scale has its 1 already."""
        return self.op("add", self.op("mul", self.op("norm", x, self.config["eps"]), scale), shift)

    def whole(self):
        c, op, given = self.config, self.op, self.given
        dim, frames, actions = c["dim"], c["num_frame_per_block"], c["num_action_per_block"]
        video = frames * c["grid"][0] * c["grid"][1] // 4
        x = op("cont", op("permute", given["x"], 0, 1, 3, 2))  # channels inside frames
        kernel = self.keep(np.zeros((1, c["in_dim"], 2, 2), np.float32))  # only its shape is read
        patches = op("im2col", kernel, x, 2, 2, 0, 0, 1, 1, True, F32)
        x = self.linear("patch_embedding", op("reshape_2d", patches, 4 * c["in_dim"], video))
        time = op("timestep_embedding", given["times"], c["freq_dim"], 10000)
        e = self.linear("time_embedding.2", op("silu", self.linear("time_embedding.0", time)))
        e0 = self.linear("time_projection.1", op("silu", e))
        a = self.linear("action_encoder.W1", given["action"])
        a = op("concat", a, op("timestep_embedding", given["t_action"], dim, 10000), 0)
        a = self.linear("action_encoder.W3", op("silu", self.linear("action_encoder.W2", a)))
        x = op("concat", op("concat", x, a, 1), self.two("state_encoder", given["state"]), 1)
        text = self.linear("text_embedding.0", given["text"])
        text = self.linear("text_embedding.2", op("gelu", text))
        for i in range(c["num_layers"]):
            x = self.layer(f"blocks.{i}", x, op("get_rows", op("add", e0, self.weight(f"blocks.{i}.modulation")),
                                                given["rows"]), text, video)  # fmt: skip
        e = op("get_rows", e, op("view_1d", given["rows"], video, 0))
        shift, scale = (op("add", e, self.weight(f"head.{n}")) for n in ("shift", "scale"))
        out = self.modulated(op("view_2d", x, dim, video, 4 * dim, 0), scale, shift)
        return self.linear("head.head", out), self.two(
            "action_decoder", op("view_2d", x, dim, actions, 4 * dim, 4 * dim * video)
        )

    def two(self, name: str, x):
        return self.linear(f"{name}.layer2", self.op("relu", self.linear(f"{name}.layer1", x)))

    def layer(self, name: str, x, times, text, video: int):
        op, dim = self.op, self.config["dim"]
        tokens = ggml.ggml_nelements(x) // dim
        part = [op("view_2d", times, dim, tokens, 24 * dim, 4 * dim * i) for i in range(6)]
        shift1, scale1, gate1, shift2, scale2, gate2 = part
        z, own = self.modulated(x, scale1, shift1), f"{name}.self_attn"
        q, k = (self.turned(self.rms(f"{own}.norm_{n}", self.linear(f"{own}.{n}", z)), tokens, video) for n in "qk")
        out = self.attend(q, k, self.linear(f"{own}.v", z))
        x = op("add", x, op("mul", self.linear(f"{own}.o", out), gate1))
        z = op("mul", op("norm", x, self.config["eps"]), self.weight(f"{name}.norm3.weight"))
        z, cross = op("add", z, self.weight(f"{name}.norm3.bias")), f"{name}.cross_attn"
        q, k = (self.rms(f"{cross}.norm_{n}", self.linear(f"{cross}.{n}", rows)) for n, rows in (("q", z), ("k", text)))
        x = op("add", x, self.linear(f"{cross}.o", self.attend(q, k, self.linear(f"{cross}.v", text))))
        z = op("gelu", self.linear(f"{name}.ffn.0", self.modulated(x, scale2, shift2)))
        return op("add", x, op("mul", self.linear(f"{name}.ffn.2", z), gate2))

    def turned(self, x, tokens: int, video: int):
        """Rotary positions in place: time, row and column of the video, one count for each register."""
        heads, dim = self.config["num_heads"], self.config["dim"]
        head, side = dim // heads, 2 * (dim // heads // 6)
        parts = [(0, head - 2 * side, "t_at"), (head - 2 * side, side, "row_at"), (head - side, side, "column_at")]
        parts = [(4 * at, length, video, name) for at, length, name in parts]
        for at, length, rows, name in (*parts, (4 * dim * video, head, tokens - video, "register_at")):
            view = self.op("view_3d", x, length, heads, rows, 4 * head, 4 * dim, at)
            view = self.op("rope_ext_inplace", view, self.given[name], None, length, 0, 0, 1e4, 1, 0, 1, 0, 0)
            ggml.ggml_build_forward_expand(self.graph, view)  # before anything reads x
        return x

    def attend(self, q, k, v):
        heads, dim = self.config["num_heads"], self.config["dim"]
        split = [self.op("reshape_3d", u, dim // heads, heads, ggml.ggml_nelements(u) // dim) for u in (q, k, v)]
        q, k, v = (self.op("permute", u, 0, 2, 1, 3) for u in split)
        out = self.op("flash_attn_ext", q, k, v, None, (dim // heads) ** -0.5, 0, 0)
        return self.op("reshape_2d", out, dim, ggml.ggml_nelements(out) // dim)


def arranged(weights: dict) -> dict:
    """Weights under the reference's names, every matrix as [out, in], the 1 of a scale added."""
    out = {}
    for name, w in weights.items():
        if name.endswith(".W"):
            out[name[:-1] + "weight"] = w[0].T
        elif name.endswith(".b"):
            out[name[:-1] + "bias"] = w[0]
        elif name == "head.modulation":
            out["head.shift"], out["head.scale"] = w[0, 0], w[0, 1] + 1
        elif name.endswith(".modulation"):
            out[name] = (w[0] + np.float32([[0], [1], [0], [0], [1], [0]])).ravel()
        else:
            out[name] = w.reshape(len(w), -1) if w.ndim > 2 else w
    w2, dim = "action_encoder.W2.weight", len(out["action_encoder.W1.weight"])
    value, sine, cosine = np.split(out[w2], [dim, dim + dim // 2], 1)
    out[w2] = np.concatenate([value, cosine, sine], 1)  # ggml puts the cosine first
    return {n: np.ascontiguousarray(w, np.float32) for n, w in out.items()}


def times(inputs: dict) -> np.ndarray:
    """One of each frame, action and state."""
    actions, states = inputs["t_action"], len(inputs["state"])
    return np.concatenate([inputs["t"], actions, actions[:: len(actions) // states]])


def positions(c: dict) -> dict[str, np.ndarray]:
    """Of each video token and register, and the row of `times` that each has."""
    frames, actions, states = c["num_frame_per_block"], c["num_action_per_block"], c["num_state_per_block"]
    t, row, column = np.indices((frames, c["grid"][0] // 2, c["grid"][1] // 2), np.int32).reshape(3, -1)
    registers = np.concatenate([np.arange(actions), np.arange(states)]).astype(np.int32)
    rows = np.concatenate([t, np.arange(frames, frames + actions + states, dtype=np.int32)])
    return {"t_at": t + 1, "row_at": row, "column_at": column, "register_at": registers, "rows": rows}


def load(folder: Path, config: dict, inputs: dict, dtype: str, threads: int) -> Pass:
    from safetensors.numpy import load_file

    return Pass(config, load_file(folder / "model.safetensors"), inputs, dtype, threads)
