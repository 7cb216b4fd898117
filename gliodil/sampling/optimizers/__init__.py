"""Optimizers of least-squares objectives."""
