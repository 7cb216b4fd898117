"""The networks of the published experiments, with their sizes as arguments. Everything is float64 unless moved."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class TimeTanh(nn.Module):
    """dz/dt = tanh(W₂ [tanh(W₁ [z; t] + b₁); t] + b₂), the outer tanh of MNIST's neural ODE included."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size + 1, hidden)
        self.outer = nn.Linear(hidden + 1, size)

    def forward(self, t: float | torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return dz/dt; the column of W that belongs to t goes into the bias instead of a wider input."""
        return torch.tanh(_with_time(self.outer, t, torch.tanh(_with_time(self.inner, t, z))))


def _with_time(layer: nn.Linear, t: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    weight = layer.weight
    if isinstance(t, torch.Tensor) and t.numel() > 1:
        return nn.functional.linear(x, weight[:, :-1], layer.bias) + t.reshape(-1, 1) * weight[:, -1]
    return torch.addmm(layer.bias + weight[:, -1] * t, x, weight[:, :-1].t())


class DeepTanh(nn.Module):
    """The latent dynamics: tanh, then ``blocks`` times linear, tanh, linear, tanh; autonomous."""

    def __init__(self, size: int, hidden: int, blocks: int) -> None:
        super().__init__()
        widths = [width for _ in range(blocks) for width in (size, hidden)] + [size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, t: float | torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Return dz/dt."""
        z = torch.tanh(z)
        for layer in self.layers:
            z = torch.tanh(layer(z))
        return z


class Classifier(nn.Module):
    """Image to logits: the image itself is the initial state, a linear layer reads the final one."""

    def __init__(self, size: int, hidden: int, classes: int = 10) -> None:
        super().__init__()
        self.dynamics = TimeTanh(size, hidden)
        self.head = nn.Linear(size, classes)


class StochasticClassifier(nn.Module):
    """Linear encoder, drift size → hidden tanh → size, diagonal linear diffusion, linear head."""

    def __init__(self, inputs: int, size: int, hidden: int, classes: int = 10) -> None:
        super().__init__()
        self.encoder = nn.Linear(inputs, size)
        self.inner, self.outer = nn.Linear(size, hidden), nn.Linear(hidden, size)
        self.noise = nn.Linear(size, size)
        self.head = nn.Linear(size, classes)

    def drift(self, t: float, z: torch.Tensor) -> torch.Tensor:
        """Return f(z)."""
        return self.outer(torch.tanh(self.inner(z)))

    def diffusion(self, t: float, z: torch.Tensor) -> torch.Tensor:
        """Return g(z), one noise per component."""
        return self.noise(z)


class Encoder(nn.Module):
    """A gated cell run backwards over the observations, carrying a latent mean and deviation; to q(z₀)."""

    def __init__(self, features: int, latent: int, hidden: int, state: int) -> None:
        super().__init__()
        inputs = 2 * features + 1

        def gate(outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(2 * latent + inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs)
            )

        self.latent = latent
        self.update, self.reset, self.fresh = gate(latent), gate(latent), gate(2 * latent)
        self.head = nn.Sequential(nn.Linear(2 * latent, latent), nn.Tanh(), nn.Linear(latent, 2 * state))

    def forward(
        self, values: torch.Tensor, mask: torch.Tensor, dt: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log-variance of z₀ from series (n, times, features)."""
        mean = values.new_zeros(len(values), self.latent)
        deviation = torch.zeros_like(mean)
        seen = mask.any(-1, keepdim=True).to(values.dtype)
        steps = torch.cat([values, mask, torch.full_like(seen, dt)], -1)
        for i in reversed(range(values.shape[1])):
            x = steps[:, i]
            joint = torch.cat([mean, deviation, x], -1)
            u, r = torch.sigmoid(self.update(joint)), torch.sigmoid(self.reset(joint))
            fresh, spread = self.fresh(torch.cat([mean * r, deviation * r, x], -1)).chunk(2, -1)
            new_mean = (1 - u) * fresh + u * mean
            new_deviation = ((1 - u) * spread.abs() + u * deviation).abs()
            # Times at which nothing was measured leave the state as it is.
            mean = torch.lerp(mean, new_mean, seen[:, i])
            deviation = torch.lerp(deviation, new_deviation, seen[:, i])
        out = self.head(torch.cat([mean, deviation], -1))
        mu, log_variance = out.chunk(2, -1)
        return mu, log_variance


class LatentODE(nn.Module):
    """Encoder, latent dynamics, linear decoder."""

    def __init__(
        self,
        features: int,
        *,
        latent: int = 50,
        encoder_hidden: int = 40,
        state: int = 20,
        hidden: int = 50,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(features, latent, encoder_hidden, state)
        self.dynamics = DeepTanh(state, hidden, blocks)
        self.decoder = nn.Linear(state, features)


class SpiralField(nn.Module):
    """W₂ tanh(W₁ x³ + b₁) + b₂, in two dimensions."""

    def __init__(self, hidden: int = 50) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, hidden), nn.Linear(hidden, 2)

    def forward(self, t: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return dx/dt."""
        return self.outer(torch.tanh(self.inner(x**3)))
