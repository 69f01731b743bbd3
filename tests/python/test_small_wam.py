"""The fast forward of training against the reference with its cache; the bundled model."""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("mujoco") is None:  # not imported here: wamcore.sim chooses its GL first
    pytest.skip("mujoco is not installed", allow_module_level=True)

import wamcore  # noqa: E402

from examples.train_small_wam.model import BLOCKS, DIT, SmallWam  # noqa: E402


@torch.no_grad()
def test_training_forward_equals_cached_inference():
    torch.manual_seed(0)
    wam = SmallWam(vocab=20)
    for p in wam.parameters():
        p.add_(0.05 * torch.randn_like(p))
    clean, noisy = torch.randn(2, 7, DIT["in_dim"], 4, 6), torch.randn(2, BLOCKS, 2, DIT["in_dim"], 4, 6)
    action, state = torch.randn(2, BLOCKS, 16, 4), torch.rand(2, BLOCKS, 4)
    t_video, t_action = (torch.randint(0, 1000, (2, BLOCKS)).float() for _ in range(2))
    ids = torch.tensor([[3, 4, 5, 2] + [0] * 12, [6, 7, 2] + [0] * 13])
    video, velocity = wam(clean, noisy, action, state, t_video, t_action, ids)
    text, cache = wam.prompts(ids), None
    for c in range(BLOCKS):
        seen = clean[:, :1] if c == 0 else clean[:, 2 * c - 1 : 2 * c + 1]
        frames = seen.shape[1]
        at = 0 if c == 0 else 2 * c - 1
        _, _, cache = wam.dit(seen.transpose(1, 2), torch.zeros(2, frames), text, None, cache, at)
        times = t_video[:, c : c + 1].expand(2, 2), t_action[:, c : c + 1].expand(2, 16)
        registers = action[:, c], times[1], state[:, c : c + 1]
        v, a, _ = wam.dit(noisy[:, c].transpose(1, 2), times[0], text, None, cache, 2 * c + 1, None, *registers)
        torch.testing.assert_close(video[:, c], v.transpose(1, 2), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(velocity[:, c], a, rtol=1e-4, atol=1e-5)


def test_orthogonalise_brings_singular_values_near_one():
    from examples.train_small_wam.muon import orthogonalise

    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 8, 24), (2, 24, 8)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.max() < 1.3 and values.median() > 0.6


def bundled():
    return Path(wamcore.__file__).parent / "models" / "tabletop"


def test_bundled_codec_uses_the_present_tap_only():
    from safetensors import safe_open

    with safe_open(bundled() / "model.safetensors", "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            assert torch.isfinite(tensor.float()).all(), name
            if name.startswith("action_head.vae.") and tensor.ndim == 5 and tensor.shape[2] == 3:
                assert not tensor[:, :, :2].any(), name


def test_bundled_model_touches_named_blocks():
    from examples.train_small_wam.evaluate import load_policy, sampler_of
    from examples.train_small_wam.rollout import run

    torch.set_num_threads(1)
    out = run(load_policy(bundled()), "touch", range(8), sampler_of(bundled(), steps=2))
    assert sum(out.success) >= 6
