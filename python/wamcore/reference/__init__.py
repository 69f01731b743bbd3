"""A small PyTorch reference of the models wamcore runs: what every fast path is compared with.

Only this sub-package needs torch. Names of parameters are those of the published checkpoints.
"""
