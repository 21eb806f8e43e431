"""Cross-resolution person re-identification in Keras 3."""

from keras_xreid import _backend as _backend  # before Keras

# isort: split
from keras_xreid.data import datasets
from keras_xreid.data.batches import ImageBatches, PairBatches
from keras_xreid.data.datasets import DataSet, Record, hide_labels
from keras_xreid.data.manifest import manifest_rows, write_manifest
from keras_xreid.data.resolution import (
    degrade,
    prepare_images,
    rates_from_sizes,
)
from keras_xreid.errors import InputError
from keras_xreid.evaluation.distances import LazyDistances, feature_distances
from keras_xreid.evaluation.each_rate import evaluate
from keras_xreid.evaluation.ranking import evaluate_ranking, evaluate_rates, summarise
from keras_xreid.evaluation.reranking import rerank
from keras_xreid.models.adaptive import Adaptive, OnePerRate
from keras_xreid.models.base import ReIDModel
from keras_xreid.models.baseline import Baseline
from keras_xreid.models.cadnet import CADNet
from keras_xreid.models.intact import INTACT
from keras_xreid.models.rain import RAIN
from keras_xreid.training.checkpoint import Checkpoint
from keras_xreid.training.freezing import Progressive
from keras_xreid.training.phases import Phase, PhasedModel
from keras_xreid.weights import load, published, save

__version__ = "0.1.0"

__all__ = [
    "INTACT",
    "RAIN",
    "Adaptive",
    "Baseline",
    "CADNet",
    "Checkpoint",
    "DataSet",
    "ImageBatches",
    "InputError",
    "LazyDistances",
    "OnePerRate",
    "PairBatches",
    "Phase",
    "PhasedModel",
    "Progressive",
    "ReIDModel",
    "Record",
    "datasets",
    "degrade",
    "evaluate",
    "evaluate_ranking",
    "evaluate_rates",
    "feature_distances",
    "hide_labels",
    "load",
    "manifest_rows",
    "prepare_images",
    "published",
    "rates_from_sizes",
    "rerank",
    "save",
    "summarise",
    "write_manifest",
]
