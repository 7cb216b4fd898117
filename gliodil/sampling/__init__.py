"""Physics-informed networks that choose their own collocation points.

from gliodil.sampling import MLP, one_peak, solve
problem  = one_peak()
solution = solve(problem, network=MLP(problem.box, (20, 20, 20), first_scale=10.0))
"""

from gliodil.sampling.domain import Box
from gliodil.sampling.networks import MLP, LocalBases, Sum
from gliodil.sampling.points import Points, Sampler
from gliodil.sampling.problems.peaks import nine_peaks, one_peak, two_peaks
from gliodil.sampling.problems.poisson import poisson
from gliodil.sampling.problems.problem import Condition, Problem
from gliodil.sampling.solve import Record, Schedule, Solution, solve

__all__ = [
    "MLP",
    "Box",
    "Condition",
    "LocalBases",
    "Points",
    "Problem",
    "Record",
    "Sampler",
    "Schedule",
    "Solution",
    "Sum",
    "nine_peaks",
    "one_peak",
    "poisson",
    "solve",
    "two_peaks",
]
