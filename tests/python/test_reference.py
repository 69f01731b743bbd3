"""The PyTorch reference on small models of our own, without golden data."""

import json

import pytest
import torch
from safetensors.torch import save_file
from wamcore.reference import normalize, preprocess, schedule
from wamcore.reference.checkpoint import PARTS, load_checkpoint
from wamcore.reference.dit import CausalWanModel, teacher_forcing_mask
from wamcore.reference.head import ReferenceHead
from wamcore.reference.umt5 import UmT5Encoder
from wamcore.reference.vae import CausalVae

VAE = {
    "dim": 8,
    "z_dim": 4,
    "dim_mult": [1, 2],
    "num_res_blocks": 1,
    "temporal_downsample": [False],
    "latents_mean": [0.1, 0.2, 0.3, 0.4],
    "latents_std": [1.0, 2.0, 3.0, 4.0],
}
T5 = {"vocab": 20, "dim": 12, "dim_attn": 16, "dim_ffn": 24, "num_heads": 2, "num_layers": 2, "num_buckets": 32}
DIT = {
    "frame_seqlen": 16,
    "text_dim": 12,
    "in_dim": 4,
    "out_dim": 4,
    "dim": 48,
    "ffn_dim": 64,
    "freq_dim": 16,
    "num_heads": 2,
    "num_layers": 2,
    "num_frame_per_block": 2,
    "num_action_per_block": 6,
    "num_state_per_block": 1,
    "action_dim": 5,
    "max_state_dim": 7,
    "hidden_size": 20,
    "eps": 1e-6,
    "concat_first_frame_latent": False,
    "patch_size": [1, 2, 2],
    "clip_dim": None,
    "qk_norm": True,
    "cross_attn_norm": True,
    "local_attn_size": 5,
}


@pytest.fixture(autouse=True)
def seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_a_single_frame_is_the_start_of_a_stream():
    for extra in ({}, {"patch_size": 2, "dec_dim": 12, "dim_mult": [1, 1]}, {"temporal_downsample": [True]}):
        vae = CausalVae({**VAE, **extra}).double()
        video = torch.randn(2, 3, 5, 16, 16).double()
        latents = vae.encode(video)
        assert latents.shape[2] == 1 + 4 // vae.temporal_stride
        assert latents.shape[3] == 16 // vae.spatial_stride
        torch.testing.assert_close(vae.encode_frame(video[:, :, 0]), latents[:, :, 0])
        frames = vae.decode(latents, clamp=False)
        assert frames.shape == video.shape
        torch.testing.assert_close(vae.decode_frame(latents[:, :, 0]), frames[:, :, 0])


def test_without_past_taps_every_frame_stands_alone():
    for extra in (
        {},
        {"patch_size": 1, "dim_mult": [1, 1]},
        {"dim_mult": [1, 1, 2], "temporal_downsample": [False, False]},
    ):
        vae = CausalVae({**VAE, **extra})
        vae.zero_past_taps()
        video = torch.randn(2, 3, 4, 16, 16)
        alone = vae.encode_frame(video.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 4)).transpose(1, 2)
        torch.testing.assert_close(vae.encode(video), alone)
        latent = alone[:, :, 3]
        torch.testing.assert_close(vae.decode(alone, clamp=False)[:, :, 3], vae.decode_frame(latent))
        vae.decode_frame(vae.encode_frame(video[:, :, 0])).sum().backward()
        assert all(p.grad is not None for p in vae.parameters())


def test_a_codec_without_published_statistics_must_bring_its_own():
    with pytest.raises(ValueError, match="wanted 4 numbers in latents_mean"):
        CausalVae({k: v for k, v in VAE.items() if not k.startswith("latents")})


def inputs(batch, frames, dtype=torch.float32):
    x = torch.randn(batch, 4, frames, 8, 8, dtype=dtype)
    text = torch.randn(batch, 3, 12, dtype=dtype)
    action, state = torch.randn(batch, 6, 5, dtype=dtype), torch.randn(batch, 1, 7, dtype=dtype)
    return x, text, action, state


