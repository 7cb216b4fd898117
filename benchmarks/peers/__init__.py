"""Other libraries on the problems of `gliodil.sampling`, each with its own network, points and optimizers.

`benchmarks/sampling.py` runs them. They are never needed by gliodil; what is not installed is not run:

    pip install deepxde        1.15, LGPL-2.1
    pip install pina-mathlab   0.3, MIT
    pip install scimba         1.4, MIT

All have the same residual, conditions, hidden layers and number of points, three per parameter of gliodil's network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from gliodil.sampling.mlp import MLP
from gliodil.sampling.problems.problem import Problem


@dataclass(frozen=True)
class Task:
    """What a peer is asked for.

    Attributes
    ----------
    problem
        What is solved; its solution has to be known.
    hidden
        Widths of the hidden layers.
    budget_s
        CPU seconds of this process, evaluation of the solution not counted.
    seed
        Seed of everything random.
    """

    problem: Problem
    hidden: tuple[int, ...]
    budget_s: float
    seed: int

    @property
    def points(self) -> int:
        """Interior points, as many as gliodil takes."""
        return 3 * MLP(self.problem.box, self.hidden).size


@dataclass(frozen=True)
class Peer:
    """A method of another library.

    Attributes
    ----------
    module
        The module here that runs it.
    needs, package
        What it imports, and the package that brings it.
    optimizer
        Which of the library's optimizers.
    """

    module: str
    needs: str
    package: str
    optimizer: str

    @property
    def missing(self) -> str:
        """Why it cannot run; empty if it can."""
        if find_spec(self.needs) is None:
            return f"{self.needs} is not installed (pip install {self.package})"
        return ""

    def run(self, task: Task) -> dict[str, Any]:
        """Return status, message, parameters and a history of [CPU s, relative L2, MSE, nan]."""
        with _own_defaults():
            solve: Callable[[Task, str], dict[str, Any]] = import_module(f"peers.{self.module}").solve
            torch.manual_seed(task.seed)
            return solve(task, self.optimizer)


PEERS = {
    "deepxde-adam": Peer("with_deepxde", "deepxde", "deepxde", "adam"),
    "deepxde-lbfgs": Peer("with_deepxde", "deepxde", "deepxde", "lbfgs"),
    "pina-lbfgs": Peer("with_pina", "pina", "pina-mathlab", "lbfgs"),
    "scimba-eng": Peer("with_scimba", "scimba_torch", "scimba", "eng"),
    "scimba-ssbroyden": Peer("with_scimba", "scimba_torch", "scimba", "ssbroyden"),
}


@contextmanager
def _own_defaults() -> Iterator[None]:
    """Undo what libraries set for the whole process: torch's default type and device."""
    dtype = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
