"""Scimba on a problem: float64, fresh uniform points in every step, its optimizers ``eng`` and ``ssbroyden``.

``eng`` is the energy natural gradient with a line search, the default of its solver `NaturalGradientPinnsElliptic`:

    θ ← θ − η (JᵀJ/N + λ)⁻¹ ∇F,     λ = 10⁻³ and η by Armijo's rule,

J being the residual's Jacobian. Its own λ = 10⁻⁶ is as good on Poisson, ten times worse on the ring layer, and ends in a
singular matrix on one peak. Scimba needs the residual twice: of a batch, and at one point for J. What is recorded is
the network that it would return at that time, the one with the smallest training loss so far.
"""

from __future__ import annotations

import contextlib
import copy
from importlib.metadata import version
from typing import Any

import scimba_torch  # noqa: F401 (it sets torch's defaults)
import torch
from scimba_torch.approximation_space.nn_space import NNxSpace
from scimba_torch.domain.meshless_domain.domain_nd import HypercubeND
from scimba_torch.integration.monte_carlo import DomainSampler, TensorizedSampler
from scimba_torch.integration.monte_carlo_parameters import UniformParametricSampler
from scimba_torch.neural_nets.coordinates_based_nets.mlp import GenericMLP
from scimba_torch.numerical_solvers.elliptic_pde.pinns import NaturalGradientPinnsElliptic, PinnsElliptic
from scimba_torch.physical_models.elliptic_pde.abstract_elliptic_pde import StrongFormEllipticPDE
from scimba_torch.utils.scimba_tensors import LabelTensor

from gliodil.sampling.problems.problem import Problem
from peers import Task
from peers.statement import boundary, harden, interior, jet_at, jet_of
from peers.watch import TimeIsUpError, Watch

SOLVERS = {
    "eng": (NaturalGradientPinnsElliptic, {"matrix_regularization": 1e-3}),
    "ssbroyden": (PinnsElliptic, {"optimizers": "ssbroyden"}),
}


class Stated(StrongFormEllipticPDE):
    """The problem in Scimba's terms; time is one more coordinate."""

    def __init__(self, space: NNxSpace, problem: Problem) -> None:
        super().__init__(space, residual_size=1, bc_residual_size=1)
        self.problem = problem

    def rhs(self, w: Any, x: Any, mu: Any) -> torch.Tensor:
        return torch.zeros_like(w.w)

    def operator(self, w: Any, x: Any, mu: Any) -> torch.Tensor:
        return interior(self.problem, x.x, jet_of(self.problem, x.x, w.w))

    def bc_rhs(self, w: Any, x: Any, n: Any, mu: Any) -> torch.Tensor:
        return torch.zeros_like(w.w)

    def bc_operator(self, w: Any, x: Any, n: Any, mu: Any) -> torch.Tensor:
        return boundary(self.problem.conditions[0], x.x, jet_of(self.problem, x.x, w.w))

    def functional_operator(self, func: Any, x: Any, mu: Any, theta: Any) -> torch.Tensor:
        u = jet_at(self.problem, x, lambda y: func(y, mu, theta)[0])
        return interior(self.problem, x[None], u)[0]

    def functional_operator_bc(self, func: Any, x: Any, n: Any, mu: Any, theta: Any) -> torch.Tensor:
        u = jet_at(self.problem, x, lambda y: func(y, mu, theta)[0])
        return boundary(self.problem.conditions[0], x[None], u)[0]


def solve(task: Task, optimizer: str) -> dict[str, Any]:
    """Train until the budget is spent."""
    problem = task.problem
    if len(problem.conditions) > 1:
        raise ValueError("Several soft conditions are not stated for Scimba.")
    torch.set_default_dtype(torch.float64)
    # Its import makes every call of torch go through a device mode, which costs time and does nothing on a CPU.
    torch.set_default_device(None)
    domain = HypercubeND(list(zip(problem.box.lower, problem.box.upper, strict=True)), is_main_domain=True)
    space = NNxSpace(
        1,
        0,
        GenericMLP,
        domain,
        TensorizedSampler([DomainSampler(domain), UniformParametricSampler([])]),
        layer_sizes=list(task.hidden),
        activation_type="tanh",
        last_layer_has_bias=True,
        post_processing=lambda raw, x, mu: harden(problem, x.x, raw),
    )

    def hard_at(func: Any, x: torch.Tensor, mu: torch.Tensor, theta: Any) -> torch.Tensor:
        return harden(problem, x[None], func(x, mu, theta)[None])[0]

    def predict(x: torch.Tensor) -> torch.Tensor:
        present = copy.deepcopy(space.state_dict())
        if space.best_approx:
            space.load_from_best_approx()
        with torch.no_grad():
            u = space.evaluate(LabelTensor(x), LabelTensor(x[:, :0])).w[:, 0]
        space.load_state_dict(present)
        return u

    def every_step(data: Any) -> None:
        if watch.tick(task.budget_s):
            raise TimeIsUpError

    base, settings = SOLVERS[optimizer]

    class Solver(base):  # type: ignore[misc,valid-type]
        """Draws the points of a soft condition as the problem does, where Scimba draws on all faces."""

        def sample_all_vars(self, **counts: Any) -> tuple[Any, ...]:
            inner = super().sample_all_vars(**counts)[:2]
            if not problem.conditions:
                return inner
            x = problem.conditions[0].points(200, generator=generator, dtype=torch.float64).requires_grad_()
            return *inner, LabelTensor(x), LabelTensor(torch.zeros_like(x)), LabelTensor(x[:, :0])

    generator = torch.Generator().manual_seed(task.seed)
    solver = Solver(
        Stated(space, problem),
        bc_type="weak" if problem.conditions else "strong",
        bc_weight=problem.conditions[0].weight if problem.conditions else 1.0,
        functional_post_processing=hard_at,
        create_quantities_for_loss=every_step,
        **settings,
    )
    watch = Watch(task, predict)
    with contextlib.suppress(TimeIsUpError):
        solver.solve(epochs=10_000_000, n_collocation=task.points, silent=True)
    return watch.result(version("scimba"), space.ndof)
