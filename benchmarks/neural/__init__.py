"""Experiments with regularized neural differential equations; `benchmarks/neural_ode.py` runs them."""
