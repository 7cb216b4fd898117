"""Patient: one person's segmentation, tissue maps and images on one grid, with what the labels mean.

core = enhancing + necrotic        tumour = core + oedema        (cavities are neither)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliodil.data.choose import choose_inputs
from gliodil.data.dicom.series import Series
from gliodil.data.discover import FILE_ROLES
from gliodil.data.frames import FrameGraph
from gliodil.data.labels import LabelConvention
from gliodil.data.load import Source, brain_mask, load_volumes
from gliodil.data.planning_ct import PlanningCT
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, GliodilError, InputError

Mask = NDArray[np.bool_]

TissueSource = Literal["given", "template"]

REFERENCE_ROLES = ("t1c", "t1", "flair", "t2")


@dataclass(frozen=True, eq=False, repr=False)
class Patient:
    """Volumes of one patient, all on the grid of the segmentation.

    Masks are read-only boolean arrays of that grid's shape. Labels that the convention does not know
    (stray voxels) belong to none of them.

    Raises
    ------
    GeometryError
        If a volume lies on another grid than the segmentation.
    """

    identity: str
    segmentation: Volume
    convention: LabelConvention
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    """Keys among `wm gm csf brain t1 t1c t2 flair pet recurrence`; `barriers`: falx (1) and tentorium (2); and
    `truth`: the density, if simulated."""
    warnings: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """File of each input, `seg` included; of a DICOM series that of its first slice."""
    sources: tuple[Source, ...] = ()
    """Geometry of each file as it is on disk."""
    series: Mapping[str, Series] = field(default_factory=dict)
    """The inputs that are DICOM series."""
    places: tuple[Path, ...] = ()
    """Folders and files it was read from, as they were named."""
    tissue_source: TissueSource = "given"
    """Where the tissue maps come from: files of this patient, or a template registered to an image."""
    planning: PlanningCT | None = None
    """The planning CT and how the MR lies to it; results are written on its slices too."""
    graph: FrameGraph = field(default_factory=FrameGraph)
    """How frames of reference lie to each other, by the clinic's registration objects."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "volumes", dict(self.volumes))
        object.__setattr__(self, "files", dict(self.files))
        object.__setattr__(self, "series", dict(self.series))
        for role, volume in self.volumes.items():
            if role not in FILE_ROLES or role == "seg":
                raise ValueError(f"unknown volume {role!r}; known: {', '.join(FILE_ROLES[1:])}")
            if not volume.same_grid(self.segmentation):
                raise GeometryError(
                    f"The {role} image does not lie on the grid of the segmentation.",
                    patient=self.identity,
                    file=volume.path,
                    expected=repr(self.segmentation),
                    found=repr(volume),
                    remedy="resample it with Volume.resample_to(segmentation)",
                )

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4 affine of the common grid, voxel index to world millimetres (RAS+)."""
        return self.segmentation.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the common grid."""
        return self.segmentation.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing of the common grid, mm."""
        return self.segmentation.spacing

    @cached_property
    def enhancing(self) -> Mask:
        """Enhancing tumour."""
        return _sealed(self.segmentation.mask(self.convention.enhancing))

    @cached_property
    def necrotic(self) -> Mask:
        """Necrotic and non-enhancing tumour core."""
        return _sealed(self.segmentation.mask(self.convention.necrotic))

    @cached_property
    def oedema(self) -> Mask:
        """Oedema, with the infiltrated tissue that looks like it."""
        return _sealed(self.segmentation.mask(self.convention.oedema))

    @cached_property
    def cavity(self) -> Mask:
        """Resection cavity."""
        return _sealed(self.segmentation.mask(self.convention.cavity))

    @cached_property
    def core(self) -> Mask:
        """Enhancing and necrotic tumour."""
        return _sealed(self.enhancing | self.necrotic)

    @cached_property
    def tumour(self) -> Mask:
        """Core and oedema."""
        return _sealed(self.core | self.oedema)

    @cached_property
    def brain(self) -> Mask:
        """The given brain mask, else where WM + GM + CSF exceed 0.1; holes are left as they are.

        Raises
        ------
        InputError
            If there is neither a brain mask nor WM and GM maps.
        """
        mask = brain_mask(self.volumes)
        if mask is None:
            raise InputError(
                "There is nothing to tell brain from the rest of the image.",
                patient=self.identity,
                expected="a brain mask, or WM and GM maps",
                found=", ".join(self.volumes) or "only the segmentation",
                remedy="add --brain FILE, or --wm FILE and --gm FILE",
            )
        return _sealed(mask)

    @property
    def reference(self) -> Series | None:
        """The DICOM series that results refer to: t1c if it is one, else the first of t1, flair and t2."""
        return next((self.series[role] for role in REFERENCE_ROLES if role in self.series), None)

    @property
    def mr_image(self) -> Volume:
        """The anatomical image that stands for the MR where it meets the planning CT: the first of t1c, t1, flair, t2.

        Raises
        ------
        InputError
            If there is none, and the frame of reference does not settle it either.
        """
        role = next((role for role in REFERENCE_ROLES if role in self.volumes), None)
        frame = self.segmentation.frame or (self.reference.frame_of_reference if self.reference else "")
        if role is not None:
            image = self.volumes[role]
            return image if image.frame or not frame else image.carried(np.eye(4), frame)
        if self.planning is not None and frame == self.planning.frame:
            return self.segmentation
        raise InputError(
            "There is no image to relate the planning CT to.",
            patient=self.identity,
            expected="one of " + ", ".join(REFERENCE_ROLES),
            found=", ".join(self.volumes) or "only the segmentation",
            remedy="give an MR image (--t1c PATH), or plan without the CT (--ct none)",
        )

    @property
    def links(self) -> FrameGraph:
        """All links between frames: the clinic's, and that of a registered planning CT."""
        return self.graph if self.planning is None else self.planning.links

    @property
    def pet(self) -> Volume | None:
        """PET uptake, if there is one."""
        return self.volumes.get("pet")

    @property
    def recurrence(self) -> Volume | None:
        """Labels of the recurrence at follow-up, if there is a map of it."""
        return self.volumes.get("recurrence")

    def describe(self) -> list[dict[str, str]]:
        """Return one row per input: role, file, shape, spacing (mm), orientation, and a note if resampled."""
        if not self.sources:
            pairs = {"seg": self.segmentation, **self.volumes}.items()
            rows = [
                (r, "" if v.path is None else v.path.name, v.shape, v.spacing, v.orientation, "")
                for r, v in pairs
            ]
        else:
            rows = [
                (
                    *(s.role, s.name, s.shape, s.spacing, s.orientation),
                    ", ".join(filter(None, (s.unit, "resampled" if s.resampled else ""))),
                )
                for s in self.sources
            ]
        return [
            {
                "role": role,
                "file": name,
                "shape": " x ".join(map(str, shape)),
                "spacing": " x ".join(f"{s:.3g}" for s in spacing),
                "orientation": orientation,
                "note": note,
            }
            for role, name, shape, spacing, orientation, note in rows
        ]

    def __repr__(self) -> str:
        volume = self.segmentation.voxel_volume_ml * np.count_nonzero(self.tumour)
        inputs = " ".join(self.volumes) or "none"
        return (
            f"Patient({self.identity!r}, {self.convention.name}, tumour {volume:.3g} mL, volumes: {inputs}, "
            f"{len(self.warnings)} warnings)"
        )

    def _repr_html_(self) -> str:
        from gliodil.data.display import patient_html

        return patient_html(self)


