"""Numbers and states in words, for the report: rounding, units, status, the methods paragraph, citations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABSENT = "–"
"""Stands wherever a value is not known."""

STATUS = {
    "converged": "The optimizer converged.",
    "iteration_limit": "The optimizer stopped at its iteration limit before it converged.",
    "stalled": "The optimizer stopped making progress before it converged.",
    "diverged": "The optimizer diverged.",
}
CAUTION = "Density, model CTV and parameters are provisional: do not draw conclusions from them."

PARAMETER_NAMES = {
    "infiltration_length_mm": "Infiltration length √(D/ρ)",
    "diffusivity_wm_mm2_per_day": "Diffusivity in white matter D",
    "proliferation_rate_per_day": "Proliferation rate ρ",
    "wm_gm_ratio": "Diffusivity ratio, white to grey matter R",
    "csf_speed": "Speed in cerebrospinal fluid, relative to white matter",
    "threshold_core": "Density at the edge of the core",
    "threshold_oedema": "Density at the edge of the oedema",
    "origin_mm": "Origin x₀ (world RAS)",
    "pet_scale": "PET scale s",
    "pet_background": "PET background b",
}
TERM_NAMES = {
    "parameters": "Parameters",
    "pde": "Growth equation",
    "initial": "Initial condition",
    "seg_lower": "Segmentation, lower bounds",
    "seg_upper": "Segmentation, upper bounds",
    "bounds": "Density within [0, 1]",
    "csf": "No cells in CSF",
    "pet": "PET",
    "labels": "Label misfit",
    "start": "Free start",
    "width": "Width of the oedema",
    "priors": "Priors on parameters",
}
_CITATIONS = (
    "M. Balcerak et al., Individualizing glioma radiotherapy planning by optimization of a data and "
    "physics-informed discrete loss, Nature Communications 2025, doi:10.1038/s41467-025-60366-4 "
    "(arXiv:2312.05063).",
    "P. Karnakov, S. Litvinov, P. Koumoutsakos, Optimizing a discrete loss (ODIL) to solve forward and "
    "inverse problems for partial differential equations using machine learning tools, 2022 "
    "(arXiv:2205.04611).",
    "P. Karnakov, S. Litvinov, P. Koumoutsakos, Solving inverse problems in physics by optimizing a discrete "
    "loss: Fast and accurate learning without neural networks, PNAS Nexus 3(1), 2024, "
    "doi:10.1093/pnasnexus/pgae005.",
)
_OF_METHOD = {
    "pinn": (
        "K. Tang, J. Zhai, X. Wan, C. Yang, Adversarial adaptive sampling: unify PINN and optimal transport for the "
        "approximation of PDEs, ICLR 2024 (arXiv:2305.18702).",
    )
}


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any, digits: int = 3) -> str:
    """Return a number to `digits` significant digits, a triple to 0.1, and a dash for None."""
    if value is None:
        return ABSENT
    if isinstance(value, list | tuple):
        return "(" + ", ".join(fixed(item, 1) for item in value) + ")"
    mantissa, _, exponent = f"{float(value):.{digits}g}".partition("e")
    mantissa = mantissa.replace("-", "−")
    return f"{mantissa}×10{str(int(exponent)).translate(_RAISED)}" if exponent else mantissa


def fixed(value: float | None, decimals: int = 1) -> str:
    """Return a number with a fixed number of decimals, and a dash for None."""
    if value is None:
        return ABSENT
    text = f"{value:.{decimals}f}"
    # "-0.0" after rounding is 0.
    return text.replace("-", "−") if float(text) != 0 else text.removeprefix("-")


def per_cent(value: float | None) -> str:
    """Return a fraction in per cent with one decimal, and a dash for None."""
    return ABSENT if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """Return a duration as a person would say it."""
    if value is None:
        return ABSENT
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes >= 2 else f"{round(value)} s"


def status_sentence(metrics: Mapping[str, Any]) -> str:
    """Return the state of the fit in words; unknown states are quoted."""
    known = STATUS.get(metrics["status"], f"The fit ended with status “{metrics['status']}”.")
    message = str(metrics.get("status_message") or "").strip()
    if not message or message.rstrip(".").lower() == known.rstrip(".").lower():
        return known
    return f"{known} {message[0].upper()}{message[1:].rstrip('.')}."


BARRIER_NAMES = {
    "csf": "cerebrospinal fluid",
    "ventricles": "ventricles",
    "brain-surface": "edge of the brain",
    "falx": "falx",
    "tentorium": "tentorium",
}
SCAN_NAMES = {"pre-operative": "before surgery", "post-operative": "after surgery"}


_OLDER_RULE: Mapping[str, Any] = {
    "scan": "pre-operative",
    "gtv_ml": {},
    "reach_mm": {},
    "ptv_mm": 0,
    "initial": None,
    "dose": "",
    "verify": (),
}
"""What plan folders of version 0.1 do not say of their rule."""


def rule_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Return the rule's definition as rows: what, its value, and whether the value is still to be verified."""
    rule = {**_OLDER_RULE, **metrics["rule"]}
    parts = [f"{name} {fixed(rule['gtv_ml'].get(name))} mL" for name in rule["gtv"]]
    rows = [("scan", "Meant for", f"the scan {SCAN_NAMES[rule['scan']]}")]
    rows += [
        ("gtv", "GTV", " + ".join(parts)),
        ("margin_mm", "Standard CTV", f"GTV + {rule['margin_mm']:g} mm"),
    ]
    barriers = [BARRIER_NAMES[name] + _reach(rule["reach_mm"].get(name)) for name in rule["barriers"]]
    rows.append(("barriers reach_mm", "Trimmed CTV stops at", ", ".join(barriers) or "nothing"))
    if excluded := metrics.get("organs_excluded"):
        rows.append(("exclude_organs", "No CTV enters", ", ".join(excluded)))
    if rule["ptv_mm"]:
        rows.append(("ptv_mm", "PTV", f"CTV + {rule['ptv_mm']:g} mm, not cut to the brain"))
    if first := rule["initial"]:
        text = f"{' + '.join(first['gtv'])}; CTV {first['margin_mm']:g} mm further; {first['dose']}"
        rows.append(("initial dose", "First phase: GTV", text))
    if rule["dose"]:
        rows.append(("dose", "Dose", rule["dose"]))
    return [(name, text, bool(set(keys.split()) & set(rule["verify"]))) for keys, name, text in rows]


