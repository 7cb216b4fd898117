from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from scipy.ndimage import distance_transform_edt

from gliodil.inference.result import LossHistory
from gliodil.planning.plan import plan
from gliodil.reporting.curves import density_by_distance, loss_figure, pet_figure
from gliodil.reporting.figures import FIGURES, draw_figures, save_figures
from gliodil.reporting.panels import background, difference_figure, plans_figure
from gliodil.reporting.style import STRUCTURES, new_figure, save_figure
from gliodil.reporting.tissue import tissue_figure

ON_CT = {"ct_bone", "ct_checkerboard"}
"""Drawn where there is a planning CT (tests/cli/test_cli_planning_ct.py)."""


def pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def share_of(colour: str, picture: np.ndarray, tolerance: float = 0.03) -> float:
    return float((np.abs(picture - to_rgb(colour)).max(axis=-1) < tolerance).mean())


def test_every_figure_has_words_and_content(case, make_patient):
    _, fit, plans = case
    patient = make_patient(t1=np.random.default_rng(0).random((32, 34, 30)))
    drawn = dict(draw_figures(patient, fit, plans, truth_density=fit.density, other_density=fit.density))
    assert set(drawn) == set(FIGURES) - ON_CT
    for name, figure in drawn.items():
        picture = pixels(figure)
        assert picture.std() > 0.05, name
        assert len(np.unique((picture @ [1.0, 256.0, 65536.0]).ravel())) > 50, name


def test_only_what_there_is_gets_drawn(make_patient, make_fit):
    patient = make_patient(pet=False, recurrence=False)
    fit = make_fit(patient)
    names = {name for name, _ in draw_figures(patient, fit, plan(patient, fit))}
    assert names == set(FIGURES) - ON_CT - {"pet", "truth", "tissue", "comparison"}


def test_saved_figures_are_readable_pngs_with_the_names_of_the_report(case, tmp_path):
    paths = save_figures(*case, tmp_path / "figures")
    assert {path.stem for path in paths} == set(FIGURES) - ON_CT - {"truth", "tissue", "comparison"}
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(p.name for p in paths)
    assert all(imread(path).std() > 0.05 for path in paths)


