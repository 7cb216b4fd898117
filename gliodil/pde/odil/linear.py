"""The derivative of a map built of torch operations, as a pair of linear maps that cost one backward pass each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensors = Sequence[torch.Tensor]


class LinearMap:
    """J = ∂outputs/∂inputs at one point: ``pull`` applies Jᵀ, ``push`` applies J.

    J p is the derivative of the linear map q ↦ Jᵀq, applied to p. Inputs that an output does not depend on count as
    zero.
    """

    def __init__(self, outputs: Tensors, inputs: Tensors) -> None:
        self.outputs, self.inputs = list(outputs), list(inputs)
        self._probes = [torch.zeros_like(o, requires_grad=True) for o in self.outputs]
        self._pulled = torch.autograd.grad(
            self.outputs, self.inputs, self._probes, create_graph=True, materialize_grads=True
        )

    def pull(self, q: Tensors) -> list[torch.Tensor]:
        """Return Jᵀ q, one tensor for each input."""
        return list(
            torch.autograd.grad(self.outputs, self.inputs, list(q), retain_graph=True, materialize_grads=True)
        )

    def push(self, p: Tensors) -> list[torch.Tensor]:
        """Return J p, one tensor for each output."""
        pairs = [(a, b) for a, b in zip(self._pulled, p, strict=True) if a.requires_grad]
        return list(
            torch.autograd.grad(
                [a for a, _ in pairs],
                self._probes,
                [b for _, b in pairs],
                retain_graph=True,
                materialize_grads=True,
            )
        )
