"""Coefficients of stochastic Runge-Kutta methods of strong order 1.5, and the conditions they have to meet.

For diagonal noise (Rößler's SRI class), with I₁₀ = ∫₀ʰ W ds and the scaled integrals
χ₁ = I₁₁/√h = (ΔW² − h)/(2√h),  χ₂ = I₁₀/h,  χ₃ = I₁₁₁/h = (ΔW³ − 3hΔW)/(6h):

    Hᵢ = u + h Σ A0ᵢⱼ kⱼ + χ₂ Σ B0ᵢⱼ gⱼ,        kᵢ = f(Hᵢ, t + c0ᵢ h)
    H̃ᵢ = u + h Σ A1ᵢⱼ kⱼ + √h Σ B1ᵢⱼ gⱼ,        gᵢ = g(H̃ᵢ, t + c1ᵢ h)
    u₁ = u + h Σ αᵢ kᵢ + Σ (β1ᵢ ΔW + β2ᵢ χ₁ + β3ᵢ χ₂ + β4ᵢ χ₃) gᵢ

For additive noise, g(t) (SRA class), H̃ is not needed and u₁ = u + h Σ αᵢ kᵢ + Σ (β1ᵢ ΔW + β2ᵢ χ₂) gᵢ.

Sources: A. Rößler, SIAM J. Numer. Anal. 48, 922 (2010) for the classes, SRA1 and the order conditions; C. Rackauckas
and Q. Nie, 18th IEEE HPEC (2018) and the authors' published coefficients for SOSRI, SOSRI2 and SOSRA2, whose
stability regions were enlarged by optimization.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Row: TypeAlias = tuple[float, ...]
Lower: TypeAlias = tuple[Row, ...]
"""Strictly lower triangular: row i holds i numbers."""


@dataclass(frozen=True, kw_only=True)
class DiagonalTableau:
    """One method for diagonal noise; see the module's equations.

    ``equal_stages`` names two drift stages at the same time, whose difference measures stiffness, and
    ``stability`` the extent of the drift's stability region along the negative real axis.
    """

    name: str
    A0: Lower
    A1: Lower
    B0: Lower
    B1: Lower
    alpha: Row
    beta1: Row
    beta2: Row
    beta3: Row
    beta4: Row
    c0: Row
    c1: Row
    equal_stages: tuple[int, int] | None = None
    stability: float | None = None


@dataclass(frozen=True, kw_only=True)
class AdditiveTableau:
    """One method for additive noise; see the module's equations."""

    name: str
    A0: Lower
    B0: Lower
    alpha: Row
    beta1: Row
    beta2: Row
    c0: Row
    c1: Row
    equal_stages: tuple[int, int] | None = None
    stability: float | None = None


SOSRI = DiagonalTableau(
    name="sosri",
    A0=(
        (),
        (-0.04199224421316468,),
        (2.842612915017106, -2.0527723684000727),
        (4.338237071435815, -2.8895936137439793, 2.3017575594644466),
    ),
    A1=(
        (),
        (0.26204282091330466,),
        (0.20903646383505375, -0.1502377115150361),
        (0.05836595312746999, 0.6149440396332373, 0.08535117634046772),
    ),
    B0=(
        (),
        (-0.21641093549612528,),
        (1.5336352863679572, 0.26066223492647056),
        (-1.0536037558179159, 1.7015284721089472, -0.20725685784180017),
    ),
    B1=(
        (),
        (-0.5119011827621657,),
        (2.67767339866713, -4.9395031322250995),
        (0.15580956238299215, 3.2361551006624674, -1.4223118283355949),
    ),
    alpha=(1.140099274172029, -0.6401334255743456, 0.4736296532772559, 0.026404498125060714),
    beta1=(-1.8453464565104432, 2.688764531100726, -0.2523866501071323, 0.40896857551684956),
    beta2=(0.4969658141589478, -0.5771202869753592, -0.12919702470322217, 0.2093514975196336),
    beta3=(2.8453464565104425, -2.688764531100725, 0.2523866501071322, -0.40896857551684945),
    beta4=(0.11522663875443433, -0.57877086147738, 0.2857851028163886, 0.17775911990655704),
    c0=(0.0, -0.04199224421316468, 0.7898405466170333, 3.7504010171562823),
    c1=(0.0, 0.26204282091330466, 0.05879875232001766, 0.758661169101175),
)

