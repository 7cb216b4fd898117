"""How close carried tissue maps come to the truth, on heads with a known deformation and a lesion.

    affine     the affine map alone (lesion masked)
    untouched  affine, then SyN, as if the lesion were tissue
    filled     the lesion overpainted with the carried template first
    masked     the lesion left out: of the histogram, and of the forces

Dice of white and grey matter above one half against the truth: outside the lesion, in the 12 mm around it (ring), and
under it (where the truth is what was there before). One line per head, then means and worst.

    python benchmarks/registration.py --heads 4 --cells-mm 2 1.5
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.registration.atlas import AtlasConfig, register_template
from gliodil.data.registration.known import KnownHead, known_head
from gliodil.data.registration.transform import Transform
from gliodil.data.template import Anatomy, load_anatomy

RING_MM = 12.0
CENTRES = ((30.0, -20.0, 22.0), (-28.0, 30.0, 18.0), (-40.0, -25.0, -8.0), (22.0, -60.0, 20.0))
"""Where the lesions are, world mm: parietal, frontal, temporal, occipital."""

COLUMNS = ("wm", "gm", "wm ring", "gm ring", "wm under", "gm under", "correlation", "CPU s")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--cells-mm", type=float, nargs="+", default=[AtlasConfig.warp_mm])
    options = parser.parse_args()
    anatomy = load_anatomy()
    rows: dict[str, list[Sequence[float]]] = {}
    print(f"{'head':<6}{'method':<18}" + "".join(f"{name:>13}" for name in COLUMNS))
    for seed in range(options.heads):
        head = known_head(anatomy, seed=seed, lesion_centre=CENTRES[seed % len(CENTRES)])
        for name, config in methods(options.cells_mm).items():
            row = measure(head, anatomy, config)
            rows.setdefault(name, []).append(row)
            print(line(str(seed), name, row), flush=True)
    for name, values in rows.items():
        print(line("mean", name, [float(v) for v in np.mean(values, axis=0)]))
    for name, values in rows.items():
        scores, seconds = np.asarray(values)[:, :-1], np.asarray(values)[:, -1]
        print(line("worst", name, [*map(float, scores.min(axis=0)), float(seconds.max())]))
    print(f"CPU seconds on one thread; {sys.platform}", file=sys.stderr)


def methods(cells_mm: Sequence[float]) -> dict[str, AtlasConfig]:
    """Return what is compared, by name."""
    found = {"affine": AtlasConfig(warp_mm=2.0, iterations=(0,))}
    for cells in cells_mm:
        for lesion in ("untouched", "filled", "masked"):
            found[f"{lesion} {cells:g} mm"] = AtlasConfig(lesion=lesion, warp_mm=cells)
    return found


def measure(head: KnownHead, anatomy: Anatomy, config: AtlasConfig) -> list[float]:
    """Return the columns of one row."""
    lesion = head.segmentation.data > 0
    started = time.process_time()
    found = register_template(head.t1, head.brain.data > 0, lesion, anatomy, config=config)
    seconds = time.process_time() - started
    away = ndimage.distance_transform_edt(~lesion, sampling=head.t1.spacing)
    regions = (~lesion, ~lesion & (away <= RING_MM), lesion)
    scores = [tissue_dice(head, anatomy, found.transform, region) for region in regions]
    return [*(value for pair in scores for value in pair), found.correlation, seconds]


def tissue_dice(
    head: KnownHead, anatomy: Anatomy, transform: Transform, region: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return Dice of white and of grey matter above one half, inside a region."""
    inside = region & (head.brain.data > 0)
    pairs = []
    for role in ("wm", "gm"):
        carried = transform.apply(getattr(anatomy, role), head.t1).data[inside] > 0.5
        true = getattr(head, role).data[inside] > 0.5
        pairs.append(2 * np.count_nonzero(carried & true) / (carried.sum() + true.sum()))
    return float(pairs[0]), float(pairs[1])


def line(head: str, name: str, row: Sequence[float]) -> str:
    """Return one line of the table."""
    return f"{head:<6}{name:<18}" + "".join(f"{v:>13.3f}" for v in row[:-1]) + f"{row[-1]:>13.0f}"


if __name__ == "__main__":
    main()
