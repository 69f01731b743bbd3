"""The table of cases and its arithmetic, against numbers worked out by hand in docs/kernels.md."""

import importlib.util

import pytest
from wamcore import _kernels
from wamcore.cli.bench import kernel_benches

kernel_benches()  # finds the folder in a checkout too
from wamcore.bench import cases  # noqa: E402

H200 = {"tflops": 790.0, "gbs": 4300.0}


def of(rows, model="dreamzero-14b"):
    return [c for c in rows if c.model == model]


def test_attention_of_the_14b_model():
    rows = of(cases.attention("full", "bfloat16"))
    assert [c.keys for c in rows] == [1785, 3545, 5305, 7945] and {c.queries for c in rows} == {1785}
    assert rows[1].segments == (1760, 1760, 25) and rows[0].segments == (1760, 25)
    # docs/kernels.md: GFLOP, MB, us by FLOP and by bytes
    by_hand = [(65, 73, 83, 17), (130, 109, 164, 25), (194, 145, 245, 34), (290, 199, 368, 46)]
    for c, (gflop, mb, compute, memory) in zip(rows, by_hand, strict=True):
        assert (round(c.flop / 1e9), round(c.bytes / 1e6)) == (gflop, mb)
        assert cases.floor_ms(c.flop, c.bytes, **H200) == (pytest.approx(compute * 1e-3, abs=6e-4), "compute")
        assert cases.floor_ms(0, c.bytes, **H200) == (pytest.approx(memory * 1e-3, abs=6e-4), "memory")


