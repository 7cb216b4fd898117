"""The command line: arguments in, library calls, exit codes out (0 done, 1 misuse or bad input)."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.errors import GliodilError
from gliodil.pipeline import DEFAULT_RULE, Planned, evaluate, plan_patient
from gliodil.terminal import Terminal

FILE_FLAGS = {
    "seg": "tumour segmentation (labels)",
    "wm": "white-matter probability map",
    "gm": "grey-matter probability map",
    "csf": "cerebrospinal-fluid probability map",
    "brain": "brain mask",
    "t1": "T1 image, shown behind the contours",
    "t1c": "T1 image with contrast agent",
    "t2": "T2 image",
    "flair": "FLAIR image",
    "pet": "FET-PET image",
    "recurrence": "labels of the recurrence at follow-up, registered to the planning scan",
}

EXAMPLES = """\
examples:
  gliodil demo                                     a synthetic patient, start to finish
  gliodil plan patient_001/                        a folder of NIfTI files, named as usual
  gliodil plan --seg s.nii.gz --wm wm.nii.gz --gm gm.nii.gz --labels brats-2023 --out result
  gliodil plan patient_001/ --dry-run              what was found, nothing computed
  gliodil evaluate result --recurrence later.nii.gz

Research use only. Not a medical device.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse exits with 2 on misuse; here 2 means failed patients
        return 1 if stop.code else 0
    terminal = Terminal(quiet=arguments.quiet)
    handlers = _logging(arguments)
    try:
        code: int = arguments.run(arguments, terminal)
        return code
    except GliodilError as error:
        terminal.error(str(error))
        return 1
    except KeyboardInterrupt:
        terminal.error("Interrupted; nothing was written.")
        return 1
    finally:
        for handler in handlers:
            logging.getLogger("gliodil").removeHandler(handler)
            handler.close()


