"""gliodil: tumour-cell density and radiotherapy margin maps of glioblastoma patients. Research use only.

patient = gliodil.load_patient("patient_001/")
fit     = gliodil.fit(patient)
plans   = gliodil.plan(patient, fit);  plans.save("out/")
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Warnings are part of every result; without this, Python would print those logged a second time.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Threads meet several hundred times a sweep. By default (GNU OpenMP) those that wait keep their processor for
# milliseconds; where another program runs, what they wait for may be queueing behind them, and a fit takes a hundred
# times as long. A short wait costs little on an idle machine. Read when OpenMP is loaded, hence here, before PyTorch.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"

# Heavy libraries are imported on first use, so that `import gliodil` costs nothing.
_PUBLIC = {
    "Volume": "gliodil.data.volume",
    "Patient": "gliodil.data.patient",
    "load_patient": "gliodil.data.patient",
    "read_nifti": "gliodil.data.nifti",
    "write_nifti": "gliodil.data.nifti",
    "simulate": "gliodil.data.synthetic",
    "Fit": "gliodil.inference.result",
    "FitConfig": "gliodil.inference.config",
    "LearnedFit": "gliodil.inference.learned_result",
    "LongitudinalPatient": "gliodil.data.longitudinal",
    "simulate_longitudinal": "gliodil.data.longitudinal",
    "fit": "gliodil.inference.fit",
    "Plans": "gliodil.planning.plans",
    "plan": "gliodil.planning.plan",
    "plan_patient": "gliodil.pipeline",
    "GliodilError": "gliodil.errors",
}

if TYPE_CHECKING:
    from gliodil.data.longitudinal import LongitudinalPatient as LongitudinalPatient
    from gliodil.data.longitudinal import simulate_longitudinal as simulate_longitudinal
    from gliodil.data.nifti import read_nifti as read_nifti
    from gliodil.data.nifti import write_nifti as write_nifti
    from gliodil.data.patient import Patient as Patient
    from gliodil.data.patient import load_patient as load_patient
    from gliodil.data.synthetic import simulate as simulate
    from gliodil.data.volume import Volume as Volume
    from gliodil.errors import GliodilError as GliodilError
    from gliodil.inference.config import FitConfig as FitConfig
    from gliodil.inference.fit import fit as fit
    from gliodil.inference.learned_result import LearnedFit as LearnedFit
    from gliodil.inference.result import Fit as Fit
    from gliodil.pipeline import plan_patient as plan_patient
    from gliodil.planning.plan import plan as plan
    from gliodil.planning.plans import Plans as Plans

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'gliodil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
