"""What a fit returns: the density, the parameters with units, and how the optimizer fared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gliodil.data.volume import Volume
from gliodil.inference.agreement import Agreement

RATES_NOTE = (
    "One scan fixes ratios, not rates: the infiltration length holds for any duration of growth, diffusivity and "
    "proliferation rate only for the assumed one."
)


@dataclass(frozen=True)
class Parameter:
    """A fitted scalar (or, for the origin, a triple) with its unit.

    ``low`` and ``high`` bound a 95 % interval and are None until uncertainty is asked for.
    """

    value: float | tuple[float, float, float]
    unit: str
    low: float | None = None
    high: float | None = None

    def text(self) -> str:
        """Return value, interval (if there is one) and unit in words."""
        numbers = self.value if isinstance(self.value, tuple) else (self.value,)
        value = ", ".join(f"{x:.1f}" if len(numbers) > 1 else f"{x:.3g}" for x in numbers)
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{value}{interval}" + ("" if self.unit == "1" else f" {self.unit}")


@dataclass(frozen=True)
class LossHistory:
    """The loss as the optimizer saw it, one entry per recorded evaluation.

    Attributes
    ----------
    evaluations
        Number of gradients spent so far, over all stages.
    seconds
        Wall time since the fit began [s].
    total
        Value of the stage's objective: the loss in a soft stage; in the others what the parameters, or the start, are
        fitted to.
    stage
        Name of the stage each entry belongs to, e.g. ``"parameters 24³×96"``, ``"free start 48³×12"`` or
        ``"full 48³×96"``.
    """

    evaluations: tuple[int, ...]
    seconds: tuple[float, ...]
    total: tuple[float, ...]
    stage: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """Tumour-cell density of one patient and everything needed to judge it.

    Attributes
    ----------
    density
        Scalar volume in [0, 1] on the grid of the input segmentation; fraction of carrying capacity.
    parameters
        Keys of ``metrics.json``: ``diffusivity_wm_mm2_per_day``, ``proliferation_rate_per_day``,
        ``wm_gm_ratio``, ``infiltration_length_mm``, ``threshold_core``, ``threshold_oedema``,
        ``origin_mm``, and with PET ``pet_scale``, ``pet_background``.
    status
        ``"converged"``, ``"iteration_limit"``, ``"stalled"`` or ``"diverged"``;
        ``message`` says the same in words.
    loss_total, loss_terms
        The loss and its terms (parameters, pde, initial, seg_lower, seg_upper, bounds, csf, pet; with a free start
        labels, start, width, priors, pet).
    physics
        ``"exact"`` (the equation holds exactly), ``"free-start"`` (exactly, from a start of any shape a short
        while before the scan) or ``"soft"`` (it may be violated at a price).
    origins_mm
        Centres of all foci, world RAS+; ``origin_mm`` is the first.
    agreement
        How the density agrees with the labels on their own grid (``inference.agreement``); None where there are none.
    growth
        Name of the growth law.
    """

    density: Volume
    parameters: Mapping[str, Parameter]
    status: str
    message: str
    loss_total: float
    loss_terms: Mapping[str, float]
    evaluations: int
    history: LossHistory
    method: str
    optimizer: str
    grid_shape: tuple[int, int, int]
    steps: int
    spacing_mm: tuple[float, float, float]
    device: str
    dtype: str
    wall_s: float
    warnings: tuple[str, ...] = field(default=())
    physics: str = "soft"
    origins_mm: tuple[tuple[float, float, float], ...] = ()
    agreement: Agreement | None = None
    growth: str = "fisher-kolmogorov"

    @property
    def label_misfit_mm(self) -> float | None:
        """Mean distance between the boundaries of the density and of the labels [mm]."""
        return None if self.agreement is None else self.agreement.misfit_mm

    @property
    def converged(self) -> bool:
        """Whether the optimizer met its convergence test."""
        return self.status == "converged"

    def __repr__(self) -> str:
        nx, ny, nz = self.grid_shape
        return (
            f"Fit({self.method}, {self.optimizer}, grid {nx}x{ny}x{nz}x{self.steps}, "
            f"{self.status}, loss {self.loss_total:.3g}, {self.evaluations} gradients, {self.wall_s:.0f} s)"
        )

    def _repr_html_(self) -> str:
        from gliodil.data.display import notes_html, planes_html, table_html

        nx, ny, nz = self.grid_shape
        spacing = " x ".join(f"{h:.2g}" for h in self.spacing_mm)
        rows = {
            "status": self.status,
            "method": f"{self.method}, {self.physics} physics, {self.optimizer}",
            "grid": f"{nx} x {ny} x {nz} cells of {spacing} mm, {self.steps} time levels",
            "loss": f"{self.loss_total:.3g}, {self.evaluations} gradients",
            "boundaries": ""
            if self.label_misfit_mm is None
            else f"{self.label_misfit_mm:.2g} mm from those of the labels on average",
            "time": f"{self.wall_s:.1f} s on {self.device}, {self.dtype}",
        }
        parameters = {name: parameter.text() for name, parameter in self.parameters.items()}
        picture = planes_html(
            self.density,
            self.density.data,
            levels=(0.01, 0.1, 0.5),
            alt="Axial, coronal and sagittal plane of the estimated density with isolines at 1, 10 and 50 per cent",
        )
        # A warning of the fit repeats the message.
        said = () if self.converged or not self.message else (self.message,)
        notes = (*(n for n in said if not any(n in w for w in self.warnings)), *self.warnings, RATES_NOTE)
        return f"<div>{table_html(rows)}{table_html(parameters)}{picture}{notes_html(notes)}</div>"
