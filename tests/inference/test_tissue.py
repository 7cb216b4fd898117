"""Maps blurred by the error of their registration, and fluid that is open."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.data.volume import Volume
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.exact import ExactPhysics
from gliodil.inference.fit import fit
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.parameters import Scalars
from gliodil.inference.tissue import ERROR_MM, blurred, csf_is_open, error_mm
from gliodil.inference.variables import Coordinates, TransformedLoss
from gliodil.pde.operators import face_means

SPACING = (1.0, 2.0, 1.5)


def ball(shape=(30, 18, 24), radius=11.0):
    index = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index * SPACING, axis=-1) < radius


def test_a_constant_stays_what_it_is_up_to_the_surface_and_nothing_leaves_the_mask():
    inside = ball()
    found = blurred(np.full(inside.shape, 0.7), 4.0, spacing=SPACING, inside=inside)
    assert found.dtype == np.float32
    assert found[inside] == pytest.approx(0.7, abs=1e-5)
    assert not found[~inside].any()


def test_what_lies_outside_the_mask_is_not_heeded():
    inside = ball()
    clean = np.random.default_rng(0).random(inside.shape) * inside
    dirty = np.where(inside, clean, 1e3)
    options = {"spacing": SPACING, "inside": inside}
    assert np.array_equal(blurred(clean, 3.0, **options), blurred(dirty, 3.0, **options))
    assert np.array_equal(blurred(dirty, 0.0, **options), clean.astype(np.float32))


def test_the_width_is_in_millimetres_along_every_axis():
    inside = np.ones((61, 31, 41), dtype=bool)
    point = np.zeros(inside.shape)
    point[30, 15, 20] = 1000
    found = blurred(point, 3.0, spacing=SPACING, inside=inside).astype(float)
    for axis, h in enumerate(SPACING):
        x = (np.arange(found.shape[axis]) - (found.shape[axis] - 1) / 2) * h
        profile = found.sum(axis=tuple(a for a in range(3) if a != axis))
        assert np.sqrt((profile * x**2).sum() / profile.sum()) == pytest.approx(3.0, rel=0.03)


def test_an_empty_mask_gives_an_empty_map():
    inside = np.zeros((4, 4, 4), dtype=bool)
    assert not blurred(np.ones(inside.shape), 2.0, spacing=SPACING, inside=inside).any()


def test_maps_are_blurred_by_what_they_are(make_patient):
    patient = make_patient(without=("csf",))
    template = replace(patient, tissue_source="template")
    default, published = FitConfig(device="cpu"), FitConfig(device="cpu", loss="reference")
    assert error_mm(patient, default) == ERROR_MM["given"] < error_mm(template, default) == 4.0
    assert error_mm(template, FitConfig(device="cpu", tissue_error_mm=1.5)) == 1.5
    assert error_mm(template, published) == 0
    sharp, wide = (set_up(p, FitConfig(cells=12, steps=16, device="cpu")) for p in (patient, template))
    assert float(wide.model.white.std()) < 0.8 * float(sharp.model.white.std())
    total = (wide.model.white + wide.model.grey)[~sharp.core & sharp.model.passable]
    assert float(total.median()) == pytest.approx(0.95, abs=0.02)  # what a voxel holds is spread, not lost
    for p in (patient, template):
        case = set_up(p, replace(published, cells=12))
        white = np.where(
            p.tumour & (p.volumes["wm"].data + p.volumes["gm"].data < 0.1), 1, p.volumes["wm"].data
        )
        expected = p.segmentation.with_data(white.astype(np.float32), kind="scalar")
        there = Volume(np.zeros(case.grid.shape, np.float32), case.affine, kind="scalar")
        found = case.grid.box(case.model.white).numpy()
        assert found == pytest.approx(expected.resample_to(there).data.clip(0, 1), abs=1e-6)


def with_fluid(make_patient, **changes):
    patient = make_patient()
    white, grey = (patient.volumes[role].data for role in ("wm", "gm"))
    fluid = (1 - white - grey).clip(0, 1).astype(np.float32)
    volumes = {**patient.volumes, "csf": patient.segmentation.with_data(fluid, kind="scalar")}
    return replace(patient, volumes=volumes, **changes)


def test_fluid_is_open_where_the_maps_are_the_templates(make_patient):
    given, template = with_fluid(make_patient), with_fluid(make_patient, tissue_source="template")
    config = FitConfig(cells=12, steps=16, device="cpu")
    assert not csf_is_open(given, config)
    assert csf_is_open(template, config)
    assert csf_is_open(given, replace(config, csf="slow"))
    assert not csf_is_open(template, replace(config, csf="closed"))
    assert not csf_is_open(template, replace(config, loss="reference", steps=16))
    assert not csf_is_open(template, replace(config, method="pinn"))
    assert not csf_is_open(make_patient(), replace(config, csf="slow"))  # nothing says where it is
    shut, slow = set_up(given, config), set_up(given, replace(config, csf="slow"))
    assert shut.model.csf is None
    assert bool((~shut.model.passable).any())
    assert bool(slow.model.passable.all())
    assert np.count_nonzero(slow.passable_voxels) > np.count_nonzero(shut.passable_voxels)


def test_the_speed_in_fluid_is_a_parameter_of_the_loss(make_patient):
    patient = with_fluid(make_patient, tissue_source="template")
    config = FitConfig(cells=8, steps=16, device="cpu", tissue_error_mm=0)
    case = set_up(patient, config)
    loss = InformedLoss(case, config)
    box = loss.box()
    assert box.with_csf
    p = Scalars.of(
        diffusivity=0.3, proliferation_rate=0.08, origins=case.grid.centres()[:, 300], csf_speed=0.2
    )
    z = box.encode(p)
    again = box.decode(z)
    for name in ("csf_speed", "threshold_necrotic", "wm_gm_ratio"):
        assert float(getattr(again, name)) == pytest.approx(float(getattr(p, name)), rel=1e-9)
    exact = ExactPhysics(TransformedLoss(loss, Coordinates.plain(box, z), dtype=torch.float64))
    y = exact.start()[0]
    e = torch.zeros_like(y)
    e[6] = 1e-5  # after θ_nec; without PET
    assert float(box.decode(z + e).csf_speed) > 0.2 > float(box.decode(z - e).csf_speed)
    gradient = float(exact.at([y]).gradient()[0][6])
    difference = (exact.at([y + e]).value - exact.at([y - e]).value) / 2e-5
    assert gradient != 0
    assert gradient == pytest.approx(difference, rel=1e-4)


def test_closed_fluid_is_the_equation_without_it(make_patient):
    patient = with_fluid(make_patient)
    model = set_up(patient, FitConfig(cells=8, steps=16, device="cpu", csf="slow")).model
    for v in (0.0, 0.5):
        found = model.coefficients(0.3, 10.0, v)
        mobility = model.white + model.grey / 10 + v**2 * model.csf
        per_h2 = [1 / h**2 for h in model.grid.spacing]
        expected = face_means(model.grid, 0.3 * mobility, model.passable).map(*per_h2)
        for (a, _), (b, _) in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)
    assert model.to(torch.float32).csf_faces.values[0].dtype == torch.float32


def test_a_fit_on_the_templates_maps_tells_the_speed_in_fluid(make_patient):
    config = FitConfig(cells=12, steps=16, device="cpu", physics="exact")
    found = fit(with_fluid(make_patient, tissue_source="template"), config=config)
    assert 0.02 < found.parameters["csf_speed"].value < 1
    assert "csf_speed" not in fit(make_patient(), config=config).parameters
