"""How long, on what points and with which weights a network is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gliodil.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """How long and on what the loop trains.

    Attributes
    ----------
    budget_s
        CPU seconds of this process, evaluation of known solutions not counted.
    steps
        Most optimizer steps.
    points
        Interior points N; three times the number of parameters if not given.
    condition_points
        Points of each soft condition.
    resample
        Steps between fresh points.
    kappa
        Exponent of the importance weights p^-κ: 1 is the uniform L2 norm, 0 the adversarial objective.
    defensive
        Share a of uniform points in the mixture.
    validation
        Points of the validation residual.
    tolerance
        Stop as ``converged`` once the root mean square validation residual is below this.
    patience
        Stop as ``stalled`` after this many draws without a better validation residual.
    decay
        α of the objective: what the network's parameters cost.
    adapt
        Draws between two updates of the sampler; 0 leaves it as `prepare` made it.
    prepare
        Updates of the sampler before the first step, on the residual of u = G (the last layer is zero then): in
        many dimensions a random network would hide a localized source. The network's first layer is then drawn
        through points of that law.
    """

    budget_s: float = 60.0
    steps: int = 100_000
    points: int | None = None
    condition_points: int = 200
    resample: int = 10
    kappa: float = 1.0
    defensive: float = 0.3
    decay: float = 0.0
    validation: int = 2000
    tolerance: float = 0.0
    patience: int = 60
    adapt: int = 1
    prepare: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.kappa <= 1 or not 0 <= self.defensive <= 1:
            raise InputError(
                "kappa and defensive must lie in [0, 1].", found=f"{self.kappa} and {self.defensive}"
            )
        if min(self.steps, self.condition_points, self.resample, self.validation) < 1:
            raise InputError("Counts of steps and points must be at least 1.")
        if not (math.isfinite(self.decay) and self.decay >= 0):
            raise InputError("The decay must not be negative.", found=str(self.decay))
        if self.adapt < 0 or self.prepare < 0:
            raise InputError("Counts of updates must not be negative.", found=f"{self.adapt}, {self.prepare}")
