"""The arguments of the command line: names, defaults, help."""

from __future__ import annotations

import argparse
from pathlib import Path

from gliodil import __version__
from gliodil.fingerprint import DEFAULT_RANK, DEFAULT_RULE

FILE_FLAGS = {
    "seg": "tumour segmentation (NIfTI labels, DICOM SEG or RTSTRUCT)",
    "wm": "white-matter probability map",
    "gm": "grey-matter probability map",
    "csf": "cerebrospinal-fluid probability map",
    "brain": "brain mask",
    "t1": "T1 image; each image may be a DICOM series, given as its folder or any file of it",
    "t1c": "T1 image with contrast agent",
    "t2": "T2 image",
    "flair": "FLAIR image",
    "pet": "FET-PET image",
    "recurrence": "labels of the recurrence at follow-up, registered to the planning scan",
    "barriers": "falx (1) and tentorium (2), where a rule stops at them",
}

EXAMPLES = {
    "demo": "gliodil demo --out result                        a synthetic patient, start to finish",
    "plan": """gliodil plan patient_001/                        a folder of NIfTI files, named as usual
  gliodil plan --seg s.nii.gz --wm wm.nii.gz --gm gm.nii.gz --labels brats-2023 --out result
  gliodil plan DICOM/ --seg s.dcm                  DICOM series, told apart by their headers
  gliodil plan MR/ --ct CT/ --reg reg.dcm          targets on the planning CT
  gliodil plan patient_001/ --rule estro-eano-2023 --oar brainstem=bs.nii.gz --exclude-oar brainstem
  gliodil plan patient_001/ --dry-run              what was found, nothing computed""",
    "simulate": "gliodil simulate --out patient_007 --seed 7      then: gliodil plan patient_007/",
    "evaluate": "gliodil evaluate result --recurrence later.nii.gz",
    "compare": "gliodil compare result --density theirs=density.nii.gz",
    "cohort": """gliodil cohort patients/ results participant      one folder per patient, or a BIDS dataset, or a TSV
  gliodil cohort patients/ results participant --retry-failed
  gliodil cohort patients/ results group           cohort.tsv and cohort.html from what is finished""",
    "apply-transform": """gliodil apply-transform result/preprocess/transforms/template atlas.nii.gz --out here.nii.gz
  gliodil apply-transform result/preprocess/transforms/template seg.nii.gz --labels --inverse --out mni.nii.gz""",
    "doctor": "gliodil doctor",
}


