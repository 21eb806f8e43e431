"""Cross-resolution person re-identification in Keras 3.

Names are imported when they are first used, so that `import keras_xreid` does not wait for Keras.
Where Keras was imported before, all of them are: `keras.models.load_model` then knows the models.
"""

import importlib
import sys

from keras_xreid import _backend as _backend  # before Keras

__version__ = "0.1.0"

# Where each public name lives.
_PLACES = {
    "Adaptive": "models.adaptive",
    "Baseline": "models.baseline",
    "CADNet": "models.cadnet",
    "CameraStatistics": "adaptation",
    "Checkpoint": "training.checkpoint",
    "DataSet": "data.records",
    "Distilled": "models.distilled",
    "ImageBatches": "data.batches",
    "FeatureBatches": "models.panned",
    "Gallery": "gallery",
    "INTACT": "models.intact",
    "InputError": "errors",
    "LazyDistances": "evaluation.distances",
    "OnePerRate": "models.one_per_rate",
    "PairBatches": "data.batches",
    "Panned": "models.panned",
    "Panning": "models.panned",
    "Phase": "training.phases",
    "PhasedModel": "training.phases",
    "Progressive": "training.freezing",
    "QdrantGallery": "gallery.qdrant",
    "RAIN": "models.rain",
    "Record": "data.records",
    "ReIDModel": "models.base",
    "datasets": "data.datasets",
    "degrade": "data.resolution",
    "estimate_rate": "data.rate",
    "evaluate": "evaluation.evaluate",
    "evaluate_ranking": "evaluation.ranking",
    "evaluate_rates": "evaluation.ranking",
    "feature_distances": "evaluation.distances",
    "hide_labels": "data.datasets",
    "load": "weights",
    "manifest_rows": "data.manifest",
    "prepare_images": "data.resolution",
    "published": "hub",
    "rates_from_sizes": "data.resolution",
    "rerank": "evaluation.reranking",
    "save": "weights",
    "summarise": "evaluation.ranking",
    "write_manifest": "data.manifest",
}

__all__ = sorted(_PLACES)


def __getattr__(name):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    found = module if name == "datasets" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *__all__})


if "keras" in sys.modules:
    for _name in __all__:
        __getattr__(_name)
