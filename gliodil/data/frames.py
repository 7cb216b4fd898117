"""Frames of reference and the rigid maps between them: two frames meet only through this graph.

A link carries points of its source frame to its target frame, world millimetres (RAS+)::

    y = R x + t        matrix = [R t; 0 1],  RᵀR = 1,  det R = 1

A chain of links is the product of their matrices; a link is walked backwards by its inverse. Between frames that no
chain joins nothing is carried: `FrameGraph.require` refuses and says what would join them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliodil.data.affine import check_affine
from gliodil.errors import GeometryError

Origin = Literal["same frame", "REG", "registered"]
"""Where a link comes from: one frame of reference, the clinic's registration object, or the product's own."""
RIGID_TOLERANCE = 1e-3
"""How far RᵀR may be from 1: DICOM writes matrices in decimals."""


@dataclass(frozen=True, eq=False)
class Link:
    """A rigid map from one frame to another.

    Attributes
    ----------
    source, target
        Frame of reference UIDs.
    matrix
        4x4, world mm (RAS+) of the source to world mm of the target.
    origin
        Where it comes from.
    residual_mm
        How far the answers of several starts lie apart, for registered images; None where nothing was measured.
    """

    source: str
    target: str
    matrix: NDArray[np.float64]
    origin: Origin
    residual_mm: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", check_rigid(self.matrix))

    @property
    def inverse(self) -> Link:
        """The same map from the target to the source."""
        return Link(self.target, self.source, inverse_rigid(self.matrix), self.origin, self.residual_mm)

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation [degrees]."""
        return float(np.degrees(np.arccos(np.clip((np.trace(self.matrix[:3, :3]) - 1) / 2, -1, 1))))

    def shift_mm(self, point: ArrayLike) -> float:
        """Return how far a point (world mm of the source) moves [mm]."""
        x = np.asarray(point, np.float64)
        return float(np.linalg.norm(self.matrix[:3, :3] @ x + self.matrix[:3, 3] - x))


@dataclass(frozen=True)
class FrameGraph:
    """Frames of one patient and the links between them."""

    links: tuple[Link, ...] = ()

    def with_link(self, link: Link) -> FrameGraph:
        """Return the graph with one more link."""
        return FrameGraph((*self.links, link))

    def path(self, source: str, target: str) -> Link | None:
        """Return the map between two frames along the fewest links, or None if nothing joins them."""
        if source == target:
            return Link(source, target, np.eye(4), "same frame")
        reached: dict[str, tuple[Link, ...]] = {source: ()}
        waiting = deque([source])
        while waiting and target not in reached:
            here = waiting.popleft()
            for link in (*self.links, *(one.inverse for one in self.links)):
                if link.source == here and link.target not in reached:
                    reached[link.target] = (*reached[here], link)
                    waiting.append(link.target)
        if target not in reached:
            return None
        chain = reached[target]
        matrix = np.eye(4)
        for link in chain:
            matrix = link.matrix @ matrix
        origin: Origin = (
            "registered" if any(link.origin == "registered" for link in chain) else chain[0].origin
        )
        residuals = [link.residual_mm for link in chain if link.residual_mm is not None]
        return Link(source, target, matrix, origin, sum(residuals) if residuals else None)

    def require(self, source: str, target: str, *, what: str, file: Path | None = None) -> Link:
        """Return the map between two frames.

        Parameters
        ----------
        what
            What is to be carried, for the message: `structure set "plan"`.

        Raises
        ------
        GeometryError
            If no chain of links joins them.
        """
        found = self.path(source, target)
        if found is None:
            raise GeometryError(
                f"The {what} lies in another frame of reference than the images, and nothing relates the two.",
                file=file,
                expected=f"frame {target}, or a registration to it",
                found=f"frame {source}",
                remedy="add the clinic's registration object (--reg FILE), or the image it was drawn on with --register",
            )
        return found

    def to_records(self) -> list[dict[str, Any]]:
        """Return the links as they stand in `metrics.json` under `frames`."""
        return [
            {
                "source": link.source,
                "target": link.target,
                "origin": link.origin,
                "matrix": link.matrix.tolist(),
                "angle_deg": link.angle_deg,
                "residual_mm": link.residual_mm,
            }
            for link in self.links
        ]


def check_rigid(matrix: ArrayLike, file: Path | None = None) -> NDArray[np.float64]:
    """Return a read-only 4x4 rigid matrix, or raise GeometryError if it scales, shears or mirrors."""
    checked = check_affine(matrix, file)
    rotation = checked[:3, :3]
    off = float(np.abs(rotation.T @ rotation - np.eye(3)).max())
    if off > RIGID_TOLERANCE or np.linalg.det(rotation) < 0:
        lengths = np.linalg.norm(rotation, axis=0)
        raise GeometryError(
            "The registration is not rigid.",
            file=file,
            expected="a rotation and a shift",
            found=f"axes of length {', '.join(f'{length:.4f}' for length in lengths)}, "
            f"determinant {np.linalg.det(rotation):.4f}",
            remedy="export a rigid registration of the head",
        )
    return checked


def inverse_rigid(matrix: ArrayLike) -> NDArray[np.float64]:
    """Return the inverse of a rigid 4x4 matrix."""
    return np.asarray(np.linalg.inv(np.asarray(matrix, np.float64)))
