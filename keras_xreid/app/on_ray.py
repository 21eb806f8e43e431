"""Parts of bulk embedding made by Ray's workers: several on a machine, or those of a cluster."""

import contextlib
import copy
import math
import os

import keras_xreid as xr
from keras_xreid.app import later
from keras_xreid.app.bulk import make_part
from keras_xreid.gallery.parquet import PLAN
from keras_xreid.gallery.told import check_model

keras = later("keras")


def made(source, work, rate, about, weights, workers):
    """Has parts made, each by whichever worker is free.

    Ray's cluster is that of RAY_ADDRESS, or one on this machine. Each of its machines must see the
    images, the weights and the folder of the parts under the same names. A worker that ends is
    started again, and begins its part anew.

    Args:
        source: `Images` or `Boxes`, begun.
        work: list of a part's path and its rows.
        rate: down-sampling rate of the images.
        about: what `about_model` says of the model.
        weights: as `load` takes them.
        workers: how many.

    Yields:
        The number of images of each part, when it is there.

    Raises:
        InputError: Ray is missing or does not start, or a worker ended three times, does not see
            the parts or has another model.
    """
    ray, workers = imported(), min(workers, len(work))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    where = {"KERAS_BACKEND": keras.backend.backend()}
    try:
        ray.init(log_to_driver=False, logging_level="error", runtime_env={"env_vars": where})
    except Exception as error:  # Ray raises this and that, where a machine is too busy, too
        raise xr.InputError(f"Ray does not start: {error}") from error
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        # A worker that holds a CPU would be waited for without end where there are fewer of them.
        actor = ray.remote(
            num_cpus=0, num_gpus=1 / math.ceil(workers / gpus) if gpus else 0, max_restarts=2,
            max_task_retries=2, scheduling_strategy="SPREAD",
        )(_Worker)  # fmt: skip
        light = copy.copy(source)
        light.rows = ()  # each part brings its own
        told = ray.put((light, rate, about, weights, os.getcwd()))
        pool = ray.util.ActorPool([actor.remote() for _ in range(workers)])
        yield from pool.map_unordered(lambda worker, one: worker.make.remote(told, *one), work)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # as it would be raised here
    except ray.exceptions.RayError as error:
        raise xr.InputError(
            f"Ray lost a worker ({type(error).__name__}): where memory is short, give fewer "
            "--workers; then run the same command again"
        ) from error
    finally:
        ray.shutdown()


def imported():
    """Ray, or one line."""
    try:
        import ray
        import ray.util
    except ImportError:
        raise xr.InputError('--engine ray needs Ray: pip install -e ".[ray]"') from None
    return ray


class _Worker:
    """A process that loads the model once, and makes parts."""

    model = None

    def make(self, told, path, rows):
        if self.model is None:  # not when it is made: Ray would hide what is wrong
            self._begin(path, *told)
        make_part(self.source, path, rows, self.model, self.rate, self.about)
        return len(rows)

    def _begin(self, path, source, rate, about, weights, folder):
        with contextlib.suppress(OSError):  # names may be told from here
            os.chdir(folder)
        if not (path.parent / PLAN).is_file():
            raise xr.InputError(f"a worker of Ray does not see {path.parent}: share that folder")
        self.source, self.rate, self.about = source, rate, about
        model = xr.load(weights)
        check_model("--out", about, model)
        self.model = model.for_inference()
