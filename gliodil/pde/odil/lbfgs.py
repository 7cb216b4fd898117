"""Limited-memory BFGS on points of mixed precision (Nocedal & Wright, Numerical Optimization, ch. 7).

Step d = −H g with H from the last m pairs (s, y). A step is accepted when it decreases the loss by a fraction
of what its slope promises (Armijo); pairs that would lose positive curvature are skipped. The convergence test is the
decrease the quadratic model still promises, −½ g·d, relative to the loss.

With 10⁷ unknowns the recursion is bound by memory traffic, so it runs on inner products instead of vectors: the
2m stored vectors are read once to multiply them with the newest s, y and g, and once more to combine them into d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gliodil.pde.odil.problem import Landscape, Minimum, Point, Recorder, Status, add_scaled, dot
from gliodil.pde.resume import State

ARMIJO = 1e-4
CURVATURE = 1e-10
_CHUNK = 1 << 16


@dataclass(frozen=True)
class LBFGSOptions:
    """Settings of ``lbfgs``.

    Attributes
    ----------
    tolerance
        Stop when the promised decrease −½ g·d stays below this fraction of the loss for three iterations.
    max_evaluations
        Budget of gradients.
    memory
        Number of pairs kept; each holds two points.
    curvature
        Curvature assumed before any pair is known: the first step is −g/curvature. For a loss whose Hessian is
        about 2I (see ``trajectory``) that is 2.
    max_step
        Longest step allowed in the first tensor of the point (the parameters), Euclidean.
    """

    tolerance: float = 1e-4
    max_evaluations: int = 200
    memory: int = 6
    curvature: float = 2.0
    max_step: float = math.inf


def lbfgs(landscape: Landscape, x0: Point, options: LBFGSOptions, record: Recorder) -> Minimum:
    """Minimize; never raises on numerical trouble, the status says what happened."""
    kept = record.begin(record.stage)
    if kept is not None and "minimum" in kept:
        return Minimum(**kept["minimum"])
    if kept is not None:
        before = record.evaluations - int(kept["spent"])
        x, g, value, terms, quiet = (kept.pop(name) for name in ("x", "g", "value", "terms", "quiet"))
        pairs = _Pairs.of(kept["pairs"], x)
    else:
        before = record.evaluations
        x = [t.detach().clone() for t in x0]
        here = landscape.at(x)
        record.evaluations += 1
        value, terms = here.value, here.terms
        if not math.isfinite(value):
            diverged = "The loss is not finite at the start."
            return record.ended(Minimum(x, value, terms, "diverged", diverged, 1))
        record(value)
        g = here.gradient()
        del here
        pairs = _Pairs(x, options.memory)
        pairs.start(g)
        quiet = 0
    trial = [torch.empty_like(t) for t in x]
    status: Status = "iteration_limit"
    message = f"Stopped at the limit of {options.max_evaluations} gradients; the loss was still falling."

    def spent() -> int:
        return record.evaluations - before

    def state() -> State:
        return {
            "x": x, "g": g, "value": value, "terms": dict(terms), "quiet": quiet, "spent": spent(),
            "pairs": pairs.state(),
        }  # fmt: skip

    while spent() < options.max_evaluations:
        record.keep(state)
        d, slope = pairs.direction(g, options.curvature)
        if slope >= 0:
            pairs.clear()
            d, slope = pairs.direction(g, options.curvature)
        quiet = quiet + 1 if -0.5 * slope <= options.tolerance * max(abs(value), 1e-300) else 0
        if quiet >= 3 or slope == 0:
            status = "converged"
            message = f"The loss would fall by less than {options.tolerance:.2g} of its value per step."
            break

        step = min(1.0, options.max_step / max(float(d[0].norm()), 1e-300))
        accepted = None
        while spent() < options.max_evaluations:
            there = landscape.at(add_scaled(x, d, step, out=trial))
            record.evaluations += 1
            if math.isfinite(there.value) and there.value <= value + ARMIJO * step * slope:
                accepted = there
                break
            step = _shorter(step, slope, value, there.value)
            if step < 1e-10:
                break
        if accepted is None:
            if spent() >= options.max_evaluations:
                break
            if len(pairs):  # the model may be to blame: forget it once before giving up
                pairs.clear()
                continue
            status, message = "stalled", "No step along the gradient decreases the loss any further."
            break

        value, terms = accepted.value, accepted.terms
        g_new = accepted.gradient()
        del there, accepted  # they hold a trajectory
        pairs.append_difference(trial, x, g_new, g)
        x, trial, g = trial, x, g_new
        record(value)
    return record.ended(Minimum(x, value, terms, status, message, spent()))


class _Pairs:
    """The last m pairs, stored as rows, with the inner products the recursion needs."""

    def __init__(self, like: Point, memory: int) -> None:
        self.memory, self.count, self.next = memory, 0, 0
        # rows 0 … m−1 hold s, rows m … 2m−1 hold y; slots are reused in a ring
        self.rows = [torch.empty(2 * memory, t.numel(), dtype=t.dtype, device=t.device) for t in like]
        for rows in self.rows:
            rows.zero_()
        self.gram = torch.zeros(2 * memory, 2 * memory, dtype=torch.float64)
        self.with_g = torch.zeros(2 * memory, dtype=torch.float64)
        self.g_g = 0.0
        self.d = [torch.empty_like(t) for t in like]

    @classmethod
    def of(cls, state: State, like: Point) -> _Pairs:
        """Return the pairs of a kept state, without copying them."""
        pairs = cls.__new__(cls)
        pairs.memory = state["rows"][0].shape[0] // 2
        for name in ("count", "next", "rows", "gram", "with_g", "g_g"):
            setattr(pairs, name, state[name])
        pairs.d = [torch.empty_like(t) for t in like]
        return pairs

    def state(self) -> State:
        """Return what ``of`` takes."""
        return {name: getattr(self, name) for name in ("count", "next", "rows", "gram", "with_g", "g_g")}

    def __len__(self) -> int:
        return self.count

    def start(self, g: Point) -> None:
        """Take the first gradient."""
        self.g_g = dot(g, g)

    def clear(self) -> None:
        self.count, self.next = 0, 0

    def append_difference(self, x_new: Point, x: Point, g_new: Point, g: Point) -> None:
        """Store s = x_new − x and y = g_new − g, unless the pair has no positive curvature; take g_new."""
        slot, m = self.next, self.memory
        for rows, a, b, c, d in zip(self.rows, x_new, x, g_new, g, strict=True):
            torch.sub(a.reshape(-1), b.reshape(-1), out=rows[slot])
            torch.sub(c.reshape(-1), d.reshape(-1), out=rows[m + slot])
        products, self.g_g = self._products(slot, g_new)
        self.gram[:, slot] = self.gram[slot, :] = products[:, 0]
        self.gram[:, m + slot] = self.gram[m + slot, :] = products[:, 1]
        self.with_g = products[:, 2]
        ss, yy, sy = self.gram[slot, slot], self.gram[m + slot, m + slot], self.gram[slot, m + slot]
        if not float(sy) > CURVATURE * math.sqrt(float(ss) * float(yy)):
            self.count = min(self.count, m - 1)  # the overwritten slot held the oldest pair, if any
            return
        self.next, self.count = (slot + 1) % m, min(m, self.count + 1)

    def direction(self, g: Point, curvature: float) -> tuple[Point, float]:
        """Return −H g and its slope, by the two-loop recursion on coefficients of the stored rows and g.

        The direction is overwritten by the next call.
        """
        if self.count == 0:
            for out, t in zip(self.d, g, strict=True):
                torch.mul(t, -1 / curvature, out=out)
            return self.d, -self.g_g / curvature
        m, gram, with_g = self.memory, self.gram, self.with_g
        order = [(self.next - 1 - k) % m for k in range(self.count)]  # newest first
        combination = torch.zeros(2 * m, dtype=torch.float64)
        of_g, alphas = -1.0, {}
        for i in order:
            s_dot_d = float(gram[i] @ combination + of_g * with_g[i])
            alphas[i] = s_dot_d / float(gram[i, m + i])
            combination[m + i] -= alphas[i]
        newest = order[0]
        gamma = float(gram[newest, m + newest] / gram[m + newest, m + newest])
        combination *= gamma
        of_g *= gamma
        for i in reversed(order):
            beta = float(gram[m + i] @ combination + of_g * with_g[m + i]) / float(gram[i, m + i])
            combination[i] += alphas[i] - beta
        for out, rows, t in zip(self.d, self.rows, g, strict=True):
            torch.mul(t, of_g, out=out)
            out.reshape(-1).addmv_(rows.T, combination.to(rows.dtype).to(rows.device))
        return self.d, float(combination @ with_g) + of_g * self.g_g

    def _products(self, slot: int, g: Point) -> tuple[torch.Tensor, float]:
        """Return ⟨row, ·⟩ for every row and the newest s, y and g, shape (2m, 3), and ⟨g, g⟩; sums in float64."""
        total = torch.zeros(2 * self.memory + 1, 3, dtype=torch.float64)
        for rows, t in zip(self.rows, g, strict=True):
            flat = t.reshape(-1)
            for a in range(0, rows.shape[1], _CHUNK):
                part, of_g = rows[:, a : a + _CHUNK], flat[a : a + _CHUNK]
                newest = part[slot], part[self.memory + slot], of_g
                total[:-1] += torch.stack([torch.mv(part, x) for x in newest], dim=1).double().cpu()
                total[-1, 2] += torch.dot(of_g, of_g).double().cpu()
        return total[:-1], float(total[-1, 2])


def _shorter(step: float, slope: float, value: float, trial_value: float) -> float:
    """Minimizer of the parabola through value, slope and trial value, kept within [0.1, 0.5] of the step."""
    if not math.isfinite(trial_value):
        return 0.25 * step
    curvature = 2 * (trial_value - value - slope * step)
    best = -slope * step * step / curvature if curvature > 0 else 0.5 * step
    return min(max(best, 0.1 * step), 0.5 * step)
