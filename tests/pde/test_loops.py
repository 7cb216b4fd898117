"""The three loops over time: compiled as in plain torch, and the adjoint exactly that of the tangent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import pytest
import torch

from gliodil.pde import fused
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil import compiled, loops
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces, spectral_bound

ModelFactory = Callable[..., FisherKolmogorov]
DIFFUSIVITY, RATIO, RHO, DT, SIGMA = 0.6, 12.0, 0.2, 0.3, 5.0
SHAPES = [(4, 3, 2), (5, 1, 3), (1, 4, 3), (3, 5, 1), (1, 1, 6), (6, 1, 1), (1, 1, 1), (3, 3, 3)]
LARGE = (17, 16, 18)  # more cells than a block of the compiled loops


@dataclass(frozen=True)
class Problem:
    """Random levels (a solution of nothing), and random changes of everything they depend on."""

    u: torch.Tensor
    v: torch.Tensor
    faces: Faces
    impassable: torch.Tensor
    steps: Steps
    d_u: torch.Tensor
    d_v: torch.Tensor
    d_faces: Faces
    d_growth: float

    def forward(self, u0: torch.Tensor, v: torch.Tensor | None, faces: Faces, growth: float) -> torch.Tensor:
        u = torch.empty_like(self.u)
        u[0] = u0
        loops.forward(u, v, faces, self.impassable, growth, self.steps)
        return u


def problem(
    model: FisherKolmogorov,
    *,
    count: int = 6,
    seed: int = 0,
    tolerance: float = 1e-12,
    dtype: torch.dtype = torch.float64,
) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    n = model.grid.cells

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    u = (1.4 * torch.rand(count + 1, n, dtype=torch.float64, generator=generator) - 0.2).to(dtype)
    faces = model.coefficients(DIFFUSIVITY, RATIO).to(dtype)
    d_x, d_y, d_z = (normal(c.numel()) for c in faces.values)
    bound = float(spectral_bound(faces, n))
    return Problem(
        u=u,
        v=normal(count, n),
        faces=faces,
        impassable=(~model.passable).to(dtype),
        steps=Steps.resolving(dt=DT, sigma=SIGMA, diffusion_bound=bound, growth=RHO, tolerance=tolerance),
        d_u=normal(n),
        d_v=normal(count, n),
        d_faces=Faces((d_x, d_y, d_z), faces.strides),
        d_growth=-0.7,
    )


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, no compiled loops."""
    monkeypatch.setattr(fused, "applies", lambda *_: False)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the cells among as many threads; where there are fewer, they take turns."""

    @contextmanager
    def threads(_: int) -> Iterator[int]:
        yield request.param

    monkeypatch.setattr(compiled, "threads", threads)


def assert_same(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    size = float(b.abs().max()) if b.numel() else 0.0
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(size, 1e-3))


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("with_error", [True, False], ids=["v", "no v"])
@pytest.mark.parametrize("shape", [*SHAPES, LARGE])
def test_compiled_forward_is_the_plain_one(
    random_model: ModelFactory,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    with_error: bool,
) -> None:
    a = problem(random_model(shape, seed=2, holes=0.3))
    fields, sums = [], []
    for compiled_ in (True, False):
        if not compiled_:
            plain(monkeypatch)
        u = a.u.clone()
        u[1:] = torch.nan  # to be filled
        sums.append(loops.forward(u, a.v if with_error else None, a.faces, a.impassable, RHO, a.steps))
        fields.append(u)
    assert float(fields[1].std()) > 0.01 or shape == (1, 1, 1)
    assert_same(*fields)
    for x, y in zip(*sums, strict=True):
        assert x.dtype == y.dtype == torch.float64
        assert float(x) == pytest.approx(float(y), rel=1e-10, abs=1e-300)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("with_error", [True, False], ids=["v", "no v"])
@pytest.mark.parametrize("scales", [None, (0.7, 0.4), (0.0, 3.0)])
@pytest.mark.parametrize("shape", [*SHAPES, LARGE])
def test_compiled_backward_is_the_plain_one(
    random_model: ModelFactory,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    scales: tuple[float, float] | None,
    with_error: bool,
) -> None:
    a = problem(random_model(shape, seed=2, holes=0.3))
    results = []
    for compiled_ in (True, False):
        if not compiled_:
            plain(monkeypatch)
        adjoint, d_v = a.d_u.clone(), torch.full_like(a.v, torch.nan) if with_error else None
        faces, rho = loops.backward(adjoint, d_v, a.u, a.faces, a.impassable, RHO, a.steps, scales)
        assert rho.dtype == torch.float64
        assert faces.strides == a.faces.strides
        results.append([adjoint, rho, *faces.values, *([] if d_v is None else [d_v])])
    for x, y in zip(*results, strict=True):
        assert_same(x, y)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("with_error", [True, False], ids=["v", "no v"])
@pytest.mark.parametrize("shape", [*SHAPES, LARGE])
def test_compiled_tangent_is_the_plain_one(
    random_model: ModelFactory,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    with_error: bool,
) -> None:
    a = problem(random_model(shape, seed=2, holes=0.3))
    results = []
    for compiled_ in (True, False):
        if not compiled_:
            plain(monkeypatch)
        d_u, d_v = a.d_u.clone(), a.d_v if with_error else None
        loops.tangent(d_u, d_v, a.u, a.faces, RHO, a.d_faces, a.d_growth, a.steps)
        results.append(d_u)
    assert_same(*results)


def all_sweeps(a: Problem) -> list[torch.Tensor]:
    """What the three loops make of a problem."""
    adjoint, d_v, d_u = a.d_u.clone(), torch.full_like(a.v, torch.nan), a.d_u.clone()
    u = torch.full_like(a.u, torch.nan)
    u[0] = a.u[0]
    sums = loops.forward(u, a.v, a.faces, a.impassable, RHO, a.steps)
    faces, rho = loops.backward(adjoint, d_v, a.u, a.faces, a.impassable, RHO, a.steps, (0.7, 0.4))
    loops.tangent(d_u, a.d_v, a.u, a.faces, RHO, a.d_faces, a.d_growth, a.steps)
    return [u, *sums, adjoint, d_v, rho, *faces.values, d_u]


@pytest.mark.parametrize("tolerance", [0.5, 1e-3, 1e-25], ids=["few stages", "one group", "many groups"])
@pytest.mark.parametrize("shape", [(24, 50, 40), (40, 2, 3), (9, 8, 1), (2, 9, 9), (24, 5, 5)])
def test_stages_pass_together_among_any_number_of_threads(
    random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], tolerance: float
) -> None:
    """Parts of many planes, of a few and of less than one; of many blocks and of one; one group of stages or more."""
    a = problem(random_model(shape, seed=2, holes=0.3), count=3, tolerance=tolerance)
    results = []
    for parts in (1, 2, 3, 7):
        monkeypatch.setattr(compiled, "threads", lambda _, parts=parts: nullcontext(parts))
        results.append(all_sweeps(a))
    plain(monkeypatch)
    expected = all_sweeps(a)
    for result in results:
        for x, y in zip(result, expected, strict=True):
            assert_same(x, y, 1e-12)


@pytest.mark.usefixtures("parts")
def test_steps_without_relaxation(random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single weight, forward steps stay where they begin; linear ones are a multiple of what they solve for."""
    a = problem(random_model((4, 3, 2), seed=2))
    a = replace(a, steps=replace(a.steps, weights=a.steps.weights[:1]))
    found = all_sweeps(a)
    plain(monkeypatch)
    for x, y in zip(found, all_sweeps(a), strict=True):
        assert_same(x, y)


