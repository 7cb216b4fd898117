"""The coefficients meet every condition for strong order 1.5, and the check would notice if they did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gliodil.pde.sde import SOSRA2, SOSRI, SOSRI2, SRA1, AdditiveTableau, DiagonalTableau
from gliodil.pde.sde.tableaus import order_defects, square

ALL = (SOSRI, SOSRI2, SRA1, SOSRA2)


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_every_order_condition_holds(tableau: DiagonalTableau | AdditiveTableau) -> None:
    defects = order_defects(tableau)
    assert len(defects) == (25 if isinstance(tableau, DiagonalTableau) else 8)
    assert max(map(abs, defects.values())) < 1e-12


@pytest.mark.parametrize("tableau", ALL, ids=lambda t: t.name)
def test_drift_times_are_row_sums(tableau: DiagonalTableau | AdditiveTableau) -> None:
    np.testing.assert_allclose(square(tableau.A0).sum(1), tableau.c0, atol=1e-12)
    if isinstance(tableau, DiagonalTableau):
        np.testing.assert_allclose(square(tableau.A1).sum(1), tableau.c1, atol=1e-12)


def test_a_wrong_coefficient_is_noticed() -> None:
    wrong = replace(SOSRI, beta4=(SOSRI.beta4[0] + 1e-6, *SOSRI.beta4[1:]))
    assert max(map(abs, order_defects(wrong).values())) > 1e-7


@pytest.mark.parametrize("tableau", [SOSRI2, SOSRA2], ids=lambda t: t.name)
def test_the_stages_compared_for_stiffness_share_their_time(
    tableau: DiagonalTableau | AdditiveTableau,
) -> None:
    assert tableau.equal_stages is not None
    i, j = tableau.equal_stages
    assert tableau.c0[i] == tableau.c0[j]
