"""Fitting a growth law: diffusivity, rate and a learned correction from the densities of one or more visits.

    min over D_w, ρ, θ of    S + λ R(g_θ),        S = mean over visits and tissue of ((u_model − u_seen)/σ)²

The model starts from the density of the first visit, which is estimated too where it is noisy (``learned_start``), and
runs through the differentiable grid solver (Strang splitting, reaction by tables) to the others.

Stages, each a start for the next: D_w and ρ with g_θ = 0; all with R at λ, λ/10, λ/100; all with λ = 0. R looks at the
correction alone, never at diffusion or the mechanistic part, and is gone at the end, because it biases what it
regularizes:

    er       Σ_j E_j h_j, the error estimates of the adaptive solver on the table of g_θ (Pal et al., ICML 2021)
    smooth   mean over the table of (∂²g_θ/∂x²)² / ρ², x = √u, ρ that of the first stage

What the visits tell about the law (``identification``):

    identified        densities at two or more visits: D and f(u), on the densities that occurred
    up_to_time_scale  densities at one visit: f/D alone; the time scale is that of an assumed age of the tumour
    not_identified    labels alone: g_θ stays zero, and the fit is that of Fisher-Kolmogorov growth
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch

from gliodil.data.longitudinal import LongitudinalPatient
from gliodil.data.patient import Patient
from gliodil.errors import InputError, NumericsError
from gliodil.inference.config import FitConfig
from gliodil.inference.learned_case import LearnedCase, set_up_visits
from gliodil.inference.learned_loss import VisitLoss
from gliodil.inference.learned_result import EXPLANATION, Identification, LearnedFit
from gliodil.inference.result import LossHistory, Parameter
from gliodil.pde.models.learned_growth import front_speed
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Minimum, Point, Recorder
from gliodil.pde.reaction_diffusion.problem import Logistic
from gliodil.pde.reaction_diffusion.table import TabulatedGrowth

Regularizer = Literal["none", "er", "smooth"]
Progress = Callable[[str, int, float], None]

START = (0.1, 0.03)
"""D_w and ρ to begin with."""
CURVATURE = 100.0
"""Of the loss in log D_w and log ρ, before any is known."""


@dataclass(frozen=True)
class LearnedConfig:
    """Settings of a fit of a growth law.

    Attributes
    ----------
    regularizer, weight
        R and λ at its strongest.
    tissue
        Whether the correction depends on the white-matter share.
    step_days
        Longest time step [day].
    density_error
        σ, where the visits do not state a larger one.
    wm_gm_ratio
        R = D_white/D_grey, taken as known.
    age_days
        Age of the tumour assumed where there is one visit only [day].
    evaluations
        Budget of gradients in each stage; a third of it in those with a regularizer.
    tolerance
        Of the optimizer: promised relative decrease at which a stage ends.
    seed
        Of the correction's first weights.

    Raises
    ------
    InputError
        If a setting makes no sense.
    """

    regularizer: Regularizer = "none"
    weight: float = 1.0
    tissue: bool = False
    step_days: float = 5.0
    density_error: float = 0.01
    wm_gm_ratio: float = 10.0
    age_days: float = 100.0
    evaluations: int = 80
    tolerance: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.regularizer not in get_args(Regularizer):
            raise InputError(
                "Unknown regularizer.", expected=", ".join(get_args(Regularizer)), found=str(self.regularizer)
            )
        numbers = (self.step_days, self.density_error, self.wm_gm_ratio, self.age_days, self.evaluations)
        if not all(x > 0 and math.isfinite(x) for x in numbers) or self.weight < 0 or self.tolerance <= 0:
            raise InputError("A setting of the fit makes no sense.", found=repr(self))


def fit_learned(
    patient: LongitudinalPatient | Patient,
    *,
    config: LearnedConfig | None = None,
    fit_config: FitConfig | None = None,
    progress: Progress | None = None,
) -> LearnedFit:
    """Infer a law of growth from a patient's visits.

    Parameters
    ----------
    patient
        Densities at one or more visits; or a patient with labels only, for whom no law can be learned.
    config
        Settings; ``LearnedConfig()`` if not given.
    fit_config
        Settings of the fit to labels, and the device.
    progress
        Called with (stage, gradients so far, loss).

    Returns
    -------
    The law, its parameters, how the optimizer fared, and what of it the data determine.

    Raises
    ------
    InputError, GeometryError
        If the patient cannot be set up.
    NumericsError
        If the loss is not finite from the start.
    """
    config, fit_config = config or LearnedConfig(), fit_config or FitConfig()
    if isinstance(patient, Patient):
        return _from_labels(patient, fit_config, progress)
    record, cpu = Recorder(progress=progress), time.process_time()
    case = set_up_visits(patient, config.age_days, device=fit_config.device)
    sigma = max(config.density_error, patient.noise)
    landscape = VisitLoss(case, config, sigma)
    record.stage = "parameters"
    p = torch.log(torch.tensor(START, dtype=torch.float64, device=case.model.tissue.grid.device))
    found = lbfgs(landscape, [p], _options(config), record)
    if found.status == "diverged":
        raise NumericsError("The growth of this patient cannot be modelled.", patient=patient.identity)
    landscape.learn(float(torch.exp(found.x[0][1])))
    x: Point = [found.x[0], landscape.flat()]
    if case.field is not None:
        x.append(case.field.zero())
    strengths = [0.0] if config.regularizer == "none" else [1.0, 0.1, 0.01, 0.0]
    for strength in strengths:
        landscape.weight = strength * config.weight
        record.stage = "law" if strength == 0 else f"law, {config.regularizer} × {landscape.weight:g}"
        budget = config.evaluations if strength == 0 else math.ceil(config.evaluations / 3)
        found = lbfgs(landscape, x, replace(_options(config), max_evaluations=budget), record)
        x = found.x
    return _result(patient, case, config, landscape, found, record, time.process_time() - cpu)


def _options(config: LearnedConfig) -> LBFGSOptions:
    return LBFGSOptions(
        tolerance=config.tolerance,
        max_evaluations=config.evaluations,
        memory=20,
        curvature=CURVATURE,
        max_step=1.0,
    )


def _from_labels(patient: Patient, config: FitConfig, progress: Progress | None) -> LearnedFit:
    """Return the fit of Fisher-Kolmogorov growth, with what it does not tell."""
    from gliodil.inference.fit import fit

    cpu = time.process_time()
    known = fit(patient, config=config, progress=progress)
    d, rho, ratio = (
        float(known.parameters[name].value)  # type: ignore[arg-type]
        for name in ("diffusivity_wm_mm2_per_day", "proliferation_rate_per_day", "wm_gm_ratio")
    )
    u = np.linspace(0, 1, 101)
    return LearnedFit(
        density=known.density,
        parameters=_parameters(d, rho, ratio, front_speed(d, Logistic(rho))),
        law_densities=u,
        law_white=rho * u * (1 - u),
        law_grey=rho * u * (1 - u),
        observed_range=(0.0, 0.0),
        identification="not_identified",
        status=known.status,
        message=known.message,
        misfit=math.nan,
        evaluations=known.evaluations,
        table_evaluations=0,
        history=known.history,
        wall_s=known.wall_s,
        cpu_s=time.process_time() - cpu,
        warnings=(EXPLANATION["not_identified"], *known.warnings),
    )


def _result(
    patient: LongitudinalPatient,
    case: LearnedCase,
    config: LearnedConfig,
    landscape: VisitLoss,
    found: Minimum,
    record: Recorder,
    cpu_s: float,
) -> LearnedFit:
    d, rho = (float(torch.exp(v)) for v in found.x[0])
    correction = landscape.correction
    assert correction is not None
    with torch.no_grad():
        growth = landscape.growth(found.x)
        densities = landscape.densities(found.x, growth)
        u = torch.linspace(0, 1, 1001, dtype=case.start.dtype, device=case.start.device)
        laws = [u * (1 - u) * (rho + correction(u, torch.full_like(u, s))) for s in (1.0, 0.0)]
        in_white = TabulatedGrowth(
            rho, lambda v, _: correction(v, torch.ones_like(v)), None, u.dtype, u.device
        )
        warnings = []
        try:
            speed = front_speed(d, in_white)
        except NumericsError:
            speed = math.nan
            warnings.append("A plane tumour with this law has no moving front.")
    if densities is None:
        raise NumericsError("The best parameters cannot be evaluated again.", patient=patient.identity)
    identification: Identification = "identified" if len(patient.days) > 1 else "up_to_time_scale"
    if identification != "identified":
        warnings.insert(0, EXPLANATION[identification])
    low, high = case.observed_range
    if high < 0.95 or low > 0.05:
        warnings.append(
            f"Densities between {low:.2f} and {high:.2f} were seen; beyond, the law is extrapolated."
        )
    if found.status != "converged":
        warnings.append(f"The fit did not converge. {found.message}")
    evaluations, seconds, totals, stages = zip(*record.rows, strict=True)
    return LearnedFit(
        density=case.volume(densities[-1]),
        parameters=_parameters(d, rho, config.wm_gm_ratio, speed),
        law_densities=u.cpu().numpy(),
        law_white=laws[0].cpu().numpy(),
        law_grey=laws[1].cpu().numpy(),
        observed_range=case.observed_range,
        identification=identification,
        status=found.status,
        message=found.message,
        misfit=found.terms["misfit"],
        evaluations=record.evaluations,
        table_evaluations=landscape.table_evaluations,
        history=LossHistory(evaluations, seconds, totals, stages),
        wall_s=time.perf_counter() - record.started,
        cpu_s=cpu_s,
        warnings=tuple(warnings),
    )


def _parameters(d: float, rho: float, ratio: float, speed: float) -> dict[str, Parameter]:
    return {
        "diffusivity_wm_mm2_per_day": Parameter(d, "mm²/day"),
        "proliferation_rate_per_day": Parameter(rho, "1/day"),
        "wm_gm_ratio": Parameter(ratio, "1"),
        "front_speed_mm_per_day": Parameter(speed, "mm/day"),
    }
