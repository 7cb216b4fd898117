"""What the shape of a segmentation says about the meaning of its labels.

A glioblastoma is built in layers: oedema outside, enhancing rim, necrosis inside. Count the faces between
voxels of different labels, background included, and let share(a, b) be the part of the surface of `a` that
faces `b`. If a reading of the labels is right, all of these tend to be positive, and each lies in [-1, 1]:

    share(oedema, background) - share(enhancing, background)
    share(oedema, background) - share(necrotic, background)
    share(enhancing, background) - share(necrotic, background)
    share(necrotic, enhancing) - share(enhancing, necrotic)        the rim encloses, it is not enclosed

Their mean is the score of the reading. On GliODIL's patient 001 the right reading scores +0.40 and the
same labels permuted as decathlon against brats-2023 score -0.29.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.labels import LabelConvention


@dataclass(frozen=True)
class Reading:
    """One way to read the labels that are present, and how well the geometry supports it."""

    convention: LabelConvention
    roles: Mapping[int, str]
    """Role of each label present."""
    score: float | None
    """Mean evidence in [-1, 1]; None where fewer than two tumour parts are present."""
    rim: float
    """Part of the surface of necrosis proper that faces enhancing tumour, 0 to 1."""

    @property
    def has_core(self) -> bool:
        """Whether enhancing or necrotic tumour is present."""
        return bool({"enhancing", "necrotic"} & set(self.roles.values()))

    @property
    def is_complete(self) -> bool:
        """Whether necrosis, rim and oedema are all present."""
        return {"enhancing", "necrotic", "oedema"} <= set(self.roles.values())

    @property
    def is_layered(self) -> bool:
        """Whether all three parts are present and the rim encloses most of the necrosis."""
        return self.is_complete and self.rim >= 0.5


def bounding_box(mask: NDArray[Any]) -> tuple[slice, slice, slice]:
    """Return the smallest box of a 3-D mask with at least one non-zero voxel."""
    spans = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        spans.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return spans[0], spans[1], spans[2]


def contacts(data: NDArray[Any], labels: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the voxel faces between labels: symmetric, row and column 0 for everything else, then `labels`.

    Faces on the border of the image are not counted: what lies beyond is unknown.
    """
    box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in bounding_box(data))
    index = np.zeros(data[box].shape, np.int64)
    for position, label in enumerate(labels, start=1):
        index[data[box] == label] = position
    n = len(labels) + 1
    counts = np.zeros((n, n), np.int64)
    for axis in range(3):
        along = np.moveaxis(index, axis, 0)
        pairs = along[:-1] * n + along[1:]
        counts += np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n)
    counts = counts + counts.T
    np.fill_diagonal(counts, 0)
    return counts


def read_as(convention: LabelConvention, labels: tuple[int, ...], counts: NDArray[np.int64]) -> Reading:
    """Return how well `labels` with their face `counts` fit a convention that knows them all."""
    roles = {label: role for label in labels if (role := convention.role_of(label)) is not None}
    surfaces = np.maximum(counts.sum(axis=1), 1)

    def share(inner: str, outer: str, *, only: int | None = None) -> float | None:
        """Part of the surface of one role (one label of it) that faces another; None if either is absent."""
        rows = [
            k
            for k, label in enumerate(labels, start=1)
            if roles.get(label) == inner and only in (None, label)
        ]
        columns = [k for k, label in enumerate(labels, start=1) if roles.get(label) == outer]
        if outer == "background":
            columns = [0]
        if not rows or not columns:
            return None
        return float(counts[np.ix_(rows, columns)].sum() / surfaces[rows].sum())

    pairs = (
        (share("oedema", "background"), share("enhancing", "background")),
        (share("oedema", "background"), share("necrotic", "background")),
        (share("enhancing", "background"), share("necrotic", "background")),
        (share("necrotic", "enhancing"), share("enhancing", "necrotic")),
    )
    evidence = [high - low for high, low in pairs if high is not None and low is not None]
    score = float(np.mean(evidence)) if evidence else None
    proper = next((label for label in convention.necrotic if label in roles), None)
    return Reading(convention, roles, score, share("necrotic", "enhancing", only=proper) or 0.0)
