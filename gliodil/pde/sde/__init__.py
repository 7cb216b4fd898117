"""Itô equations with diagonal noise, du = f(u, t) dt + g(u, t) ⊙ dW, and the solver's own estimates of its error.

`solve_sde` steps the whole state with one adaptive step size. What it knows about a step, the embedded error E_j
and the stiffness S_j, comes back differentiable with the steps frozen, so that both can be regularized.
"""

from gliodil.pde.sde.brownian import BrownianPath, Increment, merge, split
from gliodil.pde.sde.solution import FrozenPath, Solution
from gliodil.pde.sde.solve import solve_sde
from gliodil.pde.sde.tableaus import SOSRA2, SOSRI, SOSRI2, SRA1, AdditiveTableau, DiagonalTableau

__all__ = [
    "SOSRA2",
    "SOSRI",
    "SOSRI2",
    "SRA1",
    "AdditiveTableau",
    "BrownianPath",
    "DiagonalTableau",
    "FrozenPath",
    "Increment",
    "Solution",
    "merge",
    "solve_sde",
    "split",
]
