"""Interpolation of sparse clinical series by a latent ODE: PhysioNet 2012.

Loss: masked Gaussian log-likelihood with deviation σ, per observation, + KL(q(z₀) ‖ N(0, 1)) with a weight that rises
from 0. Reported: masked mean squared error × 10³ of the series reconstructed from the mean of q(z₀).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.errors import NumericsError
from gliodil.pde import penalties
from neural.data import Series
from neural.models import LatentODE
from neural.records import Row
from neural.solving import peer_solve, solve
from neural.training import Clock, Variant, batches, ending, inverse_decay


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Sizes and settings; tolerance is both rtol and atol."""

    stays: int | None = None
    every_hours: int = 1
    latent: int = 50
    encoder_hidden: int = 40
    state: int = 20
    hidden: int = 50
    blocks: int = 4
    batch: int = 512
    epochs: int = 300
    learning_rate: float = 0.01
    decay: float = 1e-5
    sigma: float = 0.01
    kl_rate: float = 0.99
    kl_start: int = 10
    tolerance: float = 1.4e-8
    dtype: torch.dtype = torch.float64


def run(
    config: LatentConfig, variant: Variant, seed: int, train: Series, test: Series, peers: tuple[str, ...]
) -> Row:
    """Train one latent ODE and measure it on the test stays."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    train, test = _in(train, config.dtype), _in(test, config.dtype)
    model = LatentODE(
        train.values.shape[2],
        latent=config.latent,
        encoder_hidden=config.encoder_hidden,
        state=config.state,
        hidden=config.hidden,
        blocks=config.blocks,
    ).to(config.dtype)
    optimizer = torch.optim.Adamax(model.parameters(), lr=config.learning_rate)
    decay = inverse_decay(optimizer, config.decay)
    times = torch.linspace(0, 1, train.values.shape[1], dtype=torch.float64).tolist()
    clock, losses, course = Clock(), [], []
    try:
        for epoch in range(config.epochs):
            weight = max(0.0, 1 - config.kl_rate ** (epoch - config.kl_start))
            with clock:
                parts = batches(len(train.values), config.batch, source)
                total = 0.0
                for i, part in enumerate(parts):
                    coefficient = variant.coefficient(epoch + i / len(parts), config.epochs)
                    values, mask = train.values[part], train.mask[part]
                    loss, error = _loss(
                        model, variant, coefficient, values, mask, times, weight, config, source
                    )
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    decay.step()
                    total += float(error)
            losses.append(1e3 * total / len(parts))
            if epoch % max(1, config.epochs // 20) == 0 or epoch == config.epochs - 1:
                course.append(_predict(model, test, times, config)["nfe"])
        status = ending(losses)
    except NumericsError as error:
        status = f"diverged ({error.found})"
    if status.startswith("diverged"):
        return {"value": None, "nfe": None, "status": status, "train_cpu_s": clock.cpu_s, "peers": {}}
    return {
        **_predict(model, test, times, config),
        "status": status,
        "train_loss": losses[-1],
        "train_cpu_s": clock.cpu_s,
        "train_wall_s": clock.wall_s,
        "nfe_by_epoch": course,
        "peers": {peer: _predict(model, test, times, config, peer) for peer in peers},
    }


def _loss(
    model: LatentODE,
    variant: Variant,
    coefficient: float,
    values: torch.Tensor,
    mask: torch.Tensor,
    times: list[float],
    kl_weight: float,
    config: LatentConfig,
    source: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is minimized, and the masked mean squared error."""
    mu, log_variance = model.encoder(values, mask, times[1])
    noise = torch.randn(mu.shape, generator=source, dtype=mu.dtype)
    z0 = mu + noise * torch.exp(0.5 * log_variance)
    moments = penalties.steer_times(times, generator=source) if variant.steer else times
    name = variant.penalty if coefficient else None
    solved = solve(model.dynamics, z0, moments, tolerance=config.tolerance, penalty=name, generator=source)
    error = _error(model.decoder(solved.states).transpose(0, 1), values, mask)
    kl = 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    # −log p per observation is error/2σ² + constants; the KL term is per stay, so it is divided alike.
    observations = mask.sum() / len(mask)
    loss = error / (2 * config.sigma**2) + kl_weight * kl / observations
    if solved.penalty is not None:
        loss = loss + coefficient * solved.penalty
    return loss, error.detach()


def _error(reconstructed: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return ((reconstructed - values).square() * mask).sum() / mask.sum()


def _predict(
    model: LatentODE, test: Series, times: list[float], config: LatentConfig, peer: str | None = None
) -> Row:
    clock, error, seen = Clock(), 0.0, 0.0
    counts: list[tuple[int, int, int]] = []
    with torch.no_grad():
        for values, mask in zip(test.values.split(config.batch), test.mask.split(config.batch), strict=True):
            z0, _ = model.encoder(values, mask, times[1])
            with clock:
                if peer is None:
                    solution = solve(model.dynamics, z0, times, tolerance=config.tolerance).solution
                    states = solution.states
                    counts.append((solution.evaluations, solution.accepted, solution.rejected))
                else:
                    states, calls = peer_solve(peer, model.dynamics, z0, times, tolerance=config.tolerance)
                    counts.append((calls, 0, 0))
            error += float(_error(model.decoder(states).transpose(0, 1), values, mask) * mask.sum())
            seen += float(mask.sum())
    mean = torch.tensor(counts, dtype=torch.float64).mean(0).tolist()
    row: Row = {"value": 1e3 * error / seen, "nfe": mean[0], "predict_cpu_s": clock.cpu_s / len(counts)}
    return row | {"accepted": mean[1], "rejected": mean[2]} if peer is None else row


def _in(series: Series, dtype: torch.dtype) -> Series:
    return Series(series.values.to(dtype), series.mask.to(dtype))
