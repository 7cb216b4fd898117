"""Embedded Runge-Kutta pairs with dense output, all written so that the last stage is the next step's first.

    g_i = z + h Σ_{l<i} a_il k_l,   k_i = f(t + c_i h, g_i),   z⁺ = g_s = z + h Σ b_i k_i,   e = h Σ e_i k_i
    z(t + q h) = z + h Σ B_i(q) k_i,   B_i(q) = r_i1 q + r_i2 q² + …

The last row of a is b in every pair here (first same as last): k_s = f(t + h, z⁺) costs nothing where the step is
accepted. Heun-Euler has a third stage for the same reason.

Sources: Tsitouras, Comput. Math. Appl. 62 (2011) 770-775 (Tsit5); Dormand and Prince, J. Comput. Appl. Math. 6 (1980)
19-26, dense output of Hairer, Nørsett and Wanner, Solving ODEs I, II.6 (DP5); Bogacki and Shampine, Appl. Math. Lett.
2 (1989) 321-325 (BS3). Tests measure every order.
"""

from __future__ import annotations

from dataclasses import dataclass

from gliodil.errors import InputError

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Tableau:
    """One embedded pair.

    Attributes
    ----------
    name, title
        What `solve` calls it; what people call it.
    order
        Order p of the solution that is carried on; the embedded one has p − 1.
    dense_order
        Order of the dense output.
    c, a, e
        Nodes, stage weights (row i has i entries; the last row is b) and error weights b − b̂.
    dense
        Row i: the coefficients of q, q², … in B_i(q).
    stability
        Length of the real stability interval: stable while h·|λ| is below it.
    same_abscissa
        Whether the last two stages are at the same time, which the stiffness estimate needs.
    beta1, beta2
        Exponents of the PI controller.
    """

    name: str
    title: str
    order: int
    dense_order: int
    c: tuple[float, ...]
    a: Rows
    e: tuple[float, ...]
    dense: Rows
    stability: float
    same_abscissa: bool
    beta1: float
    beta2: float

    @property
    def stages(self) -> int:
        """Number of stages, the one shared with the next step included."""
        return len(self.c)

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of the solution that is carried on."""
        return (*self.a[-1], 0.0)

    @property
    def round_off(self) -> float:
        """Σ|e_i|: how much of a stage's round-off arrives in the error estimate, per step length."""
        return sum(map(abs, self.e))

    def dense_weights(self, q: float) -> list[float]:
        """Return B_i(q) for q in [0, 1]."""
        weights = []
        for row in self.dense:
            value = 0.0
            for coefficient in reversed(row):
                value = (value + coefficient) * q
            weights.append(value)
        return weights


TSIT5 = Tableau(
    name="tsit5",
    title="Tsitouras 5(4)",
    order=5,
    dense_order=4,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    ),
    e=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        1 / 66,
    ),
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.1317, -0.2234, 0.1017),
        (0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
    stability=3.5068,
    same_abscissa=True,
    beta1=0.14,
    beta2=0.08,
)


def _dp5_dense(b: tuple[float, ...]) -> Rows:
    """Expand y = z + q [Δ + (1−q)(h k₁ − Δ + q {2Δ − h k₁ − h k₇ + (1−q) h Σ d_i k_i})], Δ = h Σ b_i k_i."""
    d = (
        -12715105075 / 11282082432,
        0.0,
        87487479700 / 32700410799,
        -10690763975 / 1880347072,
        701980252875 / 199316789632,
        -1453857185 / 822651844,
        69997945 / 29380423,
    )
    rows = []
    for i, (b_i, d_i) in enumerate(zip(b, d, strict=True)):
        first, last = float(i == 0), float(i == 6)
        slope, bend = first - b_i, 2 * b_i - first - last
        rows.append((b_i + slope, bend + d_i - slope, -bend - 2 * d_i, d_i))
    return tuple(rows)


_DP5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)

DP5 = Tableau(
    name="dp5",
    title="Dormand-Prince 5(4)",
    order=5,
    dense_order=4,
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        _DP5_B,
    ),
    e=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    dense=_dp5_dense((*_DP5_B, 0.0)),
    stability=3.3066,
    same_abscissa=True,
    beta1=0.17,
    beta2=0.04,
)

BS3 = Tableau(
    name="bs3",
    title="Bogacki-Shampine 3(2)",
    order=3,
    dense_order=3,
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    e=(-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    dense=((1.0, -4 / 3, 5 / 9), (0.0, 1.0, -2 / 3), (0.0, 4 / 3, -8 / 9), (0.0, -1.0, 1.0)),
    stability=2.5127,
    same_abscissa=False,
    beta1=7 / 30,
    beta2=2 / 15,
)

HEUN_EULER = Tableau(
    name="heun",
    title="Heun-Euler 2(1)",
    order=2,
    dense_order=2,
    c=(0.0, 1.0, 1.0),
    a=((), (1.0,), (1 / 2, 1 / 2)),
    e=(-1 / 2, 1 / 2, 0.0),
    dense=((1.0, -1 / 2), (0.0, 1 / 2), (0.0, 0.0)),
    stability=2.0,
    same_abscissa=True,
    beta1=7 / 20,
    beta2=1 / 5,
)

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, DP5, BS3, HEUN_EULER)}


def get_tableau(method: str) -> Tableau:
    """Return the pair of that name."""
    if method not in TABLEAUS:
        raise InputError(
            "There is no such method for ordinary differential equations.",
            expected=", ".join(TABLEAUS),
            found=method,
        )
    return TABLEAUS[method]
