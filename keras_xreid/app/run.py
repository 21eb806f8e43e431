"""A run folder: from the checked options to metrics.json, figures and report.md."""

import dataclasses
import importlib.util
import math
import time
from pathlib import Path

import keras

import keras_xreid as xr
from keras_xreid import files
from keras_xreid.app import folder as folders
from keras_xreid.app import provenance
from keras_xreid.app.settings import defaults, flag, plain, strength_of, unused
from keras_xreid.data.batches import check_people
from keras_xreid.data.decoded import decode
from keras_xreid.data.resolution import MAX_RATE, lr_rates, rate_range, told_of_large
from keras_xreid.evaluation.flops import cost_of
from keras_xreid.evaluation.queries import write_queries
from keras_xreid.evaluation.ranking import counted_queries
from keras_xreid.evaluation.speed import query_ms
from keras_xreid.report import report, run_figures
from keras_xreid.report.runs import count_data, images_seen
from keras_xreid.report.tables import score_table
from keras_xreid.training import autodiff, processes
from keras_xreid.training.norms import TermNorms

# Pairs a step. With few epochs more and smaller steps go further: 16 pairs are 32 images.
PAIRS = {"tiny": 16, "strong": 32, "paper": 32}
# Options that count something, and those that weigh, where a recipe has them.
COUNTS = ("epochs", "reid_epochs", "batch_size", "devices", "limit", "steps", "views", "hidden")
WEIGHTS = (
    "l2", "margin", "match", "octuplet", "reid_triplet", "relation_weight", "tap_weight", "triplet",
    "verification",
)  # fmt: skip
POSITIVE = ("learning_rate", "critic_rate", "mask_speed", "phi_scale", "reconstruction")


def adam(model, rate, critics=None):
    """Adam for every part that is trained.

    Args:
        model: a `PhasedModel`.
        rate: learning rate of the first phase's parts, or a dict of one for each part; parts that
            this model has not are passed over.
        critics: learning rate of what later phases train.
    """
    if isinstance(rate, dict):
        there = [part for part in rate if getattr(model, part) is not None]
        return {part: keras.optimizers.Adam(rate[part]) for part in there}
    first, *judges = model.phases()
    made = {part: keras.optimizers.Adam(rate) for part in first.updates}
    return made | {part: keras.optimizers.Adam(critics) for p in judges for part in p.updates}


