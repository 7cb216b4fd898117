"""Samplers that learn their density with a flow: AAS (adversarial adaptive sampling) and DAS-R (deep adaptive sampling).

At each update a pool of points u_k ~ q = ½ + ½ P_now is drawn in the unit cube, r² is evaluated on it once, and the flow
takes a number of Adam steps on random batches of it. With the score-function estimator r² is evaluated on fresh points
at every step instead. The flow goes on from where it was: it follows the network.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.pde.resume import State, adam_state, restore_adam
from gliodil.sampling.cells import CellLaw
from gliodil.sampling.domain import Box
from gliodil.sampling.flows.base import Flow, FlowLaw
from gliodil.sampling.flows.krnet import BoundedKRnet
from gliodil.sampling.flows.logit import LogitKRnet
from gliodil.sampling.flows.objectives import h1_ratio, h1_score, kl
from gliodil.sampling.h1 import BetaKind, stiffness
from gliodil.sampling.laws import MixtureLaw, UniformLaw
from gliodil.sampling.residual_map import SquaredResidual, evaluate, map_residual
from gliodil.sampling.samplers.base import Redrawing

FlowName = Literal["bounded", "logit"]
Objective = Literal["h1", "kl"]
Estimator = Literal["ratio", "score"]
LONGEST_GRADIENT = 10.0


class FlowSampler(Redrawing):
    """All points redrawn from a flow that is trained at every update.

    Parameters
    ----------
    box, dtype, seed
        The domain (d ≥ 2), the type of the points and the flow, the seed of its first weights.
    objective, estimator
        "h1" is the adversary's, by "ratio" or "score"; "kl" is that of deep adaptive sampling.
    flow
        "bounded" or "logit".
    beta, kind
        Penalty of "h1"; ``gliodil.sampling.h1`` says in which units.
    steps, batch, pool, rate
        Adam steps and points for each at every update; points on which r² is evaluated; learning rate.
    quasi_random
        Draw with scrambled Sobol latent points instead of independent ones: same law, evener points.
    couplings, width
        Size of the flow, by default that of its class.
    """

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        seed: int,
        objective: Objective = "h1",
        estimator: Estimator = "ratio",
        flow: FlowName = "bounded",
        beta: float = 1e-3,
        kind: BetaKind = "relative",
        steps: int = 60,
        batch: int = 512,
        pool: int = 4096,
        rate: float = 5e-3,
        quasi_random: bool = True,
        couplings: int = 6,
        width: int = 32,
    ) -> None:
        super().__init__(UniformLaw(box, dtype))
        for value, allowed in ((objective, ("h1", "kl")), (estimator, ("ratio", "score"))):
            if value not in allowed:
                raise InputError("There is no such way to train a flow.", expected=str(allowed), found=value)
        self.box, self.dtype = box, dtype
        self.objective, self.estimator = objective, estimator
        self.beta, self.kind = beta, kind
        self.steps, self.batch, self.pool = steps, batch, pool
        self.quasi_random = quasi_random
        squeeze = 1 if box.dimension <= 4 else -(-box.dimension // 3)
        kinds: dict[str, type[BoundedKRnet] | type[LogitKRnet]] = {
            "bounded": BoundedKRnet,
            "logit": LogitKRnet,
        }
        if flow not in kinds:
            raise InputError("There is no such flow.", expected=", ".join(kinds), found=flow)
        self.flow: Flow = kinds[flow](
            box.dimension, seed=seed, dtype=dtype, couplings=couplings, width=width, squeeze=squeeze
        )
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=rate)
        self.rate = rate
        self.prepared = False

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Train the flow on r², evaluated on the pool once (ratio) or on each step's batch as well (score)."""
        self.flow.to(generator.device)
        seen = map_residual(
            squared_residual, self.box, budget=self.pool // 2, dtype=self.dtype, generator=generator
        )
        # Every cell of the map equally often: few points where r² is small, many where it is concentrated.
        spread = CellLaw(self.box, seen.partition, torch.ones_like(seen.value), dtype=self.dtype)
        proposal = MixtureLaw((spread, self.law), (0.5, 0.5))
        x = proposal.sample(self.pool, generator=generator)
        squared = evaluate(squared_residual, x).to(self.dtype)
        q = proposal.density(x) * self.box.volume
        mean = float((squared / q).mean())
        if mean == 0:
            return
        u = self.box.to_unit(x).clamp(0, 1)
        g = squared / mean
        if not self.prepared:
            self.flow.prepare(
                self.box.to_unit(UniformLaw(self.box, self.dtype).sample(4096, generator=generator))
            )
            self.prepared = True
        betas = stiffness(self.beta, self.kind, self.box, mean) if self.objective == "h1" else ()
        before = {name: value.detach().clone() for name, value in self.flow.state_dict().items()}
        for step in range(self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * step / self.steps)))
            self.optimizer.zero_grad()
            if self.objective == "h1" and self.estimator == "score":
                loss = self._score_loss(squared_residual, mean, betas, generator)
            else:
                chosen = torch.randint(self.pool, (self.batch,), generator=generator, device=generator.device)
                args = (self.flow, u[chosen], g[chosen], q[chosen])
                loss = h1_ratio(*args, betas) if self.objective == "h1" else kl(*args)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self.flow.parameters(), LONGEST_GRADIENT)
            if not bool(torch.isfinite(loss)) or not bool(torch.isfinite(norm)):
                self.flow.load_state_dict(before)
                raise NumericsError(
                    "The flow diverged; it is back where it was before this update.",
                    found=f"loss {float(loss.detach()):.3g}, gradient {float(norm):.3g}",
                    remedy="Lower the flow's learning rate or raise beta.",
                )
            self.optimizer.step()
        self.law = FlowLaw(self.flow, self.box, dtype=self.dtype, quasi_random=self.quasi_random)

    def state(self) -> State:
        """Return the flow and what its optimizer has gathered."""
        weights = dict(self.flow.state_dict())
        return {"flow": weights, "adam": adam_state(self.optimizer), "prepared": self.prepared}

    def restore(self, state: State) -> None:
        """Go back to a state."""
        self.prepared = state["prepared"]
        if self.prepared:
            self.flow.to(next(iter(state["flow"].values())).device)
            self.flow.load_state_dict(state["flow"])
            restore_adam(self.optimizer, state["adam"])
            self.law = FlowLaw(self.flow, self.box, dtype=self.dtype, quasi_random=self.quasi_random)

    def _score_loss(
        self,
        squared_residual: SquaredResidual,
        mean: float,
        betas: tuple[float, ...],
        generator: torch.Generator,
    ) -> torch.Tensor:
        x = FlowLaw(self.flow, self.box, dtype=self.dtype).sample(self.batch, generator=generator)
        g = evaluate(squared_residual, x).to(self.dtype) / mean
        u = self.box.to_unit(x).clamp(0, 1)
        with torch.no_grad():
            q = torch.exp(self.flow.log_density(u))
        return h1_score(self.flow, u, g, q, betas)
