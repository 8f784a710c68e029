"""Classifiers that are no networks, on the same features, splits and report: SVM and HMM."""

from ser_jax.classical.fitted import fit, load_fitted, make_programs, save_fitted

__all__ = ["fit", "load_fitted", "make_programs", "save_fitted"]
