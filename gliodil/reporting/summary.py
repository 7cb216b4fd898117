"""The sentence that answers: what the model CTV changes, what that rests on, and whether it is to be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gliodil.planning.acceptance import Acceptance
from gliodil.reporting.wording import fixed

if TYPE_CHECKING:
    from gliodil.planning.plans import Plans


def summary(plans: Plans, acceptance: Acceptance) -> str:
    """Return one or two sentences about a plan."""
    ml, per_voxel = plans.volumes_ml["ctv_model"], plans.difference.voxel_volume_ml
    changed = float((plans.difference.data > 0).sum()) * per_voxel
    text = f"At the standard CTV's volume of {fixed(ml)} mL the model CTV moves {fixed(changed)} mL"
    if towards := _towards(plans):
        text += f", furthest towards {towards}"
    if plans.rank == "reach":
        text += "; it takes what is nearest to the GTV by expected reach through tissue"
        if (likely := plans.ctv_end.get("probability")) is not None:
            text += f", and ends where later tumour has a probability of {per_cent(likely)}"
    else:
        text += f"; it takes the highest density, down to {plans.ctv_end.get('density') or 0:.1e}"
    return f"{text}." + ("" if acceptance.accepted else f" Not accepted: {'; '.join(acceptance.reasons)}.")


def per_cent(fraction: float) -> str:
    """Return a probability in per cent to two digits."""
    return f"{100 * fraction:.2g} %"


def _towards(plans: Plans) -> str:
    """Return the direction in which the model CTV goes furthest beyond the rule's margin, if it does anywhere."""
    known = {
        name: mm - plans.rule.margin_mm
        for name in ("left", "right", "anterior", "posterior", "superior", "inferior")
        if (mm := plans.margin_mm.get(name)) is not None
    }
    if not known:
        return ""
    name = max(known, key=lambda key: known[key])
    return f"{name} ({known[name]:+.1f} mm)".replace("-", "−") if known[name] > 0.05 else ""
