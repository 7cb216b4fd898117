"""A patient cut out, resampled onto the computational grid and ready to be fitted.

Crop: the bounding box of all tumour labels, enlarged about its centre, and so far that it holds a margin around
the core, clipped to the image; the grid divides it into ``cells`` per axis. Tissue fractions are interpolated
linearly, labels by nearest neighbour, all through world coordinates.

Maps are blurred by as much as they may be off (``tissue``). Tissue under the visible tumour is a prior, not a
measurement: tissue maps of an atlas or of a displaced brain may claim CSF there. A visible tumour voxel is passable by
observation, so where the maps leave it without tissue it is treated as white matter, and the volume treated so is
reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.inference.config import FitConfig
from gliodil.inference.rim import SMALLEST_SHARE, enhancing_share
from gliodil.inference.tissue import blurred, csf_is_open, error_mm
from gliodil.pde.grid import Grid
from gliodil.pde.models.fisher_kolmogorov import TISSUE_THRESHOLD, FisherKolmogorov

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """What the loss sees of a patient.

    Attributes
    ----------
    grid
        Computational grid over the crop, float64; fields below follow its device.
    affine
        Grid index to world millimetres, 4×4.
    model
        Fisher-Kolmogorov equation on the crop's tissue.
    core, oedema, enhancing, necrotic
        Boolean fields, shape (N,); core is enhancing plus necrotic tumour.
    has_necrosis
        Whether necrosis is a level of its own: it fills a cell of the grid that was asked for and lies inside an
        enhancing rim (``rim``). Coarser grids, on which it may come or go, follow that one.
    pet
        FET-PET scaled to its maximum in the enhancing tumour and oedema, shape (N,), or None.
    passable_voxels
        Where tumour cells can be, on the patient's own grid (boolean, 3-D).
    warnings
        What the reader of a result has to know about the case.
    """

    grid: Grid
    affine: NDArray[np.float64]
    model: FisherKolmogorov
    core: torch.Tensor
    oedema: torch.Tensor
    enhancing: torch.Tensor
    necrotic: torch.Tensor
    has_necrosis: bool
    pet: torch.Tensor | None
    passable_voxels: BoolArray
    warnings: tuple[str, ...]

    def world(self, point: torch.Tensor) -> tuple[float, float, float]:
        """Return world mm (RAS+) of a point given in mm from the grid's corner."""
        index = point.detach().double().cpu().numpy() / np.asarray(self.grid.spacing) - 0.5
        x, y, z = (self.affine @ np.append(index, 1.0))[:3]
        return float(x), float(y), float(z)

    def volume_on(self, field: torch.Tensor, reference: Volume) -> Volume:
        """Return a field on the patient's grid: linear, zero outside the crop and outside passable voxels."""
        values = self.grid.box(field).detach().clamp(0, 1).float().cpu().numpy()
        there = Volume(values, self.affine, kind="scalar").resample_to(reference)
        return reference.with_data(
            np.where(self.passable_voxels, there.data, 0).astype(np.float32), kind="scalar"
        )


def set_up(patient: Patient, config: FitConfig) -> Case:
    """Build the case of a patient.

    Raises
    ------
    InputError
        If white- or grey-matter maps are missing, or PET is not positive inside the tumour.
    LabelError
        If there is no tumour core.
    GeometryError
        If the tumour lies where the maps have no tissue at all.
    """
    missing = [name for name in ("wm", "gm") if name not in patient.volumes]
    if missing:
        raise InputError(
            "White- and grey-matter maps are needed.",
            patient=patient.identity,
            expected="probability maps wm and gm, on any grid in the same space",
            found=f"no {' and no '.join(missing)}",
            remedy="name them with --wm FILE --gm FILE, or put files ending in _wm and _gm into the folder; "
            "or give neither, and an anatomical MRI (t1, t1c, t2 or flair) to make them from",
        )
    if not patient.core.any():
        raise LabelError(
            "The segmentation has no tumour core to estimate a density from.",
            patient=patient.identity,
            file=patient.segmentation.path,
            expected="enhancing or necrotic voxels",
            found="none",
            remedy="after surgery, choose a plan rule that counts the cavity (--rule estro-eano-2023)",
        )
    white, grey, csf, warnings = _tissue(patient, config)
    grid, affine = _crop(patient, config)
    frame = Volume(np.zeros(grid.shape, dtype=np.float32), affine, kind="scalar")

    def scalar(values: NDArray[np.floating]) -> torch.Tensor:
        there = patient.segmentation.with_data(values.astype(np.float32), kind="scalar")
        return grid.field(there.resample_to(frame).data.copy())

    masks = (~patient.tumour, patient.oedema, patient.necrotic, patient.enhancing)
    numbered = sum(k * mask.astype(np.uint8) for k, mask in enumerate(masks))
    nearest = patient.segmentation.with_data(numbered, kind="label").resample_to(frame).data
    label = torch.as_tensor(nearest.astype(np.int64), device=grid.device).reshape(-1)
    # A cell centred on the border of two voxels has two nearest ones. Taking one side would shift every label and
    # tell left from right; the largest share of the interpolation weights decides instead.
    shares = torch.stack([scalar(mask.astype(np.float32)) + 1e-6 * k for k, mask in enumerate(masks)])
    label = torch.where(_between_voxels(patient, frame, grid), shares.argmax(dim=0), label)
    core, oedema = label >= 2, label == 1
    if not bool(core.any()):
        raise GeometryError(
            "The tumour core falls between the cells of the computational grid.",
            patient=patient.identity,
            found=f"cells of {' x '.join(f'{h:.2f}' for h in grid.spacing)} mm",
            remedy="use more cells (--cells)",
        )
    share = enhancing_share(patient.enhancing, patient.necrotic, spacing=patient.spacing)
    in_rim = share >= SMALLEST_SHARE
    if patient.necrotic.any() and not in_rim and config.loss != "reference":
        warnings.append(
            f"Only {share:.0%} of the core's surface enhances: what is labelled as necrosis is not read as lying "
            "inside an enhancing rim, but as core like the rest."
        )
    if config.method == "pinn" and patient.pet is not None:
        warnings.append("The network does not use PET; its density rests on the segmentation alone.")
    return Case(
        grid=grid,
        affine=affine,
        model=FisherKolmogorov.on(grid, *(scalar(map).clamp(0, 1) for map in (white, grey, *csf))),
        core=core,
        oedema=oedema,
        enhancing=label == 3,
        necrotic=label == 2,
        has_necrosis=in_rim and bool((label == 2).any()),
        pet=_pet(patient, scalar),
        passable_voxels=sum(csf, white + grey) >= TISSUE_THRESHOLD,
        warnings=tuple(warnings),
    )