class Run:
    """A run folder, from the checked options to metrics.json, figures and report.md.

    Args:
        system: name of the recipe, "intact".
        options: the recipe's options.
        kind: class of the model, whose `PRESETS` has its image size and backbone.
    """

    def __init__(self, system, options, kind):
        self.system, self.options, o = system, options, options
        self.folder = Path(o.out or f"runs/{system}-{o.data}")
        self._check_options()
        processes.share_out(o.devices)
        if processes.first():
            self._check_folder()
        self.image_size = tuple(o.image_size or kind.PRESETS[o.preset]["image_size"])
        if any(side % kind.multiple_of for side in self.image_size):
            size = "{} {}".format(*self.image_size)
            raise xr.InputError(f"--image-size is {size}: give multiples of {kind.multiple_of}")
        self.backbone = o.backbone or kind.PRESETS[o.preset]["backbone"]
        self.data = xr.datasets.load(
            o.data, o.data_dir, split=o.split, limit=o.limit, image_size=self.image_size,
            protocol=o.protocol, split_id=o.split_id, rates=o.query_rates, fold=o.fold,
            train_people=o.train_people, train_cameras=o.train_cameras,
            test_cameras=o.test_cameras,
        )  # fmt: skip
        rates = "query_rates" if self.data.protocol == "each-rate" else "rates"
        of_whom = "each-rate scores --rates, other protocols draw from --query-rates"
        unused(o, True, f"protocol is {self.data.protocol}: {of_whom}", rates)
        if o.everyone and o.split != "test":
            raise xr.InputError("--everyone leaves nobody to choose settings by: give --split test")
        for name in ("train_people", "train_cameras"):
            if o.everyone and getattr(o, name):
                raise xr.InputError(f"--everyone and {flag(name)} exclude each other: give one")
        if o.everyone:
            self.data = self.data.everyone()
        check_people(self.data.train)
        if not counted_queries(self.data.query, self.data.gallery).any():
            cure = "; on --split dev give --protocol paper" if o.split == "dev" else ""
            raise xr.InputError(
                f"no query of {o.data} has a gallery image of its person by another camera{cure}"
            )
        decode(self.data.train)  # a broken image is named now, and not in the middle of training
        for record in self.data.query + self.data.gallery:
            record.read()
        self.inputs = provenance.inputs_of(self.data, o)
        if o.resume:
            begun = files.read_json(self.folder / "options.json").get("inputs")
            provenance.refuse_other_inputs(self.folder, begun, self.inputs)
        self.seed()
        keras.config.set_dtype_policy(o.precision)
        if large := told_of_large(self.data.train, self.image_size, lr_rates(o.train_rates)):
            print(large)
        # To train on; a recipe may hide labels or leave some out.
        self.records = [r for r in self.data.train if (r.rate or 1) == 1]
        if len(self.records) < len(self.data.train):
            print(
                f"{len(self.data.train) - len(self.records)} LR training images are left out: "
                "training takes HR images"
            )
        self._checkpoints = []
        self.seconds = 0.0  # of what a recipe does before it trains; it counts, too

    # --- what a recipe builds from the options -------------------------------------------------

    @property
    def network(self):
        """Arguments that every system takes alike."""
        o = self.options
        names = ("preset", "label_smoothing", "neck", "flip")
        shape = {"backbone": self.backbone, "image_size": self.image_size}
        return {**shape, **{name: getattr(o, name) for name in names}}

    def extractor(self):
        """The same, and what systems with triplets on a trained backbone take."""
        weights = self.starting_weights()
        return {**self.network, "unit_triplet": self.options.unit_triplet, "weights": weights}

    @property
    def compiling(self):
        """Arguments of every `compile`."""
        return {"jit_compile": self.options.compiled, "l2": self.options.l2}

    def starting_weights(self):
        """What the backbone starts from: "imagenet", None (random numbers), or a trained model."""
        o = self.options
        if provenance.began_from({"weights": o.weights}) is None:
            known = o.preset == "paper" and self.backbone == "resnet50"
            wanted = o.weights == "imagenet" or (o.weights is None and known)
            return "imagenet" if wanted else None
        try:
            model = xr.load(o.weights, precision="float32")
        except xr.InputError as error:
            raise xr.InputError(f"--weights is neither imagenet nor random, and {error}") from error
        provenance.refuse_overlap(o.weights, o, o.data_dir, self.data.query)
        if model.image_size != self.image_size:
            theirs, ours = ("x".join(map(str, s)) for s in (model.image_size, self.image_size))
            print(f"{o.weights} was trained at {theirs}, this run is at {ours} (--image-size)")
        return model

    def trained_network(self, path, people):
        """Reads the network of --reid; refuses one of another shape, or of other people."""
        o, model = self.options, xr.load(path)
        if not isinstance(model, xr.Baseline):
            raise xr.InputError(f"{path} holds a {type(model).__name__}; --reid takes a Baseline")
        told = provenance.trained_on(path)
        if not told:
            print(f"Nothing beside {path} says on whom it was trained: not checked")
        split_id = told.get("split_id", o.split_id) if o.data in provenance.HALVED else o.split_id
        for name, found, wanted in (
            ("--data", told.get("dataset", o.data), o.data),
            ("--split", told.get("split", o.split), o.split),
            ("--fold", (told.get("fold") or 0) if told else o.fold, o.fold),
            ("--split-id", split_id, o.split_id),
            ("backbone", model.backbone, self.backbone),
            ("image size", model.image_size, self.image_size),
            ("number of people", model.people, people),
            ("last stride", model.last_stride, 1),
            ("--neck", bool(model.neck), o.neck),
        ):
            if found != wanted:
                raise xr.InputError(
                    f"{path} was trained with {name} {found}; this run needs {wanted}"
                )
        people = self.inputs["people"]  # the classes, in this order
        if (told.get("inputs") or {}).get("people", people) != people:
            raise xr.InputError(f"{path} was trained on other people than this run has")
        return model

    def hide_labels(self, labeled_fraction):
        """Hides who is on the training images, for all but a share of each person's."""
        if labeled_fraction != 1:
            self.records = xr.hide_labels(self.records, labeled_fraction, self.options.seed)
            labeled = sum(record.person is not None for record in self.records)
            print(f"{labeled} of {len(self.records)} training images are labelled")

    def keep_labeled(self, labeled_fraction):
        """Leaves only those training images that keep their label."""
        records = xr.hide_labels(self.records, labeled_fraction, self.options.seed)
        kept = [record for record in records if record.person is not None]
        if not kept:
            raise xr.InputError(
                f"--labeled-fraction is {labeled_fraction}: nobody keeps a label; give more"
            )
        print(
            f"{len(kept)} of {len(records)} images keep their label; epochs are shorter, and more"
        )
        self.records = kept

    def seed(self):
        """Seeds all that draws: a second stage begins alike, whatever ran before it."""
        autodiff.repeatable(self.options.seed, self.options.compiled)

    def epochs(self, scheduled, given=None):
        """Epochs of a stage: as given, one in a short run (--steps), or as scheduled."""
        short = 1 if self.options.steps else scheduled
        return short if given is None else given

    def images(self, grouped=False, **kwargs):
        """Batches of single images, `xr.ImageBatches`.

        Args:
            grouped: some images of each person, for losses that compare people.
            **kwargs: as `xr.ImageBatches` takes them, in the place of the options.
        """
        return self._batches(xr.ImageBatches, 32, grouped, kwargs)

    def pairs(self, grouped=True, **kwargs):
        """Batches of an HR image and an LR one, `xr.PairBatches`; see `images`."""
        return self._batches(xr.PairBatches, PAIRS[self.options.preset], grouped, kwargs)

    def _batches(self, kind, size, grouped, kwargs):
        o = self.options
        size = kwargs.setdefault("batch_size", o.batch_size or size)
        processes.check_share(size)
        kwargs.setdefault("rates", o.train_rates)
        if grouped:
            k = kwargs.setdefault("images_per_person", o.images_per_person)
            if k < 2:
                raise xr.InputError(f"--images-per-person is {k}: a loss here compares 2 or more")
            if size % k or size < 2 * k:
                raise xr.InputError(
                    f"a step takes {k} images of each person, and --batch-size is {size}: give a "
                    f"multiple of {k}, {2 * k} or more"
                )
            kwargs["people_per_batch"] = size // k
        else:
            kwargs.pop("images_per_person", None)
        return kind(
            self.records, image_size=self.image_size, seed=o.seed, erase=o.erase, jitter=o.jitter,
            workers=o.workers, steps=o.steps, kernel=o.kernel, strength=strength_of(o), **kwargs,
        )  # fmt: skip

    # --- training ------------------------------------------------------------------------------

    def callbacks(self, stage, batches):
        """What `fit` is given: the gradients' norms, and a checkpoint after every epoch.

        The first call opens the run folder. A stage goes on after its last finished epoch.
        """
        if not self._checkpoints:
            if processes.first():
                self._begin()
            processes.wait()  # nobody reads there before it is this run's folder
        checkpoint = xr.Checkpoint(
            self.folder / f"checkpoint-{stage}.weights.h5", batches, stage, self.rows,
            self.folder / "history.csv",
        )  # fmt: skip
        self._checkpoints.append(checkpoint)
        return [TermNorms(batches), checkpoint]

    @property
    def rows(self):
        """Rows of the history so far."""
        return self._checkpoints[-1].rows if self._checkpoints else []

    def speeds(self):
        """Images a second of each stage.

        The first epoch compiles and reads the images, so it does not count where others do.
        """
        found = {}
        for stage in dict.fromkeys(row["stage"] for row in self.rows):
            own = [row for row in self.rows if row["stage"] == stage]
            later = own[1:] or own
            images = sum(row["images_per_second"] * row["seconds"] for row in later)
            found[stage] = images / sum(row["seconds"] for row in later)
        return found

    def finish(self, model, trained_on=None, **extra):
        """Scores the model, and writes everything that makes the run citable.

        Of several processes that trained, the first one goes on alone. `trained_on`: rates of the
        training images, where they are not --train-rates.
        """
        together = processes.count()
        processes.end()
        if not processes.first():
            return None
        o, data = self.options, dataclasses.replace(self.data, train=self.records)
        began = time.perf_counter()
        xr.save(model, self.folder / "model.weights.h5")
        if o.precision != "float32":
            # Scored as it is published: bfloat16 moves a rank-1 by some queries, and by others on
            # another machine.
            model = xr.load(self.folder, precision="float32")
        shrunk = getattr(model, "gallery_at_query_rate", False)
        rows = xr.manifest_rows(
            data, o.rates, train_rates=o.train_rates, gallery_rates=o.rates if shrunk else (1,),
            train_kernel=o.kernel, train_strength=strength_of(o),
        )  # fmt: skip
        manifest = xr.write_manifest(self.folder / "manifest.jsonl", rows)
        result = xr.evaluate(model, data, o.rates, lr_rates(o.train_rates))
        trained = sum(row["seconds"] for row in self.rows)
        seconds = self.seconds + trained + time.perf_counter() - began
        metrics = {
            "system": self.system,
            "dataset": o.data,
            "split": data.split,
            "fold": data.fold if data.split == "dev" else None,
            "protocol": data.protocol,
            "about": data.about or None,
            "gallery_at_query_rate": shrunk or None,
            "split_id": data.split_id,
            "manifest_sha256": manifest,
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "preset": o.preset,
            "backbone": self.backbone,
            "seed": o.seed,
            "parameters": model.count_params(),
            "to_embed": cost_of(model),
            "seconds": seconds,
            "images_per_second": self.speeds(),
            "images_seen": images_seen(self.rows),
            "query_ms": query_ms(model, result),
            **result.scores,
            **extra,
            **({"processes": together} if together > 1 else {}),
            "short_run": bool(o.limit or o.steps),
            "data": count_data(data),
            "options": files.read_json(self.folder / "options.json"),
        }
        metrics["options"].pop("inputs", None)  # the manifest says more
        print(score_table(metrics))
        write_queries(self.folder / "queries.csv", result)
        # Scores first, so that no failing figure loses them; report.md says that the run is whole.
        files.write_json_atomic(self.folder / "metrics.json", metrics)
        run_figures.draw_figures(
            self.folder / "figures", result, trained_on or lr_rates(o.train_rates)
        )
        report.write_report(self.folder, metrics)
        folders.clear(self.folder, checkpoints=True)
        self._release()
        print(f"Finished in {seconds / 60:.1f} minutes. Look at {self.folder / 'report.md'}")
        return metrics

    # --- the folder ----------------------------------------------------------------------------

    def _check_options(self):
        o = self.options
        for name in ("train_rates", "rates", "query_rates"):
            values = getattr(o, name)
            if name == "train_rates" and rate_range(values):
                continue
            if not values or not all(1 <= value <= MAX_RATE for value in values):
                raise xr.InputError(
                    f"{flag(name)} {' '.join(f'{v:g}' for v in values)}: "
                    f"every rate is 1 (high resolution) to {MAX_RATE}"
                )
            setattr(o, name, tuple(int(v) if v == int(v) else v for v in values))
        o.rates = tuple(dict.fromkeys(o.rates))  # a score is listed once
        if o.image_size and min(o.image_size) < 32:
            height, width = o.image_size
            raise xr.InputError(f"--image-size is {height} {width}: give 32 or more for each side")
        for names, fits, wanted in (
            (COUNTS, lambda value: value >= 1, "1 or more"),
            (WEIGHTS, lambda value: 0 <= value < math.inf, "0 or more"),
            (POSITIVE, lambda value: 0 < value < math.inf, "more than 0"),
            (("seed",), lambda value: 0 <= value < 2**32, f"0 to {2**32 - 1}"),
            (("workers",), lambda value: value >= 0, "0 or more"),
            (("label_smoothing",), lambda value: 0 <= value < 1, "0 to below 1"),
            (("labeled_fraction",), lambda value: 0 <= value <= 1, "0 (none) to 1 (all)"),
        ):
            for name in names:
                value = getattr(o, name, None)
                if value is not None and not fits(value):
                    raise xr.InputError(f"{flag(name)} is {value:g}: give {wanted}")
        if importlib.util.find_spec("matplotlib") is None:
            raise xr.InputError('figures need matplotlib: pip install -e ".[recipes]"')
        strength_of(o)
        if o.resume and o.overwrite:
            raise xr.InputError("--resume and --overwrite exclude each other: give one")

    def _asked(self):
        here = ("resume", "overwrite", "out")
        asked = {k: v for k, v in plain(self.options).items() if k not in here}
        return {**asked, "backend": keras.backend.backend()}

    def _check_folder(self):
        o, folder, note = self.options, self.folder, self.folder / "options.json"
        folders.refuse_locked(folder)
        folders.mend(folder)
        is_finished = note.exists() and (folder / "report.md").exists()
        if is_finished:  # it may have been killed before it had tidied up
            folders.clear(folder, checkpoints=True)
        if o.resume:
            if is_finished:
                raise xr.InputError(f"the run in {folder} is finished: there is nothing to resume")
            if not note.exists():
                raise xr.InputError(f"{folder} holds no run to resume: start it without --resume")
            asked = self._asked()
            del asked["workers"]  # batches are the same
            # An option that came after the run was begun had its default.
            begun = {**plain(self._defaults()), **files.read_json(note)}
            other = [k for k in asked if asked[k] != begun.get(k, asked[k])]
            if other:
                k = other[0]
                raise xr.InputError(
                    f"the run in {folder} was begun with {k} = {begun[k]}, not {asked[k]}: "
                    "resume it with its own options"
                )
        elif not folders.is_empty(folder):
            if not note.exists():
                raise xr.InputError(f"{folder} holds other files: give another --out")
            if not o.overwrite:
                raise xr.InputError(
                    f"{folder} holds a run already: --resume goes on with it, "
                    "--overwrite throws it away, or give another --out"
                )
            folders.refuse_others(folder)

    def _defaults(self):
        return defaults(type(self.options).__bases__[0], self.options.preset)

    def _begin(self):
        """Opens the run folder; whatever can be refused was refused before, and left nothing."""
        o, folder = self.options, self.folder
        self._release = folders.lock(folder)
        self._check_folder()  # another run may have begun there
        folders.clear(folder)
        if not o.resume:
            command, began = provenance.command_typed(self.system)
            asked, default = self._asked(), plain(self._defaults())
            changed = {k: v for k, v in asked.items() if v != default.get(k, v)}
            if changed.get("data_dir"):
                changed["data_dir"] = "DIR"
            told = {"command": command, "began_from_sha256": began, "changed": changed}
            with folders.replaced(folder):
                note = {**told, **asked, "inputs": self.inputs}
                files.write_json_atomic(folder / "options.json", note)
        print(
            f"{self.system} on {o.data} ({len({r.person for r in self.data.train})} people, "
            f"{len(self.data.train)} images to train on), Keras {keras.__version__} on "
            f"{keras.backend.backend()}, results in {folder}"
        )
