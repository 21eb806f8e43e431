"""Images and numbers from outside, as networks take them."""

import keras
import numpy as np
from keras import ops

from keras_xreid.errors import InputError


def as_float(images):
    """The one place that scales: images as float32 in [0, 1].

    Args:
        images: array or tensor; uint8 is divided by 255, floats are taken as they are.

    Returns:
        The same, float32.

    Raises:
        InputError: other integers, whose range nobody knows, or no images.
    """
    if not hasattr(images, "dtype"):
        raise InputError(f"{type(images).__name__} was given in place of images")
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype != "uint8" and "float" not in dtype:
        raise InputError(f"images are {dtype}: give uint8, or floats in [0, 1]")
    if isinstance(images, np.ndarray):
        images = images.astype("float32")
    else:
        images = ops.cast(images, "float32")
    return images / 255.0 if dtype == "uint8" else images


def as_numpy(values):
    """The one place where numbers from outside become a NumPy array.

    Args:
        values: array, list, or a tensor of PyTorch, TensorFlow, JAX or Keras: on any device, with
            or without a gradient, bfloat16 too, which comes back as float32.

    Returns:
        An array.

    Raises:
        InputError: what is not numbers, or lists of unequal lengths.

    Example:

    >>> as_numpy(torch.ones(2, dtype=torch.bfloat16, requires_grad=True))
    array([1., 1.], dtype=float32)
    """
    try:
        if isinstance(values, (list, tuple)) and any(hasattr(value, "dtype") for value in values):
            values = np.stack([as_numpy(value) for value in values])
        if hasattr(values, "detach"):  # PyTorch's, which NumPy does not read as they are
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() else values
        found = np.asarray(values.numpy() if hasattr(values, "numpy") else values)
        if found.dtype.name.startswith(("bfloat", "float8")):  # NumPy itself has none
            found = found.astype("float32")
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{type(values).__name__} is no array of numbers: {reason}") from error
    if found.dtype.kind not in "biuf":
        raise InputError(f"values of type {found.dtype} are no numbers")
    return found


def one_for_each(values, count):
    """One number for each of so many images.

    Args:
        values: a number, or (count,) of them.
        count: int.

    Returns:
        (count,) array.

    Raises:
        InputError: another number of them.
    """
    values = as_numpy(values)
    if values.shape not in ((), (count,)):
        raise InputError(
            f"{' x '.join(map(str, values.shape))} rates were given for {count} images: "
            "give one, or one for each"
        )
    return np.broadcast_to(values, (count,))


def high_and_low(batch):
    """Joins the HR and the LR images of a batch, HR first: they pass a network at once.

    Args:
        batch: dict of "hr" and "lr", (n, height, width, 3), and "person", (n,). HR images that
            were drawn on their own come with "hr_person", (n,), and the HR image of each LR image
            is "target" then.

    Returns:
        A dict: "image", and "target" (what is to be recovered), (2n, height, width, 3) in [0, 1],
        and "person", (2n,).
    """
    hr, lr = as_float(batch["hr"]), as_float(batch["lr"])
    target = as_float(batch["target"]) if "target" in batch else hr
    person = batch["person"]
    return {
        "image": ops.concatenate([hr, lr]),
        "target": ops.concatenate([hr, target]),
        "person": ops.concatenate([batch.get("hr_person", person), person]),
    }
