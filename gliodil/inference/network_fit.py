"""Fit one patient with a physics-informed network that chooses its own collocation points.

    minimize over the network ψ_θ and the scalars      growth + seed + labels + priors      (``network_problem``)

by Levenberg-Marquardt. Points of the growth equation come from a normalizing flow trained against the network
(adversarial adaptive sampling, ``sampling.samplers.flow``); importance weights p⁻¹ make their mean an integral over
space and time, whatever the flow concentrates on. PET is not used.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from gliodil.errors import NumericsError
from gliodil.inference.informed_loss import (
    THRESHOLD_CORE,
    THRESHOLD_NECROTIC,
    THRESHOLD_OEDEMA,
    InformedLoss,
)
from gliodil.inference.label_misfit import label_misfit_mm
from gliodil.inference.network_problem import PatientProblem, density
from gliodil.inference.outcome import Outcome
from gliodil.inference.parameters import Scalars
from gliodil.inference.start import from_segmentation
from gliodil.pde.odil.problem import Minimum, Recorder, Status
from gliodil.sampling.mlp import MLP
from gliodil.sampling.objective import predict
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.samplers.registry import make_sampler
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solution import Record, Solution
from gliodil.sampling.solve import solve

FIRST_SCALE = 4.0
"""Spread of the first layer's weights: features of a quarter of the crop's half width to begin with."""
POINTS, RESAMPLE, ADAPT, PATIENCE = 12_000, 3, 2, 30
"""Interior points of a draw; steps on it; draws between updates of the flow; draws without gain that end it all."""
CONDITION_POINTS = 3000
FIRST_DAMPING = 1.0
DECAY = 1e-3
"""Price of the network's parameters: without it a neuron grows steep enough to bend ψ between the points."""
FLOW: dict[str, Any] = {"steps": 20, "batch": 512, "pool": 2048}
"""Adam steps of the flow at each update, and points: it follows the network, it need not lead."""
UNIFORM = 0.5
"""Share of the collocation points that the flow does not choose."""


def fit_network(loss: InformedLoss, record: Recorder) -> Outcome:
    """Return the density at the end, the scalars and how training ended.

    Raises
    ------
    NumericsError
        If training diverged.
    """
    config = loss.config
    case = replace(loss.case, pet=None)  # labels alone
    loss = InformedLoss(case, config)
    patient = PatientProblem(loss, _start(loss))
    problem = patient.problem
    network = MLP(patient.box, (config.network_width,) * config.network_depth, first_scale=FIRST_SCALE)
    generator = torch.Generator(device=case.grid.device).manual_seed(config.seed)
    theta = network.initial(generator=generator)
    theta[network.linear] = 0  # training begins at the lift
    record.stage = "network"

    def told(state: Record) -> None:
        record.evaluations = state.step
        record(state.validation)

    solution = solve(
        problem,
        network=network,
        sampler=make_sampler("aas", patient.box, dtype=torch.float64, seed=config.seed, **FLOW),
        optimizer=LevenbergMarquardt(damping=FIRST_DAMPING),
        schedule=Schedule(
            budget_s=config.network_budget_s,
            points=POINTS,
            resample=RESAMPLE,
            adapt=ADAPT,
            patience=PATIENCE,
            condition_points=CONDITION_POINTS,
            defensive=UNIFORM,
            decay=DECAY,
        ),
        seed=config.seed,
        start=torch.cat([theta, theta.new_tensor(problem.scalars)]),
        device=case.grid.device,
        progress=told,
        keeper=record,
    )
    if solution.status == "diverged":
        raise NumericsError(
            "Training the network diverged.", found=solution.message, remedy="use --method odil"
        )
    scalars = patient.parameters.decode(solution.theta[network.size :])
    last = _last(patient, solution)
    return Outcome(
        last[None],
        scalars,
        _account(patient, solution),
        torch.float64,
        physics="soft",
        misfit_mm=label_misfit_mm(case, last, loss.thresholds(scalars)),
        optimizer="levenberg-marquardt",
    )


def _start(loss: InformedLoss) -> Scalars:
    """Return the scalars read off the segmentation, thresholds at the middle of their priors."""
    start = from_segmentation(loss.case, loss.config)
    middle = {
        "threshold_core": THRESHOLD_CORE[0],
        "threshold_oedema": THRESHOLD_OEDEMA[0],
        "threshold_necrotic": THRESHOLD_NECROTIC[0],
    }
    return replace(start, **{name: start.threshold_core.new_tensor(value) for name, value in middle.items()})


def _last(patient: PatientProblem, solution: Solution) -> torch.Tensor:
    """Return the density at the end in every cell, none in impassable ones: (N,)."""
    centres = patient.case.grid.centres().T
    at_end = torch.cat([centres, torch.full_like(centres[:, :1], patient.duration)], dim=1)
    with torch.no_grad():
        psi = torch.cat(
            [
                predict(patient.problem, solution.network, solution.theta, x)
                for x in torch.split(at_end, 20_000)
            ]
        )
    return density(psi) * patient.case.model.passable


def _account(patient: PatientProblem, solution: Solution) -> Minimum:
    """Return how training ended, in the words of the other optimizers."""
    terms = patient.terms(solution)
    status: Status
    if solution.status == "stalled":  # a plateau of a noisy residual is no convergence
        status = "stalled"
        message = f"The residual on points not trained on has not improved for {PATIENCE} draws."
    else:
        status, message = "iteration_limit", solution.message
    return Minimum(
        x=[solution.theta],
        value=math.fsum(terms.values()),
        terms=terms,
        status=status,
        message=message,
        evaluations=solution.history[-1].step,
    )
