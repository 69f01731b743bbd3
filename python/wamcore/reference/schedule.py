"""Noise levels of the flow, the two solvers that walk down them, and which steps of the walk skip the model.

The velocity v = noise - clean, so clean = x - sigma * v.
"""

import math

import torch
import torch.nn.functional as F

TRAIN_STEPS = 1000
FIRST_LEVEL = 0.999  # of the unshifted table: the walk does not start at pure noise exactly

# steps out of 16 that run the model, by their number (DreamZero, NUM_DIT_STEPS; any other number runs all)
STATIC_STEPS = {
    8: (0, 1, 2, 6, 10, 13, 14, 15),
    7: (0, 1, 2, 6, 10, 14, 15),
    6: (0, 1, 5, 10, 14, 15),
    5: (0, 1, 2, 7, 12),
}
DYNAMIC_SKIPS = ((0.95, 4), (0.93, 2))  # (cosine above which to skip, how many steps)


def shifted(u, shift):
    return shift * u / (1 + (shift - 1) * u)


def unipc_sigmas(steps, shift=5.0):
    """Noise levels of the UniPC walk: float64 [steps + 1], the last one 0."""
    u = FIRST_LEVEL * (1 - torch.arange(steps, dtype=torch.float64) / steps)
    return torch.cat([shifted(u, shift), u.new_zeros(1)])


def flow_match_sigmas(steps, shift=5.0):
    """Noise levels of the Euler walk and of the training table: float64 [steps + 1], from 1 to 0."""
    return shifted(1 - torch.arange(steps + 1, dtype=torch.float64) / steps, shift)


def decoupled(sigmas, final):
    """Squeeze a table so that it ends at `final` instead of 0: the video then stays partly noisy."""
    return sigmas * (sigmas[0] - final) / sigmas[0] + final


def timesteps(sigmas):
    """What the model is told at each step: int64 [steps], 0..1000, truncated."""
    return (sigmas[:-1] * TRAIN_STEPS).long()


def training_weights(steps=TRAIN_STEPS, shift=5.0):
    """Loss weight of each training noise level, of mean 1: a bell over the timesteps, lowered to touch 0."""
    t = flow_match_sigmas(steps, shift)[:-1] * TRAIN_STEPS
    bell = torch.exp(-2 * ((t - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
    bell = bell - bell.min()
    return bell * (steps / bell.sum())


class Euler:
    """The plain solver."""

    def __init__(self, sigmas):
        self.sigmas = [float(s) for s in sigmas]

    def step(self, i, x, velocity):
        return x + (self.sigmas[i + 1] - self.sigmas[i]) * velocity


class UniPC:
    """Predictor-corrector of order 2 ("bh2", clean prediction, lower order at the end); steps go 0, 1, 2, ...

    Args:
        sigmas: [steps + 1] noise levels; below 1, falling.
    """

    def __init__(self, sigmas):
        self.sigmas = [float(s) for s in sigmas]
        self.clean = []  # the last two clean predictions
        self.corrected = None  # the sample the last prediction started from
        self.order = 0  # of the last prediction

    def log_snr(self, i):
        return math.log((1 - self.sigmas[i]) / self.sigmas[i])

    def step(self, i, x, velocity):
        """The sample at noise level i+1 from the sample and velocity at level i, both any shape."""
        clean = x - self.sigmas[i] * velocity
        if i > 0:
            x = self.correct(i, clean)
        self.order = min(2, len(self.sigmas) - 1 - i, i + 1)
        self.clean, self.corrected = [*self.clean, clean][-2:], x
        return self.predict(i, x)

    def correct(self, i, clean):
        """Redo the last step, now that the prediction at its end is known."""
        s, previous = self.sigmas, self.clean[-1]
        h = self.log_snr(i) - self.log_snr(i - 1)
        grow = math.expm1(-h)
        slope = 0.5 * (clean - previous)
        if self.order == 2:
            r = (self.log_snr(i - 2) - self.log_snr(i - 1)) / h
            phi1 = grow / -h - 1
            phi2 = phi1 / -h - 0.5
            # rho1 + rho2 = phi1/grow and r*rho1 + rho2 = 2*phi2/grow
            rho1 = (phi1 - 2 * phi2) / grow / (1 - r)
            rho2 = phi1 / grow - rho1
            slope = rho1 * (self.clean[-2] - previous) / r + rho2 * (clean - previous)
        return s[i] / s[i - 1] * self.corrected - (1 - s[i]) * grow * (previous + slope)

    def predict(self, i, x):
        s, clean = self.sigmas, self.clean[-1]
        if s[i + 1] == 0:
            return clean
        h = self.log_snr(i + 1) - self.log_snr(i)
        slope = 0
        if self.order == 2:
            r = (self.log_snr(i - 1) - self.log_snr(i)) / h
            slope = 0.5 * (self.clean[-2] - clean) / r
        return s[i + 1] / s[i] * x - (1 - s[i + 1]) * math.expm1(-h) * (clean + slope)


def static_mask(executed, steps=16):
    """Which of `steps` steps run the model: list of bool."""
    return [i in STATIC_STEPS.get(executed, range(steps)) for i in range(steps)]


class StaticSkip:
    """Runs the steps of a fixed mask."""

    def __init__(self, mask):
        self.mask = mask

    def runs(self, step):
        return self.mask[step]

    def ran(self, velocity):
        pass


class DynamicSkip:
    """Skips while the guided video velocity hardly turns; one object per chunk."""

    def __init__(self):
        self.countdown, self.velocities = 0, []

    def ran(self, velocity):
        """Tell the velocity [B, ...] of a step that ran."""
        self.velocities = [*self.velocities, velocity.float().flatten(1)][-2:]

    def runs(self, step):
        if len(self.velocities) < 2:
            return True
        if self.countdown > 0:
            self.countdown -= 1
            return self.countdown == 0  # after the skipped steps one step runs without asking
        cosine = F.cosine_similarity(*self.velocities, dim=1).mean().item()
        self.countdown = next((skip for limit, skip in DYNAMIC_SKIPS if cosine > limit), 0)
        return self.countdown == 0
