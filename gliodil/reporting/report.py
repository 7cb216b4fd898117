"""`report.html`: one self-contained page about one plan, made from the files of its folder.

`render_report(folder)` reads `metrics.json`, `provenance.json` and `figures/` and nothing else, so a
report can be made again whenever a number changes. Pictures are embedded; nothing is fetched.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliodil.data.atomic import atomic_path
from gliodil.data.gate import parsing
from gliodil.errors import MissingExtraError
from gliodil.reporting import wording
from gliodil.reporting.crossing_words import crossing_rows, crossing_sentences
from gliodil.reporting.ct_words import ct_rows, ct_sentence
from gliodil.reporting.figures import FIGURES
from gliodil.reporting.jsonable import read_json
from gliodil.reporting.target_words import clinic_rows, contour_rows, dose_rows
from gliodil.reporting.viewer import VIEWER_FILE, niivue_bundle

TEMPLATE = "report.html.j2"

DIRECTIONS = ("left", "right", "anterior", "posterior", "superior", "inferior")
PLAN_NAMES = {"standard": "Standard CTV", "trimmed": "Trimmed CTV", "model": "Model CTV"}
PHASES = ("", "initial_")
RECURRENCES = {"enhancing": "Enhancing", "any": "Any"}
TRUTH_NAMES = {
    "relative_l2": "Relative L² error of the density",
    "dice_at_0.1": "Dice of the regions above 10 %",
    "dice_at_0.01": "Dice of the regions above 1 %",
    "rmse_outside_visible": "RMS error of the density outside the visible tumour",
}


def render_report(folder: Path | str) -> Path:
    """Write `report.html` into a plan folder from the numbers and figures found there.

    Raises
    ------
    InputError
        If the folder lacks its metrics or provenance, or they are damaged.
    MissingExtraError
        If jinja2 is not installed.
    OutputError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    target = folder / "report.html"
    page = report_html(
        read_json(folder / "metrics.json"), read_json(folder / "provenance.json"), folder / "figures"
    )
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def report_html(metrics: Mapping[str, Any], provenance: Mapping[str, Any], figures: Path) -> str:
    """Return the page for the given content of `metrics.json` and `provenance.json`.

    Parameters
    ----------
    figures
        Folder with the PNG files named in `gliodil.reporting.figures.FIGURES`; missing ones are left out.

    Raises
    ------
    InputError
        If the metrics lack a key of the contract.
    MissingExtraError
        If jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = Environment(
        loader=PackageLoader("gliodil.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("number", "fixed", "per_cent", "seconds"):
        environment.filters[name] = getattr(wording, name)
    with parsing(
        "No report can be made of the metrics of this plan folder.",
        file=figures.parent / "metrics.json",
        expected="what `gliodil plan` writes",
        remedy="run `gliodil plan` again",
    ):
        return environment.get_template(TEMPLATE).render(_values(metrics, provenance, figures))


def _values(metrics: Mapping[str, Any], provenance: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Everything the template prints, in its order."""
    volumes, organs = metrics["volumes_ml"], metrics.get("organs_ml", {})
    return {
        "metrics": metrics,
        "provenance": provenance,
        "figures": _embedded(figures),
        "viewer": _viewer(figures / VIEWER_FILE),
        **_gate(metrics),
        "status": wording.status_sentence(metrics),
        "caution": wording.CAUTION,
        "volumes": _volumes(volumes),
        "rule_rows": wording.rule_rows(metrics),
        "organs": [
            (name, parts, name in metrics.get("organs_excluded", ())) for name, parts in organs.items()
        ],
        "crossing_rows": crossing_rows(metrics),
        "crossing_sentences": crossing_sentences(metrics),
        "plan_names": PLAN_NAMES,
        "coverage": _coverage(metrics["coverage"]),
        "directions": [
            (name.capitalize(), *(metrics["margin_mm"].get(name + end) for end in ("", "_min", "_max")))
            for name in DIRECTIONS
        ],
        "parameters": [
            (wording.PARAMETER_NAMES.get(key, key), entry)
            for key, entry in _ordered(metrics["parameters"], wording.PARAMETER_NAMES)
        ],
        "has_intervals": any(entry["low"] is not None for entry in metrics["parameters"].values()),
        "terms": [
            (wording.TERM_NAMES.get(key, key), value)
            for key, value in _ordered(metrics["loss"]["terms"], wording.TERM_NAMES)
        ],
        "contour_rows": contour_rows(metrics),
        "clinic_rows": clinic_rows(metrics),
        "dose": metrics.get("dose"),
        "dose_rows": dose_rows(metrics),
        "ct_sentence": ct_sentence(metrics),
        "ct_rows": ct_rows(metrics),
        "truth": [(TRUTH_NAMES.get(key, key), value) for key, value in (metrics["truth"] or {}).items()],
        "comparison": _comparison(metrics),
        "methods": wording.methods(metrics),
        "citations": wording.citations(metrics),
    }


