"""The command line as a program: help, exit codes, and streams closed, redirected, narrow or poor."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

from gliodil import __version__

COMMANDS = ("demo", "plan", "simulate", "evaluate", "doctor")


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_has_examples(cli, command):
    run = cli(*([command] if command else []), "--help")
    assert (run.code, run.err) == (0, "")
    assert "usage: gliodil" in run.out
    examples = run.out.partition("examples:\n")[2]
    assert [
        name for name in ([command] if command else COMMANDS) if f"  gliodil {name}" not in examples
    ] == []
    assert "Research use only" in run.out
    if command is None:
        assert [name for name in COMMANDS if f"\n    {name} " not in run.out] == []
    else:
        assert "--log-file FILE" in run.out


def test_the_version(cli):
    assert cli("--version").out == f"gliodil {__version__}\n"


def test_doctor_lists_what_is_here(cli, tmp_path):
    run = cli("doctor", "--log-file", tmp_path / "log")
    assert (run.code, run.err) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in run.out.splitlines() if not line.startswith("extra "))
    assert rows["gliodil"] == __version__
    assert rows["devices"].startswith("cpu")
    assert "numba 1" in rows["threads"] or int(rows["processors"]) > 1
    assert {"python", "torch", "numpy", "nibabel"} <= set(rows)
    assert "missing" not in rows["torch"]
    assert "extra report" in run.out
    assert (tmp_path / "log").read_text().rstrip().endswith("done")


@pytest.mark.parametrize(
    ("redirection", "out", "err"),
    [
        (">&-", "", None),
        ("2>&-", None, ""),
        (">&- 2>&-", "", ""),
        ("<&- >&- 2>&-", "", ""),
        (">/dev/full", "", None),
        ("2>/dev/full", None, ""),
    ],
)
def test_streams_that_are_closed_or_full(shell, planned, original, redirection, out, err):
    before = (planned / "metrics.json").stat().st_mtime_ns
    done = shell(
        f"$GLIODIL evaluate {planned} --recurrence {original}/recurrence.nii.gz {redirection}", cwd=planned
    )
    assert done.returncode == (1 if redirection == ">/dev/full" else 0)  # the result was to be printed
    report = f"{planned / 'report.html'}\n"
    assert done.stdout == (report if out is None else out)
    assert ("Coverage" in done.stderr) if err is None else (done.stderr == err)
    assert (planned / "metrics.json").stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "line",
    [
        "$GLIODIL --help | head -0",
        "$GLIODIL plan --help 2>&1 | head -1",
        "$GLIODIL plan {patient} --dry-run 2>&1 | head -0",
        "$GLIODIL plan {patient} --dry-run -v 2>&1 | head -0",
    ],
)
def test_a_reader_that_has_gone(shell, original, tmp_path, line):
    done = shell(line.format(patient=original) + "; exit ${PIPESTATUS[0]}", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def test_an_error_whose_reader_has_gone_is_still_an_error(shell, tmp_path):
    done = shell("$GLIODIL plan nobody 2>&1 | head -0; exit ${PIPESTATUS[0]}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")


def test_output_redirected_to_files(shell, original, tmp_path):
    done = shell(f"$GLIODIL plan {original} --dry-run >out.txt 2>err.txt", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out.txt").read_text() == ""
    said = (tmp_path / "err.txt").read_text(encoding="utf-8")
    assert "patient_007" in said
    assert "\x1b" not in said


def test_what_the_stream_cannot_encode_does_not_cost_the_line(shell, original, tmp_path):
    folder = shutil.copytree(original, tmp_path / "Grüße ³")
    poor = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = shell(f"$GLIODIL plan '{folder.name}' --dry-run", cwd=tmp_path, **poor)
    assert done.returncode == 0
    assert "grid 48\\xb3" in done.stderr
    done = shell(f"$GLIODIL plan '{folder.name}/none'", cwd=tmp_path, **poor)
    assert done.returncode == 1
    assert "Gr\\xfc\\xdfe" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_ends_a_command_gently(cli, monkeypatch, name):
    if not hasattr(signal, name):
        pytest.skip(f"there is no {name} here")
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def stopped():
        try:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(5)
            yield ("late", "")
        finally:
            cleaned.append(name)

    monkeypatch.setattr("gliodil.doctor.findings", stopped)
    run = cli("doctor")
    assert (run.code, run.out) == (1, "")
    assert run.err == "gliodil: Interrupted before the result was complete.\n"
    assert cleaned == [name]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (ValueError("a\x1b[2J\rb"), "not foreseen"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_was_not_foreseen_is_one_error_too(cli, monkeypatch, tmp_path, error, words):
    def failing():
        raise error

    monkeypatch.setattr("gliodil.doctor.findings", failing)
    run = cli("doctor", "--log-file", tmp_path / "run.log")
    assert run.code == 1
    assert words in run.err
    assert "Traceback" not in run.err
    assert not {"\x1b", "\r"} & set(run.err)
    assert "Traceback" in (tmp_path / "run.log").read_text()
