"""Patients seen more than once, and synthetic ones whose law of growth is known.

    ∂u/∂t = ∇·(D_w (w + g/R) ∇u) + f(u),      f one of the laws of ``pde.models.growth_laws``

A synthetic tumour grows in drawn tissue (smooth random white matter, grey elsewhere, a ventricle) from a dense ball, is
seen after some days, and again after equal intervals. Visits show the density itself, with noise of a standard deviation
that is known. Truth is computed with explicit Chebyshev steps and the law as a formula, not with the splitting and the
tables that a fit uses; the grid is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.observe import CONVENTION, Thresholds, segment
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError

SHAPE, SPACING_MM = (26, 26, 22), 1.5
DIFFUSIVITY = (0.06, 0.14)
PER_DAY = {"fisher-kolmogorov": (0.030, 0.045), "gompertz": (0.015, 0.025), "allee": (0.05, 0.08)}
"""Ranges that D_w [mm²/day] and the rate of each law [1/day] are drawn from."""
WM_GM_RATIO = 10.0
THRESHOLDS = Thresholds(necrotic=0.75, core=0.5, oedema=0.25)
BALL_MM, BALL_EDGE_MM, BALL_DENSITY = 7.5, 1.0, 0.97
"""The tumour at its start: radius, width of its edge, density inside."""
FIRST_DAYS, INTERVAL_DAYS = 20.0, 30.0
"""From the start to the first visit, and between visits [day]."""
TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class LongitudinalPatient:
    """A patient and the densities estimated at each visit.

    Attributes
    ----------
    patient
        Segmentation (of the last visit) and tissue maps.
    days
        Day of each visit, increasing.
    densities
        Density in [0, 1] (noise may leave it) at each visit, on the grid of the patient.
    noise
        Standard deviation of the densities' errors.

    Raises
    ------
    InputError
        If the visits are not in order, or there are not as many days as densities.
    GeometryError
        If a density lies on another grid than the patient.
    """

    patient: Patient
    days: tuple[float, ...]
    densities: tuple[Volume, ...]
    noise: float = 0.0

    def __post_init__(self) -> None:
        ordered = all(b > a for a, b in zip(self.days, self.days[1:], strict=False))
        if not self.days or len(self.days) != len(self.densities) or not ordered or self.noise < 0:
            raise InputError(
                "Visits need increasing days, one density each, and noise that is not negative.",
                patient=self.patient.identity,
                found=f"days {self.days}, {len(self.densities)} densities, noise {self.noise}",
            )
        for density in self.densities:
            if not density.same_grid(self.patient.segmentation):
                raise GeometryError(
                    "A visit's density does not lie on the patient's grid.",
                    patient=self.patient.identity,
                    expected=repr(self.patient.segmentation),
                    found=repr(density),
                    remedy="resample it with Volume.resample_to(patient.segmentation)",
                )

    @property
    def identity(self) -> str:
        """Who it is."""
        return self.patient.identity


@dataclass(frozen=True, eq=False)
class SyntheticLongitudinal:
    """A patient seen several times, and the truth.

    Attributes
    ----------
    visits
        What a clinic would have.
    law, per_day
        Name of the growth law and its rate [1/day].
    diffusivity, wm_gm_ratio
        D_w [mm²/day] and R [-].
    truth
        Densities without noise, as arrays, one per visit.
    """

    visits: LongitudinalPatient
    law: str
    per_day: float
    diffusivity: float
    wm_gm_ratio: float
    truth: tuple[NDArray[np.float64], ...]

    def reaction(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the true f(u) [1/day]."""
        import torch

        from gliodil.pde.models.growth_laws import GrowthLaw

        found: NDArray[np.float64] = GrowthLaw(self.law, self.per_day).rate(torch.as_tensor(u)).numpy()
        return found


