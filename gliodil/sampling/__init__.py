"""Physics-informed networks that choose their own collocation points.

from gliodil.sampling import MLP, one_peak, solve
problem  = one_peak()
solution = solve(problem, network=MLP(problem.box, (20, 20, 20), first_scale=10.0))
"""

from gliodil.sampling.bases import LocalBases, Sum
from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.local import Growth, solve_local
from gliodil.sampling.mlp import MLP
from gliodil.sampling.optimizers.first_order import LBFGS, SOAP, Adam
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.optimizers.ssbroyden import SSBroyden
from gliodil.sampling.points import Points, Sampler
from gliodil.sampling.problems.allen_cahn import allen_cahn
from gliodil.sampling.problems.burgers import burgers
from gliodil.sampling.problems.catalogue import PROBLEMS
from gliodil.sampling.problems.disk import disk
from gliodil.sampling.problems.fisher_kpp import fisher_kpp
from gliodil.sampling.problems.helmholtz import helmholtz
from gliodil.sampling.problems.high_dimensional import linear_bump, nonlinear_bump
from gliodil.sampling.problems.layer import ring_layer
from gliodil.sampling.problems.moving_peak import moving_peak
from gliodil.sampling.problems.peaks import nine_peaks, one_peak, two_peaks
from gliodil.sampling.problems.poisson import poisson
from gliodil.sampling.problems.problem import Condition, Problem, box_distance, source_of
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solution import Record, Solution
from gliodil.sampling.solve import solve

__all__ = [
    "LBFGS",
    "MLP",
    "PROBLEMS",
    "SOAP",
    "Adam",
    "Box",
    "Condition",
    "Growth",
    "Jet",
    "LevenbergMarquardt",
    "LocalBases",
    "Points",
    "Problem",
    "Record",
    "SSBroyden",
    "Sampler",
    "Schedule",
    "Solution",
    "Sum",
    "allen_cahn",
    "box_distance",
    "burgers",
    "disk",
    "fisher_kpp",
    "helmholtz",
    "laplacian",
    "linear_bump",
    "moving_peak",
    "nine_peaks",
    "nonlinear_bump",
    "one_peak",
    "poisson",
    "ring_layer",
    "solve",
    "solve_local",
    "source_of",
    "two_peaks",
]
