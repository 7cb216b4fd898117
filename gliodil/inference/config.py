"""Settings of a fit: one frozen object, one source of defaults."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gliodil.errors import InputError

Method = Literal["odil", "pinn"]
Loss = Literal["informed", "reference"]
Optimizer = Literal["lbfgs", "gauss-newton", "adam-multigrid"]
Physics = Literal["auto", "exact", "soft"]
Csf = Literal["auto", "closed", "slow"]
Term = Literal["rim", "distances", "priors", "fronts", "foci", "pet"]

STEPS: dict[Loss, int] = {"informed": 96, "reference": 192}
"""Time levels. 96 give the plan of 768 (Dice of the model CTVs .9994); the reference has the published number."""


@dataclass(frozen=True)
class FitConfig:
    """How the density is inferred.

    Attributes
    ----------
    cells
        Cells along each axis of the crop (N = cells³).
    steps
        Time levels Nt, u⁰ included; their distance is duration/steps. None stands for ``STEPS`` of the loss: 96, and the
        published 192 with the reference loss. Once made, a configuration holds the number.
    duration_days
        Nominal time from the seed to the scan T [day]. One scan fixes time only up to scale.
    crop_factor, crop_margin_mm
        Size of the crop relative to the bounding box of all tumour labels, and how far it reaches beyond the core at
        least [mm]: the model CTV, which goes around barriers, reaches further than the standard margin. The
        reference loss has no such margin.
    tissue_error_mm
        How far the tissue maps may be off [mm]: they are blurred by a Gaussian of that standard deviation before they
        are used (``tissue``). None stands for what the patient's maps are, ``tissue.ERROR_MM``: more for the
        template's than for given ones. Not with the reference loss.
    csf
        Whether cells spread where the maps show cerebrospinal fluid: not at all (``"closed"``), slowly (``"slow"``, the
        speed is fitted), or slowly if the maps are the template's, which often calls sulci what is cortex (``"auto"``).
        It is closed with the reference loss and for a network.
    physics
        ``"exact"``: the equation holds exactly, only its parameters are fitted; ``"soft"``: it may be violated at a
        price; ``"auto"``: exact, and where that does not explain the labels as well as their resolution lets one see
        (``label_misfit``), from a start of any shape (``free_start``). The reference loss is soft unless
        ``"exact"`` is asked for.
    pde_weight
        λ, the factor on the physics residual's weight.
    loss
        ``"informed"``: the reference loss with the necrotic rim as a third level and priors in place of the
        parameter hinges (default, see ``informed_loss``); ``"reference"``: the public loss.
    left_out
        Terms of the informed loss to do without, to see what each is worth: ``"rim"`` (necrosis as a third level),
        ``"distances"`` (label misfits in millimetres), ``"priors"`` (their wide box stays), ``"fronts"`` (rates
        corrected for the grid), ``"foci"`` (more than one), ``"pet"`` (its own units and blur). The free start
        is switched by ``physics``.
    optimizer
        ``"lbfgs"``: parameters first, then, with soft physics, everything, in the variables of
        ``pde.odil.trajectory`` (default);
        ``"gauss-newton"``: the same stages and variables, the full one by Gauss-Newton;
        ``"adam-multigrid"``: the public GliODIL path, Adam on a multigrid decomposition of u, float64.
    max_evaluations
        Budget of gradients of the soft stage on each grid (Gauss-Newton: of pairs of a forward and an adjoint sweep) and
        of the free start, or of epochs (Adam, public value 9000).
    tolerance
        Relative decrease of the loss below which the soft stage and the free start have converged.
    method
        ``"odil"``: the discrete loss (default); ``"pinn"``: a physics-informed network (``network_fit``), which heeds
        cells, duration, crop, device and the settings below, and does not use PET.
    network_width, network_depth
        Neurons of each hidden layer, and their number.
    network_budget_s
        CPU seconds of training at most.
    seed
        Of the network's first weights, its collocation points and the flow they come from.
    device
        ``"auto"`` (CUDA where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """

    cells: int = 48
    steps: int = None  # type: ignore[assignment]  # never None once made: ``__post_init__``
    duration_days: float = 100.0
    crop_factor: float = 1.5
    crop_margin_mm: float = 22.0
    tissue_error_mm: float | None = None
    csf: Csf = "auto"
    physics: Physics = "auto"
    pde_weight: float = 1.0
    loss: Loss = "informed"
    left_out: tuple[Term, ...] = ()
    optimizer: Optimizer = "lbfgs"
    max_evaluations: int = 600
    tolerance: float = 1e-2
    method: Method = "odil"
    network_width: int = 20
    network_depth: int = 2
    network_budget_s: float = 120.0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise InputError(
                    f"The fit setting '{name}' is out of range.",
                    expected=expected,
                    found=str(getattr(self, name)),
                )

        object.__setattr__(self, "left_out", tuple(self.left_out))
        need(self.loss in get_args(Loss), "loss", " | ".join(get_args(Loss)))
        given: Any = self.steps
        if given is None:
            object.__setattr__(self, "steps", STEPS[self.loss])
        need(8 <= self.cells <= 512, "cells", "8 to 512 cells per axis")
        need(8 <= self.steps <= 4096, "steps", "8 to 4096 time levels")
        need(0 < self.duration_days < math.inf, "duration_days", "a positive number of days")
        need(1 <= self.crop_factor <= 10, "crop_factor", "1 to 10")
        need(0 <= self.crop_margin_mm <= 100, "crop_margin_mm", "0 to 100 mm")
        error = self.tissue_error_mm
        need(error is None or 0 <= error <= 20, "tissue_error_mm", "0 to 20 mm")
        need(self.csf in get_args(Csf), "csf", " | ".join(get_args(Csf)))
        plain = error in (None, 0) and self.csf != "slow"
        need(plain or self.loss == "informed", "loss", 'loss="informed" where tissue_error_mm or csf is set')
        need(self.physics in get_args(Physics), "physics", " | ".join(get_args(Physics)))
        need(
            self.physics != "exact" or self.optimizer != "adam-multigrid",
            "physics",
            "auto or soft: the public path is soft",
        )
        need(0 < self.pde_weight < math.inf, "pde_weight", "a positive factor")
        need(set(self.left_out) <= set(get_args(Term)), "left_out", f"any of {', '.join(get_args(Term))}")
        switchable = self.loss == "informed" and self.method == "odil"
        need(not self.left_out or switchable, "left_out", 'nothing, unless loss="informed" and method="odil"')
        public = self.optimizer != "adam-multigrid" or self.loss == "reference"
        need(public, "loss", 'loss="reference" with optimizer="adam-multigrid": the public path has no other')
        need(self.optimizer in get_args(Optimizer), "optimizer", " | ".join(get_args(Optimizer)))
        need(self.method in get_args(Method), "method", " | ".join(get_args(Method)))
        need(
            self.method == "odil" or (self.loss == "informed" and self.optimizer == "lbfgs"),
            "method",
            'loss="informed" and the default optimizer with method="pinn": a network has no other',
        )
        need(4 <= self.network_width <= 256, "network_width", "4 to 256 neurons")
        need(1 <= self.network_depth <= 8, "network_depth", "1 to 8 layers")
        need(0 < self.network_budget_s < math.inf, "network_budget_s", "a positive number of seconds")
        need(self.max_evaluations >= 1, "max_evaluations", "at least 1")
        need(0 < self.tolerance < 1, "tolerance", "between 0 and 1")

    @property
    def dt(self) -> float:
        """Distance of the time levels [day]."""
        return self.duration_days / self.steps

    def to_dict(self) -> dict[str, Any]:
        """Return the settings for the provenance record, as JSON has them."""
        return {**asdict(self), "left_out": list(self.left_out)}