@torch.no_grad()
def test_a_batch_is_its_members():
    model = CausalWanModel(DIT)
    (x0, text, _, _), (x, _, action, state) = inputs(2, 1), inputs(2, 2)
    t, t_action = torch.tensor([[999, 999], [500, 400]]), torch.tensor([999, 300])[:, None].expand(2, 6)
    _, _, cache = model(x0, torch.zeros(2, 1), text, None, None, 0)
    video, velocity, _ = model(x, t, text, None, cache, 1, None, action, t_action, state)
    for i in range(2):
        s = slice(i, i + 1)
        mine = [(k[s], v[s]) for k, v in cache]
        one = model(x[s], t[s], text[s], None, mine, 1, None, action[s], t_action[s], state[s])
        torch.testing.assert_close(one[0], video[s])
        torch.testing.assert_close(one[1], velocity[s])


@torch.no_grad()
def test_teacher_forcing_is_inference_but_for_the_state():
    """In one layer what the state sees reaches nobody, so training and the cached loop compute the same."""
    model = CausalWanModel({**DIT, "num_layers": 1}).double()
    x0, text, action, state = inputs(1, 5, torch.float64)
    noisy, actions, states = torch.randn_like(x0), torch.cat([action, action + 1], 1), torch.cat([state, -state], 1)
    t, t_action = torch.full((1, 5), 700), torch.full((1, 12), 700)
    video, velocity = model.forward_train(x0, noisy, t, text, None, actions, t_action, states)
    _, _, cache = model(x0[:, :, :1], torch.zeros(1, 1), text, None, None, 0)
    for block in range(2):
        f, a = slice(1 + 2 * block, 3 + 2 * block), slice(6 * block, 6 * block + 6)
        registers = actions[:, a], t_action[:, a], states[:, block : block + 1]
        out = model(noisy[:, :, f], t[:, f], text, None, cache, 1 + 2 * block, None, *registers)
        torch.testing.assert_close(out[0], video[:, :, f])
        torch.testing.assert_close(out[1], velocity[:, a])
        _, _, cache = model(x0[:, :, f], torch.zeros(1, 2), text, None, cache, 1 + 2 * block)


def test_who_sees_whom_in_training():
    cfg = {"num_frame_per_block": 1, "num_action_per_block": 1, "num_state_per_block": 1}
    mask = teacher_forcing_mask(3, 1, cfg)
    rows = ["".join(".#"[int(v)] for v in row) for row in mask]
    assert rows == [
        "#.........",  # clean frames 0, 1, 2
        "##........",
        "###.......",
        "...#......",  # noisy frames 0, 1, 2
        "#...#.#.#.",
        "##...#.#.#",
        "#...#.#.#.",  # actions 1, 2
        "##...#.#.#",
        "........#.",  # states 1, 2
        ".........#",
    ]


def test_training_wants_whole_blocks():
    model = CausalWanModel(DIT)
    x, text, action, state = inputs(1, 4)
    with pytest.raises(ValueError, match=r"wanted 1 \+ k\*2 <= 5 latent frames, got 4"):
        model.forward_train(x, x, torch.zeros(1, 4), text, None, action, torch.zeros(1, 6), state)


def test_the_oldest_tokens_leave_the_window():
    model = CausalWanModel({**DIT, "local_attn_size": 3})
    x, text, _, _ = inputs(1, 2)
    cache = None
    with torch.no_grad():
        for start in (0, 2, 4):
            _, _, cache = model(x, torch.zeros(1, 2), text, None, cache, start)
    assert cache[0][0].shape[1] == 3 * 16


def small_head(**options):
    torch.manual_seed(1)
    parts = CausalWanModel(DIT), CausalVae(VAE), UmT5Encoder(T5)
    return ReferenceHead(*parts, options={"num_inference_steps": 2, "dit_step_mask": [True] * 2, **options})


def observe(head, pictures, ids=(1, 2, 0), negative=True):
    prompt, nothing = (torch.tensor([ids]), torch.tensor([[1, 1, 0]])), (torch.tensor([[3, 0, 0]]), torch.ones(1, 3))
    images = torch.randint(0, 256, (pictures, 16, 16, 3), dtype=torch.uint8)
    noise = torch.randn(1, 4, 2, 8, 8), torch.randn(1, 6, 5)
    return head.infer(images, prompt, nothing if negative else None, torch.randn(1, 1, 7), noise)


