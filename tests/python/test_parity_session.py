"""A whole session against the PyTorch closed loop: a random checkpoint on disk, several chunks, the same noise."""

import random

import checkpoints
import golden
import numpy as np
import pytest
import wamcore as wam

torch = pytest.importorskip("torch")
from test_codecs import random_clip  # noqa: E402
from test_parity_dit import random_config  # noqa: E402
from wamcore.reference.clip import ClipVision  # noqa: E402
from wamcore.reference.dit import CausalWanModel  # noqa: E402
from wamcore.reference.head import ReferenceHead  # noqa: E402
from wamcore.reference.umt5 import UmT5Encoder  # noqa: E402
from wamcore.reference.vae import CausalVae  # noqa: E402

FORWARD, LOOP = 1e-4, 1e-3  # max|a-b| / max|b|: one forward, anything behind the denoising loop


UPSTREAM = {  # Session's names for the options of sampling, and the checkpoint's
    "steps": "num_inference_steps",
    "solver": "solver",
    "guidance": "cfg_scale",
    "shift": "sigma_shift",
    "step_mask": "dit_step_mask",
    "dynamic_skip": "dynamic_cache_schedule",
    "decoupled": "decouple_inference_noise",
    "video_final_noise": "video_inference_final_noise",
}


def random_sampling(rng, solver, guided):
    """Steps left out by mask or by the similarity of velocities, and a video that may end in noise."""
    dynamic = bool(rng.integers(2))
    steps = int(rng.integers(4, 8)) if dynamic else int(rng.integers(1, 5))  # no step is skipped before the third
    return {
        "steps": steps,
        "solver": solver,
        "guidance": float(rng.uniform(1.5, 6)) if guided else 1.0,
        "shift": float(rng.uniform(1.5, 8)),
        "step_mask": [True, *rng.choice([False, True], steps - 1).tolist()],
        "dynamic_skip": dynamic,
        "decoupled": bool(rng.integers(2)),
        # in 64ths, so that noise level 1 stays exactly 1 and both sides cut it to the same timestep
        "video_final_noise": int(rng.integers(0, 62)) / 64,
    }


def random_vae(rng, version):
    """A codec of few channels, whose latents need statistics of their own."""
    z, levels = int(rng.choice([2, 4, 6])), int(rng.integers(2, 4))
    config = {
        "version": version,
        "dim": 4 * int(rng.integers(1, 4)),
        "z_dim": z,
        "dim_mult": [1, 2, 2][:levels],
        "num_res_blocks": 1,
        "temporal_downsample": rng.choice([False, True], levels - 1).tolist(),
        "latents_mean": rng.normal(0, 0.3, z).tolist(),
        "latents_std": rng.uniform(0.5, 2, z).tolist(),
    }
    if version == "2.2":
        config |= {"patch_size": 2, "dec_dim": 4 * int(rng.integers(1, 4)), "dim_mult": [1, 2, 2][-levels:]}
    return config


def random_text(rng, dim):
    heads = int(rng.integers(1, 4))
    attn, ffn = heads * int(rng.integers(2, 9)), int(rng.integers(4, 40))
    sizes = {"dim": dim, "dim_attn": attn, "dim_ffn": ffn, "num_heads": heads, "num_layers": int(rng.integers(1, 3))}
    return {"vocab": int(rng.integers(20, 60)), **sizes, "num_buckets": 32, "shared_pos": False}


