"""All problems by name."""

from __future__ import annotations

from collections.abc import Callable

from gliodil.sampling.problems.allen_cahn import allen_cahn
from gliodil.sampling.problems.burgers import burgers
from gliodil.sampling.problems.disk import disk
from gliodil.sampling.problems.fisher_kpp import fisher_kpp
from gliodil.sampling.problems.helmholtz import helmholtz
from gliodil.sampling.problems.high_dimensional import linear_bump, nonlinear_bump
from gliodil.sampling.problems.layer import ring_layer
from gliodil.sampling.problems.moving_peak import moving_peak
from gliodil.sampling.problems.peaks import nine_peaks, one_peak, two_peaks
from gliodil.sampling.problems.poisson import poisson
from gliodil.sampling.problems.problem import Problem

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "poisson": poisson,
    "one-peak": one_peak,
    "two-peaks": two_peaks,
    "nine-peaks": nine_peaks,
    "ring-layer": ring_layer,
    "burgers": burgers,
    "allen-cahn": allen_cahn,
    "helmholtz": helmholtz,
    "fisher-kpp": fisher_kpp,
    "bump-linear": linear_bump,
    "bump-nonlinear": nonlinear_bump,
    "moving-peak": moving_peak,
    "disk": disk,
}
