"""The closed loop of DreamZero ("lazy_joint_video_action"): observe, remember, denoise the next block.

Every call overwrites what was predicted for the last block with what the cameras saw; predictions are never remembered.
"""

from dataclasses import dataclass

import torch

from . import rtc, schedule
from .preprocess import model_pixels
from .taps import note

MASK_CHANNELS = 4  # in front of the conditioning latents: 1 where the frame is given

DEFAULTS = {
    "num_inference_steps": 16,
    "solver": "unipc",  # or "euler"
    "dit_step_mask": schedule.static_mask(8),  # by step number; None: every step runs
    "dynamic_cache_schedule": False,  # choose the steps to skip by how much the velocity turns; overrides the mask
    "cfg_scale": 5.0,  # of the video; actions are not guided
    "sigma_shift": 5.0,
    "decouple_inference_noise": False,  # end the video at noise level video_inference_final_noise instead of 0
    "video_inference_final_noise": 0.8,
    "target_video_hw": (None, None),  # size of the pictures, pixels; None: as they come
    "num_frames": 33,  # pixel frames of a full window
}

SOLVERS = {  # noise levels and the walk over them
    "unipc": (schedule.unipc_sigmas, schedule.UniPC),
    "euler": (schedule.flow_match_sigmas, schedule.Euler),
}


@dataclass
class Chunk:
    """The answer to one call."""

    video: torch.Tensor  # [1, C, frames, h, w] latents; on a reset with the given first frame in front
    action: torch.Tensor  # [1, horizon, action_dim], normalised
    reset: bool
    prefill_frame: int  # where in the window the observation went
    denoise_frame: int  # where the predicted block starts
    steps_run: list  # numbers of the steps that ran the model


