"""Ordinary differential equations dz/dt = f(t, z) with solver heuristics that can be differentiated.

    from gliodil.pde import ode

    solution = ode.solve(f, z0, (0.0, 1.0), rtol=1e-6, atol=1e-6, record=("error", "stiffness"))
    solution.states[-1]      z at the last time; states has shape (len(times), *z0.shape)
    solution.errors          E_j of every accepted step, shape (accepted,), differentiable
    solution.stiffness       S_j, likewise
    solution.steps           h_j, floats: constants of every gradient
    solution.accepted, solution.rejected, solution.evaluations
    solution.status          "done", "event", "step_limit", "stiff" or "diverged"; .message; .raise_for_status()

    solve(f, z0, times, *, method="tsit5" | "dp5" | "bs3" | "heun", rtol, atol,
          adjoint="tape" | "checkpointed" | "continuous", parameters=None, record=(), per_sample=False,
          events=None, max_steps=10_000, first_step=None, steps=None, controller=None)

f(t: float, z: Tensor) -> Tensor shaped like z. With ``per_sample=True`` t is a tensor of shape (rows, 1, …) and z
holds only the rows that are still under way. ``record`` takes "error", "stiffness" and "path" (the states at the
starts of the steps); what was not recorded raises when asked for. ``steps`` repeats a given grid (``solution.steps``)
without adapting. Regularizers on the records: ``gliodil.pde.regularizers``.
"""

from __future__ import annotations

from gliodil.pde.ode.controller import PIController
from gliodil.pde.ode.events import Event
from gliodil.pde.ode.heuristics import PrecisionWarning, noise_floor, stiffness_estimate
from gliodil.pde.ode.solution import EventHit, Solution
from gliodil.pde.ode.solve import Adjoint, solve
from gliodil.pde.ode.tableaus import TABLEAUS, Tableau, get_tableau

__all__ = [
    "TABLEAUS",
    "Adjoint",
    "Event",
    "EventHit",
    "PIController",
    "PrecisionWarning",
    "Solution",
    "Tableau",
    "get_tableau",
    "noise_floor",
    "solve",
    "stiffness_estimate",
]
