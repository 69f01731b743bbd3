"""The C++ transformer against the PyTorch reference at fresh random sizes."""

import copy
import json
import random

import golden
import numpy as np
import pytest
from safetensors.numpy import save_file
from wamcore import _core

torch = pytest.importorskip("torch")
from wamcore.reference.dit import CausalWanModel  # noqa: E402


def random_config(rng, i2v, clip):
    heads, z = rng.choice((1, 2, 3)), rng.choice((2, 5, 16))
    return {
        "model_type": "i2v" if i2v else "ti2v",
        "frame_seqlen": 6,
        "text_len": rng.randint(2, 12),
        "text_dim": rng.randint(3, 40),
        "in_dim": 2 * z + 4 if i2v else z,
        "out_dim": z,
        "dim": heads * 2 * rng.randint(4, 24),
        "ffn_dim": rng.randint(10, 150),
        "freq_dim": 2 * rng.randint(4, 60),
        "num_heads": heads,
        "num_layers": rng.randint(1, 3),
        "max_chunk_size": 3,
        "num_frame_per_block": 2,
        "num_action_per_block": rng.randint(2, 24),
        "num_state_per_block": 1,
        "action_dim": rng.randint(1, 9),
        "max_state_dim": rng.randint(1, 12),
        "hidden_size": rng.randint(4, 60),
        "eps": 1e-6,
        "concat_first_frame_latent": i2v,
        "patch_size": [1, 2, 2],
        "clip_dim": rng.randint(4, 40) if clip else None,
        "clip_tokens": rng.randint(2, 20) if clip else 0,
        "qk_norm": True,
        "cross_attn_norm": True,
        "local_attn_size": rng.choice((3, 5, 7)),
    }


DEVICES = pytest.mark.parametrize("device", ["cpu", "cpu-ops"])
KINDS = pytest.mark.parametrize(("i2v", "clip"), [(True, True), (False, True), (False, False)])


@pytest.fixture
def rng():
    seed = random.SystemRandom().randrange(2**31)
    print("seed", seed)
    torch.manual_seed(seed)
    return random.Random(seed)


class Reference:
    """A random model of the reference, run in float64 and, to see what rounding does to it, in float32."""

    def __init__(self, model):
        self.double, self.single = model.eval(), copy.deepcopy(model).float().eval()

    def __call__(self, *inputs, method="__call__", cache=(None, None)):
        """What `method` of either model returns, for floating inputs of float64; `cache` goes before the fifth."""
        singles = [a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in inputs]
        with torch.no_grad():
            results = []
            for model, given, kept in zip((self.double, self.single), (inputs, singles), cache, strict=True):
                given = given if method != "__call__" else [*given[:4], kept, *given[4:]]
                results.append(getattr(model, method)(*given))
        return results


def check(got, double, single, what):
    """A model that amplifies rounding errors does so in PyTorch too: there its own float32 error is the measure."""
    golden.check(got, double, max(1e-4, 3 * golden.error(single, double)), what)


def twins(cfg, folder, device):
    """One random model twice: the reference, and ours."""
    reference = CausalWanModel(cfg)
    for p in reference.parameters():  # nothing at zero or one: every weight must matter
        torch.nn.init.normal_(p, std=0.3)
    reference = reference.double()
    weights = {k: v.float().numpy() for k, v in reference.state_dict().items()}
    reference.load_state_dict({k: torch.from_numpy(v).double() for k, v in weights.items()})
    save_file(weights, folder / "dit.safetensors")
    dit = _core.components.Dit(json.dumps(cfg), str(folder / "dit.safetensors"), (4, 6), device=device, threads=2)
    return Reference(reference), dit