class ReferenceHead:
    """Keeps the state of one robot's stream.

    Args:
        dit, vae, t5: CausalWanModel, CausalVae, UmT5Encoder.
        clip: ClipVision, or None for a model without image tokens.
        options: dict, see DEFAULTS; other keys are ignored.
    """

    def __init__(self, dit, vae, t5, clip=None, options=None):
        self.dit, self.vae, self.t5, self.clip = dit, vae, t5, clip
        self.options = {k: (options or {}).get(k, default) for k, default in DEFAULTS.items()}
        self.block = dit.cfg["num_frame_per_block"]  # latent frames
        self.language = None  # token ids of the current instruction
        self.start = 0  # frame index of the next block in the window
        self.cache = self.image = self.ys = None

    @torch.no_grad()
    def infer(self, images, text, negative, state, noise, latent_video=None, trace=None, plan=None, prefix=None):
        """One call: the next block of video latents and actions.

        Args:
            images: uint8 [T, H, W, 3], composed pictures seen since the last call, oldest first; 1 after a restart.
            text: (ids, mask) of the instruction, each int64 [1, text_len].
            negative: (ids, mask) of the negative prompt, or None: no guidance.
            state: float [1, num_state_per_block, max_state_dim], normalised.
            noise: (video [1, C, num_frame_per_block, h, w], action [1, num_action_per_block, action_dim]).
            latent_video: float [1, C, frames, h, w], taken in place of the encoded pictures unless this call resets.
            trace: optional dict that receives intermediate values.
            plan: (target [horizon, action_dim] normalised, mask of the same shape, strength) that the actions are
                guided toward; None for none.
            prefix: float [rows, action_dim] normalised, leading rows that are given clean with timestep 0, for a
                model that was trained so; None for none.

        Raises:
            ValueError: a number of pictures that makes no block.
        """
        video = model_pixels(images, self.options["target_video_hw"], noise[0].dtype)[None]
        reset = self.needs_reset(text[0], video.shape[2])
        prompts = [self.t5.prompt_embedding(*p) for p in (text, negative) if p is not None]
        note(trace, "prompt_embeddings", prompts)
        self.context = torch.cat(prompts)  # the guidance branches are a batch of 2
        if reset:
            observed, at = self.restart(video, trace), 0
            self.start = 1
        else:
            observed = self.encode_block(video) if latent_video is None else latent_video
            observed, at = observed[:, :, -self.block :], self.start - self.block
        note(trace, "prefill0.latents", observed)
        still = torch.zeros(1, observed.shape[2], device=observed.device)
        _, _, self.cache = self.forward(observed, still, at)
        first_frame = self.start
        future, action, steps = self.denoise(noise, state, trace, plan, prefix)
        self.start += self.block
        future = torch.cat([observed, future], 2) if reset else future
        return Chunk(future, action, reset, at, first_frame, steps)

    def needs_reset(self, ids, pictures):
        """A new instruction, a single picture or a full window start a new context."""
        new = self.language is None or not torch.equal(self.language, ids) or pictures == 1
        if new:
            self.language = ids
        return new or self.start >= self.dit.cfg["local_attn_size"]

    def restart(self, video, trace):
        """Condition on one picture, forget everything; returns the latent of that picture."""
        stride, pictures = self.vae.temporal_stride, video.shape[2]
        # upstream's stride is 4; a codec with another stride always starts from what was seen last
        newest = stride != 4 or pictures in (stride, 1 + self.block * stride)
        picture = video[:, :, -1:] if newest else video[:, :, :1]
        self.cache = None
        if self.clip is not None:
            self.image = note(trace, "clip_feature", self.clip(picture[:, :, 0]))
        if not self.dit.cfg["concat_first_frame_latent"]:
            return self.vae.encode(picture)
        gray = picture.new_zeros(1, 3, self.options["num_frames"] - 1, *picture.shape[3:])
        latents = self.vae.encode(torch.cat([picture, gray], 2))
        mask = latents.new_zeros(1, MASK_CHANNELS, *latents.shape[2:])
        mask[:, :, 0] = 1
        self.ys = note(trace, "ys", torch.cat([mask, latents], 1))
        return latents[:, :, :1]

    def encode_block(self, video):
        """Latents of the pictures since the last call, brought to 1 + block * stride of them first."""
        stride, n = self.vae.temporal_stride, video.shape[2]
        if (n - 1) // stride != self.block:
            if not 1 <= n // stride <= self.block:
                most = (self.block + 1) * stride
                raise ValueError(f"ReferenceHead.infer: wanted 1 or {stride} to {most} pictures, got {n}")
            if n // stride != self.block:
                video = video.repeat_interleave(self.block // (n // stride), 2)
            video = torch.cat([video[:, :, :1], video], 2)
        return self.vae.encode(video)

    def conditioning(self, start, frames):
        """Frames of ys for a block; beyond the end of the window the last ones."""
        if self.ys is None:
            return None
        inside = start + frames <= self.ys.shape[2]
        return self.ys[:, :, start : start + frames] if inside else self.ys[:, :, -frames:]

    def forward(self, x, t, start, *registers):
        """The model on all guidance branches: each input of batch 1 is given to every branch."""
        branches = len(self.context)
        y = self.conditioning(start, x.shape[2])
        x, t, image, y, *registers = (
            None if v is None else v.expand(branches, *v.shape[1:]) for v in (x, t, self.image, y, *registers)
        )
        return self.dit(x, t, self.context, image, self.cache, start, y, *registers)

    def denoise(self, noise, state, trace, plan=None, prefix=None):
        """Walk both modalities from noise to the next block; returns video, action and the steps that ran."""
        o, (x, a) = self.options, noise
        table, solver = SOLVERS[o["solver"]]
        sigmas_a = table(o["num_inference_steps"], o["sigma_shift"])
        decouple, final = o["decouple_inference_noise"], o["video_inference_final_noise"]
        sigmas_v = schedule.decoupled(sigmas_a, final) if decouple else sigmas_a
        times_v = note(trace, "timesteps_video", schedule.timesteps(sigmas_v))
        times_a = note(trace, "timesteps_action", schedule.timesteps(sigmas_a))
        solver_v, solver_a = solver(sigmas_v), solver(sigmas_a)
        mask = o["dit_step_mask"] or [True] * o["num_inference_steps"]
        skip = schedule.DynamicSkip() if o["dynamic_cache_schedule"] else schedule.StaticSkip(mask)
        note(trace, "denoise0.y", self.conditioning(self.start, self.block))
        steps, clean = [], 0 if prefix is None else len(prefix)
        for i in range(o["num_inference_steps"]):
            a = rtc.with_prefix(a, prefix)
            if skip.runs(i):
                t, t_a = times_v[i].expand(1, self.block), times_a[i].repeat(1, a.shape[1])
                t_a[:, :clean] = 0
                video, action, _ = self.forward(x, t, self.start, a, t_a, state)
                velocity, velocity_a = video[:1], note(trace, f"step{i}.action_pred_cond", action[:1])
                note(trace, f"step{i}.video_pred_cond", velocity)
                if len(video) > 1:
                    uncond = note(trace, f"step{i}.video_pred_uncond", video[1:])
                    velocity = uncond + o["cfg_scale"] * (velocity - uncond)
                skip.ran(velocity)
                steps.append(i)
            guided = velocity_a if plan is None else self.guided(a, velocity_a, sigmas_a, i, plan)
            x, a = solver_v.step(i, x, velocity), solver_a.step(i, a, guided)
            note(trace, f"sample{i}", (x, a))
        return x, rtc.with_prefix(a, prefix), steps

    def guided(self, action, velocity, sigmas, i, plan):
        """The velocity of step i with the pull toward a plan."""
        target, mask, strength = plan
        sigma, following = float(sigmas[i]), float(sigmas[i + 1])
        weight = rtc.pull(sigma, following, strength, self.options["solver"] == "unipc")
        return rtc.guide(action, velocity, sigma, weight, target, mask)
