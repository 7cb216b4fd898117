"""The three sweeps of ``loops`` for CPUs: fields and numbers as the compiled time loops (``sweeps``) take them.

``loops`` holds the same in plain torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gliodil.pde.fused import SPREAD, arrays, scalars, threads
from gliodil.pde.odil import sweeps
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces


def forward(
    u: torch.Tensor,
    v: torch.Tensor | None,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``loops.forward``."""
    with threads(u.shape[1]) as parts:
        sums = np.zeros((parts, SPREAD))
        sweeps.forward(
            u.numpy(),
            _or_empty(v, u),
            _padded(faces, steps, u[0]),
            impassable.numpy(),
            faces.strides,
            scalars(u, steps.dt / steps.sigma, growth * steps.dt / 2),
            _weights(u, steps),
            sums,
            _fields(4, u[0], faces.strides[0]),
        )
    squares, outside = torch.from_numpy(sums[:, :2].sum(axis=0))
    return squares, outside


def backward(
    adjoint: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
    scales: tuple[float, float] | None,
) -> tuple[Faces, torch.Tensor]:
    """See ``loops.backward``."""
    rows = torch.from_numpy(_fields(3, u[0], 0))
    x, y, z = (row[: c.numel()] for row, c in zip(rows, faces.values, strict=True))
    d_faces = Faces((x, y, z), faces.strides)
    with threads(u.shape[1]) as parts:
        sums = np.zeros((parts, SPREAD))
        sweeps.backward(
            adjoint.numpy(),
            _or_empty(d_v, u),
            u.numpy(),
            _padded(faces, steps, u[0]),
            arrays(d_faces),
            impassable.numpy(),
            faces.strides,
            scalars(u, steps.dt / 2, steps.dt / steps.sigma, growth * steps.dt / 2, *(scales or (0.0, 0.0))),
            _weights(u, steps),
            scales is not None,
            sums,
            _fields(4, u[0], faces.strides[0]),
        )
    return d_faces, torch.tensor(sums[:, 0].sum())


def tangent(
    d_u: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    growth: float,
    d_faces: Faces,
    d_growth: float,
    steps: Steps,
) -> None:
    """See ``loops.tangent``."""
    with threads(u.shape[1]) as parts:
        sweeps.tangent(
            d_u.numpy(),
            _or_empty(d_v, u),
            u.numpy(),
            _padded(faces, steps, u[0]),
            arrays(d_faces),
            faces.strides,
            scalars(u, steps.dt / 2, steps.dt / steps.sigma, growth * steps.dt / 2, d_growth),
            _weights(u, steps),
            parts,
            _fields(4, u[0], faces.strides[0]),
        )


def _or_empty(field: torch.Tensor | None, like: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.empty((0, 0), like.numpy().dtype) if field is None else field.numpy()


def _weights(like: torch.Tensor, steps: Steps) -> np.ndarray[Any, Any]:
    return np.asarray(steps.weights, dtype=like.numpy().dtype)


def _fields(count: int, like: torch.Tensor, plane: int) -> np.ndarray[Any, Any]:
    """Return fields of zeros with a spare plane at both ends.

    They begin at different places within a page: where they began alike, whatever one loop reads of all of them
    would compete for the same few lines of the first cache.
    """
    return np.zeros((count, like.numel() + 2 * plane + 144), like.numpy().dtype)


def _padded(faces: Faces, steps: Steps, like: torch.Tensor) -> tuple[np.ndarray[Any, Any], ...]:
    """Return ½Δt c in such fields."""
    plane = faces.strides[0]
    fields = _fields(3, like, plane)
    for field, c in zip(fields, faces.values, strict=True):
        np.multiply(c.detach().numpy(), steps.dt / 2, out=field[plane : plane + c.numel()])
    return tuple(fields)
