"""Samplers by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gliodil.errors import InputError
from gliodil.sampling.domain import Box
from gliodil.sampling.points import Sampler
from gliodil.sampling.samplers.base import LawSampler
from gliodil.sampling.samplers.defensive import DefensiveSampler
from gliodil.sampling.samplers.flow import FlowSampler
from gliodil.sampling.samplers.growing import DasGSampler, FailureInformedSampler, RarDSampler, RarSampler
from gliodil.sampling.samplers.h1 import H1Sampler
from gliodil.sampling.samplers.r3 import R3Sampler
from gliodil.sampling.samplers.rad import RadSampler
from gliodil.sampling.samplers.smc import SmcSampler
from gliodil.sampling.samplers.uniform import SobolSampler, UniformSampler

Maker = Callable[..., Sampler]

MAKERS: dict[str, Maker] = {
    "uniform": UniformSampler,
    "sobol": SobolSampler,
    "rar": RarSampler,
    "rar-d": RarDSampler,
    "rad": RadSampler,
    "r3": R3Sampler,
    "failure-informed": FailureInformedSampler,
    "das-g": DasGSampler,
    "das-r": partial(FlowSampler, objective="kl"),
    "aas": FlowSampler,
    "aas-logit": partial(FlowSampler, flow="logit"),
    "h1": H1Sampler,
    "smc": SmcSampler,
    "ladder": partial(SmcSampler, ladder=True),
}
# Their laws may vanish somewhere; they are mixed with uniform points unless uniform=0 is asked for.
NEED_DEFENCE = ("das-r", "aas", "aas-logit", "h1", "smc")  # a ladder stands on a uniform rung
SEEDED = ("das-g", "das-r", "aas", "aas-logit")


def make_sampler(name: str, box: Box, *, dtype: torch.dtype, seed: int, **settings: Any) -> Sampler:
    """Return the sampler of this name.

    Parameters
    ----------
    name
        One of ``MAKERS``.
    box, dtype
        The domain, and the type of the points.
    seed
        For the first weights of flows; points come from the generators given to ``draw`` and ``update``.
    settings
        Of the sampler's class. ``uniform``, ``history`` and ``memory`` make a defensive mixture of any sampler that
        exposes its law; ``uniform=0`` leaves one that has a mixture by default as published.
    """
    if name not in MAKERS:
        raise InputError("There is no sampler of this name.", expected=", ".join(MAKERS), found=name)
    maker = MAKERS[name]
    mixture = {key: settings.pop(key) for key in ("uniform", "history", "memory") if key in settings}
    if name in SEEDED:
        settings["seed"] = seed
    try:
        sampler = maker(box, dtype=dtype, **settings)
    except TypeError as error:
        raise InputError(f"{name} does not take these settings.", found=str(error)) from error
    if not mixture and name in NEED_DEFENCE:
        mixture = {"uniform": 0.2}
    if not mixture or mixture == {"uniform": 0}:
        return sampler
    if not hasattr(sampler, "law"):
        raise InputError(f"{name} keeps its points and cannot be mixed.", found=str(mixture))
    inner: LawSampler = sampler  # type: ignore[assignment]
    return DefensiveSampler(inner, box, dtype=dtype, **mixture)
