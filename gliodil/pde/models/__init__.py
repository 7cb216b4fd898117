"""Tumour growth models, one equation per file."""

from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov

__all__ = ["FisherKolmogorov"]
