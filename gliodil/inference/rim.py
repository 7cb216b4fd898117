"""Whether necrosis lies inside an enhancing rim.

    share = (area of the core's outer faces that belong to enhancing voxels) / (area of all of them)

Necrosis is a level of the density beyond that of the enhancing rim only where such a rim lies between it and the
oedema. A core labelled without one (not enhancing, or labels without contrast medium) touches oedema directly; read as
necrosis, it would ask for three levels in one place. Faces towards holes inside the core are not outer ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box

SMALLEST_SHARE = 0.5
"""Share of the core's surface that has to enhance for necrosis to be a level."""


def enhancing_share(
    enhancing: NDArray[np.bool_], necrotic: NDArray[np.bool_], *, spacing: Sequence[float]
) -> float:
    """Return which part of the core's surface enhances, all lesions together.

    Parameters
    ----------
    enhancing, necrotic
        Boolean masks, 3-D; together they are the core.
    spacing
        Voxel size along each axis [mm], (3,).

    Returns
    -------
    Share of the area of the outer faces, 0 to 1; 0 without a core.
    """
    core = enhancing | necrotic
    if not core.any():
        return 0.0
    box = bounding_box(core)
    filled = np.pad(ndimage.binary_fill_holes(core[box]), 1)
    rim = np.pad(enhancing[box], 1)
    whole = part = 0.0
    for axis, h in enumerate(spacing):
        area = float(np.prod(spacing)) / h
        for step in (1, -1):  # the padding keeps what wraps around outside
            outer = filled & ~np.roll(filled, step, axis)
            whole += area * np.count_nonzero(outer)
            part += area * np.count_nonzero(outer & rim)
    return part / whole
