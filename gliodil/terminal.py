"""What the command line prints: results to stdout, everything else to stderr; silent where nobody reads."""

from __future__ import annotations

import errno
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil.errors import OutputError, visible
from gliodil.preflight import memory_gb

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.inference.config import FitConfig

Progress = Callable[[str, int, float], None]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
GRADIENTS_EXPECTED = 150
"""Length of the progress bar of a fit; it stretches if a fit takes more."""


class Terminal:
    """Prints; survives closed and redirected streams, narrow windows and poor character sets."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._started = time.perf_counter()

    def say(self, text: str) -> None:
        """Print a result to stdout.

        Raises
        ------
        OutputError
            If it takes no more, because the disk behind it is full for instance; not if its reader has gone.
        """
        failed = _write(sys.stdout, text)
        if failed is not None and failed.errno in _NO_ROOM:
            raise OutputError(
                "The result cannot be printed.",
                expected="standard output that can be written to",
                found=failed.strerror,
                remedy="free the disk it is written to",
            ) from failed

    def note(self, text: str) -> None:
        """Print to stderr unless quiet."""
        if not self.quiet:
            _write(sys.stderr, text)

    def error(self, text: str) -> None:
        """Print an error to stderr."""
        _write(sys.stderr, f"gliodil: {text}")

    def warnings(self, texts: Iterable[str]) -> None:
        """Show what a reader of the result should know."""
        for text in texts:
            self.note(f"note: {visible(text)}")

    def inputs(self, patient: Patient, out: Path, config: FitConfig) -> None:
        """Show what was found and what it was taken for."""
        self.note(f"Patient {visible(patient.identity)}, labels read as {patient.convention.name}")
        rows = patient.describe()
        width = max(32, *(len(row["file"]) for row in rows))
        for row in rows:
            self.note(
                f"  {row['role']:<11}{visible(row['file']):<{width}} {row['shape']:<16} {row['spacing']} mm  "
                f"{row['orientation']} {row['note']}".rstrip()
            )
        optional = ("wm", "gm", "brain", "csf", "pet", "recurrence")
        if missing := [name for name in optional if name not in patient.volumes]:
            self.note(f"  not given: {', '.join(missing)}")
        for warning in patient.warnings:
            self.note(f"  note: {visible(warning)}")
        size = f"grid {config.cells}³ × {config.steps}, about {memory_gb(config):.1f} GB of memory"
        if config.method == "pinn":
            size += f"; network {config.network_depth} × {config.network_width}, at most {config.network_budget_s:g} s"
        self.note(f"  {size}; results to {visible(out)}")

    def coverage(self, coverage: Mapping[str, Any]) -> None:
        """Show recurrence coverage."""
        for kind, values in coverage.items():
            if values is None:
                self.note(f"Coverage ({kind} recurrence): none to cover")
            else:
                parts = ", ".join(f"{name} {value:.1%}" for name, value in values.items())
                self.note(f"Coverage ({kind} recurrence): {parts}")

    def comparison(self, compared: Mapping[str, Any]) -> None:
        """Show maps beside the plans of one patient, as tables."""
        plans = compared["plans"]
        kinds = next(iter(plans.values()))["coverage"] or {}
        sides = ("left", "right", "anterior", "posterior", "superior", "inferior")
        heads = ("mL", "Dice", "gained", "given up", "margin", *(side[0].upper() for side in sides), *kinds)
        rows = {}
        for name, plan in plans.items():
            amounts = [f"{plan['volume_ml']:.1f}", f"{plan['dice_with_model']:.3f}"]
            amounts += [f"{plan[key]:.1f}" for key in ("gained_ml", "given_up_ml")]
            margin = [_number(plan["margin_mm"][key], ".1f", "–") for key in ("mean", *sides)]
            rows[name] = [
                *amounts,
                *margin,
                *(_number(plan["coverage"][kind], ".1%", "none") for kind in kinds),
            ]
        self.note(
            "At the volume of the standard CTV: Dice with the model CTV; gained and given up against the standard"
        )
        self.note("CTV (mL); mean margin, and to the left, right, ... (mm); share of the recurrence covered")
        self._table(heads, rows)
        if margins := compared["margins"]:
            for target, words in (("all", "all later tumour"), ("new", "later tumour outside the GTV")):
                self.note(f"Covered of {words}, at the volumes of isotropic margins")
                self._table(
                    [f"{mm:g} mm" for mm in margins["margins_mm"]],
                    {
                        name: [_number(value, ".1%", "none") for value in curves[target]]
                        for name, curves in margins["coverage"].items()
                    },
                )

    def _table(self, heads: Iterable[str], rows: Mapping[str, Iterable[str]]) -> None:
        """Print a table line by line, so that what stderr cannot take costs no more than that."""
        import io

        from rich.console import Console
        from rich.table import Table

        table = Table("", box=None, pad_edge=False)
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for name, cells in rows.items():
            table.add_row(name, *cells)
        text = io.StringIO()
        Console(file=text, width=250, color_system=None).print(table)
        for line in text.getvalue().splitlines():
            self.note(f"  {line.rstrip()}")

    def dicom(self, written: Mapping[str, Any]) -> None:
        """Show what the DICOM files gave back when they were read again."""
        self.note(f"DICOM: {', '.join(written['files'])}; read back:")
        for name, trip in written["structures"].items():
            self.note(
                f"  {name:<14} Dice {trip['dice']:.4f}  {trip['voxel_ml']:8.2f} mL in voxels  "
                f"{trip['polygon_ml']:8.2f} mL in contours ({trip['difference_percent']:+.3f} %)"
            )

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Show the outcome in a few lines."""
        ml, seconds = metrics["volumes_ml"], time.perf_counter() - self._started
        loss = _number(metrics["loss"]["total"], ".3g")
        done = (
            f"Optimizer {metrics['status'].replace('_', ' ')}: loss {loss}"
            if metrics["fit"]["method"] != "given"
            else "Density given"
        )
        self.note(f"{done}; {seconds:.0f} s in all")
        acceptance = metrics["acceptance"]
        self.note("Accepted" if acceptance["accepted"] else "NOT ACCEPTED, see the warnings")
        self.note(metrics["summary"].partition(" Not accepted:")[0])
        gtv, model, trimmed = (ml[name] for name in ("gtv", "ctv_model", "ctv_trimmed"))
        self.note(f"CTV {model:.1f} mL (GTV {gtv:.1f} mL), trimmed {trimmed:.1f} mL")
        if "ptv_model" in ml:
            self.note(f"PTV {ml['ptv_model']:.1f} mL (rule {metrics['rule']['name']})")
        if "ctv_initial_standard" in ml:
            self.note(f"First phase: standard CTV {ml['ctv_initial_standard']:.1f} mL")
        for name, parts in metrics["organs_ml"].items():
            said = (
                "excluded"
                if name in metrics["organs_excluded"]
                else f"{parts['ctv_model']:.1f} mL in the CTV"
            )
            self.note(f"{name}: {parts['organ']:.1f} mL, {said}")
        self.coverage(metrics["coverage"] or {})
        if written := metrics.get("dicom"):
            self.dicom(written)
        if ct := metrics.get("ct"):
            how = {"same frame": "one frame of reference", "REG": "the clinic's registration"}
            self.note(
                f"Planning CT, {visible(ct['series'])}: related to the MR by {how.get(ct['origin'], 'registration')}, "
                f"{ct['shift_mm']:.1f} mm at the tumour and {ct['angle_deg']:.1f}°; in ct/"
            )
            self.dicom(ct["dicom"])
        if truth := metrics["truth"]:
            dice = [_number(truth[f"dice_at_{level}"], ".3f") for level in ("0.1", "0.01")]
            self.note(f"Against the truth: Dice {dice[0]} at 10 %, {dice[1]} at 1 %")
        self.warnings(metrics["warnings"])

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show a bar with stage, gradients and loss while stderr is a terminal; otherwise nothing."""
        # A bar and a log would overwrite each other.
        if self.quiet or self.verbose or sys.stderr is None or not sys.stderr.isatty():
            yield lambda *_: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        console = Console(stderr=True)
        # rich would stand in for a stdout that is closed, and libraries then ask it what it cannot answer.
        redirect = sys.stdout is not None
        with Progress(*columns, console=console, transient=True, redirect_stdout=redirect) as bars:
            starting = "starting; the first run compiles for half a minute"
            task = bars.add_task(starting, total=GRADIENTS_EXPECTED, state="")

            def show(stage: str, done: int, value: float) -> None:
                total = max(GRADIENTS_EXPECTED, math.ceil(done / 50) * 50)
                state = "" if math.isnan(value) else f"{done:4d}  {value:.3g}"
                bars.update(task, description=f"{stage:<18}", completed=done, total=total, state=state)

            yield show


def _number(value: float | None, form: str, absent: str = "unknown") -> str:
    return absent if value is None else format(value, form)


def _write(stream: Any, text: str) -> OSError | None:
    """Print a text; return what kept it from being printed."""
    if stream is None:
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # What the stream cannot encode (³ in ASCII, odd bytes of a file name) must not cost the whole line.
    text = visible(text, lines=True).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        return error
    except ValueError:  # closed: nobody reads it
        pass
    return None
