"""Midline and tentorium in words: which targets lie beyond them, and why the model CTV does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliodil.reporting.wording import fixed

UNKNOWN = "Midline and tentorium unknown: give barriers (--barriers FILE)."

# Of each sheet: its side of the brain in words, the barrier, its edge.
_WORDS = {
    "midline": ("{side} of the midline", "the falx", "the falx’s edge"),
    "tentorium": ("{side} the tentorium", "the tentorium", "the tentorium’s edge"),
}
_MISSING = {
    "midline": "Midline unknown: barriers shows no falx that spans a plane between left and right.",
    "tentorium": "Tentorium unknown: barriers does not show it.",
}


def crossing_rows(metrics: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """Return, for each sheet that is known, a name of what lies beyond and its volumes [mL]."""
    known = metrics.get("crossings") or {}
    return [
        (_place(sheet, known[sheet]["beyond"]).capitalize(), known[sheet]["beyond_ml"])
        for sheet in _WORDS
        if known.get(sheet)
    ]


def crossing_sentences(metrics: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return paragraphs and whether they are said quietly."""
    known = metrics.get("crossings")
    if known is None:
        return [(UNKNOWN, True)]
    spoken = [
        (_about(sheet, known[sheet], metrics["volumes_ml"]["gtv"]), False) if known[sheet] else (text, True)
        for sheet, text in _MISSING.items()
    ]
    method = "Seen from the side of the GTV’s larger part, by the centres of voxels."
    if known["plane"]:
        method += (
            " The midline is the plane fitted to the falx in barriers, whose voxels lie "
            f"{fixed(known['plane']['residual_mm'])} mm from it (root mean square); a midline that bends away from "
            "it is not followed."
        )
    return [*spoken, (method, True)] if known["midline"] or known["tentorium"] else spoken


def _place(sheet: str, side: str) -> str:
    return _WORDS[sheet][0].format(side=side)


def _about(sheet: str, crossing: Mapping[str, Any], gtv_ml: float) -> str:
    beyond, why = crossing["beyond_ml"], crossing["why"]
    if crossing["gtv_on_both_sides"]:
        return (
            f"The GTV itself lies on both sides: {fixed(beyond['gtv'])} of its {fixed(gtv_ml)} mL "
            f"{_place(sheet, crossing['beyond'])}. Its margins do so too."
        )
    side = f"The GTV lies {_place(sheet, crossing['gtv_side'])}."
    if not any(beyond.values()):
        return f"{side} Nothing crosses: no target has a voxel {_place(sheet, crossing['beyond'])}."
    if why is None:
        return f"{side} The model CTV does not cross."
    return f"{side} {_why(sheet, why)}"


def _why(sheet: str, why: Mapping[str, Any]) -> str:
    """Return the ways by which the model CTV got beyond, those through tissue first."""
    _, barrier, edge = _WORDS[sheet]
    margin = f"{why['margin_mm']:g} mm"
    ways = []
    if why["around_ml"] > 0:
        ways.append(
            f"{_ml(why['around_ml'])} through tissue around {edge}, {fixed(why['path_mm'])} mm along the shortest "
            f"path and within the rule’s {margin}"
        )
    if why["between_ml"] > 0:
        ways.append(
            f"{_ml(why['between_ml'])} only by straight distance: the barrier lies between ({barrier} or CSF)"
        )
    if why["farther_ml"] > 0:
        joined, farther = why["farther_joined_ml"], why["farther_ml"]
        share = {0.0: "none", farther: "all"}.get(joined, _ml(joined))
        if share == _ml(farther):
            share = "nearly all"
        ways.append(
            f"{_ml(farther)} farther from the GTV than {margin} even in a straight line, put there by the estimated "
            f"density ({share} of it hangs together with the GTV through tissue around {edge})"
        )
    return (
        f"The model CTV crosses, {fixed(why['straight_mm'])} mm from the GTV in a straight line at the nearest: "
        f"{'; '.join(ways)}."
    )


def _ml(volume: float) -> str:
    return f"{fixed(volume)} mL" if volume >= 0.05 else "less than 0.05 mL"