def _between_voxels(patient: Patient, frame: Volume, grid: Grid) -> torch.Tensor:
    """Where a cell's centre lies halfway between two voxels of the patient, boolean field."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    position = patient.segmentation.to_index(frame.to_world(index))
    return grid.mask(np.asarray((np.abs(position % 1 - 0.5) < 1e-6).any(axis=-1)))


def _tissue(
    patient: Patient, config: FitConfig
) -> tuple[FloatArray, FloatArray, tuple[FloatArray, ...], list[str]]:
    """White and grey matter and, where it is open, fluid inside the brain, with the visible tumour passable."""
    warnings = []
    inside = patient.brain if "brain" in patient.volumes else np.ones(patient.shape, dtype=bool)
    error = error_mm(patient, config)
    roles = ("wm", "gm", "csf") if csf_is_open(patient, config) else ("wm", "gm")
    white, grey, *csf = (
        blurred(patient.volumes[role].data, error, spacing=patient.spacing, inside=inside) for role in roles
    )
    bare = patient.tumour & (white + grey < TISSUE_THRESHOLD)
    if np.count_nonzero(bare) == np.count_nonzero(patient.tumour):
        raise GeometryError(
            "The tissue maps are empty everywhere inside the tumour.",
            patient=patient.identity,
            expected="white- and grey-matter maps in the space of the segmentation",
            found="no voxel of the tumour with WM + GM above 0.1",
            remedy="check that the maps were registered to this patient",
        )
    white[bare] = 1
    fraction = np.count_nonzero(bare) / np.count_nonzero(patient.tumour)
    if fraction > 0.01:
        ml = np.count_nonzero(bare) * patient.segmentation.voxel_volume_ml
        warnings.append(
            f"The tissue maps show no tissue in {ml:.1f} mL ({fraction:.0%}) of the visible tumour; "
            "it was treated as white matter."
        )
    return white, grey, tuple(csf), warnings


def _crop(patient: Patient, config: FitConfig) -> tuple[Grid, NDArray[np.float64]]:
    """Grid over the enlarged bounding box and its affine."""
    index = np.argwhere(patient.tumour)
    low, high = index.min(axis=0) - 0.5, index.max(axis=0) + 0.5
    centre, half = (low + high) / 2, (high - low) / 2 * config.crop_factor
    shape = np.asarray(patient.segmentation.shape)
    low, high = centre - half, centre + half
    if config.loss != "reference":
        core = np.argwhere(patient.tumour & ~patient.oedema)
        margin = np.ceil(config.crop_margin_mm / np.asarray(patient.segmentation.spacing))  # whole voxels
        if core.size:
            low = np.minimum(low, core.min(axis=0) - 0.5 - margin)
            high = np.maximum(high, core.max(axis=0) + 0.5 + margin)
    low, high = np.maximum(low, -0.5), np.minimum(high, shape - 0.5)
    cell = (high - low) / config.cells  # in voxels
    to_index = np.diag(np.append(cell, 1.0))
    to_index[:3, 3] = low + 0.5 * cell
    h = cell * np.asarray(patient.segmentation.spacing)
    grid = Grid(
        (config.cells, config.cells, config.cells),
        (float(h[0]), float(h[1]), float(h[2])),
        device=choose_device(config.device),
    )
    return grid, patient.segmentation.affine @ to_index


def _pet(patient: Patient, scalar) -> torch.Tensor | None:  # type: ignore[no-untyped-def]
    if patient.pet is None:
        return None
    seen = patient.pet.data[patient.enhancing | patient.oedema]
    peak = float(seen.max()) if seen.size else 0.0
    if peak <= 0:
        raise InputError(
            "The PET volume has no positive value in the enhancing tumour and oedema.",
            patient=patient.identity,
            file=patient.pet.path,
            remedy="leave it out with an explicit file list, or give the right file with --pet",
        )
    scaled: torch.Tensor = scalar(patient.pet.data / peak)
    return scaled.clamp(max=1)


def choose_device(name: str) -> torch.device:
    """Return the device named ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    InputError
        If the device does not exist here, or is of another kind.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or not (
        device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count)
    ):
        raise InputError(
            "There is no such device here.",
            expected=", ".join(["auto", "cpu", *(f"cuda:{i}" for i in range(count))]),
            found=name,
            remedy="choose one of these with --device",
        )
    return device