SOSRI2 = DiagonalTableau(
    name="sosri2",
    A0=(
        (),
        (0.13804532298278663,),
        (0.5818361298250374, 0.4181638701749618),
        (0.4670018408674211, 0.8046204792187386, -0.27162232008616016),
    ),
    A1=(
        (),
        (0.45605532163856893,),
        (0.7555807846451692, 0.24441921535482677),
        (0.6981181143266059, 0.3453277086024727, -0.04344582292908241),
    ),
    B0=(
        (),
        (0.08852381537667678,),
        (1.0317752458971061, 0.4563552922077882),
        (1.73078280444124, -0.46089678470929774, -0.9637509618944188),
    ),
    B1=(
        (),
        (0.6753186815412179,),
        (-0.07452812525785148, -0.49783736486149366),
        (-0.5591906709928903, 0.022696571806569924, -0.8984927888368557),
    ),
    alpha=(-0.15036858140642623, 0.7545275856696072, 0.686995463807979, -0.2911544680711602),
    beta1=(-0.45315689727309133, 0.8330937231303951, 0.3792843195533544, 0.24077885458934192),
    beta2=(-0.4994383733810986, 0.9181786186154077, -0.25613778661003145, -0.16260245862427797),
    beta3=(1.4531568972730915, -0.8330937231303933, -0.3792843195533583, -0.24077885458934023),
    beta4=(-0.4976090683622265, 0.9148155835648892, -1.4102107084476505, 0.9930041932449877),
    c0=(0.0, 0.13804532298278663, 1.0, 1.0),
    c1=(0.0, 0.45605532163856893, 1.0, 1.0),
    equal_stages=(2, 3),
    stability=10.6,
)

SRA1 = AdditiveTableau(
    name="sra1",
    A0=((), (3 / 4,)),
    B0=((), (3 / 2,)),
    alpha=(1 / 3, 2 / 3),
    beta1=(1.0, 0.0),
    beta2=(-1.0, 1.0),
    c0=(0.0, 3 / 4),
    c1=(1.0, 0.0),
)

SOSRA2 = AdditiveTableau(
    name="sosra2",
    A0=((), (1.0,), (0.9511849235504364, 0.04881507644956362)),
    B0=((), (0.7686101171003622,), (0.43886792994934987, 0.7490415909204886)),
    alpha=(0.4999999999999998, -0.9683897375354181, 1.4683897375354185),
    beta1=(0.0, 0.92438032145683, 0.07561967854316998),
    beta2=(1.0, -0.8169981105823436, -0.18300188941765633),
    c0=(0.0, 1.0, 1.0),
    c1=(0.0, 1.0, 1.0),
    equal_stages=(1, 2),
    stability=5.3,
)


def square(lower: Lower) -> np.ndarray:
    """Return the coefficients as a square matrix, zero on and above the diagonal."""
    matrix = np.zeros((len(lower), len(lower)))
    for i, row in enumerate(lower):
        matrix[i, : len(row)] = row
    return matrix


def order_defects(tableau: DiagonalTableau | AdditiveTableau) -> dict[str, float]:
    """Return how far each condition for strong order 1.5 is from being met.

    The 25 conditions of the SRI class or the 8 of the SRA class (Rößler 2010, Theorems 5.1 and 6.1 in the notation
    above, for one noise per component); all are zero for a method of that order.
    """
    A0, B0 = square(tableau.A0), square(tableau.B0)
    e = np.ones(len(A0))
    alpha, b1, b2 = (np.array(row) for row in (tableau.alpha, tableau.beta1, tableau.beta2))
    common = {
        "αe = 1": alpha @ e - 1,
        "αA0e = 1/2": alpha @ A0 @ e - 1 / 2,
        "αB0e = 1": alpha @ B0 @ e - 1,
        "α(B0e)² = 3/2": alpha @ (B0 @ e) ** 2 - 3 / 2,
        "β1e = 1": b1 @ e - 1,
        "β2e = 0": b2 @ e,
    }
    if isinstance(tableau, AdditiveTableau):
        c1 = np.array(tableau.c1)
        return common | {"β1c1 = 1": b1 @ c1 - 1, "β2c1 = −1": b2 @ c1 + 1}
    A1, B1 = square(tableau.A1), square(tableau.B1)
    b3, b4 = np.array(tableau.beta3), np.array(tableau.beta4)
    conditions = common | {"β3e = 0": b3 @ e, "β4e = 0": b4 @ e}
    # Right-hand sides for β1, β2, β3, β4 in turn.
    for label, vector, wanted in (
        ("B1e", B1 @ e, (0, 1, 0, 0)),
        ("A1e", A1 @ e, (1, 0, -1, 0)),
        ("(B1e)²", (B1 @ e) ** 2, (1, 0, -1, 2)),
        ("B1(B1e)", B1 @ (B1 @ e), (0, 0, 0, 1)),
    ):
        for i, (beta, value) in enumerate(zip((b1, b2, b3, b4), wanted, strict=True), start=1):
            conditions[f"β{i}{label} = {value}"] = beta @ vector - value
    mixed = A1 @ (B0 @ e)
    conditions["½β1A1(B0e) + ⅓β3A1(B0e) = 0"] = b1 @ mixed / 2 + b3 @ mixed / 3
    return conditions
