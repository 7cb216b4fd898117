"""The command line: arguments in, library calls, exit codes out (0 done, 1 misuse or bad input, 2 failed patients)."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil import __version__
from gliodil.arguments import FILE_FLAGS, build_parser
from gliodil.errors import GliodilError, InputError
from gliodil.evaluating import evaluate
from gliodil.logs import VisibleFormatter, log_file, unforeseen
from gliodil.pipeline import Planned, plan_patient
from gliodil.preflight import check
from gliodil.terminal import Terminal

if TYPE_CHECKING:
    from gliodil.inference.config import FitConfig

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse exits with 2 on misuse; here 2 means failed patients
        return 1 if stop.code else 0
    terminal = Terminal(quiet=arguments.quiet, verbose=arguments.verbose)
    try:
        with _stopped_gently(), _logging(arguments):
            code = _COMMANDS[arguments.command](arguments, terminal)
    except GliodilError as error:
        terminal.error(str(error))
        return 1
    except KeyboardInterrupt:
        terminal.error("Interrupted before the result was complete.")
        return 1
    except Exception as error:  # whatever was not foreseen is one sentence too
        terminal.error(str(unforeseen(error, arguments.log_file)))
        return 1
    return code or 0


@contextmanager
def _stopped_gently() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (a scheduler, a container, a closed terminal) end the command as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    former = {}
    with suppress(ValueError):  # only the main thread can
        for name in names:
            number = getattr(signal, name)
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                former[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _plan(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.data.organs import load_organs
    from gliodil.data.patient import load_patient
    from gliodil.inference.given import read_density
    from gliodil.planning.clinic import read_clinic_plan
    from gliodil.planning.rules import get_rule, with_ptv

    config = _config(arguments)
    files = {role: path for role in FILE_FLAGS if (path := getattr(arguments, role)) is not None}
    if arguments.patient is None and "seg" not in files:
        raise InputError(
            "There is no patient.",
            expected="a patient folder, or at least --seg, --wm and --gm",
            found=", ".join(f"--{role}" for role in files) or "neither",
            remedy="see gliodil plan --help",
        )
    patient = load_patient(
        arguments.patient,
        files=files,
        labels=arguments.labels,
        tissue_source=arguments.tissue_source,
        ct=arguments.ct,
        reg=arguments.reg,
        register=arguments.register,
        same_patient=arguments.same_patient,
        parts=dict(arguments.roi),
    )
    organs = load_organs(arguments.oar, patient)
    clinic = read_clinic_plan(
        patient,
        dose=arguments.dose,
        structures=arguments.structures,
        roi=arguments.clinic_ctv,
        prescription_gy=arguments.prescription_gy,
        same_patient=arguments.same_patient,
    )
    density = None if arguments.density is None else read_density(arguments.density)
    out = arguments.out or Path("gliodil-out") / patient.identity
    asked: dict[str, Any] = {
        "rule": arguments.rule
        if arguments.ptv_mm is None
        else with_ptv(get_rule(arguments.rule), arguments.ptv_mm),
        "organs": organs,
        "exclude": arguments.exclude_oar,
        "overwrite": arguments.overwrite,
        "clinic": clinic,
    }
    terminal.inputs(patient, out, config)
    if arguments.dry_run:
        terminal.warnings(check(patient, out, config=config, register=arguments.register, **asked))
        return
    with terminal.progress() as progress:
        planned = plan_patient(
            patient,
            out,
            config=config,
            keyholes=arguments.keyholes,
            resume=arguments.resume,
            register=arguments.register,
            rank=arguments.rank,
            density=density,
            progress=progress,
            **asked,
        )
    _finish(planned, terminal)


def _demo(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.data.patient import load_patient
    from gliodil.data.synthetic import simulate
    from gliodil.reporting.folder import ensure_writable

    config = _config(arguments)
    out = ensure_writable(arguments.out or "gliodil-demo")
    with terminal.progress() as progress, tempfile.TemporaryDirectory() as scratch:
        progress("synthetic patient", 0, float("nan"))
        simulate(seed=arguments.seed, progress=progress).save(Path(scratch) / "demo")
        patient = load_patient(Path(scratch) / "demo", identity=f"demo-{arguments.seed}")
        settings = {"seed": arguments.seed, "synthetic": True}
        planned = plan_patient(
            patient, out, config=config, settings=settings, overwrite=arguments.overwrite, progress=progress
        )
    _finish(planned, terminal)


def _simulate(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.data.publish import output_folder
    from gliodil.data.synthetic import simulate

    with output_folder(arguments.out) as output:
        output.check_own()
        with terminal.progress() as progress:
            patient = simulate(
                foci=arguments.foci, seed=arguments.seed, realistic=arguments.realistic, progress=progress
            )
        patient.save(output, overwrite=arguments.overwrite)
    terminal.say(str(arguments.out))


def _evaluate(arguments: argparse.Namespace, terminal: Terminal) -> None:
    evaluated = evaluate(
        arguments.folder,
        arguments.recurrence,
        same_patient=arguments.same_patient,
        parts=dict(arguments.roi),
    )
    terminal.coverage(evaluated.coverage)
    terminal.warnings(evaluated.warnings)
    terminal.say(str(evaluated.report))


def _compare(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.reporting.compared import COMPARISON_FILE, compare_densities

    compared = compare_densities(arguments.folder, dict(arguments.density), recurrence=arguments.recurrence)
    terminal.comparison(compared)
    terminal.say(str(arguments.folder / COMPARISON_FILE))


def _cohort(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gliodil.cohort.command import run_group, run_participants

    if arguments.level == "group":
        return run_group(arguments, terminal)
    return run_participants(arguments, _config(arguments), terminal)


def _apply_transform(arguments: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.data.registration.transform_files import apply_transform_file

    terminal.say(
        str(
            apply_transform_file(
                arguments.transform,
                arguments.image,
                arguments.out,
                onto=arguments.onto,
                inverse=arguments.inverse,
                labels=arguments.labels,
                overwrite=arguments.overwrite,
            )
        )
    )


def _doctor(_: argparse.Namespace, terminal: Terminal) -> None:
    from gliodil.doctor import findings

    for name, value in findings():
        terminal.say(f"{name:<18} {value}")


_COMMANDS: Mapping[str, Callable[[argparse.Namespace, Terminal], int | None]] = {
    "demo": _demo,
    "plan": _plan,
    "simulate": _simulate,
    "evaluate": _evaluate,
    "compare": _compare,
    "cohort": _cohort,
    "apply-transform": _apply_transform,
    "doctor": _doctor,
}


def _finish(planned: Planned, terminal: Terminal) -> None:
    if planned.fit is None:
        terminal.note("Kept: made from the same files and settings")
    terminal.summary(planned.metrics)
    terminal.say(str(planned.report))


def _config(arguments: argparse.Namespace) -> FitConfig:
    from gliodil.inference.config import FitConfig

    config = FitConfig(device=arguments.device, method=getattr(arguments, "method", "odil"))
    return config if arguments.cells is None else replace(config, cells=arguments.cells)


@contextmanager
def _logging(arguments: argparse.Namespace) -> Iterator[None]:
    """Log to where the arguments say, or to nowhere; how the command ended stands last in a log file."""
    root = logging.getLogger("gliodil")
    level = root.level
    handlers: list[logging.Handler] = [logging.NullHandler()]
    if arguments.verbose:
        handlers.append(logging.StreamHandler())
        # Errors are printed anyway.
        handlers[-1].addFilter(lambda record: record.levelno < logging.ERROR)
    if arguments.log_file is not None:
        handlers.append(log_file(arguments.log_file))
    for handler in handlers:
        handler.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(handler)
    if len(handlers) > 1:
        root.setLevel(logging.INFO)
    try:
        logger.info("gliodil %s: %s", __version__, arguments.command)
        yield
        logger.info("done")
    except BaseException as error:
        if isinstance(error, GliodilError):
            logger.error("%s", error)
        else:
            logger.error("stopped by %r", error, exc_info=isinstance(error, Exception))
        raise
    finally:
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def run() -> None:
    """Entry point of the console script."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            if not isinstance(error, BrokenPipeError):  # a reader that has gone is not our failure
                code = code or 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # nothing more can be said
    sys.exit(code)
