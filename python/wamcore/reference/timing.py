"""The closed loop's time, for whoever compares: for every line on standard input one inference, its seconds printed."""

import argparse
import json
import sys
import time

import torch

from .checkpoint import load_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--compile", action="store_true", help="through torch.compile, a program for every shape")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    head = load_checkpoint(args.checkpoint)
    if args.steps:
        head.options["num_inference_steps"] = args.steps
    with open(f"{args.checkpoint}/embodiment.json") as f:
        robot = json.load(f)
    infer = loop(head, robot)
    if args.compile:
        compile_parts(head)
    how = "torch.compile" if args.compile else "eager"
    print(f"PyTorch {torch.__version__} reference, {how}, float32, {args.threads} threads", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        infer()
        print(time.perf_counter() - began, flush=True)


def compile_parts(head):
    """What runs in every call: the transformer and the encoder of pictures."""
    torch._dynamo.config.recompile_limit = 64  # as many shapes as the memory has lengths
    head.dit.forward = torch.compile(head.dit.forward, dynamic=False)
    head.vae.encode = torch.compile(head.vae.encode, dynamic=False)


def loop(head, robot):
    """One inference on random pictures per call; the text is encoded once, as a runtime would."""
    cfg, random = head.dit.cfg, torch.Generator().manual_seed(0)
    height, width = robot["view_hw"]
    length, stride = cfg["text_len"], head.vae.temporal_stride
    ids = torch.zeros(1, length, dtype=torch.long)
    ids[0, :3] = torch.tensor([1, 2, 3])
    text = ids, (ids != 0).long()
    guided = head.options["cfg_scale"] != 1.0
    encoded = head.t5.prompt_embedding(*text)
    head.t5.prompt_embedding = lambda *_: encoded
    frames, channels = cfg["num_frame_per_block"], cfg["out_dim"]
    grid = latent_grid(head, height, width)
    noise = (
        torch.randn(1, channels, frames, *grid, generator=random),
        torch.randn(1, cfg["num_action_per_block"], cfg["action_dim"], generator=random),
    )
    state = torch.zeros(1, cfg["num_state_per_block"], cfg["max_state_dim"])
    count = len(robot["frame_offsets"])
    pictures = torch.randint(0, 256, (max(count, stride), height, width, 3), generator=random, dtype=torch.uint8)
    calls = 0

    def infer():
        nonlocal calls
        calls += 1
        head.infer(pictures[:1] if calls == 1 else pictures[:count], text, text if guided else None, state, noise)

    return infer


def latent_grid(head, height, width):
    """Height and width of the latents of a picture."""
    picture = torch.zeros(1, 3, 1, height, width)
    with torch.no_grad():
        return head.vae.encode(picture).shape[-2:]


if __name__ == "__main__":
    main()
