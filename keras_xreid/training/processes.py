"""Several processes train one model: each computes its share of every batch.

    torchrun --nproc-per-node 2 recipes/intact.py

Together they do what one process does with the whole batch. A step minimises the mean over the
processes of what each computes, so gradients are averaged. Batch normalization takes its statistics
over all of them, and losses that compare people are given the `whole` batch. What processes tell
each other has the gradient that belongs to it, as if it were computed in one place. Random numbers
of layers are drawn for the whole batch, of which each process takes its rows.

JAX has one process for several devices, see `share_out`. It is given whole batches, whose rows lie
on all devices, and by itself computes what one device would.

Of one process on one device nothing here does anything.
"""

import contextlib
import json
import os

import keras

from keras_xreid._backend import place
from keras_xreid.errors import InputError
from keras_xreid.training import share

BACKEND = keras.backend.backend()


def count():
    """How many processes train together: 1 until `start` finds more."""
    return share.processes


def first():
    """Whether this is the process that writes files and talks: the only one, or that of rank 0."""
    return place()[0] == 0


def start(model=None):
    """Joins the other processes that a launcher such as `torchrun` started, if there are any.

    A process uses the GPU of its local rank. Without a GPU processes talk by gloo, else by NCCL.

    Args:
        model: the model to train, if there is one already.

    Raises:
        InputError: where this backend trains on one process or device, or processes do not meet.
    """
    launched = place()[1]
    strategy = getattr(model, "distribute_strategy", None)  # of TensorFlow's models
    replicas = getattr(strategy, "num_replicas_in_sync", devices())
    if replicas > 1 and BACKEND != "jax":
        raise InputError(
            f"{replicas} devices are to share this model's batches, and on {BACKEND} a process "
            "trains on one: set KERAS_BACKEND=jax, or leave the distribution out"
        )
    if BACKEND == "tensorflow" and _workers_of_tensorflow() > 1:
        raise InputError(
            "TF_CONFIG names several workers, and training here takes one process on tensorflow: "
            "unset TF_CONFIG, or take torchrun with KERAS_BACKEND=torch"
        )
    if launched == 1 or share.processes > 1:
        return
    if BACKEND != "torch":
        raise InputError(
            f"{launched} processes were started, and on {BACKEND} one trains: "
            "set KERAS_BACKEND=torch, or start one"
        )
    from keras_xreid.training import collectives

    collectives.join()
    share.processes = launched


def devices():
    """Over how many devices of this process `keras.distribution` shares out the rows of a batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.device_mesh.shape[0]


def share_out(count):
    """Has models that are made from here on trained on several devices of this process.

    Args:
        count: int, how many; 1 changes nothing.

    Raises:
        InputError: where this backend does not do so, or has fewer devices.
    """
    if count == 1:
        return
    if BACKEND != "jax":
        instead = " or start it by torchrun" if BACKEND == "torch" else ""
        raise InputError(
            f"--devices is {count}, and on {BACKEND} a process trains on one: set KERAS_BACKEND=jax"
            f"{instead}"
        )
    found = keras.distribution.list_devices()
    if count > len(found):
        raise InputError(
            f"--devices is {count}, and JAX has {', '.join(found)}: give {len(found)} at most "
            "(of CPUs, XLA_FLAGS=--xla_force_host_platform_device_count says how many)"
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:count]))


@contextlib.contextmanager
def undivided():
    """Inside, Keras gives each device all rows, of which it takes any number then."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def end():
    """Parts from the other processes; from here on each is alone."""
    if share.processes > 1:
        from keras_xreid.training import collectives

        share.processes = 1
        collectives.part()


def wait():
    """Waits until all processes are here."""
    if share.processes > 1:
        from keras_xreid.training import collectives

        collectives.wait()


def tells():
    """Whether this process is the one that says why the run ends: the first that asks."""
    if place()[1] == 1:
        return True
    if share.processes == 1:  # they have not met, and what one finds wrong all do
        return first()
    from keras_xreid.training import collectives

    return collectives.is_first_to_tell()


