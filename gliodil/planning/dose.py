"""Dose-volume figures of targets and of expected tumour cells.

A mask is integrated as it is: each voxel is cut into cells of at most `CELL_MM`, two per axis at least, and the dose
is interpolated linearly at one place in each cell (drawn within the cell, with a fixed seed: on a lattice whole layers
of cells would share one dose). With equal cells of dose d_i, and the density u_i of their voxel::

    Dmean = mean d        D_v = dose that v % of the volume receives at least
    V_f   = share of the volume with d >= f * prescription
    cells:  mean of d weighted by u,  and sum of u where d >= 0.95 * prescription, over sum of u

The dose is defined between the centres of its grid. A structure that reaches beyond has no figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.data.volume import Volume
from gliodil.errors import InputError
from gliodil.planning.distance import Mask

CELL_MM = 1.0
"""Largest edge of a cell."""
CHUNK = 20_000
"""Voxels that are cut into cells at a time."""
EDGE = 1e-3
"""Part of a dose voxel by which a place may lie beyond the outermost centres: rounding."""
NEAR_MIN, NEAR_MAX = 98, 2
ENOUGH = 0.95
"""Share of the prescription that counts as receiving it."""
UNCOVERED_CELLS = 1e-3
"""Share of the expected cells that may lie beyond the dose grid; they count as receiving no dose."""


@dataclass(frozen=True)
class DoseVolume:
    """Figures of one structure [Gy].

    Attributes
    ----------
    volume_ml
        Volume of the mask.
    mean_gy
        Mean dose.
    d98_gy, d95_gy, d50_gy, d2_gy
        Dose that 98, 95, 50 and 2 % of the volume receive at least.
    v95, v100
        Share of the volume that receives 95 and 100 % of the prescription; None without one.
    """

    volume_ml: float
    mean_gy: float
    d98_gy: float
    d95_gy: float
    d50_gy: float
    d2_gy: float
    v95: float | None = None
    v100: float | None = None


@dataclass(frozen=True)
class CellDose:
    """Dose to the expected tumour cells.

    Attributes
    ----------
    mean_gy
        Mean over cells.
    share_v95
        Share of the cells that receive 95 % of the prescription; None without one.
    """

    mean_gy: float
    share_v95: float | None = None


@dataclass(frozen=True)
class DoseFigures:
    """Figures of a plan's dose.

    Attributes
    ----------
    structures
        By name; those that the dose grid covers.
    cells
        Of the expected tumour cells; None if the grid does not cover them.
    prescription_gy
        None if not stated.
    missing
        Name to why there is no figure.
    """

    structures: Mapping[str, DoseVolume]
    cells: CellDose | None
    prescription_gy: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as they stand in `metrics.json` under `dose`."""
        return {
            "prescription_gy": self.prescription_gy,
            "structures": {name: asdict(one) for name, one in self.structures.items()},
            "cells": None if self.cells is None else asdict(self.cells),
            "missing": dict(self.missing),
        }


def check_prescription(prescription_gy: float | None) -> None:
    """Refuse a prescription that is none.

    Raises
    ------
    InputError
        If it is not between 1 and 200 Gy.
    """
    if prescription_gy is not None and not 1 <= prescription_gy <= 200:
        raise InputError(
            "The prescription is no dose of radiotherapy.",
            expected="1 to 200 Gy in all",
            found=f"{prescription_gy:g} Gy",
            remedy="give the total dose, such as --prescription-gy 60",
        )


