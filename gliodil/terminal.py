"""What the command line prints: results to stdout, everything else to stderr; silent where nobody reads."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.inference.config import FitConfig

Progress = Callable[[str, int, float], None]
GRADIENTS_EXPECTED = 150
"""Length of the progress bar of a fit; it stretches if a fit takes more."""


class Terminal:
    """Prints; survives closed and redirected streams and narrow windows."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet

    def say(self, text: str) -> None:
        """Print a result to stdout."""
        _write(sys.stdout, text)

    def note(self, text: str) -> None:
        """Print to stderr unless quiet."""
        if not self.quiet:
            _write(sys.stderr, text)

    def error(self, text: str) -> None:
        """Print an error to stderr."""
        _write(sys.stderr, f"gliodil: {text}")

    def inputs(self, patient: Patient, out: Path, config: FitConfig) -> None:
        """Show what was found and what it was taken for."""
        self.note(f"Patient {patient.identity}, labels read as {patient.convention.name}")
        for row in patient.describe():
            self.note(
                f"  {row['role']:<11}{row['file']:<32} {row['shape']:<16} {row['spacing']} mm  "
                f"{row['orientation']} {row['note']}".rstrip()
            )
        missing = [name for name in ("wm", "gm", "brain", "csf", "pet", "recurrence") if name not in patient.volumes]
        if missing:
            self.note(f"  not given: {', '.join(missing)}")
        for warning in patient.warnings:
            self.note(f"  note: {warning}")
        gigabytes = 22 * config.cells**3 * config.steps * 4 / 1e9 + 1
        self.note(f"  grid {config.cells}³ × {config.steps}, about {gigabytes:.1f} GB of memory; results to {out}")

    def coverage(self, coverage: Mapping[str, Any]) -> None:
        """Show recurrence coverage."""
        for kind, values in coverage.items():
            if values is None:
                self.note(f"Coverage ({kind} recurrence): none to cover")
            else:
                parts = ", ".join(f"{name} {value:.1%}" for name, value in values.items())
                self.note(f"Coverage ({kind} recurrence): {parts}")

    def summary(self, metrics: Mapping[str, Any]) -> None:
        """Show the outcome in a few lines."""
        ml = metrics["volumes_ml"]
        self.note(f"Fit {metrics['status']}: loss {metrics['loss']['total']:.3g}, {metrics['wall_s']:.0f} s in all")
        self.note(f"CTV {ml['ctv_model']:.1f} mL (GTV {ml['gtv']:.1f} mL), trimmed {ml['ctv_trimmed']:.1f} mL")
        self.coverage(metrics["coverage"] or {})
        if metrics["truth"]:
            truth = metrics["truth"]
            self.note(f"Against the truth: Dice {truth['dice_at_0.1']:.3f} at 10 %, {truth['dice_at_0.01']:.3f} at 1 %")
        for warning in metrics["warnings"]:
            self.note(f"note: {warning}")

    @contextmanager
    def progress(self, config: FitConfig) -> Iterator[Progress]:
        """Show a bar with stage, gradients and loss while stderr is a terminal; otherwise nothing."""
        if self.quiet or sys.stderr is None or not sys.stderr.isatty():
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
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=GRADIENTS_EXPECTED, state="")

            def show(stage: str, done: int, value: float) -> None:
                total = max(GRADIENTS_EXPECTED, math.ceil(done / 50) * 50)
                state = "" if math.isnan(value) else f"{done:4d}  {value:.3g}"
                bars.update(task, description=f"{stage:<18}", completed=done, total=total, state=state)

            yield show


def _write(stream: Any, text: str) -> None:
    if stream is not None:
        with suppress(OSError, ValueError):  # closed or gone: nobody reads it
            print(text, file=stream, flush=True)
