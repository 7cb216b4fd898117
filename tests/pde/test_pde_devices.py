"""Every tensor follows its grid's device and precision.

The meta device has no numbers, only shapes, types and places, so an operation that mixes it with a CPU
tensor fails. What has to read a number (substeps, the solver's weights, the sweep's scales on their way into the
loops) cannot run there; those parts run on CUDA where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.multigrid import MultigridField
from gliodil.pde.odil import loops
from gliodil.pde.odil.linear import LinearMap
from gliodil.pde.odil.problem import add_scaled
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import sweep
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
    assert_on(
        grid, gaussian_seed(grid.centres(), torch.zeros(3, device="meta", dtype=dtype), cutoff_width=0.1)
    )
    field = MultigridField(grid, 6, levels=3)
    assert_on(grid, *field.split(grid.zeros(6)), field.compose(field.split(grid.zeros(6))))
    other = model.to(torch.float16)
    assert other.white.dtype == torch.float16
    assert other.white.device.type == "meta"


def solving(dt: float, sigma: float) -> Steps:
    return Steps.resolving(dt=dt, sigma=sigma, diffusion_bound=4.0, growth=0.1, tolerance=1e-12)


@pytest.mark.parametrize("with_error", [True, False], ids=["v", "no v"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loops_follow_the_grid_to_the_meta_device(dtype: torch.dtype, with_error: bool) -> None:
    """Sums over levels alone are float64: ‖·‖² of a field of 10⁷ entries."""
    grid = grid_on("meta", dtype)
    model = FisherKolmogorov.on(grid, grid.zeros(), grid.zeros())
    c = model.coefficients(torch.zeros((), device="meta", dtype=torch.float64), 10.0)
    impassable, steps = (~model.passable).to(dtype), solving(0.5, 2.0)
    u, v = grid.zeros(5), grid.zeros(4) if with_error else None
    d_v = torch.empty_like(u[1:]) if with_error else None
    sums = loops.forward(u, v, c, impassable, 0.1, steps)
    adjoint, d_u = grid.zeros(), grid.zeros()
    faces, rho = loops.backward(adjoint, d_v, u, c, impassable, 0.1, steps, (1.0, 2.0))
    loops.tangent(d_u, v, u, c, 0.1, faces, 0.3, steps)
    assert_on(grid, u, adjoint, d_u, faces, *([] if d_v is None else [d_v]))
    assert [(t.device.type, t.dtype) for t in (*sums, rho)] == [("meta", torch.float64)] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_maps_and_points_follow_the_grid_to_the_meta_device(dtype: torch.dtype) -> None:
    """From float64 parameters to fields and back."""
    grid = grid_on("meta", dtype)
    model = FisherKolmogorov.on(grid, grid.zeros(), grid.zeros())
    y = torch.zeros(2, device="meta", dtype=torch.float64, requires_grad=True)
    c = model.coefficients(y[0], 10.0)
    linear = LinearMap([*c.values, y[1].exp()], [y])
    *d_faces, d_rho = linear.push([torch.ones_like(y)])
    (pulled,) = linear.pull([*d_faces, d_rho])
    assert_on(grid, *d_faces)
    assert [(t.device.type, t.dtype) for t in (d_rho, pulled)] == [("meta", torch.float64)] * 2
    parameters, field = add_scaled([pulled, grid.zeros(3)], [pulled, grid.zeros(3)], 0.5)
    assert_on(grid, field)
    assert (parameters.device.type, parameters.dtype) == ("meta", torch.float64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("with_error", [True, False], ids=["v", "no v"])
def test_cuda_gives_what_the_cpu_gives(with_error: bool) -> None:
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
        impassable, steps = (~model.passable).to(grid.dtype), solving(0.3, 5.0)
        t = sweep(u0, v if with_error else None, c, rho, impassable, steps, count=6)
        leaves = (u0, rho, v) if with_error else (u0, rho)
        gradient = torch.autograd.grad(t.last.sum() + t.bounds + t.outside, leaves)
        changed = torch.ones_like(u0)
        with torch.no_grad():
            loops.tangent(changed, v if with_error else None, t.levels, c, 0.1, c, 0.3, steps)
        u = integrate(
            model,
            grid.field(start),
            diffusivity=0.5,
            proliferation_rate=0.1,
            wm_gm_ratio=10,
            duration=5,
            steps=5,
        )
        assert_on(grid, u, t.levels, changed, *gradient)
        results.append([x.detach().cpu() for x in (u, t.levels, t.bounds, t.outside, changed, *gradient)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
