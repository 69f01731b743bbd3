"""Transformer layers with synthetic weights: by our kernels, and the same maths by torch on the same memory."""

from __future__ import annotations

import numpy as np
from wamcore import kernels

from .arrays import SETS, Arrays
from .cases import StackCase

PRODUCTS = ("qkv", "o", "cross_q", "cross_o", "ffn_up", "ffn_down")


class Weights:
    """One layer's parameters, cached context and memory. Modulation is summed with the timesteps' projection before, as
    the runtime keeps it for a schedule: six rows of numbers for each of two timesteps, video and registers.
    """

    def __init__(self, case: StackCase, arrays: Arrays):
        s = case.shape
        d, inner, heads = s.width, s.heads * s.head_dim, (s.heads, s.head_dim)
        rows, columns = (3 * inner, d, inner, d, s.ffn, d), (d, inner, d, inner, d, s.ffn)
        self.w = {p: arrays.random(n, k, std=k**-0.5) for p, n, k in zip(PRODUCTS, rows, columns, strict=True)}
        self.b = {p: arrays.random(n, std=0.1) for p, n in zip(PRODUCTS, rows, strict=True)}
        self.modulation = [arrays.random(2, d, std=0.3, wide=True) for _ in range(6)]
        self.norm_q, self.norm_k, self.norm_cross = (1 + arrays.random(inner, std=0.1, wide=True) for _ in range(3))
        self.norm3 = 1 + arrays.random(d, std=0.1, wide=True), arrays.random(d, std=0.1, wide=True)
        cached = case.cached_frames * s.frame_tokens
        self.cache = arrays.random(cached, *heads), arrays.random(cached, *heads)
        self.context = [(arrays.random(n, *heads), arrays.random(n, *heads)) for n in (s.text, s.image) if n]


