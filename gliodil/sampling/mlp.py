"""A fully connected network that carries Taylor streams forward and their adjoints backward, both written out.

A layer is z = W h + b and a = σ(z); the streams pass the first linearly and the second as in `activations`. The
derivative of sample n with respect to W is Σ_s z̄_s ⊗ h_s, z̄ being the adjoint of z: the Jacobian of a second-order
residual costs one batched product of inner size 1 + d + k per layer. Summed over the samples it is the gradient.

Parameters are one flat vector θ; the weights of the last layer, in which the network is linear, come last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gliodil.errors import InputError
from gliodil.sampling.activations import ACTIVATIONS, Sigma, activate, activate_adjoint
from gliodil.sampling.domain import Box
from gliodil.sampling.network import Tape


@dataclass(frozen=True)
class MLP:
    """A fully connected network on the box scaled to [-1, 1]^d.

    Attributes
    ----------
    box
        Domain of the input.
    hidden
        Widths of the hidden layers.
    first_scale
        Standard deviation of the first layer's weights: about 1/(half the width of the finest feature, as a
        fraction of the box's half extent). Its hyperplanes start uniform over the box.
    activation
        ``tanh``, or ``softplus``, which is log(1 + eᶻ). Layers of tanh saturate and switch on and off again far from
        where points lie; softplus only grows. Prefer it in many dimensions.
    residual
        Add each hidden layer's input to its output where widths agree.
    fourier
        Number of fixed random frequencies whose sines and cosines feed the first layer; 0 means none.
    fourier_scale
        Standard deviation of those frequencies, in rad per half extent.
    fourier_seed
        Seed of the frequencies, which belong to the network and are not trained.
    """

    box: Box
    hidden: tuple[int, ...] = (20, 20)
    first_scale: float = 2.0
    activation: str = "tanh"
    residual: bool = False
    fourier: int = 0
    fourier_scale: float = math.pi
    fourier_seed: int = 0

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise InputError("A network needs hidden layers of at least one neuron.", found=f"{self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise InputError(
                "There is no such activation.", expected=", ".join(ACTIVATIONS), found=self.activation
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the layers, from what enters the first trained one to the output."""
        entry = 2 * self.fourier if self.fourier else self.box.dimension
        return (entry, *self.hidden, 1)

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum((i + 1) * o for i, o in zip(self.widths[:-1], self.widths[1:], strict=True))

    @property
    def linear(self) -> slice:
        """Weights and bias of the last layer."""
        return slice(self.size - self.hidden[-1] - 1, self.size)

    def initial(
        self,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        through: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw the first layer at `first_scale`, the others by Glorot's rule: (P,).

        Hyperplanes of the first layer pass through points drawn from `through`, or uniformly.
        """

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype, device=generator.device)

        parts = []
        for index, (i, o) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            if index == 0 and not self.fourier:
                weight = self.first_scale * normal(o, i) / math.sqrt(i)
                anchors = torch.rand(o, i, generator=generator, dtype=dtype, device=generator.device)
                if through is not None:
                    picked = torch.randint(len(through), (o,), generator=generator, device=generator.device)
                    anchors = self.box.to_unit(through.to(dtype))[picked]
                bias = -(weight * (2 * anchors - 1)).sum(1)
            else:
                weight, bias = normal(o, i) * math.sqrt(2 / (i + o)), normal(o) * 0.0
            parts += [weight.reshape(-1), bias]
        return torch.cat(parts)

    def forward(self, theta: torch.Tensor, x: torch.Tensor, coefficients: torch.Tensor) -> Tape:
        """Evaluate all streams at x (N, d)."""
        h = self._enter(x, coefficients)
        layers = self._split(theta)
        kept: list[tuple[torch.Tensor, torch.Tensor, Sigma | None]] = []
        for index, (weight, bias) in enumerate(layers):
            z = h @ weight.T
            z[0] += bias
            if index == len(layers) - 1:
                kept.append((h, z, None))
                return Tape(z[..., 0], (kept, coefficients))
            sigma = ACTIVATIONS[self.activation](z[0])
            a = activate(z, coefficients, *sigma)
            kept.append((h, z, sigma))
            h = h + a if self._skips(index) else a
        raise AssertionError("a network has a last layer")

    def value(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Evaluate the network alone at x (N, d): (N,)."""
        lower, upper = self.box.bounds(x)
        h = 2 * (x - lower) / (upper - lower) - 1
        if self.fourier:
            z = h @ self._frequencies(x).T
            h = torch.cat([z.sin(), z.cos()], -1)
        *layers, (last, bias) = self._split(theta)
        for index, (weight, shift) in enumerate(layers):
            a = ACTIVATIONS[self.activation](h @ weight.T + shift)[0]
            h = h + a if self._skips(index) else a
        return (h @ last.T + bias)[:, 0]

    def jacobian(
        self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor, *, linear_only: bool = False
    ) -> torch.Tensor:
        """Return per-sample derivatives: (N, P)."""
        rows = adjoint.shape[1]
        if linear_only:
            features = torch.einsum("sn,snw->nw", adjoint, tape.kept[0][-1][0])
            return torch.cat([features, adjoint[0][:, None]], 1)
        out = adjoint.new_empty(rows, self.size)
        for where, weight_shape, bar, h in self._backward(theta, tape, adjoint):
            o, i = weight_shape
            block = torch.einsum("sno,sni->noi", bar, h)
            out[:, where : where + o * i] = block.reshape(rows, o * i)
            out[:, where + o * i : where + o * (i + 1)] = bar[0]
        return out

    def gradient(self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor) -> torch.Tensor:
        """Return the summed derivatives: (P,)."""
        out = adjoint.new_empty(self.size)
        for where, (o, i), bar, h in self._backward(theta, tape, adjoint):
            out[where : where + o * i] = (bar.reshape(-1, o).T @ h.reshape(-1, i)).reshape(-1)
            out[where + o * i : where + o * (i + 1)] = bar[0].sum(0)
        return out

    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of weights and biases in the order of θ (for optimizers that work on matrices)."""
        shapes: list[tuple[int, ...]] = []
        for i, o in zip(self.widths[:-1], self.widths[1:], strict=True):
            shapes += [(o, i), (o,)]
        return shapes

    def _backward(
        self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor
    ) -> list[tuple[int, tuple[int, int], torch.Tensor, torch.Tensor]]:
        """Return, for each layer, its offset in θ, its shape, the adjoint of z and the input h."""
        kept, coefficients = tape.kept
        layers = self._split(theta)
        offsets = self._offsets()
        found = []
        bar = adjoint[..., None]
        for index in range(len(layers) - 1, -1, -1):
            weight, _ = layers[index]
            h, z, sigma = kept[index]
            passed = None
            if sigma is not None:
                passed = bar if self._skips(index) else None
                bar = activate_adjoint(bar, z, coefficients, *sigma[1:])
            found.append((offsets[index], (weight.shape[0], weight.shape[1]), bar, h))
            if index:
                bar = bar @ weight if passed is None else bar @ weight + passed
        return found

    def _enter(self, x: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        """Return the streams of the first trained layer's input: (S, N, width)."""
        count, d = x.shape
        lower, upper = self.box.bounds(x)
        slope = 2 / (upper - lower)
        h = x.new_zeros(1 + d + coefficients.shape[0], count, d)
        h[0] = (x - lower) * slope - 1
        for axis in range(d):
            h[1 + axis, :, axis] = slope[axis]
        if not self.fourier:
            return h
        z = h @ self._frequencies(x).T
        s, c = z[0].sin(), z[0].cos()
        return torch.cat(
            [activate(z, coefficients, s, c, -s, -c), activate(z, coefficients, c, -s, -c, s)], dim=-1
        )

    def _frequencies(self, like: torch.Tensor) -> torch.Tensor:
        """The fixed frequencies: (fourier, d)."""
        seeded = torch.Generator(device=like.device).manual_seed(self.fourier_seed)
        shape = (self.fourier, self.box.dimension)
        return self.fourier_scale * torch.randn(
            *shape, generator=seeded, dtype=like.dtype, device=like.device
        )

    def _skips(self, index: int) -> bool:
        return self.residual and self.widths[index] == self.widths[index + 1]

    def _offsets(self) -> list[int]:
        offsets, where = [], 0
        for i, o in zip(self.widths[:-1], self.widths[1:], strict=True):
            offsets.append(where)
            where += (i + 1) * o
        return offsets

    def _split(self, theta: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        layers = []
        for where, i, o in zip(self._offsets(), self.widths[:-1], self.widths[1:], strict=True):
            weight = theta[where : where + o * i].reshape(o, i)
            layers.append((weight, theta[where + o * i : where + o * (i + 1)]))
        return layers