def _reach(mm: float | None) -> str:
    return f" (at most {mm:g} mm beyond the near wall)" if mm else ""


def citations(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the works that what was run rests on, in the order the methods paragraph numbers them."""
    return (*_CITATIONS, *_OF_METHOD.get(metrics["fit"]["method"], ()))


def _taken(metrics: Mapping[str, Any]) -> str:
    """Return which voxels a model CTV takes."""
    if metrics.get("rank") != "reach":  # plan folders of version 0.1 have no other
        return "the voxels of highest density"
    return (
        "the voxels that are nearest to the gross tumour volume by expected reach, the mean over several ways in which "
        "tissue may slow spread of the isotropic margin equivalent to the travel time,"
    )


def methods(metrics: Mapping[str, Any]) -> str:
    """Return a methods paragraph for what was run; it may be used in a publication as it stands."""
    fit = metrics["fit"]
    grid = " × ".join(str(n) for n in fit["grid"])
    spacing = " × ".join(f"{h:.2g}" for h in fit["spacing_mm"])
    data = "the tumour segmentation and FET-PET" if "pet" in metrics["inputs"] else "the tumour segmentation"
    approach = {
        "odil": "by optimizing a discrete loss (ODIL): the residual of the discretised growth equation, its "
        f"initial condition and the misfit to {data} are minimised together [1–3]",
        "pinn": "with a physics-informed neural network whose loss holds the growth equation, its initial condition, "
        "the misfit to the tumour segmentation and priors on the parameters, on collocation points drawn from a "
        "normalizing flow trained against it [4]",
    }.get(fit["method"], f"by the method “{fit['method']}” from {data}")
    if fit["method"] == "given":
        return (
            f"A density made elsewhere was planned with gliodil {metrics['gliodil_version']}; nothing was estimated. "
            + _targets_sentences(metrics)
        )
    if fit.get("physics") in ("exact", "free-start"):
        how = {
            "exact": f"fitting its parameters to {data}, the equation holding exactly",
            "free-start": f"fitting a start of any shape and the parameters to {data}, the equation holding exactly "
            "in the last half of a unit of time 1/ρ before the scan",
        }[fit["physics"]]
        approach = (
            f"by {how}: the boundaries it predicts are {number(fit['label_misfit_mm'], 2)} mm from those of the "
            "segmentation on average"
        )
    if fit["method"] == "pinn":
        discretized = f"Tissue maps were read on a grid of {grid} cells of {spacing} mm; training took"
        effort = (
            f"{metrics['loss']['evaluations']} Levenberg–Marquardt steps ({fit['dtype']}, {fit['device']})."
        )
    else:
        discretized = (
            f"The grid had {grid} cells of {spacing} mm and {fit['steps']} time levels; the optimizer was"
        )
        effort = (
            f"{fit['optimizer']} ({metrics['loss']['evaluations']} gradient evaluations, {fit['dtype']}, "
            f"{fit['device']})."
        )
    return (
        f"Tumour-cell density was estimated with gliodil {metrics['gliodil_version']} from one time point. "
        "The density u, a fraction of carrying capacity, follows the Fisher–Kolmogorov equation "
        "∂u/∂t = ∇·(D∇u) + ρu(1−u), with a diffusivity D that depends on the local share of white and grey "
        f"matter and vanishes in cerebrospinal fluid. It was inferred {approach}. {discretized} {effort} "
        + _targets_sentences(metrics)
    )


def _targets_sentences(metrics: Mapping[str, Any]) -> str:
    rule = metrics["rule"]
    return (
        f"The standard clinical target volume follows rule {rule['name']}, version {rule['version']} (margin "
        f"{rule['margin_mm']:g} mm). The model target volume takes {_taken(metrics)} within the brain, as many as "
        "the standard one has." + (f" PTVs add {rule['ptv_mm']:g} mm." if rule.get("ptv_mm") else "")
    )