def simulate_longitudinal(
    *, law: str = "gompertz", seed: int = 0, visits: int = 3, noise: float = 0.0, tissue: str = "varied"
) -> SyntheticLongitudinal:
    """Return a synthetic patient seen several times; equal arguments give equal patients.

    Parameters
    ----------
    law
        ``"fisher-kolmogorov"``, ``"gompertz"`` or ``"allee"``.
    seed
        Which patient, 0 or more.
    visits
        Number of visits, 30 days apart.
    noise
        Standard deviation of the noise added to the densities.
    tissue
        ``"varied"``, or ``"white"`` for white matter alone.

    Raises
    ------
    InputError
        If an argument is out of range.
    """
    import torch

    from gliodil.pde.grid import Grid
    from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
    from gliodil.pde.models.growth_laws import GrowthLaw
    from gliodil.pde.reaction_diffusion import ReactionDiffusion, solve

    if seed < 0 or visits < 1 or noise < 0 or tissue not in ("varied", "white"):
        raise InputError(
            "No such synthetic patient.",
            expected="a seed of 0 or more, at least one visit, noise of 0 or more, tissue 'varied' or 'white'",
            found=f"seed {seed}, {visits} visits, noise {noise}, tissue {tissue!r}",
        )
    growing = GrowthLaw(law, 1.0)  # an unknown name ends here
    rng = np.random.default_rng([seed, list(PER_DAY).index(law)])
    diffusivity, per_day = float(rng.uniform(*DIFFUSIVITY)), float(rng.uniform(*PER_DAY[law]))
    growing = GrowthLaw(law, per_day)
    white, grey = _tissue(rng) if tissue == "varied" else (np.ones(SHAPE), np.zeros(SHAPE))
    grid = Grid(SHAPE, (SPACING_MM,) * 3)
    model = FisherKolmogorov.on(grid, torch.as_tensor(white), torch.as_tensor(grey))
    problem = ReactionDiffusion(grid, model.coefficients(diffusivity, WM_GM_RATIO), growing)
    centre = torch.as_tensor(np.asarray(SHAPE) * SPACING_MM / 2 + rng.uniform(-2, 2, 3))
    distance2 = (grid.centres() - centre[:, None]).square().sum(dim=0)
    ball = BALL_DENSITY * torch.sigmoid((BALL_MM - distance2.sqrt()) / BALL_EDGE_MM)
    fields = [torch.where(model.passable, ball, 0.0)]
    for days in (FIRST_DAYS, *[INTERVAL_DAYS] * (visits - 1)):
        solution = solve(problem, fields[-1], duration=days, method="rkc2", tolerance=TOLERANCE)
        fields.append(solution.u)
    truth = tuple(grid.box(field).numpy() for field in fields[1:])
    return SyntheticLongitudinal(
        visits=_seen(truth, white, grey, noise, rng, f"longitudinal-{law}-{seed}"),
        law=law,
        per_day=per_day,
        diffusivity=diffusivity,
        wm_gm_ratio=WM_GM_RATIO,
        truth=truth,
    )


def _seen(
    truth: Sequence[NDArray[np.float64]],
    white: NDArray[np.float64],
    grey: NDArray[np.float64],
    noise: float,
    rng: np.random.Generator,
    name: str,
) -> LongitudinalPatient:
    """Put the patient together; noise lies in tissue only."""
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    labels = Volume(segment(truth[-1].astype(np.float32), THRESHOLDS), affine, kind="label")

    def scalar(values: NDArray[np.float64]) -> Volume:
        return labels.with_data(values.astype(np.float32), kind="scalar")

    inside = white + grey > 0.5
    densities = [field + noise * rng.standard_normal(SHAPE) * inside for field in truth]
    return LongitudinalPatient(
        patient=Patient(
            identity=name,
            segmentation=labels,
            convention=CONVENTION,
            volumes={"wm": scalar(white), "gm": scalar(grey)},
        ),
        days=tuple(INTERVAL_DAYS * k for k in range(len(truth))),
        densities=tuple(scalar(field) for field in densities),
        noise=noise,
    )


def _tissue(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return white and grey matter fractions: a smooth random pattern, mostly white, with a ventricle."""
    pattern = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3.0, mode="nearest")
    white = 1 / (1 + np.exp(-(1.0 + 2.5 * pattern / pattern.std())))
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    where = np.asarray(SHAPE) / 2 + np.array([7.0, 2.0, 0.0])
    ventricle = np.linalg.norm((index - where) / (2.5, 5.0, 4.0), axis=-1) < 1
    grey = 1 - white
    white[ventricle], grey[ventricle] = 0.0, 0.0
    return white, grey