class Twin:
    """One random model twice: the PyTorch closed loop in float64, and the folder that the runtime loads."""

    def __init__(self, rng, kind, folder):
        i2v, image = kind == "i2v", kind != "ti2v without images"
        self.vae_cfg = random_vae(rng, "2.1" if i2v else "2.2")
        clip_cfg = random_clip(rng) if image else None
        self.dit_cfg = random_config(random_of(rng), i2v, image)
        stride = CausalVae(self.vae_cfg).spatial_stride
        h, w = 2 * int(rng.integers(1, 3)), 2 * int(rng.integers(1, 4))  # latent pixels
        self.height, self.width = h * stride, w * stride
        z = self.vae_cfg["z_dim"]
        self.dit_cfg |= {"frame_seqlen": h * w // 4, "in_dim": 2 * z + 4 if i2v else z, "out_dim": z}
        self.dit_cfg["local_attn_size"] = int(rng.choice([5, 7]))  # at least two calls before the window is full
        if image:
            tokens = 1 + (clip_cfg["image_size"] // clip_cfg["patch_size"]) ** 2
            self.dit_cfg |= {"clip_dim": clip_cfg["vision_dim"], "clip_tokens": tokens}
        text_cfg = random_text(rng, self.dit_cfg["text_dim"])
        self.vocab = text_cfg["vocab"]
        self.parts = {
            "dit": CausalWanModel(self.dit_cfg),
            "t5": UmT5Encoder(text_cfg),
            "vae": CausalVae(self.vae_cfg),
        } | ({"clip": ClipVision(clip_cfg)} if image else {})
        self.resized = bool(rng.integers(2))  # pictures of another size than the model takes
        camera = [int(n) for n in rng.integers(8, 60, 2)] if self.resized else [self.height, self.width]
        self.camera = tuple(camera)
        frames = 1 + CausalVae(self.vae_cfg).temporal_stride * int(rng.integers(2, 8))
        self.options = {
            "num_frames": frames,
            "target_video_hw": [self.height, self.width] if self.resized else [None, None],
        }
        weights = {}
        for name, part in self.parts.items():
            for p in part.parameters():  # nothing at zero or one: every weight must matter
                if p.ndim < 2 or p[0].numel() == 1:
                    p += 0.2 * torch.randn_like(p)
            weights[name] = {k: v.numpy() for k, v in part.state_dict().items()}
            part.double().eval()
        config = checkpoints.config(self.dit_cfg, text_cfg, clip_cfg, self.vae_cfg, **self.options)
        robot = checkpoints.embodiment(*self.camera, self.dit_cfg["max_state_dim"], self.dit_cfg["action_dim"])
        self.folder = checkpoints.write(folder, config, robot, weights)

    def head(self, sampling):
        """The closed loop with `sampling`, by the names that Session has for it."""
        return ReferenceHead(**self.parts, options=self.options | {UPSTREAM[k]: v for k, v in sampling.items()})

    def words(self, ids):
        """(ids, mask) as the reference wants them, of a list of token ids."""
        padded = torch.zeros(2, 1, self.dit_cfg["text_len"], dtype=torch.long)
        padded[0, 0, : len(ids)], padded[1, 0, : len(ids)] = torch.tensor(ids), 1
        return padded[0], padded[1]


def random_of(rng):
    """Python's kind of random generator, seeded by NumPy's."""
    return random.Random(int(rng.integers(2**31)))


def pictures_of_a_block(rng, twin, stride):
    """How many pictures come with a later observation: any number that makes a block, but not the 1 that restarts."""
    return int(rng.integers(max(2, stride), (twin.dit_cfg["num_frame_per_block"] + 1) * stride + 1))


def compare(session, chunk, want, head, what):
    """A chunk, its latents and the memory behind it."""
    golden.check(chunk.q, want.action[0], LOOP, f"{what}: action")
    golden.check(session.predicted_latents(), want.video[0], LOOP, f"{what}: latents")
    assert session.observed_frames == int(want.reset)
    assert session.context_start == head.start and session.steps_run == want.steps_run
    for branch in range(len(head.context)):
        for layer in {0, len(head.cache) - 1}:
            kept = torch.stack([part[branch].flatten(1) for part in head.cache[layer]])
            golden.check(session.memory(layer, branch), kept, FORWARD, f"{what}: memory {layer} of branch {branch}")


@pytest.fixture
def rng():
    seed = np.random.SeedSequence().entropy % 2**62
    print(f"seed {seed}")  # pytest shows it when the test fails
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    with torch.no_grad():
        yield np.random.default_rng(seed)


@pytest.mark.parametrize("device", ["cpu", "cpu-ops"])
@pytest.mark.parametrize("guided", [False, True], ids=["unguided", "guided"])
@pytest.mark.parametrize("solver", ["unipc", "euler"])
@pytest.mark.parametrize("kind", ["i2v", "ti2v", "ti2v without images"])
def test_closed_loop(rng, tmp_path, kind, solver, guided, device):
    twin = Twin(rng, kind, tmp_path)
    model = wam.load(tmp_path, device=device, threads=2)
    sampling = random_sampling(rng, solver, guided)
    session, head = wam.Session(model, **sampling), twin.head(sampling)
    stride, cfg = twin.parts["vae"].temporal_stride, twin.dit_cfg
    print(cfg, twin.vae_cfg, f"{sampling=} {twin.camera=}")

    def words():
        return rng.integers(1, twin.vocab, rng.integers(1, cfg["text_len"] + 1)).tolist()

    def call(ids, pictures, what):
        session.set_prompt_tokens(ids, negative if guided else [])
        frames = rng.integers(0, 256, (pictures, *twin.camera, 3), np.uint8)
        state = rng.normal(size=cfg["max_state_dim"])
        shapes = model.latent_shape, (model.horizon, cfg["action_dim"])
        noise = [rng.normal(size=s).astype(np.float32) for s in shapes]
        chunk = session.infer(wam.Observation({"image": frames}, state), noise=tuple(noise))
        want = head.infer(
            torch.from_numpy(frames),
            twin.words(ids),
            twin.words(negative) if guided else None,
            torch.from_numpy(state.astype(np.float32)).double().view(1, 1, -1),
            tuple(torch.from_numpy(n)[None].double() for n in noise),
        )
        compare(session, chunk, want, head, what)
        return want.reset

    negative, ids = words(), words()
    assert call(ids, 1, "first")
    resets = []
    for number in range(1 + (cfg["local_attn_size"] - 1) // cfg["num_frame_per_block"]):  # until the window is full
        resets.append(call(ids, pictures_of_a_block(rng, twin, stride), f"chunk {number}"))
    assert resets == [*[False] * (len(resets) - 2), True, False]  # it rolls over, and goes on
    other = [*ids, 1][-cfg["text_len"] :] if ids[-1] != 1 else [*ids[:-1], 2]
    assert call(other, pictures_of_a_block(rng, twin, stride), "another instruction")
    assert not call(other, pictures_of_a_block(rng, twin, stride), "after it")
    session.reset()
    head.language = None
    assert call(other, pictures_of_a_block(rng, twin, stride), "reset")
