"""What the report says of the shape of targets, of the clinic's own plan, and of its dose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliodil.planning.plans import FURTHER

_SHAPES = {
    "standard": "Standard CTV",
    "trimmed": "Trimmed CTV",
    "as_ranked": "Model CTV before cleaning",
    "model": "Model CTV",
}
_FURTHER = dict(
    zip(FURTHER, ("Clinic’s CTV", "Model CTV, same volume", "Isotropic CTV, same volume"), strict=True)
)

Row = tuple[Any, ...]


def contour_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Return target, islands, smallest, holes, smallest [mm³]; plan folders of old have none."""
    known = metrics.get("contours") or {}
    keys = ("islands", "smallest_island_mm3", "holes", "smallest_hole_mm3")
    return [(words, *(known[key].get(k) for k in keys)) for key, words in _SHAPES.items() if key in known]


def clinic_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Return plan, volume [mL], and coverage of enhancing and of any recurrence, where the clinic's CTV is known."""
    volumes, coverage = metrics["volumes_ml"], metrics["coverage"] or {}
    shares = [coverage.get(kind) or {} for kind in ("enhancing", "any")]
    return [
        (words, volumes[f"ctv_{key}"], *(share.get(key) for share in shares))
        for key, words in _FURTHER.items()
        if f"ctv_{key}" in volumes
    ]


def dose_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Return structure, Dmean, D98, D95, D50, D2 [Gy] and V95, V100 (shares)."""
    found = (metrics.get("dose") or {}).get("structures") or {}
    keys = ("mean_gy", "d98_gy", "d95_gy", "d50_gy", "d2_gy", "v95", "v100")
    return [(_name(key), *(one.get(k) for k in keys)) for key, one in found.items()]


def _name(key: str) -> str:
    kind, _, rest = key.partition("_")
    if rest in _FURTHER:
        return _FURTHER[rest]
    return f"{rest.capitalize()} {kind.upper()}" if rest else {"gtv": "GTV"}.get(kind, kind.capitalize())
