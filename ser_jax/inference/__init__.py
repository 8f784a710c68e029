"""A trained run put to use: measured on recordings, or asked about files."""

from ser_jax.inference.evaluation import evaluate, measure
from ser_jax.inference.loading import LoadedRun, load_run
from ser_jax.inference.measurement import Measurement, write_evaluation
from ser_jax.inference.prediction import Prediction, predict

__all__ = [
    "LoadedRun",
    "Measurement",
    "Prediction",
    "evaluate",
    "load_run",
    "measure",
    "predict",
    "write_evaluation",
]
