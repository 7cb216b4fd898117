# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adding a growth model of your own
#
# A model is a frozen dataclass built from tissue on a grid, with `coefficients(...)` for the diffusion and `rate(u,
# ...)` for the right-hand side. Here, a tumour that must be dense to grow fast (an Allee effect):
#
# $$\frac{\partial u}{\partial t} = \nabla\cdot(D\nabla u) + \rho\,u(1-u)(u + a),\qquad a > 0$$
#
# For $a \geq \tfrac12$ its front is *pulled*, like Fisher and Kolmogorov's, by the growth $\rho a$ of the first few
# cells, and moves at $2\sqrt{D\rho a}$. For $a < \tfrac12$ it is *pushed* by the dense tissue behind it, at
# $\sqrt{D\rho/2}\,(1+2a)$, which is known exactly (Hadeler and Rothe 1975): something to test against.

# %%
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.operators import Faces, diffuse, face_means, spectral_bound
from gliodil.pde.residual import theta_residual


@dataclass(frozen=True)
class Allee:
    """Fisher-Kolmogorov growth that is slower where cells are few, on one patient's tissue."""

    grid: Grid
    faces: Faces

    @classmethod
    def on(cls, grid, white, grey, wm_gm_ratio=10.0):
        """Build the model from tissue fractions; no flux crosses faces of cells with w + g < 0.1."""
        white, grey = grid.field(white), grid.field(grey)
        per_h2 = [1 / h**2 for h in grid.spacing]
        return cls(grid, face_means(grid, white + grey / wm_gm_ratio, white + grey >= 0.1).map(*per_h2))

    def coefficients(self, diffusivity):
        """Return D/h² at the faces [1/day]."""
        return self.faces * diffusivity

    def rate(self, u, coefficients, rho, a):
        """Return the right-hand side [1/day]; differentiable in everything."""
        return diffuse(u, coefficients) + rho * u * (1 - u) * (u + a)


# %% [markdown]
# That is all the equation needs: the operators bring conservation of mass, zero flux at the border, and gradients.
# A Heun step in time is stable while the largest eigenvalue of the diffusion times the step stays below 2.


# %%
def run(model, u, *, diffusivity, rho, a, days, steps):
    """Return all levels, shape (steps + 1, N); differentiable."""
    c, dt, levels = model.coefficients(diffusivity), days / steps, [u]
    assert float(spectral_bound(c, model.grid.cells)) * dt < 2, "more steps"
    for _ in range(steps):
        k1 = model.rate(u, c, rho, a)
        k2 = model.rate(u + dt * k1, c, rho, a)
        u = u + dt / 2 * (k1 + k2)
        levels.append(u)
    return torch.stack(levels)


# %% [markdown]
# ## Test 1: the speed of the front
#
# A line of white matter with cells of 0.5 mm.

# %%
h, days, D, rho = 0.5, 300, 0.2, 0.1
grid = Grid((300, 1, 1), (h, h, h))
line = Allee.on(grid, torch.ones(grid.cells), torch.zeros(grid.cells))
x = grid.centres()[0]
start = torch.where(x < 10, 1.0, 0.0).to(x.dtype)

print(f"{'a':>6}{'measured':>10}{'exact':>8}  mm/day")
for a in (0.05, 0.2, 0.35, 1.0):
    levels = run(line, start, diffusivity=D, rho=rho, a=a, days=days, steps=1500)
    filled = levels.sum(dim=1) * h  # in one dimension, the front moves as fast as mass is added
    speed = float(filled[-1] - filled[1000]) / (days / 3)
    exact = (D * rho / 2) ** 0.5 * (1 + 2 * a) if a < 0.5 else 2 * (D * rho * a) ** 0.5
    print(f"{a:6.2f}{speed:10.4f}{exact:8.4f}  {'pushed' if a < 0.5 else 'pulled: slower until t is large'}")

# %% [markdown]
# ## Test 2: the residual
#
# `theta_residual` is the Crank-Nicolson residual that a discrete loss (ODIL) is built from. It takes any right-hand
# side; on a Heun solution it must vanish like the square of the step.

