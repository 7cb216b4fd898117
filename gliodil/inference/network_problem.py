"""A patient's growth as a problem for a network: Fisher-Kolmogorov in space and time, with labels at the end.

The network is the front coordinate ψ(x, t), not the density: with u = (1 + e^ψ)⁻² a travelling front is a straight line
in ψ, ahead of it and behind it alike (Ablowitz & Zeppetella 1979), and u stays in (0, 1). With σ = 1/(1 + e^{−ψ}) the
equation divided by du/dψ is

    ψ_t = D [Δψ + (1 − 3σ) |∇ψ|²] + ∇D·∇ψ − ρ (1 − σ/2),      D(x) = D (w + g/R)

with the maps w of white and g of grey matter smoothed by 2 mm (arithmetic means of the tissue carry fronts as the tissue
does), since a network resolves no single cell: what it leaves of the residual there grows with D, and a fit that infers
D would lower it.

Rows of the least-squares problem:
growth    (ψ_t − …)/(ρ₀ + D₀|∇ψ₀|²) · 1/cosh(ψ₀/6), where ψ₀, ρ₀ and D₀ are what training starts from: fixed, so that
          no field makes its own rows light, and broad, because fronts are pulled by their tails: one that is too
          shallow makes any rate fit; robust like the labels
seed      ψ at the beginning minus that of the seed, with the same weight at the seed's ψ
labels    √6 mm times the distance of ψ(x, T) from the interval between thresholds, robust as in ``informed_loss``
priors    deviations of the scalars from the priors of ``informed_loss``, in standard deviations

The scalars are inferred with the network, in the coordinates of ``parameters.Box``.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from gliodil.inference.informed_loss import InformedLoss, front_coordinate
from gliodil.inference.network_lift import Lift
from gliodil.inference.parameters import ORIGIN_SCALE_MM, Scalars
from gliodil.inference.reference_loss import by_label
from gliodil.inference.spline import smooth_field
from gliodil.sampling.derivatives import Jet, coordinates
from gliodil.sampling.domain import Box
from gliodil.sampling.objective import Objective
from gliodil.sampling.points import Points
from gliodil.sampling.problems.problem import Condition, Problem
from gliodil.sampling.solution import Solution

BEGIN = 0.04
"""The network begins after this share of the time, when the ramp of the seed has smoothed."""
TISSUE_MM = 2.0
"""Standard deviation of the Gaussian that smooths the tissue maps."""
TAIL = 6.0
"""Scale of ψ in the weight of the equation."""
GROWTH_ERROR = 0.1
"""Relative violation of the equation that counts as one standard deviation."""
OUTLIER = 2.0
"""Relative violations beyond this have a bounded say: there the tissue maps or the model are wrong."""
SEED_ERROR = 0.1
"""Deviation of ψ from the seed that counts as one standard deviation."""
EFFECTIVE_POINTS = 100.0
"""How many independent observations the rows of the equation, and of the seed, stand for."""
WEIGHT_LABELS = 60.0
REACH_MM = 20.0
"""The equation and the labels are asked for in tissue up to here from the visible tumour."""
RIM_MM = 5.0
"""Two thirds of the label rows are this near to a boundary between labels."""
SECOND_ORDER = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))


class PatientProblem:
    """The rows of one patient; ``problem`` is what ``sampling.solve`` takes.

    Parameters
    ----------
    loss
        Default loss of the patient's case: labels, priors, box of parameters.
    start
        Scalars to start from; their origin is that of the network's starting field.
    """

    def __init__(self, loss: InformedLoss, start: Scalars) -> None:
        self.loss, self.case, self.start = loss, loss.case, start
        grid = self.case.grid
        self.duration = loss.config.duration_days
        self.rate = float(start.proliferation_rate)
        self.begin = BEGIN * self.duration
        self.lift = Lift(self.case, start, begin=self.begin, duration=self.duration)
        self.parameters = loss.box()
        self.white, self.grey = (
            smooth_field(grid, field, start.diffusivity, width_mm=TISSUE_MM)
            for field in (self.case.model.white, self.case.model.grey)
        )
        self.near = self.case.model.passable & (self._distance() <= REACH_MM)
        self.cells = torch.nonzero(self.near).reshape(-1)
        self.rims = self._rims()
        self.centres = grid.centres().T
        extent = tuple(n * h for n, h in zip(grid.shape, grid.spacing, strict=True))
        self.box = Box((0.0, 0.0, 0.0, self.begin), (*extent, self.duration))

    @property
    def problem(self) -> Problem:
        """Return the problem: unknown ψ on the crop [mm] and [0, T] [day], scalars z."""
        labels, seed = WEIGHT_LABELS, EFFECTIVE_POINTS / SEED_ERROR**2
        return Problem(
            name="patient",
            box=self.box,
            second_order=SECOND_ORDER,
            residual=self.growth,
            lift=self.lift,
            conditions=(
                Condition(self.labels, self._draw_labels, labels),
                Condition(self.seed, self._draw_seed, seed),
                Condition(self.priors, self._draw_each_prior, float(self._prior_count)),
            ),
            scalars=tuple(self.parameters.encode(self.start).tolist()),
            inside=lambda x: self.near[self.cell(x)],
        )

    def cell(self, x: torch.Tensor) -> torch.Tensor:
        """Return the cell that holds each point (N, ≥3) [mm]: (N,)."""
        grid = self.case.grid
        i, j, k = (
            (x[:, a] / h).long().clamp(0, n - 1)
            for a, (n, h) in enumerate(zip(grid.shape, grid.spacing, strict=True))
        )
        return (i * grid.shape[1] + j) * grid.shape[2] + k

    def growth(self, x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        """Return the weighted violation of the equation by the jet of ψ: (N,)."""
        p = self.decode(scalars)
        at = coordinates(x, ())
        white, grey = self.white.jet(*at[:3]).streams, self.grey.jet(*at[:3]).streams
        mobility = (white[:4] + grey[:4] / p.wm_gm_ratio) * p.diffusivity
        diffusion, drift = mobility[0], mobility[1:]
        sigma = torch.sigmoid(u.value)
        slope = u.gradient[:3]
        spreading = (diffusion * (u.second + (1 - 3 * sigma) * slope.square()) + drift * slope).sum(0)
        violation = u.gradient[3] - spreading + p.proliferation_rate * (1 - sigma / 2)
        start = self.lift(at)
        pace = self.rate + self.start.diffusivity * start.gradient[:3].square().sum(0)
        relative = violation / pace
        bounded = relative / (1 + (relative / OUTLIER).square()).sqrt()
        return bounded * (_weight(start.value) * (math.sqrt(EFFECTIVE_POINTS) / GROWTH_ERROR))

    def seed(self, x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        """Return ψ at the beginning minus that of the seed, grown until then, weighted: (N,)."""
        origin = scalars[:, self.parameters.origins] * ORIGIN_SCALE_MM
        wanted = self.lift.grown_seed((x[:, :3] - origin).square().sum(1), x[:, 3])
        return (u.value - wanted) * _weight(wanted)

    def labels(self, x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        """Return how far ψ at the end is outside the interval the label allows, robust, in tolerances: (N,)."""
        boundaries = tuple(front_coordinate(t) for t in self.loss.thresholds(self.decode(scalars)))
        cells = self.cell(x)
        # A high density is a low ψ.
        highest = by_label(self.case, (math.inf, *boundaries), cells=cells)
        lowest = by_label(self.case, (*boundaries, -math.inf), cells=cells)
        outside = (u.value - highest).clamp(min=0) - (lowest - u.value).clamp(min=0)
        return self.loss.robust(math.sqrt(6) * outside)

    def priors(self, x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        """Return the deviations from the priors, one per row, in turns: (N,)."""
        deviations = self.loss.deviations(self.decode(scalars))
        turn = torch.arange(x.shape[0], device=x.device) % self._prior_count
        return deviations[turn, torch.arange(x.shape[0], device=x.device)]

    def terms(self, solution: Solution, *, count: int = 5000) -> dict[str, float]:
        """Return the terms of the loss on fresh points, uniform in the box, by the names of the other losses."""
        generator = torch.Generator(device=solution.theta.device).manual_seed(solution.seed + 1)
        problem, dtype = self.problem, solution.theta.dtype
        x = self.box.from_unit(
            torch.rand(count, 4, generator=generator, dtype=dtype, device=generator.device)
        )
        points = Points(x, x.new_full((count,), 1 / self.box.volume))
        conditions = tuple(c.points(count, generator=generator, dtype=dtype) for c in problem.conditions)
        objective = Objective(problem, solution.network, points, conditions=conditions)
        growth, labels, seed, priors = torch.split(objective.residual(solution.theta), count)
        sums = {
            "pde": growth,
            "initial": seed,
            "seg_lower": labels.clamp(min=0),  # the density is too low
            "seg_upper": labels.clamp(max=0),
            "parameters": priors,
        }
        return {name: float(rows.square().sum()) for name, rows in sums.items()}

    def decode(self, scalars: torch.Tensor) -> Scalars:
        """Return the scalars of every row (N, n)."""
        return self.parameters.decode(scalars.T)

    @property
    def _prior_count(self) -> int:
        return 6 if self.loss.three_levels else 5

    def _draw_labels(self, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Draw centres of cells at the end, two thirds of them near a boundary between labels."""
        near = 2 * count // 3
        chosen = [_choose(self.rims, near, generator), _choose(self.cells, count - near, generator)]
        return self._centres(torch.cat(chosen), self.duration, dtype)

    def _draw_seed(self, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Draw centres of cells at the start."""
        return self._centres(_choose(self.cells, count, generator), self.begin, dtype)

    def _draw_each_prior(self, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Return one point for every prior, which depends on no point."""
        return self._draw_seed(self._prior_count, generator=generator, dtype=dtype)

    def _centres(self, cells: torch.Tensor, time: float, dtype: torch.dtype) -> torch.Tensor:
        at = self.centres[cells].to(dtype)
        return torch.cat([at, torch.full_like(at[:, :1], time)], dim=1)

    def _rims(self) -> torch.Tensor:
        """Cells near a boundary between labels."""
        from scipy import ndimage

        grid, case = self.case.grid, self.case
        labels = grid.box(case.oedema.long() + 2 * case.core + case.necrotic).cpu().numpy()
        within = np.zeros(labels.shape, dtype=bool)
        reach = max(RIM_MM, 1.5 * max(grid.spacing))  # both sides of every boundary on coarse grids too
        for level in (1, 2, 3):
            inside = labels >= level
            if inside.any():
                out = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
                deep = ndimage.distance_transform_edt(inside, sampling=grid.spacing)
                within |= np.maximum(out, deep) <= reach
        return torch.nonzero(grid.mask(within) & self.near).reshape(-1)

    def _distance(self) -> torch.Tensor:
        """Distance of every cell from the visible tumour [mm]: (N,)."""
        from scipy import ndimage

        grid = self.case.grid
        hidden = ~grid.box(self.case.core | self.case.oedema).cpu().numpy()
        return grid.field(ndimage.distance_transform_edt(hidden, sampling=grid.spacing))


def density(psi: torch.Tensor) -> torch.Tensor:
    """Return u = (1 + e^ψ)⁻²."""
    return torch.sigmoid(-psi).square()


def _choose(of: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    return of[torch.randint(len(of), (count,), generator=generator, device=of.device)]


def _weight(psi: torch.Tensor) -> torch.Tensor:
    """Return 1/cosh(ψ/6): both tails of the front count, for fronts are pulled by theirs, but less the further off."""
    return 1 / torch.cosh(psi / TAIL)
