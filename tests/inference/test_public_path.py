"""The public path: the same iterates on the compiled kernels and in plain torch."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.parameters import Scalars
from gliodil.inference.public_path import fit_public
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.pde import fused
from gliodil.pde.odil.problem import Minimum, Recorder


def test_compiled_kernels_take_the_same_way(
    case: Case, tiny: FitConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny, optimizer="adam-multigrid", max_evaluations=30)
    runs: list[tuple[torch.Tensor, Scalars, Minimum, list[float]]] = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "applies", lambda *_: False)
        record = Recorder()
        runs.append((*fit_public(ReferenceLoss(case, config), record), [row[2] for row in record.rows]))
    (u, p, found, curve), (u_plain, p_plain, found_plain, curve_plain) = runs
    assert curve == pytest.approx(curve_plain, rel=1e-11)
    assert len(curve) == 31
    assert curve[-1] < 0.9 * curve[0]
    torch.testing.assert_close(u, u_plain, rtol=0, atol=1e-11)
    for f in fields(Scalars):
        torch.testing.assert_close(getattr(p, f.name), getattr(p_plain, f.name), rtol=1e-11, atol=0)
    assert list(found.terms) == list(found_plain.terms)
    assert found.terms == pytest.approx(found_plain.terms, rel=1e-9)
