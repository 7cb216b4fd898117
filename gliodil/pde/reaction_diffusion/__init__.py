"""Solvers for reaction-diffusion equations on a grid."""

from gliodil.pde.reaction_diffusion.problem import Logistic, Reaction, ReactionDiffusion
from gliodil.pde.reaction_diffusion.solve import GridSolution, solve

__all__ = ["GridSolution", "Logistic", "Reaction", "ReactionDiffusion", "solve"]
