"""What flows are trained for, written in the unit cube with g = r²/mean r² and P the flow's density there.

    H¹ (adversary):    maximize  ∫ g P du − Σ β_i ∫ (∂_i P)² du
    KL (published deep adaptive sampling):    minimize  −∫ g log P du

Integrals are means over points u_k ~ q:

* ratio:  ∫ g P du ≈ mean g P/q with a frozen q, a mixture of the flow's law until now and the uniform one;
* score:  ∇ ∫ g P du = E_P[(g − c) ∇ log P] with fresh points of P and a baseline c, which lowers the variance and
  leaves the expectation, because E_P[∇ log P] = 0. Here c = E_P[g], the mean over the same points.

Penalties and KL use the ratio form.
"""

from __future__ import annotations

import torch

from gliodil.sampling.flows.base import Flow


def slopes(
    flow: Flow, u: torch.Tensor, betas: tuple[float, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return log P, P and Σ β_i (∂_i P)², each (N,), differentiable in the flow's weights."""
    u = u.detach().requires_grad_(True)
    log_p = flow.log_density(u)
    p = torch.exp(log_p)
    (gradient,) = torch.autograd.grad(p.sum(), u, create_graph=True)
    return log_p, p, (gradient.square() * gradient.new_tensor(betas)).sum(-1)


def h1_ratio(
    flow: Flow, u: torch.Tensor, g: torch.Tensor, q: torch.Tensor, betas: tuple[float, ...]
) -> torch.Tensor:
    """Return the loss −(∫gP − penalty) from points u ~ q with values g(u) and q(u)."""
    _, p, penalty = slopes(flow, u, betas)
    return ((penalty - g * p) / q).mean()


def h1_score(
    flow: Flow, u: torch.Tensor, g: torch.Tensor, q: torch.Tensor, betas: tuple[float, ...]
) -> torch.Tensor:
    """Return a loss whose gradient is that of −(∫gP − penalty), from fresh points u ~ P; q is the flow's density."""
    log_p, _, penalty = slopes(flow, u, betas)
    return (penalty / q - (g - g.mean()) * log_p).mean()


def kl(flow: Flow, u: torch.Tensor, g: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Return −∫ g log P from points u ~ q, up to the self-normalization of g/q."""
    w = g / q
    return -(w / w.mean().clamp_min(1e-300) * flow.log_density(u)).mean()
