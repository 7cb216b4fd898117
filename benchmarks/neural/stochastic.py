"""Neural SDEs: images to digits, and the moments of a noisy spiral."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from gliodil.errors import InputError, NumericsError
from gliodil.pde import regularizers
from gliodil.pde.sde import Solution, solve_sde
from neural.data import Labelled
from neural.models import SpiralField, StochasticClassifier
from neural.records import Row
from neural.training import Clock, Variant, batches, ending, inverse_decay


@dataclass(frozen=True, kw_only=True)
class StochasticConfig:
    """Sizes and settings of the classifier; tolerance is both rtol and atol."""

    pool: int = 1
    state: int = 32
    hidden: int = 64
    train: int | None = None
    test: int | None = None
    batch: int = 512
    epochs: int = 40
    learning_rate: float = 0.01
    decay: float = 1e-5
    trajectories: int = 10
    tolerance: float = 0.14
    dtype: torch.dtype = torch.float64


def method_for(variant: Variant) -> str:
    """Return the method: SOSRI, or SOSRI2 where stiffness is asked for."""
    return "sosri2" if variant.penalty in ("sr", "er+sr") else "sosri"


def penalty_of(solution: Solution, name: str, *, total: bool = False) -> torch.Tensor:
    """Return R as the published code aggregates it: means over steps, or for the spiral the sum (``total``)."""
    if name == "er":
        return regularizers.error(solution, aggregation="paper" if total else "code")
    if name == "r_log":
        return regularizers.log_error(solution)
    if name == "sr":
        return regularizers.stiffness(solution, aggregation="code-mean")
    raise InputError("A stochastic equation has no such penalty.", expected="er, sr, r_log", found=name)


def records_of(name: str | None) -> tuple[str, ...]:
    """Return what a solve has to record for a penalty."""
    return () if name is None else ("stiffness",) if name == "sr" else ("error",)


def run(
    config: StochasticConfig,
    variant: Variant,
    seed: int,
    train: Labelled,
    test: Labelled,
    peers: tuple[str, ...],
) -> Row:
    """Train one classifier on one trajectory per image, predict with the mean logits of several."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    x, y = train.x[: config.train].to(config.dtype), train.y[: config.train]
    model = StochasticClassifier(x.shape[1], config.state, config.hidden).to(config.dtype)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    decay = inverse_decay(optimizer, config.decay)
    method = method_for(variant)
    clock, losses, course = Clock(), [], []
    try:
        for epoch in range(config.epochs):
            with clock:
                parts = batches(len(x), config.batch, source)
                total, evaluations = 0.0, 0
                for i, part in enumerate(parts):
                    coefficient = variant.coefficient(epoch + i / len(parts), config.epochs)
                    name = variant.penalty if coefficient else None
                    solution = _solve(model, x[part], config.tolerance, method, source, records_of(name))
                    loss = task = cross_entropy(model.head(solution.states[-1]), y[part])
                    if name is not None:
                        loss = task + coefficient * penalty_of(solution, name)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    decay.step()
                    total += float(task.detach())
                    evaluations += solution.drift_evaluations
            losses.append(total / len(parts))
            course.append(evaluations / len(parts))
        status = ending(losses)
    except NumericsError as error:
        status = f"diverged ({error.found})"
    if status.startswith("diverged"):
        return {"value": None, "nfe": None, "status": status, "train_cpu_s": clock.cpu_s, "peers": {}}
    return {
        **_predict(model, test, config, method, source),
        "status": status,
        "train_loss": losses[-1],
        "train_cpu_s": clock.cpu_s,
        "train_wall_s": clock.wall_s,
        "nfe_by_epoch": course,
        "peers": {},
    }


def _solve(
    model: StochasticClassifier,
    x: torch.Tensor,
    tolerance: float,
    method: str,
    source: torch.Generator,
    record: tuple[str, ...] = (),
) -> Solution:
    return solve_sde(
        model.drift,
        model.diffusion,
        model.encoder(x),
        (0.0, 1.0),
        method=method,
        rtol=tolerance,
        atol=tolerance,
        generator=source,
        record=record,
    ).raise_for_status()


