"""A density made elsewhere in the place of a fit: planned and scored the same way, with nothing estimated.

Its values are fractions of the carrying capacity, or a probability: in [0, 1]; only their order matters for the plan.
"""

from __future__ import annotations

from pathlib import Path

from gliodil.data.nifti import read_nifti
from gliodil.data.volume import Volume
from gliodil.errors import NumericsError
from gliodil.inference.result import Fit, LossHistory

METHOD = "given"
TOLERANCE = 1e-4
"""How far values may leave [0, 1] by rounding."""


def read_density(path: Path | str) -> Volume:
    """Return a density map from a NIfTI file.

    Raises
    ------
    ImageFileError, InputError
        If it cannot be read, or holds NaN or infinities.
    NumericsError
        If it is empty or leaves [0, 1].
    """
    density = read_nifti(path, kind="scalar")
    low, high = float(density.data.min()), float(density.data.max())
    if low < -TOLERANCE or high > 1 + TOLERANCE or high <= 0:
        raise NumericsError(
            "This is not a density.",
            file=density.path,
            expected="values in [0, 1], some above 0",
            found=f"values from {low:.3g} to {high:.3g}",
            remedy="scale the map to [0, 1]: only the order of its values matters for the plan",
        )
    return density


def given_fit(density: Volume, grid: Volume) -> Fit:
    """Return a density as if it had been fitted: no parameters, no loss, status `given`.

    Parameters
    ----------
    density
        Scalar volume in [0, 1].
    grid
        Any volume on the grid of the segmentation; the density is interpolated onto it.
    """
    placed = density.resample_to(grid)
    name = density.path.name if density.path is not None else "an array"
    return Fit(
        density=placed,
        parameters={},
        status=METHOD,
        message=f"the density was given ({name}); nothing was fitted",
        loss_total=float("nan"),
        loss_terms={},
        evaluations=0,
        history=LossHistory((), (), (), ()),
        method=METHOD,
        optimizer="none",
        grid_shape=density.shape,
        steps=0,
        spacing_mm=density.spacing,
        device="none",
        dtype=str(density.data.dtype),
        wall_s=0.0,
        warnings=()
        if placed.same_grid(density)
        else ("the given density was interpolated onto the grid of the segmentation",),
        physics="none",
    )
