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

from gliodil.pde.odil.problem import Minimum, Objective, Point, Recorder, Status, add_scaled, dot

ARMIJO = 1e-4
CURVATURE = 1e-10
_CHUNK = 1 << 18


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


def lbfgs(objective: Objective, x0: Point, options: LBFGSOptions, record: Recorder) -> Minimum:
    """Minimize; never raises on numerical trouble, the status says what happened."""
    count_before = record.evaluations
    objective = record.count(objective)
    x = [t.detach().clone() for t in x0]
    value, g, terms = objective(x)
    if not math.isfinite(value):
        return Minimum(x, value, terms, "diverged", "The loss is not finite at the start.", 1)
    record(value)
    pairs = _Pairs(x, options.memory)
    quiet = 0
    status: Status = "iteration_limit"
    message = f"Stopped at the limit of {options.max_evaluations} gradients; the loss was still falling."

    def spent() -> int:
        return record.evaluations - count_before

    while spent() < options.max_evaluations:
        d = pairs.direction(g, options.curvature)
        slope = dot(g, d)
        if slope >= 0:
            pairs.clear()
            d = pairs.direction(g, options.curvature)
            slope = dot(g, d)
        quiet = quiet + 1 if -0.5 * slope <= options.tolerance * max(abs(value), 1e-300) else 0
        if quiet >= 3 or slope == 0:
            status = "converged"
            message = (
                f"Converged: the loss would fall by less than {options.tolerance:.2g} of its value per step."
            )
            break

        step = min(1.0, options.max_step / max(float(d[0].norm()), 1e-300))
        accepted = None
        while spent() < options.max_evaluations:
            trial = add_scaled(x, d, step)
            trial_value, trial_g, trial_terms = objective(trial)
            if math.isfinite(trial_value) and trial_value <= value + ARMIJO * step * slope:
                accepted = trial, trial_value, trial_g, trial_terms
                break
            step = _shorter(step, slope, value, trial_value)
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

        trial, trial_value, trial_g, trial_terms = accepted
        pairs.append_difference(trial, x, trial_g, g)
        x, value, g, terms = trial, trial_value, trial_g, trial_terms
        record(value)
    return Minimum(x, value, terms, status, message, spent())


class _Pairs:
    """The last m pairs, stored as rows, with the inner products the recursion needs."""

    def __init__(self, like: Point, memory: int) -> None:
        self.memory, self.count, self.next = memory, 0, 0
        # rows 0 … m−1 hold s, rows m … 2m−1 hold y; slots are reused in a ring
        self.rows = [torch.zeros(2 * memory, t.numel(), dtype=t.dtype, device=t.device) for t in like]
        self.gram = torch.zeros(2 * memory, 2 * memory, dtype=torch.float64)

    def __len__(self) -> int:
        return self.count

    def clear(self) -> None:
        self.count, self.next = 0, 0

    def append_difference(self, x_new: Point, x: Point, g_new: Point, g: Point) -> None:
        """Store s = x_new − x and y = g_new − g, unless the pair has no positive curvature."""
        slot, m = self.next, self.memory
        for rows, a, b, c, d in zip(self.rows, x_new, x, g_new, g, strict=True):
            torch.sub(a.reshape(-1), b.reshape(-1), out=rows[slot])
            torch.sub(c.reshape(-1), d.reshape(-1), out=rows[m + slot])
        products = self._products([[rows[k] for rows in self.rows] for k in (slot, m + slot)])
        self.gram[:, slot] = self.gram[slot, :] = products[:, 0]
        self.gram[:, m + slot] = self.gram[m + slot, :] = products[:, 1]
        ss, yy, sy = self.gram[slot, slot], self.gram[m + slot, m + slot], self.gram[slot, m + slot]
        if not float(sy) > CURVATURE * math.sqrt(float(ss) * float(yy)):
            self.count = min(self.count, m - 1)  # the overwritten slot held the oldest pair, if any
            return
        self.next, self.count = (slot + 1) % m, min(m, self.count + 1)

    def direction(self, g: Point, curvature: float) -> Point:
        """Return −H g by the two-loop recursion on coefficients of the stored rows and g."""
        if self.count == 0:
            return [t * (-1 / curvature) for t in g]
        m, gram = self.memory, self.gram
        with_g = self._products([g])[:, 0]
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
        return [
            (combination.to(rows.dtype).to(rows.device) @ rows).reshape(t.shape).add_(t, alpha=of_g)
            for rows, t in zip(self.rows, g, strict=True)
        ]

    def _products(self, vectors: list[Point]) -> torch.Tensor:
        """Return ⟨row, vector⟩ for every row and vector, chunks summed in float64; shape (2m, len(vectors))."""
        total = torch.zeros(2 * self.memory, len(vectors), dtype=torch.float64)
        for k, rows in enumerate(self.rows):
            flat = [v[k].reshape(-1) for v in vectors]
            for a in range(0, rows.shape[1], _CHUNK):
                parts = [torch.mv(rows[:, a : a + _CHUNK], v[a : a + _CHUNK]) for v in flat]
                total += torch.stack(parts, dim=1).double().cpu()
        return total


def _shorter(step: float, slope: float, value: float, trial_value: float) -> float:
    """Minimizer of the parabola through value, slope and trial value, kept within [0.1, 0.5] of the step."""
    if not math.isfinite(trial_value):
        return 0.25 * step
    curvature = 2 * (trial_value - value - slope * step)
    best = -slope * step * step / curvature if curvature > 0 else 0.5 * step
    return min(max(best, 0.1 * step), 0.5 * step)
