"""The fast forward of training against the reference with its cache; the bundled model."""

import hashlib
import importlib.util
import json
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


class Interrupted(Exception):
    pass


class RandomEpisodes:
    """Stands in for recorded data: batches of the right shapes, and a stop at the n-th from now."""

    until_stop = None

    def __init__(self, folder, latents=True):
        del folder, latents

    def statistics(self):
        return None

    def count(self):
        if RandomEpisodes.until_stop == 0:
            raise Interrupted
        if RandomEpisodes.until_stop is not None:
            RandomEpisodes.until_stop -= 1

    def windows(self, rng, count, statistics):
        self.count()
        z = DIT["in_dim"]
        shapes = {"clean": (1 + 2 * (BLOCKS - 1), z, 4, 6), "future": (BLOCKS, 2, z, 4, 6), "action": (BLOCKS, 16, 4)}
        batch = {k: rng.normal(size=(count, *s)).astype("float32") for k, s in shapes.items()}
        batch |= {"state": rng.normal(size=(count, BLOCKS, 4)).astype("float32")}
        batch |= {"ids": rng.integers(1, 9, (count, DIT["text_len"])), "inside": batch["action"][..., 0, 0] * 0 + 1}
        return batch | {"labelled": batch["action"][..., 0] * 0 + 1}

    def samples(self, rng, count, statistics):
        self.count()
        shapes = {"frame": (DIT["in_dim"], 4, 6), "action": (4, 4), "state": (4,)}
        batch = {k: rng.normal(size=(count, *s)).astype("float32") for k, s in shapes.items()}
        return batch | {
            "labelled": batch["action"][..., 0] * 0 + 1,
            "ids": rng.integers(1, 9, (count, DIT["text_len"])),
        }


@pytest.mark.parametrize("stage", ["warm up", "train"])
def test_interrupted_training_goes_on_to_the_bit(tmp_path, monkeypatch, stage):
    from examples.train_small_wam import train, warmup

    torch.set_num_threads(1)
    for module in (train, warmup):
        monkeypatch.setattr(module, "Episodes", RandomEpisodes)
    monkeypatch.setattr(warmup, "samples", RandomEpisodes.samples)
    monkeypatch.setattr(warmup, "BATCH", 2)
    monkeypatch.setattr(warmup, "SAVE_EVERY", 2)

    def run(out):
        if stage == "train":
            train.train(tmp_path, out, train.Plan(iterations=5, windows=1, save_every=2), workers=1)
        else:
            warmup.warm_up(tmp_path, out, 5, workers=1)
        return torch.load(out, weights_only=True)["model"]

    monkeypatch.setattr(RandomEpisodes, "until_stop", None)
    whole = run(tmp_path / "whole.pt")
    monkeypatch.setattr(RandomEpisodes, "until_stop", 3)
    with pytest.raises(Interrupted):
        run(tmp_path / "parts.pt")
    assert torch.load(tmp_path / "parts.resume.pt", weights_only=True)["iteration"] == 2
    monkeypatch.setattr(RandomEpisodes, "until_stop", 3)  # what is left, and not one more
    parts = run(tmp_path / "parts.pt")
    assert RandomEpisodes.until_stop == 0
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    begun = SmallWam(len(train.vocabulary())).state_dict()
    assert any(not torch.equal(whole[name], begun[name]) for name in whole)


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


def test_card_is_of_these_weights():
    card = json.loads((bundled() / "model_card.json").read_text())
    assert card["sha256"] == hashlib.sha256((bundled() / "model.safetensors").read_bytes()).hexdigest()
    assert card["sha256"] in (bundled() / "model_card.md").read_text()
    assert set(card["runtime"]["tasks"]) == set(card["evaluation"]["tasks"])
