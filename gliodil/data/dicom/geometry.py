"""From the frames of a series to one regular grid, or the reason why there is none.

With n = r × c, frames are ordered by the projection p·n of their positions. A regular stack has

    p_k = p_0 + k*Δ,    Δ parallel to n        (p_0, Δ: least squares over all slices)

and voxel (i, j, k), column i of row j of slice k, lies in the RAS world at (Δ leaves n under a tilted CT gantry)

    x = S (p_0 + i*Δ_col*r + j*Δ_row*c + k*Δ),    S = diag(−1, −1, 1)        LPS -> RAS
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.frames import Frame
from gliodil.errors import GeometryError

POSITION_TOLERANCE_MM = 0.05
"""How far a slice may lie from where a regular stack has it: headers round positions."""

DIRECTION_TOLERANCE = 1e-4
"""How much direction cosines may differ within a series; over 250 mm that is 0.025 mm."""

SPACING_TOLERANCE = 1e-4
"""By what fraction pixel spacings may differ within a series."""

SHEAR_TOLERANCE = 1e-3
"""By what angle (rad) the stacking direction may leave the normal; below that it is rounding."""

STEEPEST = 1.0
"""Largest sideways shift of slices under a tilted gantry, as a part of their distance: 45 degrees."""

WHOLE_STEPS = 0.1
"""How far a distance of slices may be from a multiple of the usual one to be a gap where slices are missing."""

SEPARATE_PLANES = 0.94
"""Largest |cosine| between normals of stacks that were meant to be different (20 degrees apart)."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames in ascending order along the normal, and the grid they form."""

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]
    """4x4, voxel (column, row, slice) to world mm, RAS+."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices."""
        return *self.frames[0].shape, len(self.frames)