def dose_figures(
    dose: Volume,
    structures: Mapping[str, Volume],
    density: Volume,
    *,
    matrix: ArrayLike | None = None,
    prescription_gy: float | None = None,
) -> DoseFigures:
    """Return the figures of structures and of expected cells.

    Parameters
    ----------
    dose
        Scalar volume [Gy].
    structures
        Label volumes by name, not 0 is inside; empty ones are left out.
    density
        Scalar volume, not below 0.
    matrix
        4x4, world mm of structures and density to world mm of the dose; by default they share one world.
    prescription_gy
        Total dose prescribed to the target.

    Raises
    ------
    InputError
        If the prescription is none.
    """
    check_prescription(prescription_gy)
    found, missing = {}, {}
    for name, volume in structures.items():
        mask = np.asarray(volume.data != 0)
        if not mask.any():
            continue
        values = np.concatenate([d for d, _ in _cells(dose, volume, mask, matrix)])
        outside = float(np.isnan(values).mean())
        if outside > 0:
            missing[name] = f"{100 * outside:.2g} % of it lies beyond the dose grid"
        else:
            ml = int(np.count_nonzero(mask)) * volume.voxel_volume_ml
            found[name] = _figures(values, ml, prescription_gy)
    cells, why = _cell_dose(dose, density, matrix, prescription_gy)
    if why:
        missing["cells"] = why
    return DoseFigures(found, cells, prescription_gy, missing)


def _figures(values: NDArray[np.float64], volume_ml: float, prescription_gy: float | None) -> DoseVolume:
    # Each value stands for a cell of equal volume: it lies at the middle of its share (Hazen).
    shares = 1 - np.array([NEAR_MIN, 95, 50, NEAR_MAX]) / 100
    d98, d95, d50, d2 = np.quantile(values, shares, method="hazen")
    v95 = v100 = None
    if prescription_gy is not None:
        v95, v100 = (float((values >= f * prescription_gy).mean()) for f in (ENOUGH, 1.0))
    return DoseVolume(
        volume_ml, float(values.mean()), float(d98), float(d95), float(d50), float(d2), v95, v100
    )


def _cell_dose(
    dose: Volume, density: Volume, matrix: ArrayLike | None, prescription_gy: float | None
) -> tuple[CellDose | None, str]:
    total = weighted = enough = beyond = 0.0
    for values, voxels in _cells(dose, density, np.asarray(density.data > 0), matrix):
        weights = np.repeat(density.data.ravel()[voxels].astype(np.float64), values.size // voxels.size)
        outside = np.isnan(values)
        beyond += float(weights[outside].sum())
        total += float(weights.sum())
        weighted += float((weights * np.where(outside, 0, values))[~outside].sum())
        if prescription_gy is not None:
            enough += float(weights[~outside & (values >= ENOUGH * prescription_gy)].sum())
    if total == 0:
        return None, "no cells are expected"
    if beyond > UNCOVERED_CELLS * total:
        return None, f"{100 * beyond / total:.2g} % of the expected cells lie beyond the dose grid"
    return CellDose(weighted / total, None if prescription_gy is None else enough / total), ""


def _cells(
    dose: Volume, grid: Volume, mask: Mask, matrix: ArrayLike | None
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.intp]]]:
    """Yield the doses [Gy] of the cells of some voxels, NaN beyond the dose grid, and the linear indices of those."""
    counts = [max(2, int(np.ceil(h / CELL_MM))) for h in grid.spacing]
    corners = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 3)
    world = np.eye(4) if matrix is None else np.asarray(matrix, np.float64)
    to_dose = np.linalg.inv(dose.affine) @ world @ grid.affine
    last = np.asarray(dose.shape) - 1
    values = np.asarray(dose.data, np.float64)
    random = np.random.default_rng(0)
    inside = np.flatnonzero(mask)
    for start in range(0, inside.size, CHUNK):
        voxels = inside[start : start + CHUNK]
        index = np.stack(np.unravel_index(voxels, mask.shape), -1)[:, None, :]
        within = (corners + random.random((voxels.size, len(corners), 3))) / counts - 0.5
        places = (index + within).reshape(-1, 3) @ to_dose[:3, :3].T + to_dose[:3, 3]
        outside = ((places < -EDGE) | (places > last + EDGE)).any(axis=1)
        found = ndimage.map_coordinates(values, np.clip(places, 0, last).T, order=1)
        found[outside] = np.nan
        yield found, voxels
