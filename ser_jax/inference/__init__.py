"""A trained run put to use: measured on recordings, or asked about files."""

from ser_jax.inference.evaluation import Measurement, evaluate, measure
from ser_jax.inference.loading import LoadedRun, load_run
from ser_jax.inference.prediction import Prediction, predict

__all__ = [
    "LoadedRun",
    "Measurement",
    "Prediction",
    "evaluate",
    "load_run",
    "measure",
    "predict",
]
