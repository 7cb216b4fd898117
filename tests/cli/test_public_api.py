"""`import gliodil`: light, complete, and the three lines of the README."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import gliodil
from gliodil.inference.case import set_up

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"cells": 16, "steps": 32, "device": "cpu"}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_imports_no_library():
    loaded = modules_after("import gliodil; gliodil.__all__; dir(gliodil)")
    assert "gliodil" in loaded
    assert not loaded & {"torch", "scipy", "nibabel", "numpy", "numba", "matplotlib", "nilearn", "rich"}


@pytest.mark.parametrize(
    "code",
    [
        "import gliodil.data, gliodil.planning.plan, gliodil.pipeline; gliodil.FitConfig",
        "from gliodil.cli import main; main(['plan', '--help'])",
    ],
)
def test_reading_planning_and_help_need_no_heavy_library(code):
    heavy = {"torch", "numba", "matplotlib", "nilearn", "skimage", "meshio", "jinja2", "rich"}
    assert not modules_after(code) & heavy


def test_every_public_name_is_there():
    for name in gliodil.__all__:
        assert getattr(gliodil, name) is not None
        assert name in dir(gliodil)
    assert {"load_patient", "fit", "plan", "simulate", "Volume", "GliodilError"} <= set(gliodil.__all__)
    with pytest.raises(AttributeError, match="no attribute 'anything'"):
        gliodil.anything  # noqa: B018


@pytest.fixture(scope="module")
def three_lines(original, tmp_path_factory):
    """The three lines of the README, on a small grid."""
    out = tmp_path_factory.mktemp("three") / "out"
    patient = gliodil.load_patient(original)
    fit = gliodil.fit(patient, config=gliodil.FitConfig(**CONFIG))
    plans = gliodil.plan(patient, fit)
    plans.save(out)
    return patient, fit, plans, out


def test_three_lines_make_a_plan(three_lines):
    patient, fit, plans, out = three_lines
    assert isinstance(patient, gliodil.Patient)
    assert isinstance(fit, gliodil.Fit)
    assert isinstance(plans, gliodil.Plans)
    density = gliodil.read_nifti(out / "density.nii.gz", kind="scalar")
    assert density.same_grid(patient.segmentation)
    np.testing.assert_array_equal(density.data, fit.density.data.astype(np.float32))
    assert (out / "surfaces/ctv_model.vtu").is_file()
    for thing in (patient, fit, plans, density):
        assert len(repr(thing)) < 300


def mirrored(folder: Path, target: Path) -> Path:
    """Write the patient's mirror image, x to -x in world space, on voxels that run the same way as before."""
    target.mkdir()
    for path in sorted(folder.glob("*.nii.gz")):
        image = nib.load(path)
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = image.shape[0] - 1
        affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ image.affine @ flip
        data = np.ascontiguousarray(np.asarray(image.dataobj)[::-1])
        nib.save(nib.Nifti1Image(data, affine), target / path.name)
    return target


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.count_nonzero((a > 0) & (b > 0)) / (np.count_nonzero(a) + np.count_nonzero(b)))


@pytest.mark.parametrize(
    "cells",
    [
        16,
        12,
        13,
    ],
)
def test_the_labels_on_the_computational_grid_mirror(original, tmp_path, cells):
    config = gliodil.FitConfig(**{**CONFIG, "cells": cells})
    here = set_up(gliodil.load_patient(original), config)
    there = set_up(gliodil.load_patient(mirrored(original, tmp_path / "mirrored")), config)
    for name in ("core", "oedema", "enhancing", "necrotic"):
        one, other = (case.grid.box(getattr(case, name)).numpy() for case in (here, there))
        np.testing.assert_array_equal(one, other[::-1])
    # Interpolated, in float32: the two sides multiply by weights that differ in their last digit.
    one, other = (case.grid.box(case.pet).numpy() for case in (here, there))
    np.testing.assert_allclose(one, other[::-1], rtol=0, atol=2e-7)


@pytest.mark.parametrize("world", ["mirrored", "the same"])
def test_left_and_right_are_alike(three_lines, original, tmp_path, world):
    """A mirrored patient gets the mirrored plan; so does one whose voxels are stored the other way round.

    Standard and trimmed CTV are exact. The fit sums in another order, and how far rounding carries a search
    that stops early is limited: 1e-2 in density, 0.5 % of the model CTV.
    """
    _, fit, plans, _ = three_lines
    folder = mirrored(original, tmp_path / "mirrored")
    if world == "the same":
        for path in folder.glob("*.nii.gz"):
            image = nib.load(path)
            affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ image.affine
            nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
    patient = gliodil.load_patient(folder)
    other_fit = gliodil.fit(patient, config=gliodil.FitConfig(**CONFIG))
    other = gliodil.plan(patient, other_fit)

    for name in ("gtv", "standard", "trimmed"):
        np.testing.assert_array_equal(getattr(other, name).data[::-1], getattr(plans, name).data)
    np.testing.assert_allclose(other_fit.density.data[::-1], fit.density.data, atol=1e-2)
    assert dice(other.model.data[::-1], plans.model.data) >= 0.995

    sign = -1 if world == "mirrored" else 1
    here, there = (np.array(f.parameters["origin_mm"].value) for f in (fit, other_fit))
    np.testing.assert_allclose(there * (sign, 1, 1), here, atol=0.1)
    left, right = ("right", "left") if world == "mirrored" else ("left", "right")
    spacing = patient.spacing[0]
    for name, mirror in {
        "left": left,
        "right": right,
        "anterior": "anterior",
        "superior": "superior",
    }.items():
        assert other.margin_mm[mirror] == pytest.approx(plans.margin_mm[name], abs=spacing)
    if world == "the same":
        return
    assert other.coverage["any"]["standard"] == plans.coverage["any"]["standard"]


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in gliodil._PUBLIC:
        assert f'heading: "gliodil.{name}"' in page, name
