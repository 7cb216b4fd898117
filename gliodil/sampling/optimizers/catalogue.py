"""All optimizers by name, each with the number of calls between fresh points that suits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gliodil.sampling.optimizers.first_order import LBFGS, SOAP, Adam
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.optimizers.ssbroyden import SSBroyden

OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "lm": LevenbergMarquardt,
    "lm-varpro": lambda **settings: LevenbergMarquardt(projection=True, **settings),
    "ssbroyden": SSBroyden,
    "lbfgs": LBFGS,
    "soap": SOAP,
    "adam": Adam,
}
RESAMPLE = {"lm": 10, "lm-varpro": 10, "ssbroyden": 10, "lbfgs": 10, "soap": 10, "adam": 10}