def stack(frames: Sequence[Frame], name: str, *, tilted: bool = False) -> Stack:
    """Return the regular grid that the frames form.

    Parameters
    ----------
    frames
        In any order.
    name
        What messages call the series.
    tilted
        Whether slices may be shifted sideways, as those of a CT with a tilted gantry are: the affine then keeps the
        shear.

    Raises
    ------
    GeometryError
        If sizes, orientations or frames of reference are mixed, a position occurs twice, slices are missing, or
        the stack is sheared or irregular.
    """

    def refuse(problem: str, expected: str, found: str, remedy: str) -> GeometryError:
        return GeometryError(
            problem, file=frames[0].path.parent, expected=expected, found=found, remedy=remedy
        )

    again = "export the series again, complete and as acquired"
    first = frames[0]
    if mixture := _mixture(frames):
        raise refuse(
            f"{_capital(name)} mixes images of different geometry.",
            "one size, pixel spacing, orientation and frame of reference",
            mixture,
            "export the images you mean as a series of their own",
        )
    if len(frames) < 2:
        raise refuse(f"{_capital(name)} is a single slice.", "at least two slices", "one", again)
    heights = np.array([frame.position @ first.normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    ordered = tuple(frames[k] for k in order)
    heights = heights[order]
    steps = np.diff(heights)
    if twice := int(np.count_nonzero(steps < POSITION_TOLERANCE_MM)):
        raise refuse(
            f"{_capital(name)} has several images at one position.",
            f"slices at least {POSITION_TOLERANCE_MM:g} mm apart",
            f"{len(frames)} images, {twice} of them where another one lies",
            "remove copies, or export one echo, time point or kind of image as a series of its own",
        )
    usual = float(np.median(steps))
    times = steps / usual
    if (gaps := np.flatnonzero(times > 1.5)).size and np.abs(times - np.rint(times)).max() < WHOLE_STEPS:
        missing = int(np.rint(steps[gaps] / usual - 1).sum())
        place = f"{heights[gaps[0]] - heights[0]:.4g} mm from the first slice"
        raise refuse(
            f"{_capital(name)} has gaps.",
            f"a slice every {usual:.4g} mm",
            f"{len(frames)} slices; about {missing} missing, the first {place}",
            again,
        )
    positions = np.array([frame.position for frame in ordered])
    slices = np.arange(len(frames)) - (len(frames) - 1) / 2
    step = slices @ positions / (slices @ slices)
    start = positions.mean(axis=0) + slices[0] * step
    lateral = float(np.linalg.norm(step - (step @ first.normal) * first.normal))
    allowed = max(SHEAR_TOLERANCE * usual, 2 * POSITION_TOLERANCE_MM / (len(frames) - 1))
    if lateral > (STEEPEST * usual if tilted else allowed):
        raise refuse(
            f"{_capital(name)} is sheared: its slices are not stacked along their normal.",
            f"slices shifted sideways by at most {SHEAR_TOLERANCE:g} of their distance",
            f"{lateral:.3g} mm sideways for every {usual:.4g} mm, as with a tilted gantry",
            "resample the images to an upright stack, or export the original series",
        )
    off = np.linalg.norm(positions - (start + np.arange(len(frames))[:, None] * step), axis=1)
    if off.max() > POSITION_TOLERANCE_MM:
        raise refuse(
            f"{_capital(name)} has unequal distances between its slices.",
            f"every slice within {POSITION_TOLERANCE_MM:g} mm of a regular stack",
            f"distances from {steps.min():.4g} to {steps.max():.4g} mm, slices up to {off.max():.3g} mm off",
            again,
        )
    affine = np.eye(4)
    affine[:3, 0] = first.spacing[1] * first.orientation[0]
    affine[:3, 1] = first.spacing[0] * first.orientation[1]
    affine[:3, 2] = step
    affine[:3, 3] = start
    affine[:2] *= -1.0  # LPS -> RAS
    affine.flags.writeable = False
    return Stack(ordered, affine)


def separate(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """Return the stacks that one series holds on purpose, each with what sets it apart ("" if it is the only one).

    Planes of clearly different orientation (a localizer's) are stacks of their own if there are at least two in
    each. If positions occur several times and one or two traits (echo time, time point, kind of image) tell the
    frames apart without remainder, so are the values of those traits. Everything else stays together, for
    `stack` to judge.
    """
    planes = _by_orientation(frames)
    parts: list[tuple[str, list[Frame]]] = []
    for group in planes:
        view = f"{_view(group[0])} planes" if len(planes) > 1 else ""
        parts += [(", ".join(filter(None, (view, label))), part) for label, part in _by_trait(group)]
    return parts


def _by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in frames:
        for group in groups:
            if np.abs(frame.orientation - group[0].orientation).max() <= DIRECTION_TOLERANCE:
                group.append(frame)
                break
        else:
            groups.append([frame])
            if len(groups) > 8:  # no localizer has as many
                return [list(frames)]
    apart = all(abs(a[0].normal @ b[0].normal) < SEPARATE_PLANES for a, b in combinations(groups, 2))
    return groups if apart and min(map(len, groups)) > 1 else [list(frames)]


def _by_trait(frames: list[Frame]) -> list[tuple[str, list[Frame]]]:
    places = _distinct_places(frames)
    if places == len(frames):
        return [("", frames)]
    varying = [t for t in frames[0].traits if len({frame.traits.get(t) for frame in frames}) > 1]
    for chosen in (*combinations(varying, 1), *combinations(varying, 2)):
        groups: dict[tuple[str, ...], list[Frame]] = {}
        for frame in frames:
            groups.setdefault(tuple(frame.traits.get(trait, "") for trait in chosen), []).append(frame)
        if all(len(group) == places == _distinct_places(group) for group in groups.values()):
            return [
                (", ".join(f"{t} {v}" for t, v in zip(chosen, values, strict=True)), group)
                for values, group in groups.items()
            ]
    return [("", frames)]


def _distinct_places(frames: Sequence[Frame]) -> int:
    """Return at how many heights along the normal there are frames."""
    heights = np.sort([frame.position @ frames[0].normal for frame in frames])
    return 1 + int(np.count_nonzero(np.diff(heights) >= POSITION_TOLERANCE_MM))


def _mixture(frames: Sequence[Frame]) -> str:
    """Return what differs between the frames that must be the same, "" if nothing does."""
    first = frames[0]
    for frame in frames[1:]:
        if frame.shape != first.shape:
            return f"{first.shape[0]} x {first.shape[1]} and {frame.shape[0]} x {frame.shape[1]} pixels"
        if not np.allclose(frame.spacing, first.spacing, rtol=SPACING_TOLERANCE, atol=0):
            a, b = (f"{f.spacing[0]:.6g} x {f.spacing[1]:.6g}" for f in (first, frame))
            return f"pixels of {a} and of {b} mm"
        if np.abs(frame.orientation - first.orientation).max() > DIRECTION_TOLERANCE:
            return f"planes turned by {_turn(frame, first):.2g} degrees against each other"
        if frame.reference != first.reference:
            return "images of two frames of reference"
    return ""


def _turn(a: Frame, b: Frame) -> float:
    """Return the angle of the rotation that takes one plane's axes to the other's, degrees."""
    axes = [np.vstack([frame.orientation, frame.normal]) for frame in (a, b)]
    # |A − B|² = 4 (1 − cos), exact for small angles too.
    return float(np.degrees(2 * np.arcsin(min(np.linalg.norm(axes[0] - axes[1]) / np.sqrt(8), 1.0))))


def _view(frame: Frame) -> str:
    return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(frame.normal)))]


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]
