"""The defensive mixture: adapted points that never forget the rest of the domain, nor what was hard before.

    q(x) = a/|Ω| + b p_now(x) + c mean_h p_h(x),      a + b + c = 1,   a ≥ 0.2

With a > 0 the importance weight of a point is at most 1/a times its uniform value, whatever the adapted law does.
"""

from __future__ import annotations

import torch

from gliodil.errors import InputError
from gliodil.pde.resume import State, resumable
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import Law, MixtureLaw, UniformLaw
from gliodil.sampling.residual_map import SquaredResidual
from gliodil.sampling.samplers.base import LawSampler, Redrawing

LEAST_UNIFORM = 0.2


class DefensiveSampler(Redrawing):
    """Another sampler's law, mixed with the uniform one and with its own earlier ones.

    Parameters
    ----------
    inner
        A sampler that exposes its law.
    box, dtype
        The domain, and the type of the points.
    uniform, history
        The shares a ≥ 0.2 and c; b is the rest.
    memory
        How many earlier laws p_h are kept.
    """

    def __init__(
        self,
        inner: LawSampler,
        box: Box,
        *,
        dtype: torch.dtype,
        uniform: float = LEAST_UNIFORM,
        history: float = 0.0,
        memory: int = 5,
    ) -> None:
        if not LEAST_UNIFORM <= uniform <= 1 or history < 0 or uniform + history > 1 or memory < 1:
            raise InputError(
                "These shares do not make a defensive mixture.",
                expected=f"uniform ≥ {LEAST_UNIFORM}, history ≥ 0, together at most 1; memory ≥ 1",
                found=f"uniform {uniform}, history {history}, memory {memory}",
            )
        self.inner, self.memory, self.history = inner, memory, history
        self.uniform_share = uniform
        self.uniform = UniformLaw(box, dtype)
        self.earlier: list[Law] = []
        super().__init__(self._mixed())

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Adapt the inner sampler; its law until now joins the history."""
        before = self.inner.law
        self.inner.update(squared_residual, generator=generator)
        if self.history > 0:
            self.earlier = [*self.earlier, before][-self.memory :]
        self.law = self._mixed()

    def state(self) -> State:
        """Return that of the inner sampler.

        Raises
        ------
        InputError
            If that has none, or earlier laws are part of the mixture.
        """
        if self.history > 0:
            raise InputError("A mixture with earlier laws cannot be continued after an interruption.")
        return resumable(self.inner).state()

    def restore(self, state: State) -> None:
        """Go back to a state of the inner sampler."""
        resumable(self.inner).restore(state)
        self.law = self._mixed()

    def _mixed(self) -> MixtureLaw:
        each = self.history / len(self.earlier) if self.earlier else 0.0
        past = each * len(self.earlier)
        return MixtureLaw(
            (self.uniform, self.inner.law, *self.earlier),
            (self.uniform_share, 1 - self.uniform_share - past, *(each for _ in self.earlier)),
        )
