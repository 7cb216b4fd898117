"""Volumes and geometry, NIfTI, label conventions, and patients from files.

World coordinates are millimetres, RAS+, through float64 affines; see `gliodil.data.volume`.
"""

from gliodil.data.atomic import atomic_path
from gliodil.data.discover import FILE_ROLES, find_files
from gliodil.data.label_check import check_labels, detect_convention
from gliodil.data.labels import CONVENTIONS, LabelConvention, get_convention
from gliodil.data.nifti import read_nifti, write_nifti
from gliodil.data.patient import Patient, load_patient
from gliodil.data.volume import Kind, Volume

__all__ = [
    "CONVENTIONS",
    "FILE_ROLES",
    "Kind",
    "LabelConvention",
    "Patient",
    "Volume",
    "atomic_path",
    "check_labels",
    "detect_convention",
    "find_files",
    "get_convention",
    "load_patient",
    "read_nifti",
    "write_nifti",
]
