"""What the report says about the planning CT, from `ct` in `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SENTENCES = {
    "same frame": "MR and planning CT share a frame of reference: the scanner's coordinates relate them.",
    "REG": "MR and planning CT are related by the clinic's registration object.",
    "registered": "MR and planning CT were registered here, rigidly: look at the figures before anything is used.",
}


def ct_sentence(metrics: Mapping[str, Any]) -> str:
    """Return where the link between MR and CT comes from; empty without a CT."""
    ct = metrics.get("ct")
    return "" if ct is None else SENTENCES.get(ct["origin"], f"MR and planning CT: {ct['origin']}.")


def ct_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return words and values of how MR and CT lie to each other; empty without a CT."""
    ct = metrics.get("ct")
    if ct is None:
        return []
    rows = [
        ("Shift at the tumour", f"{ct['shift_mm']:.1f} mm"),
        ("Angle", f"{ct['angle_deg']:.1f}°"),
    ]
    if ct["spread_mm"] is not None:
        rows.append(("Spread of the registration's answers from several starts", f"{ct['spread_mm']:.1f} mm"))
    if ct["difference_mm"] is not None:
        rows.append(
            (
                "Clinic's registration and the product's own, largest difference",
                f"{ct['difference_mm']:.1f} mm",
            )
        )
    drawn = "on the planning CT" if ct["drawn_on_ct"] else "on the MR"
    return [*rows, ("The segmentation was drawn", drawn)]