def _predict(
    model: StochasticClassifier,
    test: Labelled,
    config: StochasticConfig,
    method: str,
    source: torch.Generator,
) -> Row:
    x, y = test.x[: config.test].to(config.dtype), test.y[: config.test]
    right, clock = 0, Clock()
    counts: list[tuple[int, int, int, int]] = []
    with torch.no_grad(), clock:
        for part, wanted in zip(x.split(config.batch), y.split(config.batch), strict=True):
            logits = torch.zeros(len(part), 10, dtype=config.dtype)
            for _ in range(config.trajectories):
                s = _solve(model, part, config.tolerance, method, source)
                counts.append((s.drift_evaluations, s.diffusion_evaluations, s.accepted, s.rejected))
                logits += model.head(s.states[-1])
            right += int((logits.argmax(1) == wanted).sum())
    mean = torch.tensor(counts, dtype=torch.float64).mean(0).tolist()
    return {
        "value": 100 * right / len(y),
        "nfe": mean[0],
        "nfe_diffusion": mean[1],
        "accepted": mean[2],
        "rejected": mean[3],
        "predict_cpu_s": clock.cpu_s * config.trajectories / len(counts),
    }


@dataclass(frozen=True, kw_only=True)
class SpiralSDEConfig:
    """The spiral: how many trajectories make the target's moments and the model's."""

    truth: int = 10_000
    trajectories: int = 100
    times: int = 30
    iterations: int = 250
    learning_rate: float = 0.01
    tolerance: float = 0.3
    hidden: int = 50


def spiral_moments(config: SpiralSDEConfig, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Return means and variances (times, 2) of du = (−a u³ ± b u³) dt + c u dW from (2, 0)."""
    a, b, c = 0.1, 2.0, 0.2
    matrix = torch.tensor([[-a, -b], [b, -a]], dtype=torch.float64)
    times = torch.linspace(0, 1, config.times, dtype=torch.float64).tolist()
    u0 = torch.tensor([2.0, 0.0], dtype=torch.float64).expand(config.truth, 2)
    s = solve_sde(
        lambda t, u: u**3 @ matrix,
        lambda t, u: c * u,
        u0,
        times,
        rtol=1e-2,
        atol=1e-2,
        generator=torch.Generator().manual_seed(seed),
    ).raise_for_status()
    return s.states.mean(1), s.states.var(1), times


def run_spiral(config: SpiralSDEConfig, variant: Variant, seed: int, peers: tuple[str, ...]) -> Row:
    """Fit drift and diffusion to the moments."""
    mean, variance, times = spiral_moments(config, seed + 1000)
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    drift = SpiralField(config.hidden).double()
    noise = torch.nn.Linear(2, 2).double()
    optimizer = torch.optim.Adam([*drift.parameters(), *noise.parameters()], lr=config.learning_rate)
    u0 = torch.tensor([2.0, 0.0], dtype=torch.float64).expand(config.trajectories, 2)
    method = method_for(variant)

    def attempt(record: tuple[str, ...]) -> tuple[Solution, torch.Tensor]:
        s = solve_sde(
            drift,
            lambda t, u: noise(u),
            u0,
            times,
            method=method,
            rtol=config.tolerance,
            atol=config.tolerance,
            generator=source,
            record=record,
        ).raise_for_status()
        return s, ((s.states.mean(1) - mean).square() + (s.states.var(1) - variance).square()).sum()

    clock, predicting, losses = Clock(), Clock(), []
    try:
        for i in range(config.iterations):
            with clock:
                coefficient = variant.coefficient(i, config.iterations)
                name = variant.penalty if coefficient else None
                s, task = attempt(records_of(name))
                loss = task if name is None else task + coefficient * penalty_of(s, name, total=True)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(float(task.detach()))
        with torch.no_grad(), predicting:
            ends = [attempt(()) for _ in range(10)]
        status = ending(losses)
    except NumericsError as error:
        return {"value": None, "nfe": None, "status": f"diverged ({error.found})", "train_cpu_s": clock.cpu_s}

    def average(field: str) -> float:
        return sum(getattr(s, field) for s, _ in ends) / len(ends)

    return {
        "value": sum(float(task) for _, task in ends) / len(ends),
        "nfe": average("drift_evaluations"),
        "nfe_diffusion": average("diffusion_evaluations"),
        "accepted": average("accepted"),
        "rejected": average("rejected"),
        "predict_cpu_s": predicting.cpu_s / len(ends),
        "train_cpu_s": clock.cpu_s,
        "train_wall_s": clock.wall_s,
        "train_loss": losses[-1],
        "status": status,
        "peers": {},
    }
