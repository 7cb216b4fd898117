"""Which tensors a right-hand side depends on besides its state.

An adjoint that runs f again in the backward pass can only return gradients to tensors it was told of. Forgetting one
would be a gradient that is silently zero, so the graph of one evaluation is searched for others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gliodil.errors import InputError
from gliodil.pde.ode.march import first_rate
from gliodil.pde.ode.step import Field

Parameters = tuple[torch.Tensor, ...]


def parameters_of(f: Field, given: Iterable[torch.Tensor] | None) -> Parameters:
    """Return the tensors gradients go to: those given, or those of a module, as far as they need one."""
    if given is None:
        given = f.parameters() if isinstance(f, torch.nn.Module) else ()
    return tuple(p for p in given if p.requires_grad)


def checked_first_rate(f: Field, t: float, z0: torch.Tensor, parameters: Parameters) -> torch.Tensor:
    """Return f(t, z0), off the tape; raise where it depends on a tensor that needs gradients and was not named."""
    if not torch.is_grad_enabled():
        return first_rate(f, t, z0)
    z = z0.detach().requires_grad_()
    k1 = first_rate(f, t, z)
    stray = _stray_leaves(k1, (z, *parameters))
    if stray:
        raise InputError(
            "The right-hand side depends on tensors whose gradient would be lost.",
            expected=f"the {len(parameters)} parameters handed over",
            found="others of shapes " + ", ".join(str(shape) for shape in stray[:4]),
            remedy='parameters=(...) with all of them, an nn.Module as f, or adjoint="tape"',
        )
    return k1.detach()


def _stray_leaves(output: torch.Tensor, parameters: Parameters) -> list[tuple[int, ...]]:
    leaves = {id(p) for p in parameters if p.is_leaf}
    ends = {p.grad_fn for p in parameters if p.grad_fn is not None}
    waiting, seen, stray = [output.grad_fn], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in leaves:
            stray.append(tuple(leaf.shape))
        waiting.extend(parent for parent, _ in node.next_functions)
    return stray
