"""Falx and tentorium of the template: closed where dura is, open where cells pass; and carried without holes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gliodil.data.barriers import FALX, TENTORIUM, falx_and_tentorium, resample_sheets
from gliodil.data.discover import role_of_name
from gliodil.data.nifti import write_nifti
from gliodil.data.patient import load_patient
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.data.volume import Volume
from gliodil.errors import LabelError

OPEN_MM = {
    "corpus callosum, genu": (0, 29, 8),
    "corpus callosum, body": (0, 0, 26),
    "corpus callosum, splenium": (0, -38, 14),
    "anterior commissure": (0, 3, -4),
    "posterior commissure": (0, -25, 0),
    "adhesion of the thalami": (0, -14, 8),
    "optic chiasm": (0, 5, -14),
    "crus, left": (-13, -16, -8),
    "crus, right": (13, -16, -8),
    "midbrain": (0, -28, -12),
    "pons": (0, -25, -30),
    "middle cerebellar peduncle": (20, -38, -34),
    "superior cerebellar peduncle": (6, -42, -24),
    "vermis": (0, -60, -20),
}
CLOSED_MM = {
    "falx between the frontal lobes": (0, 50, 10),
    "falx between the gyri recti": (0, 25, -20),
    "falx above the callosum": (0, 0, 45),
    "falx between the occipital lobes": (0, -85, 10),
}


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    pytest.importorskip("nilearn", reason="needs the anatomy in nilearn's wheel")
    return load_anatomy()


@pytest.fixture(scope="module")
def sheets(anatomy: Anatomy) -> Volume:
    return falx_and_tentorium(anatomy)


def positions(grid: Volume) -> tuple[np.ndarray, ...]:
    """World coordinates of the template's voxels, to be broadcast; its axes are those of the world."""
    x, y, z = (grid.origin[i] + grid.affine[i, i] * np.arange(n) for i, n in enumerate(grid.shape))
    return x[:, None, None], y[:, None], z


def at(volume: Volume, place: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.rint(volume.to_index(place)))


def connected(domain: np.ndarray, volume: Volume, *places: tuple[float, ...]) -> bool:
    """Whether steps across faces, edges and corners lead from one place to the other."""
    pieces, _ = ndimage.label(domain, np.ones((3, 3, 3)))
    first, second = (pieces[at(volume, place)] for place in places)
    assert first > 0
    assert second > 0
    return bool(first == second)


@pytest.mark.parametrize("place", OPEN_MM.values(), ids=OPEN_MM)
def test_routes_of_spread_are_open(sheets: Volume, place: tuple[float, ...]) -> None:
    assert sheets.data[at(sheets, place)] == 0


@pytest.mark.parametrize("place", CLOSED_MM.values(), ids=CLOSED_MM)
def test_dura_is_closed(sheets: Volume, place: tuple[float, ...]) -> None:
    assert sheets.data[at(sheets, place)] == FALX


def test_the_whole_callosum_is_open(anatomy: Anatomy, sheets: Volume) -> None:
    middle, j, k = at(sheets, OPEN_MM["corpus callosum, body"])
    pieces, _ = ndimage.label(anatomy.wm.data[middle] > 0.5)
    callosum = pieces == pieces[j, k]
    assert callosum.sum() > 600
    assert not sheets.data[middle][callosum].any()
    # The falx comes down to it everywhere: right above it is dura.
    for column, sheet in zip(callosum, sheets.data[middle], strict=True):
        if column.any():
            assert sheet[column.nonzero()[0].max() + 1] == FALX


def test_falx_separates_the_hemispheres_but_for_what_lies_under_its_edge(
    anatomy: Anatomy, sheets: Volume
) -> None:
    brain = anatomy.brain.data > 0
    free = brain & (sheets.data == 0)
    left, right = (-20, 30, 30), (20, 30, 30)
    assert connected(free, sheets, left, right)
    _, y, z = positions(sheets)
    parts = {(20, 20, 50): z > 30, (20, 50, 10): y > 36, (15, -85, 15): y < -70}
    for (x0, *rest), part in parts.items():
        assert connected(brain & part, sheets, (-x0, *rest), (x0, *rest))
        assert not connected(free & part, sheets, (-x0, *rest), (x0, *rest))


