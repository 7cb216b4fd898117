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
# # The growth model on its own
#
# $$\frac{\partial u}{\partial t} = \nabla\cdot\big(D(x)\nabla u\big) + \rho\,u(1-u),\qquad D(x) = D_w\,(w + g/R)$$
#
# $u$ is the density as a fraction of what the tissue carries, $D_w$ the diffusivity in white matter [mm²/day],
# $\rho$ the proliferation rate [1/day], $w, g$ white- and grey-matter fractions. Two numbers describe a plane
# front: its speed $c = 2\sqrt{D\rho}$ and its width $\ell = \sqrt{D/\rho}$. A scan fixes $\ell$ and $c\,T$; it
# cannot fix $D$ and $\rho$ without knowing $T$.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov

# %% [markdown]
# ## How fast does a front move?
#
# A line of white matter, 150 mm long, filled at one end. The front's place is where the density is one half.


# %%
def front(h, *, diffusivity=0.1, rho=0.1, days=400, length=150.0):
    """Return times [day], places of the front [mm], and the last profile on cells of h mm."""
    grid = Grid((round(length / h), 1, 1), (h, h, h))
    line = FisherKolmogorov.on(grid, torch.ones(grid.cells), torch.zeros(grid.cells))
    x = grid.centres()[0]
    places = []

    def locate(_, u):
        below = int((u < 0.5).nonzero()[0])
        share = float((u[below - 1] - 0.5) / (u[below - 1] - u[below]))
        places.append(float(x[below - 1]) + share * h)

    start = torch.where(x < 5, 1.0, 0.0).to(x.dtype)
    rates = {"diffusivity": diffusivity, "proliferation_rate": rho, "wm_gm_ratio": 10.0}
    u = integrate(line, start, duration=days, steps=days, on_level=locate, **rates)
    return np.arange(days + 1), np.array(places), x.numpy(), u.numpy()


cells = (0.5, 1.0, 2.0, 3.0)
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for h in cells:
    days, places, x, u = front(h)
    speed = np.polyfit(days[200:], places[200:], 1)[0]
    left.plot(days, places, label=f"{h:g} mm: {speed:.3f} mm/day")
    right.semilogy(x - places[-1], np.maximum(u, 1e-6), label=f"{h:g} mm")
left.plot(days, 5 + 0.2 * days, "k--", label=r"$2\sqrt{D\rho}$ = 0.200 mm/day")
left.set(
    xlabel="time (day)", ylabel="place of the front (mm)", title="D = 0.1 mm²/day, ρ = 0.1 1/day, ℓ = 1 mm"
)
right.set(
    xlim=(-10, 15), ylim=(1e-5, 1.5), xlabel="distance from the front (mm)", ylabel="density", title="Profile"
)
left.legend(fontsize=8, title="cell size", title_fontsize=8)
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# A front that starts from a step is slower than $2\sqrt{D\rho}$ at first and approaches it like $1/t$, even in
# exact arithmetic. A grid that does not resolve the front ($h \gg \ell$) changes its speed and widens it. That is
# why fits on coarse grids give biased infiltration lengths, and why gliodil keeps $\ell$ above a fifth of the cell
# size.
#
# ## In a brain
#
# The MNI152 anatomy at 3 mm, one origin, three tumours with the same $D_w\rho$, so that plane fronts move equally
# fast.

# %%
from gliodil.data.growth import Rates, grow, seed_density
from gliodil.data.template import load_anatomy

anatomy = load_anatomy(resolution_mm=3)
origin = (-32.0, 20.0, 25.0)  # world mm, RAS+
seed = seed_density(anatomy.wm, anatomy.gm, [origin])


def tumour(rates, days=100):
    """Return the density after some days, and the volume above 50 % on each day [mL]."""
    volumes = []
    density, _ = grow(
        seed,
        anatomy.wm.data,
        anatomy.gm.data,
        spacing=anatomy.wm.spacing,
        rates=rates,
        days=days,
        level=0.5,
        limit_ml=1e9,
        on_day=lambda day, ml: volumes.append(ml),
    )
    return density, volumes


k = round(float(anatomy.wm.to_index(origin)[2]))
grey = 0.9 * anatomy.wm.data[:, :, k] + 0.5 * anatomy.gm.data[:, :, k]
_, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", width_ratios=[1, 1, 1, 1.4])
for axis, (d, rho) in zip(axes, [(0.05, 0.2), (0.1, 0.1), (0.2, 0.05)], strict=False):
    density, volumes = tumour(Rates(d, rho, 10.0))
    axis.imshow(grey[::-1].T, origin="lower", cmap="gray")
    lines = axis.contour(
        density[::-1, :, k].T, levels=[0.01, 0.1, 0.5], colors=["#56B4E9", "#E69F00", "#D55E00"]
    )
    axis.set(title=f"D {d:g}, ρ {rho:g}\nℓ = {(d / rho) ** 0.5:.1f} mm", xticks=[], yticks=[], xlabel="R – L")
    axes[3].plot(range(1, 101), volumes, label=f"ℓ = {(d / rho) ** 0.5:.1f} mm")
axes[3].set(xlabel="time (day)", ylabel="volume above 50 % (mL)")
axes[3].legend(fontsize=8)
plt.show()

# %% [markdown]
# Lines at 1 % (blue), 10 % (orange) and 50 % (red); the patient's left is on the right. Steps in the graph are
# voxels. Speeds are equal once there is a front, but a small seed with a low $\rho$ takes long to become one. The
# distance between the lines is $\ell$: tumours of one visible size can hide a thin or a wide rim, and that is what
# a fit has to find out.
#
# ## White against grey matter
#
# $R = D_w/D_g$ decides how much the tumour follows white matter.

# %%
_, axes = plt.subplots(1, 3, figsize=(8.5, 3.2), layout="constrained")
for axis, ratio in zip(axes, (1.0, 10.0, 100.0), strict=True):
    density, volumes = tumour(Rates(0.15, 0.1, ratio))
    axis.imshow(grey[::-1].T, origin="lower", cmap="gray")
    axis.contour(density[::-1, :, k].T, levels=[0.01, 0.1, 0.5], colors=["#56B4E9", "#E69F00", "#D55E00"])
    axis.set(title=f"R = {ratio:g}, {volumes[-1]:.0f} mL", xticks=[], yticks=[], xlabel="R – L")
plt.show()

# %% [markdown]
# **Good values** over 100 nominal days: $D_w$ 0.035 to 0.2 mm²/day, $\rho$ 0.035 to 0.2 1/day, $R$ 10 to 30. They
# are the ranges simulated patients are drawn from, not measurements of people; $T$ is not known for anyone.