@DEVICES
@KINDS
def test_sequence_of_chunks(tmp_path, rng, i2v, clip, device):
    cfg = random_config(rng, i2v, clip)
    reference, dit = twins(cfg, tmp_path, device)
    text = torch.randn(1, cfg["text_len"], cfg["text_dim"])
    image = torch.randn(1, cfg["clip_tokens"], cfg["clip_dim"]) if clip else None
    dit.set_context(text[0].numpy(), None if image is None else image[0].numpy())
    double = lambda a: None if a is None else a.double()  # noqa: E731
    cond = cfg["in_dim"] - cfg["out_dim"]
    condition = lambda n: torch.randn(1, cond, n, 4, 6) if i2v else None  # noqa: E731
    numpy = lambda a: None if a is None else a[0].numpy()  # noqa: E731

    cache, start = (None, None), 0
    for chunk in range(4):
        frames = 1 if chunk == 0 else 2
        x, y = torch.randn(1, cfg["out_dim"], frames, 4, 6), condition(frames)
        given = (x.double(), torch.zeros(1, frames), text.double(), double(image), start, double(y))
        results = reference(*given, cache=cache)
        want, cache = [r[0][0].numpy() for r in results], [r[2] for r in results]
        check(dit.prefill(x[0].numpy(), start, numpy(y)), *want, f"prefill {start}")
        start += frames
        x, y = torch.randn(1, cfg["out_dim"], 2, 4, 6), condition(2)
        action = torch.randn(1, cfg["num_action_per_block"], cfg["action_dim"])
        state = torch.randn(1, 1, cfg["max_state_dim"])
        t, ta = torch.randint(0, 1000, (1, 2)), torch.randint(0, 1000, (1, 1))
        results = reference(
            x.double(), t, text.double(), double(image), start, double(y),
            action.double(), ta.expand(1, action.shape[1]), state.double(), cache=cache,
        )  # fmt: skip
        times = np.append(t[0].numpy(), ta[0, 0]).astype(np.float32)
        got = dit.denoise(x[0].numpy(), times, start, action[0].numpy(), state[0].numpy(), numpy(y))
        check(got[0], *(r[0][0].numpy() for r in results), f"video {start}")
        check(got[1], *(r[1][0].numpy() for r in results), f"action {start}")


@DEVICES
@KINDS
def test_training_forward(tmp_path, rng, i2v, clip, device):
    """The pass with the training mask: all blocks of a window at once, each seeing clean video only before it."""
    cfg = random_config(rng, i2v, clip)
    per, states = cfg["num_frame_per_block"], rng.randint(1, 3)
    cfg |= {"num_state_per_block": states, "num_action_per_block": states * rng.randint(1, 6)}
    cfg["num_layers"] = rng.randint(2, 3)  # in one layer what the state sees reaches nobody
    reference, dit = twins(cfg, tmp_path, device)
    blocks = rng.randint(1, (cfg["local_attn_size"] - 1) // per)
    frames, actions = 1 + blocks * per, cfg["num_action_per_block"]
    print(cfg, f"{blocks=}")

    text = torch.randn(1, cfg["text_len"], cfg["text_dim"])
    image = torch.randn(1, cfg["clip_tokens"], cfg["clip_dim"]) if clip else None
    clean, noisy = torch.randn(2, 1, cfg["out_dim"], frames, 4, 6)
    y = torch.randn(1, cfg["in_dim"] - cfg["out_dim"], frames, 4, 6) if i2v else None
    action = torch.randn(1, blocks * actions, cfg["action_dim"])
    state = torch.randn(1, blocks * states, cfg["max_state_dim"])
    t, ta = torch.randint(0, 1000, (1, frames)), torch.randint(0, 1000, (1, blocks * actions))
    double = lambda a: None if a is None else a.double()  # noqa: E731
    results = reference(
        clean.double(), noisy.double(), t, text.double(), double(image), action.double(), ta, state.double(),
        double(y), method="forward_train",
    )  # fmt: skip

    inputs = {"timesteps": torch.cat([torch.zeros(1), t[0], ta[0]])}
    for b in range(blocks + 1):
        block = slice(0, 1) if b == 0 else slice(1 + (b - 1) * per, 1 + b * per)
        for kind, x in (("clean", clean), ("noisy", noisy)):
            inputs[f"{kind}{b}.in"] = x[0, :, block]
            if i2v:
                inputs[f"{kind}{b}.cond"] = y[0, :, block]
        if b:
            inputs[f"action{b}.in"] = action[0, (b - 1) * actions : b * actions]
            inputs[f"state{b}.in"] = state[0, (b - 1) * states : b * states]
    inputs = {k: np.ascontiguousarray(v.numpy(), np.float32) for k, v in inputs.items()}
    names = [f"noisy{b}.out" for b in range(blocks + 1)] + [f"action{b}.out" for b in range(1, blocks + 1)]
    dit.set_context(text[0].numpy(), None if image is None else image[0].numpy())
    out = dit.training(blocks, inputs, names)
    got = [out[f"noisy{b}.out"].reshape(cfg["out_dim"], -1, 4, 6) for b in range(blocks + 1)]
    check(np.concatenate(got, 1), *(r[0][0].numpy() for r in results), "video")
    got = [out[f"action{b}.out"] for b in range(1, blocks + 1)]
    check(np.concatenate(got), *(r[1][0].numpy() for r in results), "action")
