"""A start of any shape: the density a short while ago is free, growth since then is exact.

    ψ₀ = ψ_lab + ζ/(√6 ℓ) + 2τ/√6,      u⁰ = (1 + e^{ψ₀})⁻²,      ζ = 2 mm · G q,  q white
    ∂u/∂t = ∇·(ℓ² m ∇u) + u (1 − u)  for a time τ = ½,      m = w + g/R + v²c,       time in units of 1/ρ

A point origin, one law and a template's tissue cannot make the shapes of real tumours. Where they leave labels
unexplained, growth starts instead from a front laid along the labels themselves, set back by what it moves in τ and
shifted by a smooth field ζ (Gaussian of 3 mm). Every lesion has a start of its own. With q, ln ℓ and the imaging
thresholds unknown, −2 ln(posterior) is up to a constant

    labels   Σ_cells r² V/V₁            r the bounded distance of ``informed_loss`` over 0.7 mm, V₁ = 100 mm³
    start    ‖q‖²
    width    n r²/(1 + r²)              r = ln(√6 ℓ (ψ_o − ψ_c)/W)/0.7, W the oedema's mean width,
                                        n its volume over 3000 mm³; oedema wider than any front is not a front's
    priors   those of ``informed_loss`` on ln ℓ and the thresholds
    pet      Σ_cells (the PET misfit of ``informed_loss``)² V/V₂                V₂ = 300 mm³

V₁ and V₂ are volumes over which errors are alike. Growth since then is too short for the tail to reach what the
equation makes of it: ℓ follows the distance between labels, and densities ahead of the visible tumour are no estimate
of their own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import torch

from gliodil.data.patient import Patient
from gliodil.inference import informed_loss as informed
from gliodil.inference.blur import blur
from gliodil.inference.exact import LossAt
from gliodil.inference.front_labels import SLOWEST, FrontLabels
from gliodil.inference.informed_loss import InformedLoss, front_coordinate
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import Terms
from gliodil.inference.variables import SOLVER_TOLERANCE, Coordinates
from gliodil.pde.odil.problem import Point
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import Trajectory, sweep
from gliodil.pde.operators import Faces, face_means, spectral_bound

UNRELIABLE = (
    "Growth from point origins does not explain the labels, so it was started from a front laid along them; "
    "infiltration length and densities ahead of the visible tumour then follow the labels' spacing and are no estimates "
    "to read."
)
"""What the reader of a result has to know."""
DURATION = 0.5
"""τ [1/ρ]."""
STEPS = 12
DEVIATION_MM = 2.0
"""Standard deviation of ζ [mm]."""
CORRELATION_MM = 3.0
"""Standard deviation of the Gaussian G [mm]."""
LABEL_VOLUME_MM3 = 100.0
PET_VOLUME_MM3 = 300.0
WIDTH_VOLUME_MM3 = 3000.0
WIDTH_DEVIATION = 0.7
_LARGEST = 30.0  # ψ beyond which u underflows in float32 when squared


class FreeStart:
    """Evaluates the objective at points [y, q]: y are deviations from the priors, then PET scale and background.

    Parameters
    ----------
    patient
        The patient, whose labels are read on their own voxels.
    loss
        The informed loss of its case.
    start
        Parameters found with exact physics. Their ρ, R, v and origins are kept.
    """

    def __init__(
        self, patient: Patient, loss: InformedLoss, start: Scalars, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.loss, self.dtype, grid = loss, dtype, loss.case.grid
        self.sigmas = tuple(CORRELATION_MM / h for h in grid.spacing)
        model = loss.case.model
        m = model.white + model.grey / start.wm_gm_ratio
        if model.csf is not None:
            m = m + model.csf * start.csf_speed**2
        m = torch.where(model.passable, m.clamp(SLOWEST, 1), 0)
        self.labels = FrontLabels(patient, loss.case, m, with_necrosis=loss.three_levels)
        self.inside = model.passable.to(dtype)
        per_h2 = [1 / h**2 for h in grid.spacing]
        self.faces = face_means(grid, m, model.passable).map(*per_h2).to(dtype)
        self.coordinates = self._coordinates(start)

    def _coordinates(self, start: Scalars) -> Coordinates:
        """Return y about the priors' middle."""
        middle = replace(
            start,
            threshold_core=torch.full_like(start.threshold_core, informed.THRESHOLD_CORE[0]),
            threshold_oedema=torch.full_like(start.threshold_core, informed.THRESHOLD_OEDEMA[0]),
            threshold_necrotic=torch.full_like(start.threshold_core, informed.THRESHOLD_NECROTIC[0]),
        )
        box = replace(self.loss.box(), foci=start.origins.shape[0])
        z = box.encode(replace(middle, diffusivity=start.proliferation_rate * informed.LENGTH_MM[0] ** 2))
        at = z.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.deviations(box.decode(at)).sum(), at)  # each sees one coordinate
        if box.with_pet:
            slope[5:7] = 1.0
        free = slope.abs() > 1e-6  # ρ cancels in ℓ but for round-off
        scaling = torch.eye(z.shape[0], dtype=z.dtype, device=z.device)[:, free] / slope[free]
        return Coordinates(box, z, scaling)

    @staticmethod
    def _gap(p: Scalars) -> torch.Tensor:
        return front_coordinate(p.threshold_oedema) - front_coordinate(p.threshold_core)

    def deviations(self, p: Scalars) -> torch.Tensor:
        """Return (x − μ)/s of ln ℓ and the thresholds."""
        length = (p.diffusivity / p.proliferation_rate).sqrt()
        parts = [
            (length.log() - math.log(informed.LENGTH_MM[0])) / informed.LENGTH_MM[1],
            (p.threshold_core - informed.THRESHOLD_CORE[0]) / informed.THRESHOLD_CORE[1],
            (p.threshold_oedema - informed.THRESHOLD_OEDEMA[0]) / informed.THRESHOLD_OEDEMA[1],
        ]
        if self.loss.three_levels:
            necrotic = (p.threshold_necrotic - informed.THRESHOLD_NECROTIC[0]) / informed.THRESHOLD_NECROTIC[
                1
            ]
            parts.append(necrotic)
        return torch.stack(parts)

    def start(self) -> Point:
        """Return y = 0, q = 0."""
        grid = self.loss.case.grid
        y = torch.zeros(self.coordinates.scaling.shape[1], dtype=torch.float64, device=grid.device)
        return [y, torch.zeros(grid.cells, dtype=self.dtype, device=grid.device)]

    def at(self, x: Point) -> LossAt:
        """Evaluate the objective at x."""
        return LossAt(self, x)

    def scalars(self, y: torch.Tensor) -> Scalars:
        """Return the parameters at y."""
        return self.coordinates.scalars(y)

    def thresholds(self, p: Scalars) -> tuple[torch.Tensor, ...]:
        """Return the densities at the boundaries that are labelled, outwards in."""
        return self.loss.thresholds(p)[not self.labels.oedema :]

    def seen(self, p: Scalars) -> Scalars:
        """Return the parameters as the labels see them: without oedema, the outermost boundary is the core's."""
        return p if self.labels.oedema else replace(p, threshold_oedema=p.threshold_core)

    def terms(self, x: Point) -> Terms:
        """Return the terms at x, differentiable; none where thresholds do not follow one another."""
        run = self.run(x)
        if run is None:
            return {}
        p, trajectory = run
        length = (p.diffusivity / p.proliferation_rate).sqrt()
        misfit = self.loss.robust(self.labels.misfit_mm(trajectory.last, length, self.thresholds(p)))
        terms = {
            "labels": (misfit.double().square() * self.labels.voxels.volume_mm3).sum() / LABEL_VOLUME_MM3,
            "start": x[1].double().square().sum(),
        }
        if self.labels.oedema:
            wide = (math.sqrt(6) * length * self._gap(p) / self.labels.width_mm).log() / WIDTH_DEVIATION
            terms["width"] = wide.square() / (1 + wide.square()) * (self.labels.oedema_mm3 / WIDTH_VOLUME_MM3)
        if self.loss.has("priors"):
            terms["priors"] = self.deviations(p).square().sum()
        if self.loss.case.pet is not None:
            per_cell = self.loss.entries * self.loss.case.grid.cell_volume_mm3 / PET_VOLUME_MM3
            pet = self.loss.data_residuals(trajectory.last, p)["pet"]
            terms["pet"] = pet.double().square().sum() * per_cell
        return terms

    def run(self, x: Point) -> tuple[Scalars, Trajectory] | None:
        """Return the parameters and the density at every level, differentiable; None where x is inadmissible."""
        p = self.scalars(x[0])
        thresholds = self.thresholds(p)
        rising = all(bool(a < b) for a, b in pairwise(thresholds))
        if not rising or not all(bool(torch.isfinite(t.detach()).all()) for t in x):
            return None
        length = (p.diffusivity / p.proliferation_rate).sqrt()
        grid = self.loss.case.grid
        noise = blur(grid.box(x[1]), self.sigmas, unit_variance=True).reshape(-1)
        psi = self.labels.front(length, thresholds) + 2 * DURATION / math.sqrt(6)
        psi = psi.to(self.dtype) + noise * (DEVIATION_MM / math.sqrt(6) / length).to(self.dtype)
        u0 = (1 + psi.clamp(max=_LARGEST).exp()) ** -2 * self.inside
        coefficients: Faces = self.faces * length.square().to(self.dtype)
        steps = Steps.resolving(
            dt=DURATION / STEPS,
            sigma=1.0,
            diffusion_bound=float(spectral_bound(coefficients, grid.cells)),
            growth=1.0,
            tolerance=SOLVER_TOLERANCE[self.dtype],
        )
        rate = torch.ones((), dtype=self.dtype, device=grid.device)
        trajectory = sweep(
            u0, None, coefficients, rate, 1 - self.inside, steps, count=STEPS, memory=self.loss.memory
        )
        return p, trajectory