def test_the_loop_fills_the_window_then_starts_again():
    head = small_head()
    calls = [observe(head, n) for n in (1, 2, 3, 2)]
    assert [c.reset for c in calls] == [True, False, True, False]
    assert [c.denoise_frame for c in calls] == [1, 3, 1, 3]
    assert [c.video.shape[2] for c in calls] == [3, 2, 3, 2]
    assert observe(head, 2, ids=(4, 5, 0)).reset  # a new instruction
    with pytest.raises(ValueError, match="wanted 1 or 1 to 3 pictures, got 4"):
        observe(head, 4, ids=(4, 5, 0))


def test_guidance_of_one_changes_nothing():
    torch.manual_seed(2)
    with_negative = observe(small_head(cfg_scale=1.0), 1)
    torch.manual_seed(2)
    without = observe(small_head(), 1, negative=False)
    torch.testing.assert_close(with_negative.action, without.action)


@pytest.mark.parametrize("solver", ["unipc", "euler"])
def test_a_checkpoint_directory_is_the_same_loop(tmp_path, solver):
    head = small_head(solver=solver, dit_step_mask=None)
    config = {
        "diffusion_model_cfg": DIT,
        "text_encoder_cfg": T5,
        "image_encoder_cfg": None,
        "vae_cfg": VAE,
        **head.options,
    }
    (tmp_path / "config.json").write_text(json.dumps({"action_head_cfg": {"config": config}}))
    tensors = {}
    for name, (_, _, prefix) in PARTS.items():
        part = getattr(head, name)
        tensors |= {} if part is None else {prefix + k: v.contiguous() for k, v in part.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    loaded, actions = load_checkpoint(tmp_path), []
    for same in (head, loaded):
        torch.manual_seed(3)
        actions.append(observe(same, 1).action)
    torch.testing.assert_close(*actions)


def test_both_solvers_find_a_straight_path():
    noise, clean = torch.randn(2, 3), torch.randn(2, 3)
    for solver, sigmas in ((schedule.UniPC, schedule.unipc_sigmas(4)), (schedule.Euler, schedule.flow_match_sigmas(4))):
        x, walk = sigmas[0] * noise + (1 - sigmas[0]) * clean, solver(sigmas)
        for i in range(4):
            x = walk.step(i, x, noise - clean)
        torch.testing.assert_close(x.float(), clean)


def test_dynamic_skipping_skips_four_then_runs_one():
    skip, ran = schedule.DynamicSkip(), []
    for i in range(16):
        if skip.runs(i):
            ran.append(i)
            skip.ran(torch.ones(1, 5))
    assert ran == [0, 1, 6, 11]


@pytest.mark.parametrize("mode", ["q99", "min_max", "mean_std"])
def test_statistics_may_differ_along_the_horizon(mode):
    low, span = torch.randn(6, 3), torch.rand(6, 3) + 0.5
    stats = {"q01": low, "min": low, "mean": low, "q99": low + span, "max": low + span, "std": span}
    x = low[:4] + span[:4] * torch.rand(2, 4, 3)  # fewer rows than the statistics have
    y = normalize.normalize(x, stats, mode)
    torch.testing.assert_close(y[:, 2:3], normalize.normalize(x[:, 2:3], {k: v[2] for k, v in stats.items()}, mode))
    torch.testing.assert_close(normalize.denormalize(y, stats, mode), x)


def test_scale_has_no_inverse():
    stats = {"min": [-4.0, 0.0], "max": [2.0, 0.0]}
    assert normalize.normalize(torch.tensor([2.0, 7.0]), stats, "scale").tolist() == [0.5, 0.0]
    with pytest.raises(ValueError, match="scale"):
        normalize.denormalize(torch.zeros(2), stats, "scale")


def test_a_relative_action_without_a_state_stays_relative():
    stats = {"arm": {"q01": [-1.0], "q99": [1.0]}, "hand": {"q01": [-1.0], "q99": [1.0]}}
    states = {"arm": torch.tensor([[5.0], [7.0]], dtype=torch.float64)}
    out = preprocess.action_targets(torch.full((4, 9), 0.5), states, stats, ("arm", "hand"), ("arm", "hand"))
    assert out["arm"].unique().tolist() == [7.5] and out["arm"].dtype == torch.float64
    assert out["hand"].unique().tolist() == [0.5]


def test_prompts_of_unknown_robots_are_refused():
    with pytest.raises(ValueError, match="toaster"):
        preprocess.prompt("make toast", "toaster")
    assert preprocess.prompt("<DREAM>['Wave', 'no']", "gr1_unified") == "A single view video shows that a human wave"
