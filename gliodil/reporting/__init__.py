"""Figures, metrics, provenance and the HTML report of a plan; `folder.py` writes them all."""
