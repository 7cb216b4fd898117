"""The faithful path: the public GliODIL optimizer on the reference loss (arXiv 2312.05063, public code).

Unknowns: the density at every space-time entry as a sum of four multigrid levels, and the scalars in their natural
units (R as log10). Start: a forward run stopped where its Dice with the visible tumour stops rising. Optimizer: Adam,
learning rate 10⁻³, float64, a fixed number of epochs (public: 9000).
"""

from __future__ import annotations

import torch

from gliodil.errors import NumericsError
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.start import forward_run
from gliodil.pde.multigrid import MultigridField
from gliodil.pde.odil.adam import adam
from gliodil.pde.odil.problem import Evaluation, Minimum, Point, Recorder

LEVELS = 4


def fit_public(loss: ReferenceLoss, record: Recorder) -> tuple[torch.Tensor, Scalars, Minimum]:
    """Return the density at every level, the scalars and the optimizer's account.

    Raises
    ------
    NumericsError
        If it ended at rates that are not positive: nothing but a hinge keeps Adam from them.
    """
    start, run = forward_run(loss)
    field = MultigridField(loss.case.grid, loss.config.steps, levels=LEVELS)
    record.stage = "adam"

    def objective(x: Point) -> Evaluation:
        leaves = [t.detach().requires_grad_() for t in x]
        terms = loss.of_field(field.compose(leaves[1:]), _decode(leaves[0]))
        total = torch.stack(list(terms.values())).sum()
        gradient = torch.autograd.grad(total, leaves)
        return Evaluation(
            float(total.detach()), list(gradient), {k: float(t.detach()) for k, t in terms.items()}
        )

    x0 = [_encode(start), *field.split(run)]
    found = adam(objective, x0, epochs=loss.config.max_evaluations, record=record)
    p = _decode(found.x[0].detach())
    if not (float(p.diffusivity) > 0 and float(p.proliferation_rate) > 0):
        raise NumericsError(
            "The fit ended where nothing can grow.",
            expected="a positive diffusivity and growth rate",
            found=f"D = {float(p.diffusivity):.3g} mm²/day, ρ = {float(p.proliferation_rate):.3g} per day",
            remedy="use the default optimizer",
        )
    return field.compose(found.x[1:]).detach(), p, found


def _encode(p: Scalars) -> torch.Tensor:
    """Pack the scalars as the public code does: D, ρ, log10 R, origin [mm], θ_core, θ_oed, s, b."""
    head = torch.stack([p.diffusivity, p.proliferation_rate, p.wm_gm_ratio.log10()])
    tail = torch.stack([p.threshold_core, p.threshold_oedema, p.pet_scale, p.pet_background])
    return torch.cat([head, p.origins[0], tail])


def _decode(z: torch.Tensor) -> Scalars:
    return Scalars(
        diffusivity=z[0],
        proliferation_rate=z[1],
        wm_gm_ratio=10 ** z[2],
        origins=z[3:6].reshape(1, 3),
        threshold_core=z[6],
        threshold_oedema=z[7],
        threshold_necrotic=z.new_tensor(1.0),
        csf_speed=torch.zeros_like(z[0]),
        pet_scale=z[8],
        pet_background=z[9],
    )