def test_waves():
    c = of(cases.attention("full", "bfloat16"))[1]
    assert cases.attention_blocks(c) == 560
    assert cases.waves(560, 132) == (pytest.approx(4.24, abs=0.005), 5)  # 85 %
    assert cases.waves(cases.attention_blocks(c, splits=2), 132) == (pytest.approx(8.48, abs=0.01), 9)
    # docs/kernels.md: the products' tiles and waves at 132 multiprocessors
    by_hand = {
        ("qkv", 1785): (192, 1120, 8.5),
        ("o", 1785): (192, 378, 2.9),
        ("ffn_up", 1785): (256, 756, 5.7),
        ("ffn_down", 1785): (192, 378, 2.9),
        ("qkv", 3570): (256, 1680, 12.7),
        ("o", 3570): (192, 756, 5.7),
        ("ffn_up", 3570): (256, 1512, 11.5),
        ("ffn_down", 3570): (192, 756, 5.7),
    }
    seen = {(c.product, c.m): c for c in of(cases.gemm("full", "bfloat16"))}
    assert set(by_hand) < set(seen) and len(seen) == 12
    for key, (cols, tiles, full) in by_hand.items():
        c = seen[key]
        rows, width, splits = _kernels.gemm_choice(c.m, c.n, c.k, 132)
        assert (rows, width, splits) == (128, cols, 1)
        blocks = -(-c.m // rows) * -(-c.n // width)
        assert blocks == tiles and cases.waves(blocks, 132)[0] == pytest.approx(full, abs=0.05)


def test_products_of_the_14b_model():
    seen = {(c.product, c.m): c for c in of(cases.gemm("full", "bfloat16"))}
    assert (seen["qkv", 1785].n, seen["qkv", 1785].k) == (15360, 5120)
    by_hand = {  # docs/kernels.md: GFLOP, MB, us
        ("qkv", 1785): (281, 230, 355),
        ("cross_q", 1785): (94, 89, 118),
        ("ffn_down", 1785): (253, 209, 320),
        ("qkv", 3570): (562, 304, 711),
        ("cross_o", 3570): (187, 126, 237),
        ("ffn_up", 3570): (505, 277, 640),
    }
    for key, (gflop, mb, us) in by_hand.items():
        c = seen[key]
        assert (round(c.flop / 1e9), round(c.bytes / 1e6)) == (gflop, mb)
        assert cases.floor_ms(c.flop, c.bytes, **H200)[0] == pytest.approx(us * 1e-3, abs=6e-4)
    fp8 = {(c.product, c.m): c for c in of(cases.gemm("full", "float8_e4m3fn"))}
    x, w, y = 1785 * 5120, 15360 * 5120, 1785 * 15360
    assert fp8["qkv", 1785].bytes == x + w + 2 * y
    wide = {(c.product, c.m): c for c in cases.gemm("smoke", "float32")}
    assert wide["o", 30].bytes == 4 * (30 * 128 + 128 * 128 + 30 * 128)


def test_passes_over_rows():
    seen = {c.kernel: c for c in of(cases.elementwise("full", "bfloat16"))}
    assert round(seen["ln_modulate"].flop / 1e6) == 73 and seen["ln_modulate"].bytes == pytest.approx(36.6e6, rel=2e-3)
    assert seen["qk_norm_rope"].bytes == pytest.approx(73e6, rel=5e-3)
    assert seen["quantize_rows"].bytes == pytest.approx(27e6, rel=2e-2)
    assert seen["sampler_step"].bytes == 40 * (112640 + 768)


def test_whole_layers_of_the_14b_model():
    one, deep = cases.stack("full", "bfloat16", "layer"), cases.stack("full", "bfloat16", "forward")
    one, deep = of(one), of(deep)
    assert [sum(c.shape.segments(c.cached_frames)) for c in deep] == [4425, 7945]
    assert {c.layers for c in one} == {1} and {c.layers for c in deep} == {40}
    # per layer: products 6 d^2 + 2 d f a row, self-attention over 4425 keys, cross-attention over 769
    d, f, m = 5120, 13824, 1785
    by_hand = 2 * m * (6 * d * d + 2 * d * f) + 4 * m * 4425 * d + 4 * m * 769 * d
    assert deep[0].flop == 40 * by_hand and one[1].flop == by_hand
    assert 40 * 2 * m * (6 * d * d + 2 * d * f) == pytest.approx(42.7e12, rel=2e-3)


def test_chunks_of_the_14b_model():
    (one,) = (c for c in of(cases.chunk("full", "bfloat16")) if c.steps == 1)
    d, f, layers, context = 5120, 13824, 40, 769

    def passes(rows, keys):
        return layers * (2 * rows * (6 * d * d + 2 * d * f) + 4 * rows * (keys + context) * d)

    # three frames remembered: the last two of them are the update, and a step sees them and its own 1785 rows
    assert cases.chunk_with(one, 3, "bfloat16").flop == passes(1760, 3 * 880) + passes(1785, 4425)
    assert cases.chunk_with(one, 1, "bfloat16").flop == passes(880, 880) + passes(1785, 2665)
    four = cases.ChunkCase(one.model, "", "bfloat16", 4)
    more = cases.chunk_with(four, 7, "bfloat16").flop - cases.chunk_with(one, 7, "bfloat16").flop
    assert more == pytest.approx(3 * passes(1785, 7945))
    # bytes a layer: the weights of both passes, keys and values in memory and of the context, rows in and out
    by_hand = 2 * (6 * d * d + 2 * d * f) + 2 * d * (6160 - 1760 + 769 + 6160 + 769) + 2 * d * (1760 + 1785)
    assert cases.chunk_with(one, 7, "bfloat16").bytes == 2 * layers * by_hand

    # in one pass weights, context and the memory that is not this chunk's are read once, at every number of steps
    for frames, old in ((7, 6160 - 1760), (1, 0)):
        new = min(frames, 2) * 880
        once = 6 * d * d + 2 * d * f + 2 * d * (old + 769) + 2 * d * (new + 1785)
        fused, apart = cases.in_one_pass(one, frames, "bfloat16"), cases.chunk_with(one, frames, "bfloat16")
        assert fused.bytes == 2 * layers * once and (fused.flop, fused.name) == (apart.flop, apart.name)
        saved = [
            cases.chunk_with(c, frames, "bfloat16").bytes - cases.in_one_pass(c, frames, "bfloat16").bytes
            for c in (one, four)
        ]
        assert saved[1] == pytest.approx(saved[0]) and saved[0] == apart.bytes - fused.bytes


def test_every_column_names_models_that_exist():
    assert cases.scale_of("cuda", False) == "full" and cases.scale_of("cpu", False) == "cpu"
    assert cases.scale_of("cuda", True) == cases.scale_of("cpu", True) == "smoke"
    for scale in cases.TABLE["scales"]:
        names = [c.name for c in cases.attention(scale, "float32")]
        assert names and len(set(names)) == len(names)
        for bench in ("layer", "forward"):
            assert list(cases.stack(scale, "float32", bench))
        steps = [2, 1] if scale == "smoke" else [16, 8, 4, 1]
        assert set(cases.TABLE["both_ways"][scale]) <= set(steps)
        assert [c.steps for c in cases.chunk(scale, "float32") if c.model == "tabletop"] == steps
    cut = of(cases.attention("cpu", "float32"))[0]
    assert cut.heads == 4 and "4 of 40 heads" in cut.name
    assert cases.MODELS["dreamzero-5b"].tokens == 125


def test_the_action_step_of_fast_wam():
    (case,) = of(cases.stack("full", "bfloat16", "forward"), "fast-wam-action")
    # 32 actions see 98 tokens of video and themselves; 30 layers, width 1024, 24 heads of 128, text of 129 tokens
    assert case.shape.tokens == 32 and case.shape.segments(case.cached_frames) == (98, 32) and case.layers == 30
    inner, d, f = 3072, 1024, 4096
    assert case.flop == 30 * (2 * 32 * (6 * d * inner + 2 * d * f) + 4 * 32 * (130 + 129) * inner)
    assert case.bytes == 30 * 2 * (6 * d * inner + 2 * d * f + 2 * (98 + 129) * inner + 2 * 32 * d)


def test_the_installed_table_is_the_checkouts(root):
    installed = importlib.util.find_spec("wamcore.bench").submodule_search_locations[0]
    for name in ("cases.json", "cases.py"):
        assert (root / "bench" / name).read_text() == open(f"{installed}/{name}").read()


def test_the_bundled_model_is_as_the_table_says():
    import json

    from wamcore.loading import find

    c = json.loads((find("tabletop") / "config.json").read_text())["action_head_cfg"]["config"]["diffusion_model_cfg"]
    shape = cases.MODELS["tabletop"]
    assert (shape.layers, shape.heads, shape.width, shape.ffn) == tuple(
        c[k] for k in ("num_layers", "num_heads", "dim", "ffn_dim")
    )
    assert (shape.frame_tokens, shape.actions, shape.text, shape.latent_channels) == tuple(
        c[k] for k in ("frame_seqlen", "num_action_per_block", "text_len", "out_dim")
    )
