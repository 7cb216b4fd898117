"""The figures of a plan folder: which there are, what they show in words, and how they are drawn.

The words stand here, beside the drawing, so that the report can describe a figure it only finds as a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.inference.result import Fit
from gliodil.reporting.ct_figures import bone_figure, checkerboard_figure
from gliodil.reporting.curves import distance_figure, loss_figure, pet_figure
from gliodil.reporting.isolines import density_figure, probability_figure, truth_figure
from gliodil.reporting.panels import difference_figure, plans_figure
from gliodil.reporting.style import save_figure
from gliodil.reporting.tissue import tissue_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans


@dataclass(frozen=True)
class FigureText:
    """What the report says about a figure: heading, caption, and the description read out instead of it."""

    title: str
    caption: str
    alt: str


FIGURES = {
    "plans": FigureText(
        "Target volumes",
        "Planes through the middle of the GTV. Yellow: GTV. Blue dashed: standard CTV. Pink dotted: trimmed "
        "CTV, the standard CTV without what a path through brain tissue does not reach within the margin. "
        "Vermillion: model CTV, of the same volume as the standard CTV: what its ranking puts first.",
        "Axial, coronal and sagittal planes through the tumour with the outlines of GTV, standard CTV, "
        "trimmed CTV and model CTV.",
    ),
    "density": FigureText(
        "Tumour-cell density",
        "Estimated density as a fraction of what the tissue can carry, with isolines at 1, 5, 10, 25, 50 and "
        "75 %. Yellow: GTV.",
        "Axial, coronal and sagittal planes with coloured bands of estimated density and isolines labelled "
        "in per cent.",
    ),
    "probability": FigureText(
        "Probability of later tumour",
        "How often tissue at such an expected reach from the GTV was tumour at a later visit, in the pairs of visits "
        "that the readout comes from. Vermillion: model CTV, which follows this order. Yellow: GTV. Those patients "
        "were few, and had been treated: an order of magnitude for anyone else.",
        "Axial, coronal and sagittal planes with coloured bands of the probability of later tumour, isolines in per "
        "cent, and the outlines of GTV and model CTV.",
    ),
    "difference": FigureText(
        "Gained and given up",
        "Model CTV against standard CTV. Both have the same volume, so what is gained in one place is given "
        "up in another. Vermillion, rising hatch: gained. Blue, falling hatch: given up. A recurrence, where "
        "there is one, is outlined in white.",
        "Axial, coronal and sagittal planes with the tissue that the model CTV adds to the standard CTV and "
        "the tissue it leaves out, each with its own colour and hatch.",
    ),
    "distance": FigureText(
        "Density against distance",
        "Density over all brain voxels at a given distance from the GTV. A wide band means that the density "
        "at that distance depends on direction, which a uniform margin cannot follow.",
        "Two graphs of estimated density against distance from the GTV surface, linear and logarithmic: "
        "median and percentile bands, with the standard margin marked.",
    ),
    "truth": FigureText(
        "Against the truth",
        "This patient is simulated, so the true density is known. Vermillion: estimated. White dashed: true.",
        "Axial, coronal and sagittal planes with isolines of the estimated and of the true density at 1, 10 "
        "and 50 per cent.",
    ),
    "comparison": FigureText(
        "Against the discrete loss",
        "Vermillion: density of this fit. White dashed: what the discrete loss (ODIL) makes of the same patient.",
        "Axial, coronal and sagittal planes with isolines of the density of this fit and of the discrete loss at 1, 10 "
        "and 50 per cent.",
    ),
    "pet": FigureText(
        "Fit to PET",
        "Each cell counts voxels of enhancing tumour and oedema above a tenth of the highest uptake. "
        "The line is the fitted relation between PET and density.",
        "Two-dimensional histogram of estimated density against PET uptake with the fitted straight line.",
    ),
    "tissue": FigureText(
        "Tissue maps",
        "White matter (orange) and CSF (blue dashed) as the tissue maps have them, where they exceed one half, over the "
        "MRI. Where the lines leave the edges of the image, the maps are off, and with them the density. Inside the "
        "tumour (yellow: GTV) the maps show what was there before, as far as anything can.",
        "Axial, coronal and sagittal planes of the whole brain with the outlines of white matter and "
        "cerebrospinal fluid from the tissue maps.",
    ),
    "ct_checkerboard": FigureText(
        "MR and planning CT",
        "Squares of the MR and of the planning CT (bluish, soft tissue) in turn, the CT where the registration puts it. "
        "Where the two are off, edges of ventricles, brain and skin break at the borders of the squares.",
        "Axial, coronal and sagittal planes with squares of MR and CT in turn.",
    ),
    "ct_bone": FigureText(
        "Bone over the MR",
        "Edges of bone from the planning CT (orange) over the MR. They should run along the dark band of the skull.",
        "Axial, coronal and sagittal planes of the MR with the outlines of bone from the planning CT.",
    ),
    "loss": FigureText(
        "Loss",
        "Left: the objective of each stage against the number of gradients spent. Right: the terms of the "
        "final loss.",
        "Two graphs: loss against gradient evaluations on a logarithmic scale, and a bar for each term of "
        "the final loss.",
    ),
}
"""Every figure there can be, by file name without suffix."""


def draw_figures(
    patient: Patient,
    fit: Fit,
    plans: Plans,
    *,
    truth_density: Volume | None = None,
    other_density: Volume | None = None,
) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that this patient allows, with their names in `FIGURES`.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    yield "plans", plans_figure(patient, plans)
    yield "density", density_figure(patient, plans)
    probability = probability_figure(patient, plans)
    if probability is not None:
        yield "probability", probability
    yield "difference", difference_figure(patient, plans)
    yield "distance", distance_figure(patient, plans)
    if truth_density is not None:
        yield "truth", truth_figure(patient, plans, truth_density)
    if other_density is not None:
        yield "comparison", truth_figure(patient, plans, other_density, other="Density of the discrete loss")
    pet = pet_figure(patient, plans, fit)
    if pet is not None:
        yield "pet", pet
    tissue = tissue_figure(patient, plans)
    if tissue is not None:
        yield "tissue", tissue
    if patient.planning is not None:
        yield "ct_checkerboard", checkerboard_figure(patient, plans)
        yield "ct_bone", bone_figure(patient, plans)
    yield "loss", loss_figure(fit)


def save_figures(
    patient: Patient,
    fit: Fit,
    plans: Plans,
    folder: Path | str,
    *,
    truth_density: Volume | None = None,
    other_density: Volume | None = None,
) -> list[Path]:
    """Write all figures as `<folder>/<name>.png` and return the paths.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    OutputError
        If the folder cannot be written to.
    """
    drawn = draw_figures(patient, fit, plans, truth_density=truth_density, other_density=other_density)
    return [save_figure(figure, Path(folder) / f"{name}.png") for name, figure in drawn]