# %%
for steps in (750, 1500, 3000):
    levels = run(line, start, diffusivity=D, rho=rho, a=0.2, days=days, steps=steps)[steps // 2 :]
    c = line.coefficients(D)
    r = theta_residual(levels, lambda u, c=c: line.rate(u, c, rho, 0.2), days / steps)
    print(f"{steps:5} steps: largest residual {float(r.abs().max()):.1e} per day")

# %% [markdown]
# ## A fit
#
# Gradients come from automatic differentiation through the run. From two contours of a grown tumour, as imaging
# would show them, recover $D$ and $a$ with $\rho$ known. (With $\rho$ unknown too, one scan would not do: time has
# no scale.)

# %%
from gliodil.data.template import load_anatomy
from gliodil.pde.seed import gaussian_seed

anatomy = load_anatomy(resolution_mm=4)
i, j, k = (round(v) for v in anatomy.wm.to_index((-32.0, 20.0, 25.0)))
box = tuple(slice(c - 9, c + 9) for c in (i, j, k))
white, grey = (v.data[box].astype(np.float64) for v in (anatomy.wm, anatomy.gm))
grid = Grid(white.shape, anatomy.wm.spacing)
brain = Allee.on(grid, white, grey)
middle = torch.tensor([38.0, 38.0, 38.0], dtype=torch.float64)  # mm from the corner
seed = gaussian_seed(grid.centres(), middle) * (grid.field(white + grey) >= 0.1)


def grown(log_d, a):
    return run(brain, seed, diffusivity=log_d.exp(), rho=0.25, a=a, days=100, steps=100)[-1]


def soft_labels(u):
    """Return what imaging shows: whether u exceeds 0.5 and 0.25, with a soft edge so that gradients exist."""
    return torch.sigmoid((u - torch.tensor([[0.5], [0.25]])) / 0.05)


true = {"D": 0.3, "a": 0.3}
with torch.no_grad():
    truth = grown(torch.tensor(true["D"]).log(), torch.tensor(true["a"]))
    seen = soft_labels(truth)

log_d = torch.tensor(0.1, dtype=torch.float64).log().requires_grad_()
a = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.LBFGS([log_d, a], max_iter=25, line_search_fn="strong_wolfe")
losses = []


def closure():
    optimizer.zero_grad()
    loss = ((soft_labels(grown(log_d, a)) - seen) ** 2).mean()
    loss.backward()
    losses.append(loss.item())
    return loss


with torch.no_grad():
    first = grown(log_d, a)
optimizer.step(closure)
print(f"D {log_d.exp().item():.3f} (true {true['D']:.3f}, from 0.100) mm²/day")
print(f"a {a.item():.3f} (true {true['a']:.3f}, from 0.600)")
print(f"loss {losses[0]:.1e} to {losses[-1]:.1e} in {len(losses)} gradients")

# %%
colours = ["#56B4E9", "#E69F00", "#D55E00"]
_, axes = plt.subplots(1, 3, figsize=(8.5, 3), layout="constrained")
with torch.no_grad():
    fields = {"start": first, "fitted": grown(log_d, a), "true": truth}
for axis, (name, u) in zip(axes, fields.items(), strict=True):
    axis.imshow(white[::-1, :, 9].T, origin="lower", cmap="gray")
    axis.contour(grid.box(u)[:, :, 9].numpy()[::-1].T, levels=[0.01, 0.25, 0.5], colors=colours)
    axis.set(title=f"{name} (1 %, 25 %, 50 %)", xticks=[], yticks=[], xlabel="R – L")
plt.show()

# %% [markdown]
# The data were made by the model that is fitted, without noise, on cells of 4 mm: this shows that the machinery
# works, not that tumours grow like this.
#
# ## Into the package
#
# A model that proves itself goes into `gliodil/pde/models/`, one file with the equation at its top. `gliodil.fit`
# itself is written for Fisher-Kolmogorov: its sweeps have the reaction's derivative in compiled code, so another
# reaction also needs its own there (*Architecture, where to add things*).