def _plan(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gliodil.data.patient import load_patient
    from gliodil.reporting.folder import ensure_writable

    files = {role: path for role in FILE_FLAGS if (path := getattr(arguments, role)) is not None}
    if arguments.patient is None and "seg" not in files:
        terminal.error("Give a patient folder, or at least --seg, --wm and --gm. See: gliodil plan --help")
        return 1
    patient = load_patient(arguments.patient, files=files, labels=arguments.labels)
    config = _config(arguments)
    out = ensure_writable(arguments.out or Path("gliodil-out") / patient.identity)
    terminal.inputs(patient, out, config)
    if arguments.dry_run:
        return 0
    with terminal.progress(config) as progress:
        planned = plan_patient(
            patient, out, config=config, rule=arguments.rule, resume=arguments.resume, progress=progress
        )
    return _finish(planned, terminal)


def _demo(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gliodil.data.patient import load_patient
    from gliodil.data.synthetic import simulate
    from gliodil.reporting.folder import ensure_writable

    out = ensure_writable(arguments.out or "gliodil-demo")
    config = _config(arguments)
    with terminal.progress(config) as progress, tempfile.TemporaryDirectory() as scratch:
        progress("synthetic patient", 0, float("nan"))
        simulate(seed=arguments.seed, progress=progress).save(Path(scratch) / "demo")
        patient = load_patient(Path(scratch) / "demo", identity=f"demo-{arguments.seed}")
        settings = {"seed": arguments.seed, "synthetic": True}
        planned = plan_patient(patient, out, config=config, settings=settings, progress=progress)
    return _finish(planned, terminal)


def _simulate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gliodil.data.synthetic import simulate
    from gliodil.inference.config import FitConfig
    from gliodil.reporting.folder import ensure_writable

    out = ensure_writable(arguments.out)
    with terminal.progress(FitConfig()) as progress:
        patient = simulate(foci=arguments.foci, seed=arguments.seed, progress=progress)
    patient.save(out)
    terminal.say(str(out))
    return 0


def _evaluate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    coverage = evaluate(arguments.folder, arguments.recurrence)
    terminal.coverage(coverage)
    terminal.say(str(Path(arguments.folder) / "report.html"))
    return 0


def _doctor(_: argparse.Namespace, terminal: Terminal) -> int:
    from gliodil.doctor import findings

    for name, value in findings():
        terminal.say(f"{name:<18} {value}")
    return 0


def _finish(planned: Planned, terminal: Terminal) -> int:
    terminal.summary(planned.metrics)
    terminal.say(str(planned.report))
    return 0


def _config(arguments: argparse.Namespace) -> Any:
    from gliodil.inference.config import FitConfig

    config = FitConfig(device=arguments.device)
    return config if arguments.cells is None else replace(config, cells=arguments.cells)


def _parser() -> argparse.ArgumentParser:
    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30)

    parser = argparse.ArgumentParser(
        prog="gliodil",
        description="Tumour-cell density and radiotherapy margin maps for glioblastoma, from one patient's images.",
        epilog=EXAMPLES,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=f"gliodil {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    common = argparse.ArgumentParser(add_help=False)
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log details to the terminal")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print errors and results only")
    common.add_argument("--log-file", type=Path, metavar="FILE", help="append the log to a file")

    fitting = argparse.ArgumentParser(add_help=False)
    fitting.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    fitting.add_argument("--cells", type=int, metavar="N", help="grid cells along each axis (default: 48)")

    def command(name: str, run: Any, text: str, *parents: Any, epilog: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=epilog,
            parents=[common, *parents],
            formatter_class=formatter,
        )
        sub.set_defaults(run=run)
        return sub

    demo = command("demo", _demo, "run the whole pipeline on a synthetic patient whose truth is known", fitting)
    demo.add_argument("--out", type=Path, metavar="DIR", help="result folder (default: gliodil-demo)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="which patient (default: 0)")

    plan = command(
        "plan",
        _plan,
        "turn one patient's images into a density, margin maps and a report",
        fitting,
        epilog=EXAMPLES,
    )
    plan.add_argument("patient", nargs="?", type=Path, metavar="PATIENT", help="folder of NIfTI files")
    for role, text in FILE_FLAGS.items():
        plan.add_argument(f"--{role}", type=Path, metavar="FILE", help=text)
    plan.add_argument("--out", type=Path, metavar="DIR", help="result folder (default: gliodil-out/PATIENT)")
    plan.add_argument(
        "--labels",
        metavar="NAME",
        help="label convention: brats-2017, brats-2023, brats-2024-post, gliodil or decathlon (default: told from "
        "the labels, or refused)",
    )
    plan.add_argument("--rule", default=DEFAULT_RULE, metavar="NAME", help="plan rule (default: %(default)s)")
    plan.add_argument("--method", choices=["odil"], default="odil", help="inference method (default: odil)")
    plan.add_argument("--dry-run", action="store_true", help="show what was found and stop")
    plan.add_argument(
        "--resume", action="store_true", help="keep a result made from the same files and settings"
    )

    simulate = command("simulate", _simulate, "write a synthetic patient as files, with its truth")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    simulate.add_argument("--foci", type=int, default=1, metavar="N", help="1 or 3 foci (default: 1)")
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="which patient (default: 0)")

    evaluation = command("evaluate", _evaluate, "add recurrence coverage to an existing plan folder")
    evaluation.add_argument("folder", type=Path, metavar="OUT", help="folder written by gliodil plan")
    evaluation.add_argument("--recurrence", type=Path, required=True, metavar="FILE", help="follow-up labels")

    command("doctor", _doctor, "show versions, devices, extras and threads")
    return parser


def _logging(arguments: argparse.Namespace) -> list[logging.Handler]:
    """Attach the handlers asked for; the library itself logs to nowhere."""
    handlers: list[logging.Handler] = []
    if arguments.verbose:
        handlers.append(logging.StreamHandler())
    if arguments.log_file is not None:
        try:
            handlers.append(logging.FileHandler(arguments.log_file, encoding="utf-8", delay=False))
        except OSError as error:
            Terminal(quiet=False).error(f"The log file cannot be written: {arguments.log_file} ({error.strerror})")
    logger = logging.getLogger("gliodil")
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    if handlers:
        logger.setLevel(logging.INFO)
    return handlers


def run() -> None:
    """Entry point of the console script."""
    code = main()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # the reader has gone: not our failure, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