def load_patient(
    folder: Path | str | None = None,
    *,
    files: Mapping[str, Path | str] | None = None,
    labels: str | None = None,
    identity: str | None = None,
    tissue_source: TissueSource = "given",
    ct: Path | str | None = None,
    reg: Sequence[Path | str] = (),
    register: bool = False,
    same_patient: bool = False,
    parts: Mapping[str, str] | None = None,
) -> Patient:
    """Read a patient from a folder of NIfTI files or DICOM series, from named files, or from both.

    Everything is checked and brought onto the grid of the segmentation; every file is read to its end, so
    that damage shows here. White and grey matter maps are not required yet (the fit requires them).

    Parameters
    ----------
    folder
        Patient folder; NIfTI files are recognised by name (`gliodil.data.discover`), DICOM series by their
        headers (`gliodil.data.dicom.modality`).
    files
        Input name (`seg wm gm csf brain t1 t1c t2 flair pet recurrence barriers truth`) to file; overrides the
        folder.
        Images can be DICOM series, given as a folder or any file of the series.
    labels
        Name of the label convention; by default it is told from labels and geometry, or refused.
    identity
        Name of the patient; by default that of the folder (of the segmentation).
    tissue_source
        `"template"` if tissue maps among the files were carried from a template by a registration, which is off by
        millimetres: fits then blur them and do not take their fluid for a wall.
    ct
        The planning CT: its folder or any file of it; by default the one in the folder, `none` for none.
    reg
        The clinic's registration objects between MR and CT, besides those in the folder.
    register
        Whether images in other frames of reference are going to be aligned (`prepare(patient, register=True)`);
        otherwise they are refused or, where they would only be shown, left out.
    same_patient
        States that all is one person's although PatientIDs differ.
    parts
        What structures of an RTSTRUCT or segments of a SEG are, by name: `core`, `enhancing`, `necrotic`, `oedema`,
        `cavity` or `ignore`. The others are told by their names.

    Raises
    ------
    InputError
        In the narrower types `ImageFileError` (missing, not an image, damaged), `GeometryError` (not 3-D,
        not placed in space, not overlapping) and `LabelError` (empty, wrong convention, no core), or itself
        for missing or ambiguous files, NaN, and maps that do not hold probabilities. Names the patient.
    """
    named = dict(files or {})
    root = None if folder is None else Path(folder)
    place = root if root is not None else Path(named["seg"]).parent if "seg" in named else Path()
    name = identity or place.resolve().name or "patient"
    try:
        chosen = choose_inputs(
            root,
            named,
            ct=None if ct is None else Path(ct),
            reg=[Path(path) for path in reg],
            register=register,
            same_patient=same_patient,
            parts=parts,
        )
        loaded = load_volumes(chosen, labels=labels)
    except GliodilError as error:
        error.for_patient(name)
        raise
    places = tuple(Path(each) for each in (root, *named.values()) if each is not None)
    return Patient(
        identity=name,
        segmentation=loaded.segmentation,
        convention=loaded.convention,
        volumes=loaded.volumes,
        warnings=chosen.warnings + loaded.warnings,
        files=chosen.files,
        sources=loaded.sources,
        series=chosen.series,
        places=(*places, *(() if loaded.planning is None else loaded.planning.places)),
        tissue_source=tissue_source,
        planning=loaded.planning,
        graph=chosen.graph,
    )


def _sealed(mask: Mask) -> Mask:
    mask.flags.writeable = False
    return mask