def test_the_same_figure_gives_the_same_bytes(case, tmp_path):
    patient, _, plans = case
    first = save_figure(plans_figure(patient, plans), tmp_path / "a.png")
    second = save_figure(plans_figure(patient, plans), tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()


def test_the_plans_figure_shows_all_four_outlines(case):
    patient, _, plans = case
    picture = pixels(plans_figure(patient, plans))[: -int(0.2 * 875)]  # without the legend
    for name in ("gtv", "standard", "trimmed", "model"):
        assert share_of(STRUCTURES[name].colour, picture) > 1e-4, name


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_the_plans_figure_does_not_depend_on_how_the_images_are_stored(make_patient, make_fit, orientation):
    reference, other = make_patient("RAS"), make_patient(orientation)
    figures = [plans_figure(p, plan(p, make_fit(p))) for p in (reference, other)]
    difference = np.abs(pixels(figures[0]) - pixels(figures[1]))
    assert (difference > 0.1).mean() < 0.002


def test_gained_and_given_up_have_their_own_colour_and_volume(case):
    patient, _, plans = case
    figure = difference_figure(patient, plans)
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    gained = (plans.difference.data > 0).sum() * plans.difference.voxel_volume_ml
    assert words[0] == f"Gained by the model, {gained:.0f} mL"
    assert words[2:] == ["GTV", "Recurrence"]
    for name in ("model", "standard"):
        assert share_of(STRUCTURES[name].colour, pixels(figure)) > 1e-4


def test_the_tissue_figure_shows_the_edges_of_the_maps(case, make_patient):
    """White matter is a ball here, 45 mm around the tumour; without maps or without MRI there is nothing to show."""
    _, _, plans = case
    patient = make_patient(t2=np.random.default_rng(0).random((32, 34, 30)))
    figure = tissue_figure(patient, plans)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["CSF above 1/2", "White matter above 1/2", "GTV"]
    for name in ("wm", "gtv"):
        assert share_of(STRUCTURES[name].colour, pixels(figure)[: -int(0.2 * 875)]) > 1e-4, name
    assert tissue_figure(make_patient(), plans) is None
    bare = replace(patient, volumes={"brain": patient.volumes["brain"], "t2": patient.volumes["t2"]})
    assert tissue_figure(bare, plans) is None


class TestBackground:
    def test_prefers_the_contrast_enhanced_image(self, make_patient):
        ramp = np.indices(make_patient().shape)[0].astype(float)
        grey, shows = background(make_patient("RAS", t1c=ramp, flair=ramp[::-1]))
        assert shows == "contrast-enhanced T1"
        assert grey[-1].mean() > grey[0].mean()
        assert grey.min() >= 0
        assert grey.max() <= 1

    def test_passes_over_an_image_without_contrast(self, make_patient):
        flat = np.zeros(make_patient("RAS").shape)
        assert background(make_patient("RAS", t1c=flat))[1] == "tissue maps"

    def test_tissue_maps_show_white_matter_brightest(self, make_patient):
        patient = make_patient("RAS")
        grey, _ = background(patient)
        white, grey_matter = patient.volumes["wm"].data > 0.5, patient.volumes["gm"].data > 0.5
        assert grey[white].mean() > grey[grey_matter].mean() > grey[~patient.brain].mean()


class TestDensityByDistance:
    def test_recovers_a_profile_that_depends_on_distance_alone(self):
        spacing = (1.0, 1.5, 3.0)
        gtv = np.zeros((60, 40, 24), bool)
        gtv[26:34, 16:24, 9:15] = True
        away = distance_transform_edt(~gtv, sampling=spacing)
        distance, table = density_by_distance(np.exp(-away / 8), gtv, np.ones_like(gtv), spacing=spacing)
        use = distance > 2
        np.testing.assert_allclose(table[2, use], np.exp(-distance[use] / 8), rtol=0.07)
        assert (np.diff(table, axis=0) >= 0).all()

    def test_leaves_no_holes_at_the_surface_or_between_thick_slices(self):
        gtv = np.zeros((20, 20, 20), bool)
        gtv[8:12, 8:12, 8:12] = True
        distance, table = density_by_distance(gtv * 1.0, gtv, np.ones_like(gtv), spacing=(6.0, 6.0, 6.0))
        assert np.isfinite(table).all()
        assert table.shape == (5, len(distance))
        assert 0 not in distance

    def test_looks_at_the_brain_only(self):
        gtv = np.zeros((30, 30, 30), bool)
        gtv[13:17, 13:17, 13:17] = True
        brain = np.indices(gtv.shape)[0] < 15
        density = np.where(brain, 0.25, 1.0)
        distance, table = density_by_distance(density, gtv, brain, spacing=(1.0, 1.0, 1.0))
        assert (table[:, distance > 0] == 0.25).all()


def test_the_loss_figure_has_one_line_per_stage_and_a_bar_per_term(case):
    _, fit, _ = case
    course, terms = loss_figure(fit).axes
    assert [line.get_label() for line in course.lines] == ["Stage “parameters”", "Stage “full”"]
    assert course.get_yscale() == "log"
    assert len(terms.patches) == len(fit.loss_terms)


def test_a_fit_without_history_or_loss_is_still_drawn(case, make_fit):
    patient, _, _ = case
    fit = make_fit(patient, history=LossHistory((), (), (), ()), loss_terms={}, loss_total=float("nan"))
    assert pixels(loss_figure(fit)).std() > 0.01


def test_pet_that_is_zero_in_the_tumour_gives_no_figure(make_patient, make_fit):
    patient = make_patient()
    silent = patient.volumes["pet"].with_data(np.zeros(patient.shape))
    object.__setattr__(patient, "volumes", {**patient.volumes, "pet": silent})
    fit = make_fit(patient)
    assert pet_figure(patient, plan(patient, fit), fit) is None


def test_figures_leave_pyplot_alone():
    code = (
        "import sys; from gliodil.reporting.style import new_figure; import gliodil.reporting.folder;"
        "assert not {'matplotlib', 'jinja2', 'torch', 'skimage', 'meshio'} & set(sys.modules);"
        "new_figure(2, 2); assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert new_figure(2, 2).canvas is not None
