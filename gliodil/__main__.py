"""``python -m gliodil``."""

from gliodil.cli import run

run()