@pytest.mark.usefixtures("parts")
def test_without_steps_the_last_level_is_the_first(
    random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = problem(random_model((4, 3, 2), seed=2, holes=0.3), count=0)
    found = all_sweeps(a)
    adjoint = a.d_u.clone()
    loops.backward(adjoint, None, a.u, a.faces, a.impassable, RHO, a.steps, None)
    assert torch.equal(adjoint, a.d_u)
    plain(monkeypatch)
    for x, y in zip(found, all_sweeps(a), strict=True):
        assert_same(x, y)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("part", ["u0", "v", "faces", "growth", "all"])
def test_tangent_is_the_derivative(random_model: ModelFactory, part: str) -> None:
    """Central differences of the last level, one input changed at a time and all at once."""
    a = problem(random_model((4, 3, 2), seed=3, holes=0.2), count=5)
    u = a.forward(a.u[0], a.v, a.faces, RHO)
    zero = a.d_faces * 0.0
    d_u = a.d_u if part in ("u0", "all") else torch.zeros_like(a.d_u)
    d_v = a.d_v if part in ("v", "all") else None
    d_faces = a.d_faces if part in ("faces", "all") else zero
    d_growth = a.d_growth if part in ("growth", "all") else 0.0

    def moved(s: float) -> torch.Tensor:
        v = a.v if d_v is None else a.v + s * d_v
        return a.forward(a.u[0] + s * d_u, v, a.faces + d_faces * s, RHO + s * d_growth)[-1]

    step = 1e-5
    difference = (moved(step) - moved(-step)) / (2 * step)
    found = d_u.clone()
    loops.tangent(found, d_v, u, a.faces, RHO, d_faces, d_growth, a.steps)
    assert float(difference.norm()) > 0.01
    assert float((found - difference).norm()) <= 1e-8 * float(difference.norm())


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("tolerance", [0.3, 1e-2, 1e-12])
@pytest.mark.parametrize("shape", SHAPES)
def test_backward_is_exactly_the_adjoint_of_tangent(
    random_model: ModelFactory, shape: tuple[int, int, int], tolerance: float
) -> None:
    """⟨J a, b⟩ = ⟨a, Jᵀ b⟩ for a in everything that may change, at levels that solve nothing, solved loosely too."""
    a = problem(random_model(shape, seed=5, holes=0.2), seed=1, tolerance=tolerance)
    b = torch.randn(a.d_u.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pushed = a.d_u.clone()
    loops.tangent(pushed, a.d_v, a.u, a.faces, RHO, a.d_faces, a.d_growth, a.steps)
    adjoint, d_v = b.clone(), torch.full_like(a.v, torch.nan)
    faces, rho = loops.backward(adjoint, d_v, a.u, a.faces, a.impassable, RHO, a.steps, None)
    parts = [
        adjoint * a.d_u,
        (d_v * a.d_v).reshape(-1),
        *(x * y for x, y in zip(faces.values, a.d_faces.values, strict=True)),
        (rho * a.d_growth).reshape(1),
    ]
    size = sum(float(x.abs().sum()) for x in parts)
    assert sum(float(x.sum()) for x in parts) == pytest.approx(float(pushed @ b), rel=0, abs=1e-12 * size)
    assert abs(float(pushed @ b)) > 1e-4 * size


@pytest.mark.usefixtures("kernel")
def test_adjoint_in_single_precision(random_model: ModelFactory) -> None:
    model = random_model((6, 5, 4), seed=5, holes=0.2)
    results = []
    for dtype in (torch.float64, torch.float32):
        a = problem(model, count=40, tolerance=1e-4, dtype=dtype)
        adjoint, d_v, d_u = a.d_u.clone(), torch.empty_like(a.v), a.d_u.clone()
        faces, rho = loops.backward(adjoint, d_v, a.u, a.faces, a.impassable, RHO, a.steps, (0.7, 0.4))
        loops.tangent(d_u, a.d_v, a.u, a.faces, RHO, a.d_faces, a.d_growth, a.steps)
        assert rho.dtype == torch.float64
        assert {t.dtype for t in (adjoint, d_v, d_u, *faces.values)} == {dtype}
        results.append([adjoint, d_v, d_u, rho, *faces.values])
    for x, y in zip(*results, strict=True):
        assert float((x - y).norm()) <= 1e-5 * float(x.norm())


@pytest.mark.usefixtures("kernel")
def test_solver_tolerance_bounds_the_error_of_tangent_and_adjoint(random_model: ModelFactory) -> None:
    """A looser polynomial gives a nearby derivative, in proportion to the tolerance."""
    model = random_model((4, 4, 3), seed=5)
    found = []
    for tolerance in (1e-12, 1e-5, 1e-2):
        a = problem(model, tolerance=tolerance)
        d_u = a.d_u.clone()
        loops.tangent(d_u, a.d_v, a.u, a.faces, RHO, a.d_faces, a.d_growth, a.steps)
        found.append(d_u)
    errors = [float((x - found[0]).norm() / found[0].norm()) for x in found[1:]]
    assert 1e-8 < errors[0] < 1e-4
    assert 1e-5 < errors[1] < 0.1


@pytest.mark.usefixtures("kernel")
def test_adjoint_sees_what_the_loss_sees_of_every_level(random_model: ModelFactory) -> None:
    """With scales, dL/dv of the two sums by central differences of ``forward`` itself."""
    a = problem(random_model((4, 3, 2), seed=3, holes=0.4), count=5)
    assert bool(a.impassable.any())

    def sums(v: torch.Tensor) -> torch.Tensor:
        u = torch.empty_like(a.u)
        u[0] = a.u[0]
        return torch.stack(loops.forward(u, v, a.faces, a.impassable, RHO, a.steps))

    u = a.forward(a.u[0], a.v, a.faces, RHO)
    step = 1e-5
    difference = (sums(a.v + step * a.d_v) - sums(a.v - step * a.d_v)) / (2 * step)
    for scales, expected in (((2.0, 0.0), difference[0]), ((0.0, 2.0), difference[1])):
        adjoint, d_v = torch.zeros_like(a.d_u), torch.empty_like(a.v)
        loops.backward(adjoint, d_v, u, a.faces, a.impassable, RHO, a.steps, scales)
        assert abs(float(expected)) > 1e-3
        assert float((d_v * a.d_v).sum()) == pytest.approx(float(expected), rel=1e-7)


def test_compiled_loops_are_taken_where_they_apply(
    random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, in both precisions; otherwise every comparison above would compare plain torch with itself."""
    a = problem(random_model((3, 3, 3)))
    called: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def noted(*args: object) -> object:
            called.append(name)
            return real(*args)

        return noted

    for name in ("forward", "backward", "tangent"):
        monkeypatch.setattr(compiled, name, noting(name, getattr(compiled, name)))
    for dtype in (torch.float64, torch.float32):
        b = problem(random_model((3, 3, 3)), dtype=dtype)
        b.forward(b.u[0], b.v, b.faces, RHO)
        loops.backward(b.d_u.clone(), None, b.u, b.faces, b.impassable, RHO, b.steps, None)
        loops.tangent(b.d_u.clone(), None, b.u, b.faces, RHO, b.d_faces, 0.1, b.steps)
    assert called == ["forward", "backward", "tangent"] * 2
    plain(monkeypatch)
    a.forward(a.u[0], a.v, a.faces, RHO)
    assert len(called) == 6