def test_tentorium_separates_cerebellum_and_cerebrum_but_for_the_notch(
    anatomy: Anatomy, sheets: Volume
) -> None:
    x, y, z = positions(sheets)
    free = (anatomy.brain.data > 0) & (sheets.data == 0)
    notch = (np.abs(x) < 22) & (y > -48) & (z < 12)
    for side in (-1, 1):
        occipital, temporal = (side * 30, -80, 10), (side * 50, -30, -18)
        cerebellum = (side * 30, -65, -40)
        for lobe in (occipital, temporal):
            assert connected(free, sheets, lobe, cerebellum)
            assert not connected(free & ~notch, sheets, lobe, cerebellum)


def test_sheets_are_thin_and_symmetric(sheets: Volume) -> None:
    for label in (FALX, TENTORIUM):
        sheet = sheets.data == label
        assert not ndimage.binary_erosion(sheet, iterations=3).any()
        mirrored = sheet[::-1]
        assert 2 * (sheet & mirrored).sum() / (2 * sheet.sum()) > 0.9


def test_coarse_anatomies_have_closed_sheets_too(sheets: Volume) -> None:
    coarse = load_anatomy(resolution_mm=4)
    sheets = resample_sheets(sheets, coarse.brain)  # as `falx_and_tentorium` does
    free = (coarse.brain.data > 0) & (sheets.data == 0)
    _, _, z = positions(sheets)
    assert connected(free, sheets, (-20, 30, 30), (20, 30, 30))
    assert not connected(free & (z > 34), sheets, (-20, 20, 50), (20, 20, 50))


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s, (i, j) = np.cos(angle), np.sin(angle), [(1, 2), (0, 2), (0, 1)][axis]
        step = np.eye(3)
        step[i, i] = step[j, j] = c
        step[i, j], step[j, i] = -s, s
        turn = turn @ step
    return turn


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.sampled_from([(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.7, 0.9, 2.5), (2.0, 2.0, 2.0)]),
)
def test_a_sheet_carried_to_any_grid_has_no_holes(angles, spacing) -> None:
    data = np.zeros((41, 41, 41), np.uint8)
    data[19:22] = FALX
    origin = np.eye(4)
    origin[:3, 3] = -20
    affine = np.eye(4)
    affine[:3, :3] = _rotation(angles) * spacing
    shape = tuple(int(24 / h) for h in spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = Volume(np.zeros(shape, np.uint8), affine, kind="label")
    carried = resample_sheets(Volume(data, origin, kind="label"), grid)
    x = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))[..., 0]
    pieces, _ = ndimage.label(carried.data == 0)
    assert not set(np.unique(pieces[x < -4])) & set(np.unique(pieces[x > 4])) - {0}
    # No thicker than the sheet and a voxel's reach on either side.
    assert np.abs(x[carried.data > 0]).max() <= 1.5 + 0.5 * np.linalg.norm(spacing) + 1e-6


def test_on_its_own_grid_a_sheet_stays_as_it_is() -> None:
    data = np.zeros((5, 4, 3), np.uint8)
    data[2], data[:, 2] = FALX, TENTORIUM
    volume = Volume(data, np.diag([1.0, -1.0, 2.0, 1.0]), kind="label")
    assert np.array_equal(resample_sheets(volume, volume).data, data)


def test_a_file_of_sheets_is_recognised_carried_and_checked(tmp_path: Path) -> None:
    assert role_of_name("barriers.nii.gz") == "barriers"
    labels, sheet = np.zeros((24, 24, 10), np.uint8), np.zeros((48, 24, 30), np.uint8)
    labels[4:8, 8:14, 3:7] = 3
    sheet[24] = FALX
    coarse, fine = np.diag([1.0, 1.0, 3.0, 1.0]), np.diag([0.5, 1.0, 1.0, 1.0])
    write_nifti(Volume(labels, coarse, kind="label"), tmp_path / "seg.nii.gz")
    for name in ("wm", "gm"):
        half = np.full(labels.shape, 0.5, np.float32)
        write_nifti(Volume(half, coarse, kind="scalar"), tmp_path / f"{name}.nii.gz")
    write_nifti(Volume(sheet, fine, kind="label"), tmp_path / "barriers.nii.gz")
    carried = load_patient(tmp_path, labels="brats-2023").volumes["barriers"].data
    assert carried[12].all()
    assert not carried[:11].any()
    assert not carried[14:].any()
    for content in (sheet * 3, sheet * 0):
        write_nifti(Volume(content, fine, kind="label"), tmp_path / "barriers.nii.gz")
        with pytest.raises(LabelError, match="falx and tentorium"):
            load_patient(tmp_path, labels="brats-2023")
