"""A patient whose tumour is known, and the files it is kept in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliodil.data.atomic import atomic_path
from gliodil.data.manifest import Owner
from gliodil.data.nifti import write_nifti
from gliodil.data.patient import Patient
from gliodil.data.publish import Output, output_folder
from gliodil.data.volume import Volume

KIND = "synthetic patient"
UNITS = {
    "diffusivity_wm_mm2_per_day": "mm²/day",
    "proliferation_rate_per_day": "1/day",
    "wm_gm_ratio": "1",
    "infiltration_length_mm": "mm",
    "threshold_necrotic": "1",
    "threshold_core": "1",
    "threshold_oedema": "1",
    "origins_mm": "mm",
    "duration_days": "day",
    "pet_scale": "1",
    "pet_background": "1",
    "recurrence_days": "day",
}
"""Unit of each parameter of a synthetic patient; origins are in world coordinates (RAS+)."""

DISTORTIONS = {
    "csf_speed": "1",
    "origin_delays_days": "day",
    "registration_error_mm": "mm",
    "mass_effect_mm": "mm",
    "oedema_mm": "mm",
    "rim_mm": "mm",
    "diffusion_log_sd": "1",
    "proliferation_log_sd": "1",
    "boundary_noise_mm": "mm",
    "label_set": "name",
    "satellite_mm": "mm",
}
"""Further parameters of a realistic patient (`gliodil.data.realism`).

The registration error is the root mean square of the maps' displacement near the visible tumour; the standard
deviations are those of ln D and ln ρ there. A front in CSF has `csf_speed` times its speed in white matter. Origins
are where they were planted, before the tissue was pushed away; one whose day is after the imaging did not grow;
`satellite_mm` is where a focus started after imaging, or null.
"""


@dataclass(frozen=True, eq=False)
class SyntheticPatient:
    """A patient whose tumour is known.

    Attributes
    ----------
    patient
        What a clinic would have: segmentation (brats-2023), wm, gm, csf, brain, t1, pet, recurrence,
        barriers.
    truth
        Tumour-cell density in [0, 1] at the time of imaging, on the same grid.
    parameters
        What the tumour was made with; keys and units as in `UNITS` and `DISTORTIONS`. The infiltration length is
        √(D_w/ρ).
    volumes_ml
        Volumes of the visible tumour, its core, and the enhancing and whole recurrence [mL].
    settings
        seed, foci, resolution_mm, and the number of the draw that was taken (from 0).
    """

    patient: Patient
    truth: Volume
    parameters: Mapping[str, Any]
    volumes_ml: Mapping[str, float]
    settings: Mapping[str, float]

    def save(self, folder: Path | str | Output, *, overwrite: bool = False) -> Path:
        """Write seg, the other volumes, truth_density (.nii.gz) and truth.json; equal patients, equal bytes.

        Parameters
        ----------
        folder
            New, empty, or one that holds a synthetic patient as it was written.
        overwrite
            Replace another synthetic patient.

        Raises
        ------
        OutputError
            If the folder cannot be written to, or holds anything else.
        """
        with ExitStack() as stack:
            output = folder if isinstance(folder, Output) else stack.enter_context(output_folder(folder))
            output.claim(Owner(KIND, self.patient.identity), overwrite=overwrite)
            with output.new() as fresh:
                self._write(fresh)
        return output.path if isinstance(folder, Output) else Path(folder)

    def _write(self, folder: Path) -> None:
        record = {
            "schema_version": 1,
            "statement": "Simulated patient. Research use only.",
            "label_convention": self.patient.convention.name,
            "settings": dict(self.settings),
            "parameters": dict(self.parameters),
            "units": {name: (UNITS | DISTORTIONS)[name] for name in self.parameters},
            "volumes_ml": dict(self.volumes_ml),
        }
        volumes = {"seg": self.patient.segmentation, **self.patient.volumes, "truth_density": self.truth}
        for name, volume in volumes.items():
            write_nifti(volume, folder / f"{name}.nii.gz")
        with atomic_path(folder / "truth.json") as temporary:
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
