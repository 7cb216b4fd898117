"""Every tensor follows its grid's device and precision.

The meta device has no numbers, only shapes, types and places, so an operation that mixes it with a CPU
tensor fails. What has to read a number (stages, substeps, ρ on its way into the sweep's loops) cannot run
there; those parts run on CUDA where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.multigrid import MultigridField
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import sweep, unroll
from gliodil.pde.operators import Faces, add_diffusion_, diffuse, face_means, open_faces, spectral_bound
from gliodil.pde.residual import theta_residual
from gliodil.pde.seed import gaussian_seed


def grid_on(device: str, dtype: torch.dtype) -> Grid:
    return Grid((5, 4, 3), (1.0, 1.5, 2.0), device=torch.device(device), dtype=dtype)


def assert_on(grid: Grid, *tensors: torch.Tensor | Faces) -> None:
    for tensor in tensors:
        for t in tensor.values if isinstance(tensor, Faces) else (tensor,):
            assert t.device.type == grid.device.type
            assert t.dtype == grid.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_and_model_follow_the_grid_to_the_meta_device(dtype: torch.dtype) -> None:
    grid = grid_on("meta", dtype)
    assert_on(grid, grid.zeros(), grid.centres(), grid.coarsen().zeros(2))
    passable = grid.mask(torch.ones(grid.shape, device="meta"))
    assert passable.dtype == torch.bool
    white = grid.zeros()
    faces = face_means(grid, white, passable)
    assert_on(
        grid, open_faces(grid, passable), faces, diffuse(white, faces), spectral_bound(faces, grid.cells)
    )
    out = grid.zeros()
    add_diffusion_(out, white, faces, grid.zeros())
    assert_on(grid, out)

    model = FisherKolmogorov.on(grid, white, grid.zeros())
    diffusivity, rho = torch.zeros((), device="meta", dtype=torch.float64), 0.1
    c = model.coefficients(diffusivity, 10.0)
    assert_on(grid, c, model.rate(grid.zeros(), c, rho), model.rate(grid.zeros(6), c, rho))
    assert_on(grid, theta_residual(grid.zeros(6), lambda u: model.rate(u, c, rho), 0.5))
    for stages in (1, 3):
        levels = unroll(grid.zeros(), grid.zeros(4), lambda u: model.rate(u, c, rho), Steps(0.5, 1.0, stages))
        assert_on(grid, levels)
    assert_on(
        grid, gaussian_seed(grid.centres(), torch.zeros(3, device="meta", dtype=dtype), cutoff_width=0.1)
    )
    field = MultigridField(grid, 6, levels=3)
    assert_on(grid, *field.split(grid.zeros(6)), field.compose(field.split(grid.zeros(6))))
    other = model.to(torch.float16)
    assert other.white.dtype == torch.float16
    assert other.white.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stages", [1, 3, 5])
def test_cuda_gives_what_the_cpu_gives(stages: int) -> None:
    rng = np.random.default_rng(0)
    white, grey = rng.uniform(0, 0.6, (2, 5, 4, 3))
    start, error = rng.uniform(size=60), rng.normal(size=(6, 60))
    results = []
    for device in ("cpu", "cuda"):
        grid = grid_on(device, torch.float64)
        model = FisherKolmogorov.on(grid, torch.as_tensor(white), torch.as_tensor(grey))
        c = model.coefficients(0.5, 10.0)
        rho = torch.tensor(0.1, dtype=torch.float64, device=device, requires_grad=True)
        u0, v = grid.field(start).requires_grad_(), torch.as_tensor(error, device=device).requires_grad_()
        t = sweep(u0, v, c, rho, (~model.passable).to(grid.dtype), Steps(0.3, 5.0, stages))
        gradient = torch.autograd.grad(t.last.sum() + t.pde + t.bounds + t.outside, (u0, v, rho))
        u = integrate(
            model,
            grid.field(start),
            diffusivity=0.5,
            proliferation_rate=0.1,
            wm_gm_ratio=10,
            duration=5,
            steps=5,
        )
        assert_on(grid, u, t.levels, *gradient)
        results.append([x.detach().cpu() for x in (u, t.levels, t.pde, *gradient)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