def _epilog(*commands: str) -> str:
    shown = "\n  ".join(EXAMPLES[name] for name in commands)
    return f"examples:\n  {shown}\n\nResearch use only. Not a medical device.\n"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the name of the command ends up in ``command``."""
    parser = argparse.ArgumentParser(
        prog="gliodil",
        description="Tumour-cell density and radiotherapy margin maps for glioblastoma, from one patient's "
        "images.",
        epilog=_epilog(*EXAMPLES),
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="version", version=f"gliodil {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    common, fitting = _common(), _fitting()

    def command(name: str, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=_epilog(name),
            parents=[common, *parents],
            formatter_class=_formatter,
        )

    demo = command("demo", "run the whole pipeline on a synthetic patient whose truth is known", fitting)
    demo.add_argument("--out", type=Path, metavar="DIR", help="result folder (default: gliodil-demo)")
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="which patient (default: 0)")
    _add_overwrite(demo)

    plan = command("plan", "turn one patient's images into a density, margin maps and a report", fitting)
    plan.add_argument(
        "patient", nargs="?", type=Path, metavar="PATIENT", help="folder of NIfTI files or DICOM series"
    )
    for role, text in FILE_FLAGS.items():
        plan.add_argument(f"--{role}", type=Path, metavar="FILE", help=text)
    plan.add_argument(
        "--ct",
        type=Path,
        metavar="PATH",
        help="planning CT, a DICOM series (default: the one in PATIENT; none: without); targets are "
        "exported on its slices",
    )
    plan.add_argument(
        "--reg",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the clinic's DICOM registration of MR and CT (default: those in PATIENT, else the product's own); may be "
        "repeated",
    )
    _add_belonging(plan)
    plan.add_argument("--out", type=Path, metavar="DIR", help="result folder (default: gliodil-out/PATIENT)")
    plan.add_argument(
        "--labels",
        metavar="NAME",
        help="label convention: brats-2013, brats-2017, brats-2023, brats-2024-post, gliodil or decathlon "
        "(default: told from the labels, or refused)",
    )
    plan.add_argument(
        "--tissue-source",
        choices=["given", "template"],
        default="given",
        help="where given wm, gm and csf maps come from: measured in the patient (default), or a template registered "
        "to it, which is off by millimetres",
    )
    _add_rule(plan)
    plan.add_argument(
        "--ptv-mm", type=float, metavar="MM", help="margin of the PTV beyond the CTV (default: the rule's)"
    )
    plan.add_argument(
        "--oar",
        type=_organ,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="mask of an organ at risk, such as brainstem or chiasm; its volume in each plan is reported; may be "
        "repeated",
    )
    plan.add_argument(
        "--exclude-oar",
        action="append",
        default=[],
        metavar="NAME",
        help="keep this organ out of every CTV; may be repeated",
    )
    plan.add_argument(
        "--method",
        choices=["odil", "pinn"],
        default="odil",
        help="odil: discrete loss, seconds (default); pinn: a network with adaptive sampling, minutes, compared with "
        "odil in the report",
    )
    plan.add_argument(
        "--keyholes",
        action="store_true",
        help="tie holes in RTSTRUCT contours to their outline, for systems that do not understand holes",
    )
    plan.add_argument(
        "--density",
        type=Path,
        metavar="FILE",
        help="a density made elsewhere, in [0, 1]: planned and scored in the place of a fit",
    )
    _add_clinic(plan)
    plan.add_argument("--dry-run", action="store_true", help="show what was found, check it, and stop")
    plan.add_argument(
        "--resume",
        action="store_true",
        help="keep a result made from the same files and settings, continue a fit of them that was interrupted",
    )
    _add_overwrite(plan)

    plan.add_argument(
        "--register",
        action="store_true",
        help="align the images rigidly with the one the segmentation was drawn on (default: take them as aligned)",
    )

    simulate = command("simulate", "write a synthetic patient as files, with its truth")
    simulate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    simulate.add_argument(
        "--foci", type=int, metavar="N", help="1 or 3 foci (default: 1; with --realistic: as drawn)"
    )
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="which patient (default: 0)")
    simulate.add_argument(
        "--realistic",
        action="store_true",
        help="as wrong as people are: tissue maps off, uneven growth, noisy and missing labels",
    )
    _add_overwrite(simulate)

    evaluation = command("evaluate", "add recurrence coverage to an existing plan folder")
    evaluation.add_argument("folder", type=Path, metavar="OUT", help="folder written by gliodil plan")
    evaluation.add_argument(
        "--recurrence",
        type=Path,
        required=True,
        metavar="FILE",
        help="follow-up labels: NIfTI, DICOM SEG or RTSTRUCT",
    )
    _add_belonging(evaluation)

    comparison = command("compare", "compare maps made elsewhere with a plan, at equal volume")
    comparison.add_argument("folder", type=Path, metavar="OUT", help="folder written by gliodil plan")
    _add_densities(comparison, "FILE", required=True)
    comparison.add_argument(
        "--recurrence",
        type=Path,
        metavar="FILE",
        help="follow-up labels (default: those of the plan, if any)",
    )

    _add_cohort(command("cohort", "plan many patients, then say what all of them show together", fitting))
    carrying = command("apply-transform", "carry an image or label map through a stored transform")
    carrying.add_argument(
        "transform", type=Path, metavar="TRANSFORM", help="folder below preprocess/transforms"
    )
    carrying.add_argument("image", type=Path, metavar="IMAGE", help="NIfTI file to carry")
    carrying.add_argument(
        "--onto",
        type=Path,
        metavar="GRID",
        help="NIfTI file whose grid the result gets (default: the patient's; with --inverse the template's)",
    )
    carrying.add_argument("--out", type=Path, required=True, metavar="FILE", help="NIfTI file to write")
    carrying.add_argument("--inverse", action="store_true", help="from the patient to the template")
    carrying.add_argument(
        "--labels", action="store_true", help="the image holds labels: take the nearest voxel"
    )
    carrying.add_argument("--overwrite", action="store_true", help="replace a file that is there already")

    command("doctor", "show versions, devices, extras and threads")
    return parser


def _organ(text: str) -> tuple[str, Path]:
    name, file = _named(text, "brainstem=bs.nii.gz")
    return name, Path(file)


def _part(text: str) -> tuple[str, str]:
    name, sign, part = text.rpartition("=")
    if not (name.strip() and sign and part.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PART, as in 'Boost volume=core'")
    return name, part.strip()


def _density(text: str) -> tuple[str, str]:
    return _named(text, "gliodil=density.nii.gz")


def _named(text: str, example: str) -> tuple[str, str]:
    name, sign, file = text.partition("=")
    if not (name.strip() and sign and file):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE, as in {example}")
    return name.strip(), file


def _add_belonging(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--roi",
        type=_part,
        action="append",
        default=[],
        metavar="NAME=PART",
        help="what a structure or segment is: core, enhancing, necrotic, oedema, cavity or ignore (default: told from "
        "its name); may be repeated",
    )
    command.add_argument(
        "--same-patient",
        action="store_true",
        help="the DICOM objects are one person's although their PatientIDs differ (otherwise refused)",
    )


def _add_densities(
    parser: argparse.ArgumentParser, file: str, more: str = "", *, required: bool = False
) -> None:
    parser.add_argument(
        "--density",
        type=_density,
        action="append",
        default=[],
        required=required,
        metavar=f"NAME={file}",
        help=f"a map made elsewhere, compared with the model at equal volume{more}; may be repeated",
    )


def _add_rule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rank",
        choices=["reach", "density"],
        default=DEFAULT_RANK,
        help="what the model CTV takes first: the smallest expected reach from the GTV (default; on real pairs "
        "of visits it covers more later tumour), or the highest fitted density (the published definition)",
    )
    parser.add_argument(
        "--rule",
        default=DEFAULT_RULE,
        metavar="NAME",
        help="plan rule: benchmark-15mm, estro-eano-2023, eortc-2016, rtog, or a file ending in .toml (default: "
        "%(default)s)",
    )


def _add_cohort(cohort: argparse.ArgumentParser) -> None:
    cohort.add_argument(
        "source",
        type=Path,
        metavar="INPUT",
        help="BIDS dataset, folder of patient folders, TSV, or a published data set (see --recipe); for group also a "
        "table of coverages",
    )
    cohort.add_argument("out", type=Path, metavar="OUT", help="folder of the results")
    cohort.add_argument("level", choices=["participant", "group"], help="plan patients, or sum up")
    cohort.add_argument(
        "--only",
        "--participant-label",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these patients only (in BIDS without sub-)",
    )
    cohort.add_argument("--retry-failed", action="store_true", help="try again what failed before")
    cohort.add_argument("--force", action="store_true", help="plan again what is finished")
    _add_overwrite(cohort)
    cohort.add_argument("--stop-on-first-error", action="store_true", help="start no patient after a failure")
    cohort.add_argument(
        "--dry-run", action="store_true", help="check all patients, say what would run, and stop"
    )
    cohort.add_argument("--labels", metavar="NAME", help="label convention where the TSV names none")
    cohort.add_argument(
        "--recipe",
        metavar="NAME",
        help="layout of INPUT: brats, brats-2013, lumiere, predict-gbm, ucsf-pdgm, upenn-gbm, or a file ending in .toml "
        "(default: the one that INPUT follows, if any)",
    )
    _add_densities(cohort, "PATTERN", "; {patient} in PATTERN stands for the patient's name")
    _add_rule(cohort)
    workers = cohort.add_argument_group("workers")
    workers.add_argument(
        "--n-procs", type=int, metavar="N", help="worker processes (default: as many as fit)"
    )
    workers.add_argument(
        "--mem-mb", type=float, metavar="MB", help="memory of all workers (default: 90 %% of the machine's)"
    )
    workers.add_argument("-w", "--work-dir", type=Path, metavar="DIR", help="scratch folder of the workers")
    workers.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="use the workers of this Dask scheduler (tcp://host:8786), or `none`: this process alone",
    )
    cohort.add_argument(
        "--skip-bids-validation",
        action="store_true",
        help="take a BIDS dataset that does not describe itself",
    )


def _add_clinic(plan: argparse.ArgumentParser) -> None:
    clinic = plan.add_argument_group("the clinic's own plan")
    clinic.add_argument(
        "--dose",
        type=Path,
        metavar="FILE",
        help="its RTDOSE: dose-volume figures of targets and expected cells",
    )
    clinic.add_argument(
        "--prescription-gy", type=float, metavar="GY", help="total dose prescribed to the target, such as 60"
    )
    clinic.add_argument(
        "--structures",
        type=Path,
        metavar="FILE",
        help="its RTSTRUCT: the CTV in it is one more plan, compared at its own volume",
    )
    clinic.add_argument(
        "--clinic-ctv", metavar="NAME", help="which structure is that CTV (default: the only one called so)"
    )


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the result of another patient; other files are never replaced",
    )


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=30)


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log details to the terminal")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print errors and results only")
    common.add_argument("--log-file", type=Path, metavar="FILE", help="append the log to a file")
    return common


def _fitting() -> argparse.ArgumentParser:
    fitting = argparse.ArgumentParser(add_help=False)
    fitting.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    fitting.add_argument("--cells", type=int, metavar="N", help="grid cells along each axis (default: 48)")
    return fitting
