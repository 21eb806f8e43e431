"""What every system can do: embed images, measure distances, be saved and loaded."""

import keras
import numpy as np
from keras import layers, ops

from keras_xreid import adaptation
from keras_xreid.data.resolution import check_rates, lr_rates
from keras_xreid.errors import InputError, check_number
from keras_xreid.models import distances
from keras_xreid.models.arrays import as_float, as_numpy, one_for_each
from keras_xreid.training import autodiff, batch_statistics, fast_torch, inference
from keras_xreid.training.phases import PhasedModel


class ReIDModel(PhasedModel):
    """Base of all systems: a phased model that turns person images into embeddings.

    Args:
        people: int, number of training people.
        backbone: a name of `build_backbone`, or a KerasCV or KerasHub backbone.
        image_size: (height, width) in pixels of every image that the model is given.
        last_stride: 1 or 2, stride of the last stage; OSNet's is 1.
        flip: bool, whether `embed` averages an image and its mirror image, unless told.
        **kwargs: of `keras.Model`.
    """

    # Parts that only judge while training. An embedding needs none of them, so that published
    # files leave them out.
    critics = ()
    multiple_of = 1  # what height and width of images have to be a multiple of
    metric = "1 - cosine"  # of `distances`, in words
    batch_names = ("hr", "lr", "person")  # what a batch to train on has
    keeps_statistics = ("generator",)  # parts that `adapt` leaves alone, beside the critics
    _folded = False  # whether it came from `for_inference`
    query_levels = 0  # how many levels of resolution `graph` is told apart; 0: it is told none
    normalizes_by_level = False  # whether batch normalization comes after what knows the level
    unpaired = False  # whether the HR images of a batch may be of other people than the LR ones

    def __init__(self, people, backbone, image_size, last_stride=1, flip=False, **kwargs):
        policy = keras.config.dtype_policy().name
        given = keras.dtype_policies.get(kwargs.get("dtype") or policy).name
        if given != policy:  # the parts are layers of their own, which take what is set for all
            raise InputError(
                f"dtype {given} with {policy} set for all layers: call "
                f'keras.config.set_dtype_policy("{given}") first'
            )
        super().__init__(**kwargs)
        self.autocast = False  # of images: they are scaled first, in float32
        self.flip = bool(flip)
        self.people = int(people)
        # Of a given object only the configuration is kept: its layers are copied into the parts,
        # and as an attribute it would be trained and saved a second time.
        if not isinstance(backbone, str):
            backbone = keras.saving.serialize_keras_object(backbone)
        self.backbone = backbone
        self.image_size = tuple(int(side) for side in image_size)
        self.last_stride = last_stride

    def get_config(self):
        return {
            **super().get_config(),
            "people": self.people,
            "backbone": self.backbone if isinstance(self.backbone, str) else dict(self.backbone),
            "image_size": list(self.image_size),
            "last_stride": self.last_stride,
            "flip": self.flip,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config["backbone"], dict):
            config["backbone"] = keras.saving.deserialize_keras_object(config["backbone"])
        return super().from_config(config)

    def check_data(self, data):
        # Fewer people are as wrong as more: the classes would mean other people.
        for name, ours, theirs, of_data in (
            ("people", self.people, getattr(data, "people", None), int),
            ("images of size", self.image_size, getattr(data, "image_size", None), tuple),
            ("low rates", self._low_rates(), getattr(data, "rates", None), self._low_rates),
        ):
            if ours is not None and theirs is not None and ours != (theirs := of_data(theirs)):
                raise InputError(
                    f"the model is built for {name} {ours}, and the batches have {theirs}: "
                    "build the model for these batches, or the batches for this model"
                )

    def _low_rates(self, rates=None):
        """Rates above 1, sorted; by default the model's, and None where it knows of none."""
        rates = getattr(self, "rates", None) if rates is None else rates
        return None if rates is None else tuple(sorted({float(rate) for rate in lr_rates(rates)}))

    def check_batch(self, batch):
        """Raises an `InputError` where a batch lacks something, or has images or people of others.

        Args:
            batch: a dict of arrays or tensors.
        """
        self.refuse_folded()
        names = tuple(batch) if isinstance(batch, dict) else (type(batch).__name__,)
        lacking = [name for name in self.batch_names if name not in names]
        if lacking:
            kind = "ImageBatches" if "image" in self.batch_names else "PairBatches"
            raise InputError(
                f"{type(self).__name__} trains on {', '.join(self.batch_names)}, and the batch has "
                f"{', '.join(names)}: give keras_xreid.{kind}"
            )
        if "hr_person" in names and not self.unpaired:
            raise InputError(
                f"{type(self).__name__} compares an image at HR and at LR, and the batch has other "
                "people's HR images: give keras_xreid.PairBatches without independent=True"
            )
        count = len(batch["person"])
        for name in ("image", "hr", "lr", "target"):
            if name in batch and len(self._checked(batch[name])) != count:
                raise InputError(f"{len(batch[name])} {name} images for {count} people's labels")
        for name in ("person", "hr_person"):
            if name not in batch:
                continue
            labels = as_numpy(batch[name])
            if labels.dtype.kind not in "iu" or labels.ndim != 1:
                raise InputError(
                    f"{name} is {labels.dtype} of shape {labels.shape}: give (n,) integers, 0 to "
                    f"{self.people - 1}, one for each image"
                )
            if labels.max(initial=-1) >= self.people or labels.min(initial=-1) < -1:
                raise InputError(
                    f"labels {labels.min()} to {labels.max()} were given to a model of "
                    f"{self.people} people: give 0 to {self.people - 1}, or -1 for somebody unknown"
                )

    def embed(
        self, images, rates=None, batch_size=64, flip=None, cameras=None, adapted=None
    ):  # fmt: skip
        """Turns images into embeddings.

        Args:
            images: (n, height, width, 3) at the model's size, uint8 or float in [0, 1]; images of
                low resolution already shrunk and enlarged (`prepare_images` does that).
            rates: int or (n,) array, the down-sampling rate of each image; nothing is degraded
                here. None where it is unknown.
            batch_size: int, images a forward pass; does not change the result.
            flip: True returns the mean over each image and its mirror image, at twice the cost;
                None does what the model was configured to.
            cameras: with `adapted`, the camera of each image, or of all.
            adapted: the cameras' statistics, from `adapt`; rates must be known then.

        Returns:
            (n, d) float32 array.

        Raises:
            InputError: where the images have another size or the rates another length, or the
                statistics are another model's or know nothing of a camera.

        Example:

        >>> features = model.embed(images, rates=4)
        """
        images = self._checked(images)
        if rates is not None:
            rates = one_for_each(rates, len(images))
            if len(rates):
                check_rates(np.unique(rates))
        if adapted is not None:

            def of_group(part, rate):
                return self.embed(part, rate, batch_size, flip)

            return adapted.by_group(self, of_group, images, rates, cameras)
        if cameras is not None:
            raise InputError("cameras without statistics: give adapted, which model.adapt returns")
        flip = self.flip if flip is None else flip

        def embed(part, rate):
            with batch_statistics.in_use():  # another thread may put a camera's in their place
                features = self._embed(part, rate, batch_size)
                if flip:
                    mirrored = np.ascontiguousarray(part[:, :, ::-1])
                    features = (features + self._embed(mirrored, rate, batch_size)) / 2
            return features

        return self._in_chunks(embed, images, rates, batch_size)

    def adapt(self, images, cameras=None, rates=(1, 2, 3, 4, 8), **options):
        """Measures how cameras that the model has never seen differ: no label is needed.

        The model stays as it is; `embed(..., cameras=..., adapted=...)` uses what is returned.

        Args:
            images: list of `Record` or of (h, w, 3) uint8 arrays, of high resolution.
            cameras: the camera of each image, a number or a name; None: as the records say.
            rates: rates to measure at. Others are interpolated.
            **options: of `adaptation.adapt`: `most`, `least`, `seed`, `kernel`, `verbose`.

        Returns:
            A `CameraStatistics`.

        Raises:
            InputError: no images, no cameras, or no batch normalization.

        Example:

        >>> adapted = model.adapt(records)
        >>> features = model.embed(images, rates=4, cameras=2, adapted=adapted)
        """
        return adaptation.adapt(self, images, cameras, rates, **options)

    def for_inference(self):
        """A copy that embeds faster: batch normalization is folded into the layers before it.

        Embeddings are those of this model but for rounding. The copy takes no other weights: it is
        neither trained nor adapted to cameras.

        Returns:
            A model of the same system; this one if it came from here.

        Example:

        >>> fast = model.for_inference()
        >>> features = fast.embed(images, rates=4)
        """
        if self._folded:
            return self
        copy = type(self).from_config(self.get_config())
        copy.set_weights(self.get_weights())
        copy._folded = True
        inference.fold(copy)
        return copy

    def set_weights(self, weights):
        self.refuse_folded()
        super().set_weights(weights)

    def load_weights(self, filepath, **kwargs):
        self.refuse_folded()
        super().load_weights(filepath, **kwargs)

    def refuse_folded(self):
        """Raises an `InputError` where this model came from `for_inference`."""
        if self._folded:
            raise InputError(
                "this model came from for_inference: give weights to the one that it came from, "
                "and train and adapt that one"
            )

    def distances(self, query_features, gallery_features, query_rates=None):
        """Distances by which a gallery is ranked: 1 - cosine of the embeddings.

        Args:
            query_features: (q, d) array from `embed`.
            gallery_features: (g, d) array from `embed`.
            query_rates: int or (q,) array; used by systems whose metric depends on it.

        Returns:
            (q, g) float32 array, in [0, 2].
        """
        return distances.cosine(query_features, gallery_features)

    def __call__(self, images, *args, **kwargs):
        # Of tensors no number is looked at: that would wait for the device at each batch.
        if isinstance(images, np.ndarray):
            images = self._checked(images)
        level = args[0] if args else kwargs.get("level")
        most = self.query_levels if isinstance(level, np.ndarray) else 0
        if most and not np.isin(level, range(1, most + 1)).all():
            raise InputError(
                f"levels {level.min()} to {level.max()} were given to a model that has {most}: "
                f"give 1 (lowest resolution) to {most}"
            )
        return super().__call__(images, *args, **kwargs)

    def call(self, images, level=None, training=False):
        """The embeddings that `embed` gives without rates.

        Args:
            images: (n, height, width, 3), uint8 or float in [0, 1]. Of a tensor on the device the
                range is not checked, for this would wait for the device; of an array it is.
            level: (n,) integers, of a system with levels: 1 (lowest resolution) to m; m if None.
            training: bool.

        Returns:
            (n, d) float32, whatever the model computes in.
        """
        images = as_float(images)
        if isinstance(images, np.ndarray):  # layers take no array beside a tensor
            images = ops.convert_to_tensor(images)
        found = ops.cast(self.embedding(images, level, training), "float32")
        if self.flip:
            mirrored = self.embedding(ops.flip(images, axis=2), level, training)
            found = (found + ops.cast(mirrored, "float32")) / 2.0
        return found

    def embedding(self, images, level=None, training=False):
        """The embeddings of images in [0, 1], not averaged with mirror images. Systems say how."""
        raise TypeError(f"{type(self).__name__} does not say how it embeds")

    def predict(self, x, batch_size=None, verbose="auto", **kwargs):
        """As in Keras: the embeddings that `embed` gives without rates."""
        if hasattr(x, "dtype") or isinstance(x, (list, tuple)):
            x = self._checked(x)
            if not len(x):
                return self.embed(x)
        elif isinstance(x, keras.utils.PyDataset):  # of an iterator no batch can be looked at
            self._checked(keras.utils.unpack_x_y_sample_weight(x[0])[0])
        if self._jit_compile is None:
            self.jit_compile = autodiff.default_jit_compile()
        return super().predict(x, batch_size=batch_size, verbose=verbose, **kwargs)

    def predict_on_batch(self, x):
        """As in Keras, with the look at the images that `predict` takes."""
        x = self._checked(x)
        return super().predict_on_batch(x) if len(x) else self.embed(x)

    def graph(self, images, level=None):
        """What a search needs of images, on tensors; `keras_xreid.export.build_graph` calls it.

        Args:
            images: (n, height, width, 3) float32 tensor in [0, 1].
            level: (n,) int32 tensor, 1 to `query_levels`; None where that is 0.

        Returns:
            A dict of tensors: "embedding"; of a system that recovers also "recovered"; and where
            images of high resolution bypass the recovery "embedding_high".

        Raises:
            InputError: where the system is several networks.
        """
        raise InputError(
            f"{type(self).__name__} is not one network from an image to an embedding: "
            "it cannot be exported as one graph"
        )

    def search_graph(self):
        """What a search needs as one functional model; `keras_xreid.export.build_graph` tells."""
        if self.compute_dtype != "float32":
            raise InputError(f"the model computes in {self.compute_dtype}: export takes float32")
        inputs = [keras.Input((*self.image_size, 3), dtype="uint8", name="image")]
        level = None
        if self.query_levels:
            inputs.append(keras.Input((), dtype="int32", name="level"))
            level = ops.clip(inputs[1], 1, self.query_levels)  # of another, all would be 0
        image = as_float(inputs[0])
        found = self.graph(image, level)
        if self.flip:
            mirrored = self.graph(ops.flip(image, axis=2), level)
            for name in ("embedding", "embedding_high"):
                if name in found:
                    found[name] = (found[name] + mirrored[name]) / 2.0
        outputs = [layers.Identity(name=name)(x) for name, x in found.items()]
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name="graph")

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """As in Keras: writes the graph of `keras_xreid.export.build_graph`, from uint8 images.

        `xreid export` writes it as ONNX with names and metadata, and checks it.

        Raises:
            InputError: where this backend does not write the format.
        """
        graph = self.search_graph()
        inputs = graph.input
        fast = fast_torch.enabled()
        fast_torch.disable()  # exporters do not know its kernels
        try:
            # Keras exports only what was called before.
            graph(keras.tree.map_structure(lambda x: np.zeros((1, *x.shape[1:]), x.dtype), inputs))
            if format == "torch":
                kwargs.setdefault("dynamic_shapes", autodiff.any_batch(inputs))
            return graph.export(str(filepath), format=format, **kwargs)
        except (ImportError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"no {format} was written on {keras.backend.backend()} ({reason}): for ONNX, "
                "call xreid export WEIGHTS FILE.onnx on torch or tensorflow"
            ) from error
        finally:
            if fast:
                fast_torch.enable()

    def _embed(self, images, rates, batch_size):
        """Embeds images, uint8 or float in [0, 1]; `rates` is (n,) or None. Systems say how."""
        raise TypeError(f"{type(self).__name__} does not say how it embeds")

    def _checked(self, images):
        images = as_numpy(images)
        if images.shape == (0,):
            images = np.zeros((0, *self.image_size, 3), "uint8")
        if images.ndim != 4 or images.shape[1:] != (*self.image_size, 3):
            height, width = self.image_size
            raise InputError(
                f"images of shape {images.shape} were given to a model of (n, {height}, {width}, "
                "3): bring them to its size with keras_xreid.prepare_images"
            )
        if images.dtype == np.uint8 or not images.size:
            return images
        # Normalised twice, or not at all, they would be embedded without a word.
        low, high = (float(images.min()), float(images.max()))
        if images.dtype.kind != "f" or not (low > -0.01 and high < 1.01):
            raise InputError(
                f"images are {images.dtype}, {low:g} to {high:g}: give uint8, or floats in [0, 1]; "
                "networks normalise them"
            )
        return images

    @staticmethod
    def _in_chunks(function, images, rates, batch_size):
        check_number("batch size", batch_size)
        # A bounded part at a time is copied, and other threads wait no longer than for that.
        step, results = 16 * batch_size, []
        for start in range(0, max(1, len(images)), step):  # none are a part, too: of shape (0, d)
            part = images[start : start + step]
            part = part if part.dtype == np.uint8 else as_float(part)
            rate = None if rates is None else rates[start : start + step]
            results.append(np.asarray(function(part, rate), dtype="float32"))
        return np.concatenate(results)