def check_share(images):
    """Refuses a batch that cannot be shared equally.

    Args:
        images: int, images (or pairs) of a batch.

    Raises:
        InputError: where the number of processes, or of devices, does not divide it.
    """
    _check_divides(share.processes, "processes", images)
    _check_divides(devices(), "devices", images)


def check_rows(batch, batch_size=None):
    """Refuses a batch whose rows several devices of this process cannot share equally.

    Args:
        batch: a dict of arrays with equally many rows.
        batch_size: int, how many rows at a time; None for all of them.
    """
    if devices() > 1:
        for rows in (batch_size or 0, len(keras.tree.flatten(batch)[0])):
            _check_divides(devices(), "devices", rows)


def _check_divides(count, kind, images):
    if images % count:
        raise InputError(
            f"{images} images or pairs a batch cannot be shared by {count} {kind}: "
            f"give a batch size that {count} divides"
        )


@contextlib.contextmanager
def sharing(batch, drawn=False):
    """Inside, all processes train on one batch; gives the rows of this one.

    Args:
        batch: a dict of arrays or tensors with equally many rows, the same in all processes.
        drawn: bool, whether it holds nothing but this process's rows already.
    """
    if share.processes == 1:
        yield batch
        return
    images = len(keras.tree.flatten(batch)[0])
    if not drawn:
        check_share(images)
        images //= share.processes
        begin = place()[0] * images
        batch = keras.tree.map_structure(lambda x: x[begin : begin + images], batch)
    share.rows = images
    try:
        yield batch
    finally:
        share.rows = 0


def whole(tensors):
    """What belongs to the images of the whole batch, for a loss that compares or counts images.

    Without several processes it is what was given. Otherwise rows of all processes come in the
    order that one process would have, and gradients go back to where the rows came from. A loss
    that is a mean over images, each of which counts, does without.

    Args:
        tensors: a tensor or a list of them, (k n, ...) each: k views of n images, one view after
            the other, as `high_and_low` joins them.

    Returns:
        Likewise, (k n processes, ...) each.

    Example:

    >>> features, person = whole([features, batch["person"]])
    >>> losses.triplet(features, person, margin=0.3)
    """
    if not share.rows:
        return tensors
    from keras_xreid.training import collectives

    return keras.tree.map_structure(collectives.gathered, tensors)


def averaged(gradients, variables):
    """The means of gradients over the processes of a step.

    Args:
        gradients: list of tensors, one a variable.
        variables: list of `keras.Variable`.
    """
    if not share.rows or not variables:
        return gradients
    from keras_xreid.training import collectives

    return collectives.averaged(gradients, variables)


def mean(scalars):
    """The means of a list of scalars over the processes of a step."""
    if not share.rows:
        return scalars
    from keras_xreid.training import collectives

    return collectives.mean(scalars)


def same_weights(variables):
    """Gives every process the values that variables have in the first one."""
    if share.processes > 1:
        from keras_xreid.training import collectives

        collectives.copy_of_first(variables)


def check_same(name, number):
    """Refuses processes that do not agree on a number.

    Args:
        name: what the number is.
        number: int.

    Raises:
        InputError: where another process has another one.
    """
    if share.processes > 1:
        from keras_xreid.training import collectives

        numbers = collectives.numbers(number)
        if len(set(numbers)) > 1:
            raise InputError(
                f"{name} is {', '.join(map(str, numbers))} in the {share.processes} processes: all "
                "of them have to see the same files"
            )


@contextlib.contextmanager
def quiet():
    """Inside, only the first process prints."""
    if first():
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _workers_of_tensorflow():
    try:
        told = json.loads(os.environ.get("TF_CONFIG") or "{}")
        return len(told.get("cluster", {}).get("worker", ()))
    except (ValueError, AttributeError, TypeError):
        return 0
