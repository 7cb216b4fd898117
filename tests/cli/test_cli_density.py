"""Maps made elsewhere at the command line: compared with a plan, and planned in the place of a fit."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.publish import output_folder


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_compare_adds_one_file_and_shows_a_table(cli, planned, original, contents, tmp_path):
    before = contents(planned)
    # The higher, the earlier: the reach with its sign turned is what the model CTV ranks by.
    reach = nib.load(planned / "reach.nii.gz")
    nib.save(nib.Nifti1Image(-np.asarray(reach.dataobj), reach.affine), tmp_path / "same.nii.gz")
    truth = original / "truth_density.nii.gz"
    maps = ("--density", f"same={tmp_path / 'same.nii.gz'}", "--density", f"truth={truth}")
    run = cli("compare", planned, *maps)
    assert (run.code, run.out) == (0, f"{planned / 'compare.json'}\n")
    after = dict(contents(planned))
    assert after.pop("compare.json")
    assert after.pop("manifest.json") != before["manifest.json"]
    assert after == {name: content for name, content in before.items() if name != "manifest.json"}
    found = json.loads((planned / "compare.json").read_text())
    same, known = found["plans"]["same"], found["plans"]["truth"]
    metrics = metrics_of(planned)
    assert same["dice_with_model"] == 1
    assert same["gained_ml"] == pytest.approx(metrics["difference_ml"]["gained"])
    assert same["coverage"]["any"] == pytest.approx(metrics["coverage"]["any"]["model"])
    assert same["margin_mm"]["left"] == pytest.approx(metrics["margin_mm"]["left"])
    assert 0.5 < known["dice_with_model"] < 1
    at = found["margins"]["margins_mm"].index(15.0)
    assert found["margins"]["coverage"]["isotropic"]["all"][at] == pytest.approx(
        metrics["coverage"]["any"]["standard"]
    )
    for words in ("Dice with the model CTV", "truth", "15 mm", "outside the GTV"):
        assert words in run.err


def test_compare_uses_the_follow_up_that_was_evaluated(cli, patient, original, planned, tmp_path):
    with output_folder(planned) as output, output.revised() as folder:
        (folder / "recurrence.nii.gz").unlink()
    density = f"same={planned / 'density.nii.gz'}"
    assert cli("compare", planned, "--density", density).code == 0
    assert json.loads((planned / "compare.json").read_text())["margins"] is None
    assert cli("evaluate", planned, "--recurrence", original / "recurrence.nii.gz").code == 0
    assert cli("compare", planned, "--density", density).code == 0
    assert json.loads((planned / "compare.json").read_text())["margins"] is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--density", "x.nii.gz"], "is not NAME=FILE"),
        ([], "--density"),
        (["--density", "model=x.nii.gz"], "cannot have this name"),
        (["--density", "mine=nowhere.nii.gz"], "does not exist"),
    ],
)
def test_what_compare_refuses(cli, planned, contents, words, said):
    before = contents(planned)
    run = cli("compare", planned, *words)
    assert run.code == 1
    assert said in run.err
    assert contents(planned) == before


def test_compare_of_what_is_no_plan_folder(cli, tmp_path, planned):
    run = cli("compare", tmp_path / "no", "--density", f"a={planned / 'density.nii.gz'}")
    assert run.code == 1
    assert "no" in run.err
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def given(cli, original, tmp_path_factory):
    """The truth, planned as a given density."""
    out = tmp_path_factory.mktemp("given") / "out"
    run = cli("plan", original, "--density", original / "truth_density.nii.gz", "--out", out)
    assert run.code == 0, run.err
    return out, run


def test_a_given_density_is_planned_and_scored_like_a_fit(given, original):
    out, run = given
    metrics = metrics_of(out)
    truth = np.asarray(nib.load(original / "truth_density.nii.gz").dataobj)
    np.testing.assert_allclose(np.asarray(nib.load(out / "density.nii.gz").dataobj), truth, atol=1e-6)
    assert metrics["status"] == metrics["fit"]["method"] == "given"
    assert metrics["truth"]["dice_at_0.1"] == pytest.approx(1)
    assert metrics["coverage"]["any"]["model"] > 0
    assert metrics["equal_volume_voxel_difference"] == 0
    assert metrics["loss"]["total"] is None
    assert metrics["parameters"]["infiltration_length_mm"]["value"] is None
    assert "Density given" in run.err
    page = (out / "report.html").read_text()
    assert "A density made elsewhere was planned" in page
    assert "Fisher–Kolmogorov equation" not in page


def test_another_density_is_another_plan(given, cli, original, tmp_path):
    out, _ = given
    again = ["plan", original, "--out", out, "--resume", "--density"]
    assert "Kept" in cli(*again, original / "truth_density.nii.gz").err
    truth = nib.load(original / "truth_density.nii.gz")
    halved = nib.Nifti1Image(np.asarray(truth.dataobj) / 2, truth.affine)
    nib.save(halved, tmp_path / "half.nii.gz")
    assert "Kept" not in cli(*again, tmp_path / "half.nii.gz").err


def test_what_is_no_density_is_refused(cli, original, tmp_path):
    truth = nib.load(original / "truth_density.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(truth.dataobj) * 100, truth.affine), tmp_path / "percent.nii.gz")
    run = cli("plan", original, "--out", tmp_path / "out", "--density", tmp_path / "percent.nii.gz")
    assert run.code == 1
    assert "scale the map to [0, 1]" in run.err
    assert not (tmp_path / "out").exists()