def _gate(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page says first: whether the estimate is accepted, and the plan in a sentence."""
    converged = metrics["status"] == "converged"
    known = metrics.get("acceptance")  # plan folders of version 0.1 have none
    if known is None:
        known = {"accepted": converged, "reasons": [] if converged else ["the optimizer did not converge"]}
    text = (metrics.get("summary") or "").split(" Not accepted:")[0]
    return {"accepted": known["accepted"], "reasons": known["reasons"], "summary": text}


def _comparison(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the page says about another method's fit."""
    other = metrics.get("comparison")
    if other is None:
        return None
    here = {name: entry["value"] for name, entry in metrics["parameters"].items()}
    rows = [
        (words, here.get(key), other["parameters"].get(key))
        for key, words in wording.PARAMETER_NAMES.items()
        if key in other["parameters"] and not key.startswith("pet")
    ]
    rows.append(("Misfit of boundaries (mm)", metrics["fit"]["label_misfit_mm"], other["label_misfit_mm"]))
    rows.append(("Wall time of the fit (s)", metrics["fit"]["wall_s"], other["wall_s"]))
    for key, words in TRUTH_NAMES.items():
        if metrics["truth"] and other["truth"]:
            rows.append((f"{words}, against the truth", metrics["truth"].get(key), other["truth"].get(key)))
    return {
        "status": wording.status_sentence(other),
        "ctv_model_dice": other["ctv_model_dice"],
        "rows": rows,
        "agreement": [(TRUTH_NAMES.get(key, key), value) for key, value in other["agreement"].items()],
    }


def _volumes(volumes: Mapping[str, float]) -> list[tuple[str, float, float | None]]:
    """Return name, volume, and difference against the standard of its kind, phase by phase."""
    rows: list[tuple[str, float, float | None]] = []
    for phase in PHASES:
        words = ", first phase" if phase else ""
        if (gtv := volumes.get(f"gtv_{phase}".rstrip("_"))) is not None:
            rows.append((f"GTV{words}", gtv, None))
        for kind in ("ctv", "ptv"):
            standard = volumes.get(f"{kind}_{phase}standard")
            for key, name in PLAN_NAMES.items():
                volume = volumes.get(f"{kind}_{phase}{key}")
                if volume is not None and standard is not None:
                    change = None if key == "standard" else volume - standard
                    rows.append((name.replace("CTV", kind.upper()) + words, volume, change))
    return rows


def _embedded(folder: Path) -> dict[str, dict[str, str]]:
    """Return words and base64 data of the figures that exist, in the order of `FIGURES`."""
    found = {}
    for name, text in FIGURES.items():
        path = folder / f"{name}.png"
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            found[name] = {"title": text.title, "caption": text.caption, "alt": text.alt, "data": data}
    return found


def _viewer(path: Path) -> dict[str, Any] | None:
    """Return data and library of the interactive viewer, as they stand in the page; None without either."""
    library = niivue_bundle()
    if library is None or not path.is_file():
        return None
    from markupsafe import Markup

    # Within a script element only "</" could end it.
    data = json.dumps(read_json(path)).replace("</", "<\\/")
    return {"library": Markup(library), "data": Markup(data)}


def _coverage(coverage: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, float] | None]]:
    if coverage is None:
        return []
    return [(words, coverage.get(key)) for key, words in RECURRENCES.items()]


def _ordered(items: Mapping[str, Any], order: Mapping[str, str]) -> list[tuple[str, Any]]:
    """Return known keys in the order of `order`, then the others."""
    known = [key for key in order if key in items]
    return [(key, items[key]) for key in (*known, *(key for key in items if key not in order))]
