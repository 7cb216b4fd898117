"""A plan folder for a patient with a reference series: DICOM written, read back, reported."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import meshio
import numpy as np
import pydicom
import pytest
from scipy import ndimage
from scipy.spatial import KDTree

import gliodil.planning.export as export
from gliodil.arguments import build_parser
from gliodil.data.dicom.rtstruct import write_rtstruct
from gliodil.data.dicom.rtstruct_reader import read_rtstruct
from gliodil.data.labels import get_convention
from gliodil.data.nifti import read_nifti
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError, InputError, MissingExtraError, OutputError
from gliodil.fingerprint import finished
from gliodil.inference.result import Fit, LossHistory, Parameter
from gliodil.planning.export import FILES, check_export, export_plan
from gliodil.planning.plan import plan
from gliodil.planning.surfaces import surface, write_surface
from gliodil.reporting.folder import write_plan_folder
from gliodil.terminal import Terminal

SPACING, SHAPE = (1.5, 1.5, 3.0), (56, 64, 26)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PatientWithSeries(Patient):
    """A patient that knows the series plans are to be written on."""

    reference: SimpleNamespace | None = None


@pytest.fixture(scope="module")
def clinic(geometries, new_series, tmp_path_factory):
    """An oblique series of 1.5 x 1.5 x 3 mm, and a patient on a 2 mm grid with other axes in the same head."""
    geometry = dataclasses.replace(geometries["oblique"], spacing=SPACING, shape=SHAPE)
    files = new_series(tmp_path_factory.mktemp("clinic") / "t1c", geometry)
    middle = (geometry.affine @ [*(np.asarray(SHAPE) / 2), 1])[:3]
    affine = np.diag([2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = middle - affine[:3, :3] @ [30, 30, 30]
    grid = Volume(np.zeros((60, 60, 60), np.uint8), affine, kind="label")
    away = np.linalg.norm(grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)) - middle, axis=-1)
    brain = away < 33
    labels = np.select([away < 5, away < 9, away < 13], [1, 3, 2], 0).astype(np.uint8)
    volumes = {
        "wm": grid.with_data(0.8 * brain, kind="scalar"),
        "gm": grid.with_data(0.1 * brain, kind="scalar"),
        "brain": grid.with_data(brain.astype(np.uint8)),
    }
    patient = PatientWithSeries(
        identity="sub-01",
        segmentation=grid.with_data(labels),
        convention=get_convention("brats-2023"),
        volumes=volumes,
        reference=SimpleNamespace(files=tuple(files)),
    )
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(grid.shape), 2)
    density = brain / (1 + np.exp((away - 14 + 30 * noise) / 3))
    fit = Fit(
        density=grid.with_data(density.astype(np.float32), kind="scalar"),
        parameters={"infiltration_length_mm": Parameter(1.2, "mm")},
        status="converged",
        message="",
        loss_total=1e-3,
        loss_terms={"pde": 1e-3},
        evaluations=3,
        history=LossHistory(
            evaluations=(1, 3), seconds=(0.1, 0.2), total=(1.0, 1e-3), stage=("full", "full")
        ),
        method="odil",
        optimizer="lbfgs",
        grid_shape=(16, 16, 16),
        steps=24,
        spacing_mm=(4.0, 4.0, 4.0),
        device="cpu",
        dtype="float32",
        wall_s=1.0,
        warnings=(),
    )
    return patient, fit, plan(patient, fit), geometry, files


@pytest.fixture(scope="module")
def written(clinic, tmp_path_factory):
    patient, fit, plans, *_ = clinic
    out = tmp_path_factory.mktemp("plans") / "out"
    write_plan_folder(out, patient=patient, fit=fit, plans=plans, config={"fingerprint": "x"}, wall_s=1.0)
    return out, json.loads((out / "metrics.json").read_text())


def test_the_folder_holds_the_files_and_what_came_back_from_them(written, capsys):
    out, metrics = written
    assert all((out / name).is_file() for name in FILES)
    assert metrics["dicom"]["files"] == list(FILES)
    trips = metrics["dicom"]["structures"]
    assert list(trips) == ["GTV", "CTV standard", "CTV trimmed", "CTV model"]
    for trip in trips.values():
        assert trip["dice"] == trip["seg_dice"] == 1
        # Half a pixel per contour at most; a GTV of 3 mL in 1.5 x 1.5 x 3 mm has few pixels to a contour.
        half_pixels = trip["contours"] * 0.5 * np.prod(SPACING) / 1000
        assert abs(trip["polygon_ml"] - trip["voxel_ml"]) <= half_pixels + 1e-4 * trip["voxel_ml"]
        assert trip["difference_percent"] == pytest.approx(100 * (trip["polygon_ml"] / trip["voxel_ml"] - 1))
    assert metrics["dicom"]["density_error"] <= 0.501 / 255
    for key, name in (("gtv", "GTV"), ("ctv_standard", "CTV standard"), ("ctv_model", "CTV model")):
        assert trips[name]["plan_ml"] == pytest.approx(metrics["volumes_ml"][key])
    assert trips["CTV standard"]["voxel_ml"] == pytest.approx(metrics["volumes_ml"]["ctv_standard"], rel=0.01)
    assert "For the planning system" in (out / "report.html").read_text()
    Terminal().dicom(metrics["dicom"])
    printed = capsys.readouterr().err
    assert "CTV model" in printed
    assert "Dice 1.0000" in printed


def test_the_contours_hold_the_plan_in_world_coordinates(written, clinic):
    """The centre of each structure in the file is that of the NIfTI, and so are its voxels, resampled."""
    out, _ = written
    geometry = clinic[3]
    back = read_rtstruct(out / "rtstruct.dcm", Volume(np.zeros(SHAPE), geometry.affine, kind="scalar"))
    for name in ("standard", "trimmed", "model"):
        nifti, contoured = read_nifti(out / f"ctv_{name}.nii.gz", kind="label"), back[f"CTV {name}"]
        centres = [v.to_world(np.argwhere(v.data)).mean(axis=0) for v in (nifti, contoured)]
        assert np.linalg.norm(centres[0] - centres[1]) < 0.2
        assert np.array_equal(nifti.resample_to(contoured).data, contoured.data)


def test_identifiers_stand_in_the_dicom_files_only(written):
    out, _ = written
    secrets = [b"SECRET-4711", "Zöllner".encode(), "Zöllner".encode("latin-1"), b"19510203", b"Erika"]
    named = [p.name for p in out.rglob("*") if p.is_file() and any(s in p.read_bytes() for s in secrets)]
    assert sorted(named) == sorted(FILES)


def test_a_second_run_gives_the_same_bytes(clinic, written, tmp_path):
    *_, plans, _, files = clinic
    export_plan(tmp_path, plans, files)
    out, _ = written
    assert all((tmp_path / name).read_bytes() == (out / name).read_bytes() for name in FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_key_holes_change_contours_not_volumes(clinic, tmp_path):
    *_, plans, _, files = clinic
    hollow = plans.standard.data.copy()
    hollow[28:32, 28:32, 28:32] = 0
    holed = dataclasses.replace(plans, standard=plans.standard.with_data(hollow))
    loops = export_plan(tmp_path / "loops", holed, files).structures["CTV standard"]
    tied = export_plan(tmp_path / "tied", holed, files, keyholes=True).structures["CTV standard"]
    assert tied.contours < loops.contours
    assert tied.dice == 1
    assert tied.polygon_ml == pytest.approx(loops.polygon_ml)


def test_further_targets_are_written_if_the_plan_has_them(clinic, tmp_path):
    """Planning target volumes, and the targets of a first phase."""
    *_, plans, _, files = clinic
    wider = plans.standard.with_data(ndimage.binary_dilation(plans.standard.data).astype(np.uint8))
    empty = plans.gtv.with_data(np.zeros(plans.gtv.shape, np.uint8))
    first = SimpleNamespace(gtv=plans.gtv, ctv={"standard": wider, "model": empty}, ptv={"standard": wider})
    given = {field.name: getattr(plans, field.name) for field in dataclasses.fields(plans)}
    exported = export_plan(
        tmp_path, SimpleNamespace(**{**given, "ptv": {"standard": wider}, "initial": first}), files
    )
    assert list(exported.structures)[4:] == [
        "PTV standard",
        "GTV initial",
        "CTV initial standard",
        "PTV initial standard",
    ]
    data = pydicom.dcmread(exported.files[0])
    types = [item.RTROIInterpretedType for item in data.RTROIObservationsSequence]
    assert types == ["GTV", "CTV", "CTV", "CTV", "PTV", "GTV", "CTV", "PTV"]


def test_what_reaches_beyond_the_series_is_told(clinic, tmp_path):
    *_, plans, _, files = clinic
    exported = export_plan(tmp_path, plans, files[: len(files) // 2 + 2])
    assert any("CTV model reaches beyond the reference series" in warning for warning in exported.warnings)
    assert any("on the grid of the plan (-" in warning for warning in exported.warnings)
    assert export_plan(tmp_path, plans, files).warnings == ()


def test_a_plan_elsewhere_is_refused_and_leaves_nothing(clinic, tmp_path):
    *_, plans, _, files = clinic
    with pytest.raises(InputError, match="GTV is empty on the slices"):
        export_plan(tmp_path / "out", plans, files[:3])
    assert not list(tmp_path.rglob("*.dcm"))
    with pytest.raises(InputError, match="GTV is empty on the slices"):
        check_export(files[:3], plans.gtv)


@pytest.mark.parametrize("file", ["rtstruct", "seg", "density"])
def test_a_file_that_does_not_give_back_the_plan_is_not_kept(clinic, tmp_path, monkeypatch, file):
    """The writers are made to write something else than they were given."""
    *_, plans, _, files = clinic
    shifted = {
        "rtstruct": (
            "write_rtstruct",
            lambda given: {n: v.with_data(np.roll(v.data, 1, 0)) for n, v in given.items()},
        ),
        "seg": ("write_seg", lambda given: {n: v.with_data(np.roll(v.data, 1, 1)) for n, v in given.items()}),
        "density": ("write_fractional_seg", lambda given: given.with_data(given.data * np.float32(0.97))),
    }
    name, spoil = shifted[file]
    write = getattr(export, name)
    monkeypatch.setattr(
        export, name, lambda path, given, *rest, **more: write(path, spoil(given), *rest, **more)
    )
    with pytest.raises(OutputError, match="does not give back"):
        export_plan(tmp_path / "out", plans, files)
    assert not list(tmp_path.rglob("*.dcm"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_dir()]


def test_resume_wants_the_dicom_files_too(written, tmp_path):
    import shutil

    folder = shutil.copytree(written[0], tmp_path / "out")
    assert finished(folder, "x") is not None
    (folder / "rtstruct.dcm").unlink()
    assert finished(folder, "x") is None


def test_a_run_without_series_removes_dicom_of_an_earlier_one(written, clinic, tmp_path):
    import shutil

    patient, fit, plans, *_ = clinic
    folder = shutil.copytree(written[0], tmp_path / "out")
    bare = dataclasses.replace(patient, reference=None)
    write_plan_folder(folder, patient=bare, fit=fit, plans=plans, config={}, wall_s=1.0)
    assert not [name for name in FILES if (folder / name).exists()]
    assert json.loads((folder / "metrics.json").read_text())["dicom"] is None
    assert "For the planning system" not in (folder / "report.html").read_text()


def test_a_missing_library_is_named_before_the_fit(clinic, monkeypatch):
    *_, plans, _, files = clinic
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "highdicom" else object())
    with pytest.raises(MissingExtraError, match="highdicom") as caught:
        check_export(files, plans.gtv)
    assert "gliodil[dicom]" in str(caught.value)
    assert isinstance(caught.value, GliodilError)


def test_surfaces_and_contours_lie_at_one_place_in_the_world(series, tmp_path):
    """Marching cubes puts a vertex half way to every neighbour outside, so at every vertex of a contour too."""
    geometry, files = series
    mask = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal(geometry.shape), 2) > 0
    path = write_surface(surface(mask, geometry.affine), tmp_path / "s.stl")
    vertices = meshio.read(path).points
    write_rtstruct(tmp_path / "rt.dcm", {"GTV": geometry.volume(mask)}, files)
    (item,) = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence
    lps = np.concatenate([np.array(c.ContourData, float).reshape(-1, 3) for c in item.ContourSequence])
    away, _ = KDTree(vertices).query(lps * [-1, -1, 1])
    assert away.max() < 1e-3  # mm


def test_the_command_line_offers_key_holes():
    parse = build_parser().parse_args
    assert parse(["plan", "patient", "--keyholes"]).keyholes
    assert not parse(["plan", "patient"]).keyholes
