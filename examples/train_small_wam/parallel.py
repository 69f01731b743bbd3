"""Data-parallel training in processes of one thread each: for small models better than one process of many threads."""

from __future__ import annotations

import os
import socket
import threading
import time

import torch
import torch.distributed as dist
import torch.multiprocessing


def launch(work, world: int, *args) -> None:
    """Runs work(rank, world, *args) in `world` processes, or here if that is 1."""
    if world == 1:
        work(0, 1, *args)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(_enter, (world, port, work, args, os.getpid()), nprocs=world)


def _enter(rank: int, world: int, port: int, work, args, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    work(rank, world, *args)
    dist.destroy_process_group()


def _end_with(parent: int) -> None:
    """Ends this process when the one that launched it is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