class Stack:
    """The layers of a case, their input rows, and which timestep and rotation each row has."""

    def __init__(self, case: StackCase, arrays: Arrays):
        self.case, self.arrays = case, arrays
        s = case.shape
        self.layers = [Weights(case, arrays) for _ in range(case.layers)]
        self.x = [arrays.random(s.tokens, s.width) for _ in range(SETS)]
        self.time = arrays.rows([0] * (s.tokens - s.registers) + [1] * s.registers)
        angle = arrays.random(s.tokens, s.head_dim // 2, wide=True)
        library = np if arrays.device == "cpu" else arrays.torch
        self.cos, self.sin = library.cos(angle), library.sin(angle)
        self.ones = arrays.random(1, s.width, std=0.0, wide=True) + 1


class OurLayers:
    """The stack as a sequence of `wamcore.kernels`; fp8: products in e4m3, which norms write themselves and
    `quantize_rows` makes of the other inputs.
    """

    def __init__(self, stack: Stack, fp8: bool = False):
        self.stack, self.fp8 = stack, fp8
        s, a = stack.case.shape, stack.arrays
        n, inner = s.tokens, s.heads * s.head_dim
        self._options = {"threads": a.threads} if a.device == "cpu" else {}
        self.z, self.rows = a.empty(n, s.width), [a.empty(n, s.width) for _ in range(3)]
        self.q, self.k, self.v, self.heads, self.more = (a.empty(n, inner) for _ in range(5))
        self.wide = a.empty(n, s.ffn)
        self.bits: dict = {}
        if fp8:
            torch = a.torch
            sizes = {s.width, inner, s.ffn}
            self.bits = {c: torch.empty(n, c, dtype=torch.uint8, device="cuda") for c in sizes}
            self.scale = torch.empty(n, dtype=torch.float32, device="cuda")
            from .gemm import quantised

            self.w = [{p: quantised(a, w) for p, w in layer.w.items()} for layer in stack.layers]
        elif a.device == "cpu":
            self.w = [{p: kernels.pack_weight(w) for p, w in layer.w.items()} for layer in stack.layers]
        else:
            self.w = [layer.w for layer in stack.layers]

    def __call__(self, i: int):
        x = self.stack.x[i % SETS]
        for number, layer in enumerate(self.stack.layers):
            x = self._layer(x, layer, self.w[number])
        return x

    def _layer(self, x, w: Weights, products: dict):
        s, time = self.stack.case.shape, {"time_row": self.stack.time}
        video, options = s.tokens - s.registers, self._options
        free = [r for r in self.rows if r is not x]
        m = w.modulation
        z = self._norm(x, shift=m[0], scale=m[1], **time)
        self._gemm("qkv", z, (self.q, self.k, self.v), w, products)
        q, k, v, out, more = (a.reshape(s.tokens, s.heads, s.head_dim) for a in self._attended())
        rope = {"cos": self.stack.cos, "sin": self.stack.sin, **options}
        kernels.qk_norm_rope(q, q, weight=w.norm_q, **rope)
        kernels.qk_norm_rope(k, k, weight=w.norm_k, **rope)
        segments = [w.cache, (k[:video], v[:video]), (k[video:], v[video:])]
        kernels.attention(q, [pair for pair in segments if len(pair[0])], out, **options)
        self._gemm("o", self.heads, free[0], w, products, residual=x, gate=m[2], gate_row=self.stack.time)
        x = free[0]
        z = self._norm(x, weight=w.norm3[0], bias=w.norm3[1])
        self._gemm("cross_q", z, self.q, w, products)
        kernels.qk_norm_rope(q, q, weight=w.norm_cross, **options)
        kernels.attention(q, w.context[:1], out, **options)
        if len(w.context) > 1:
            kernels.attention(q, w.context[1:], more, **options)
            kernels.add(self.more, self.heads)
        self._gemm("cross_o", self.heads, free[1], w, products, residual=x, gate=self.stack.ones)
        x = free[1]
        z = self._norm(x, shift=m[3], scale=m[4], **time)
        self._gemm("ffn_up", z, self.wide, w, products, activation="gelu_tanh")
        self._gemm("ffn_down", self.wide, free[0], w, products, residual=x, gate=m[5], gate_row=self.stack.time)
        return free[0]

    def _attended(self):
        return self.q, self.k, self.v, self.heads, self.more

    def _norm(self, x, **modulation):
        """What a product reads next: with fp8 the norm writes e4m3 itself."""
        to = self.bits[x.shape[1]] if self.fp8 else self.z
        scales = {"y_scale": self.scale} if self.fp8 else {}
        kernels.layer_norm(x, to, **modulation, **scales, **self._options)
        return to

    def _gemm(self, name: str, x, y, w: Weights, products: dict, **epilogue):
        weight, options = products[name], {"bias": w.b[name], **epilogue, **self._options}
        if self.fp8:
            weight, options["w_scale"] = weight
            options["x_scale"], bits = self.scale, self.bits[x.shape[1]]
            if x is not bits:
                kernels.quantize_rows(x, bits, self.scale)
            x = bits
        if name == "qkv":
            kernels.gemm_qkv(x, weight, *y, **options)
        else:
            kernels.gemm(x, weight, y, **options)


class TorchLayers:
    """The same maths in torch, as one writes it: products by `linear`, attention by SDPA after a concatenation."""

    def __init__(self, stack: Stack):
        self.stack, self.torch = stack, stack.arrays.torch
        t = stack.arrays.tensor
        self.x, self.cos, self.sin = [t(x) for x in stack.x], t(stack.cos), t(stack.sin)
        self.row = t(stack.time).long()
        self.layers = [self._tensors(w) for w in stack.layers]
        self.layer = self._layer  # torch.compile's, on request

    def _tensors(self, w: Weights) -> dict:
        t, dtype = self.stack.arrays.tensor, self.x[0].dtype
        heads = lambda a: t(a).transpose(0, 1).unsqueeze(0)  # noqa: E731
        return {
            "w": {p: t(a) for p, a in w.w.items()},
            "b": {p: t(a) for p, a in w.b.items()},
            "m": [t(a).to(dtype) for a in w.modulation],
            "norms": [t(a).to(dtype) for a in (w.norm_q, w.norm_k, w.norm_cross)],
            "norm3": [t(a).to(dtype) for a in w.norm3],
            "cache": [t(a) for a in w.cache],
            "context": [[heads(a) for a in pair] for pair in w.context],
        }

    def compiled(self) -> TorchLayers:
        """Each layer by torch.compile."""
        self.torch._dynamo.config.recompile_limit = 64
        self.layer = self.torch.compile(self._layer, dynamic=False)
        return self

    def __call__(self, i: int):
        with self.torch.no_grad():
            x = self.x[i % SETS]
            for w in self.layers:
                x = self.layer(x, w)
            return x

    def _layer(self, x, w: dict):
        torch, f, s = self.torch, self.torch.nn.functional, self.stack.case.shape
        linear = lambda name, a: f.linear(a, w["w"][name], w["b"][name])  # noqa: E731
        split = lambda a: a.view(a.shape[0], s.heads, s.head_dim)  # noqa: E731
        heads = lambda a: a.transpose(0, 1).unsqueeze(0)  # noqa: E731
        rows = lambda a: a[0].transpose(0, 1).flatten(1)  # noqa: E731
        attend, m, norms = f.scaled_dot_product_attention, w["m"], w["norms"]
        z = f.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + m[1][self.row]) + m[0][self.row]
        q, k, v = linear("qkv", z).chunk(3, -1)
        q, k = (self._rope(split(self._rms(a, g))) for a, g in ((q, norms[0]), (k, norms[1])))
        # joined row after row, where a copy is plainest
        keys = [torch.cat([before, now]) for before, now in zip(w["cache"], (k, split(v)), strict=True)]
        y = attend(*map(heads, (q, *keys)))
        x = x + m[2][self.row] * linear("o", rows(y))
        z = f.layer_norm(x, x.shape[-1:], *w["norm3"], eps=1e-6)
        q = heads(split(self._rms(linear("cross_q", z), norms[2])))
        x = x + linear("cross_o", rows(sum(attend(q, k, v) for k, v in w["context"])))
        z = f.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + m[4][self.row]) + m[3][self.row]
        return x + m[5][self.row] * linear("ffn_down", f.gelu(linear("ffn_up", z), approximate="tanh"))

    def _rms(self, x, weight):
        wide = x.float()
        return (wide * self.torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight

    def _rope(self, x):
        a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = self.cos[:, None], self.sin[:, None]  # of [rows, heads, head_dim / 2]
        turned = [a * cos - b * sin, a * sin + b * cos]
        return self.torch.stack(turned, -1).flatten(-2).to(x.dtype)
