"""Alternating updates, written once for every system and every backend."""

import contextlib
import functools
from collections.abc import Callable
from typing import NamedTuple

import keras

from keras_xreid._backend import place
from keras_xreid.errors import InputError
from keras_xreid.training import autodiff, processes
from keras_xreid.training.finite import StopWhereNotFinite


class Phase(NamedTuple):
    """One update in an alternating train step.

    Args:
        updates: names of the model's parts (attributes) that this phase changes.
        losses: function of the prepared batch returning a dict of weighted scalar terms; their
            sum is minimised. It may return a second dict, of tensors that the phases after it
            find in the batch, without a gradient: what was computed once need not be again.
        terms: names of those terms, in the order in which they are shown.
        measures: names of scalars in the second dict that are shown too: how often a critic is
            right, say. One that has the name of a term is shown in its place.

    Example:

    >>> Phase(updates=("discriminator",), losses=self.discriminator_losses, terms=("real_fake",))
    """

    updates: tuple[str, ...]
    losses: Callable
    terms: tuple[str, ...]
    measures: tuple[str, ...] = ()


def _terms_of(phase, batch):
    """A phase's terms, and what it hands on."""
    found = phase.losses(batch)
    terms, handed = found if isinstance(found, tuple) else (found, {})
    if tuple(terms) != tuple(phase.terms):
        raise ValueError(
            f"phase {phase.updates} announced the terms {tuple(phase.terms)} "
            f"and returned {tuple(terms)}"
        )
    return terms, handed


def _only(losses, term):
    """A phase's losses, of which one term is left."""

    def alone(batch):
        found = losses(batch)
        return {term: (found[0] if isinstance(found, tuple) else found)[term]}

    return alone


class _PartOptimizers(keras.optimizers.MultiOptimizer):
    """A `MultiOptimizer` that leaves alone what it was not built over: parts that are frozen.

    Keras saves the optimizer of each part beside it, so that it saves no more than its own count of
    steps. Earlier files hold all of them here once more.
    """

    def save_own_variables(self, store):
        for i, variable in enumerate(self._variables):
            store[str(i)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store):
        for i, variable in enumerate(self._variables):
            variable.assign(store[str(i)][()])

    def finalize_variable_values(self, var_list):
        owned = {id(variable) for variable in self._trainable_variables}
        super().finalize_variable_values([v for v in var_list if id(v) in owned])


class PhasedModel(keras.Model):
    """A `keras.Model` whose train step runs a list of phases, one after the other.

    A subclass names its parts as attributes (built in the constructor), and says in `phases()`
    which parts are updated by which loss. Every phase sees the parts as the phase before left
    them. A phase changes the weights of its own parts, their moving averages and the random
    seeds, and nothing else. What is frozen or freed while `fit` runs, by a callback, counts from
    `make_train_function(force=True)` on.

    Example:

    >>> class Toy(PhasedModel):
    ...     def phases(self):
    ...         return [Phase(("generator",), self.generator_losses, ("mse",))]
    >>> model.compile({"generator": keras.optimizers.Adam(1e-4)})
    >>> model.fit(batches, epochs=10, shuffle=False)
    """

    # What losses pass on as `training`: False while a test step measures.
    learning = True
    _draws_share = False  # whether batches hold this process's share of their images already

    @classmethod
    def from_config(cls, config):
        # Parts are built in the constructor, so they take the policy that is in force there.
        config = dict(config)
        policy = config.pop("dtype", None)
        if isinstance(policy, dict):
            policy = keras.saving.deserialize_keras_object(policy)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy or before)
        try:
            return cls(**config)
        finally:
            keras.config.set_dtype_policy(before)

    def phases(self):
        """Returns the list of `Phase` that make one train step, in order."""
        raise TypeError(f"{type(self).__name__} does not say which phases train it")

    def prepare(self, batch):
        """Computes once a step what needs no gradient and serves several phases.

        Parts may be called with `training=True`: their statistics do not move by it.

        Args:
            batch: what `__getitem__` of the data returned.

        Returns:
            What the phases' losses are given; the batch itself by default.
        """
        return batch

    def default_optimizers(self):
        """The optimizers of `compile()` without any; None where a system has none of its own."""
        return None

    def check_batch(self, batch):
        """Raises an `InputError` where a batch does not fit the model. Systems say what fits.

        Args:
            batch: what `__getitem__` of the data returned, or all data at once.
        """

    def check_data(self, data):
        """Raises an `InputError` where what the data say of themselves is not the model's."""

    def compile(
        self, optimizer=None, loss=None, *, jit_compile=None, run_eagerly=False,
        steps_per_execution=1, l2=None, **others,
    ):  # fmt: skip
        """Gives each trained part its own optimizer.

        Args:
            optimizer: dict from part name to Keras optimizer (or its name). A part without one
                is frozen. One optimizer is enough where there is one part; None takes those that
                the system has by default.
            loss: none is taken, nor metrics: losses and what is shown are the system's own.
            jit_compile: bool; None takes what is fastest on this backend and device.
            run_eagerly: bool, as in Keras.
            steps_per_execution: int, as in Keras.
            l2: a float, for all parts of the first phase, or a dict from part name to a float: so
                many times a weight is added to its gradient, as
                `torch.optim.Adam(weight_decay=...)` does. The `weight_decay` of Keras's
                optimizers bypasses the moments instead.
            **others: none.

        Raises:
            InputError: where a phase updates a part that has no optimizer, two parts share an
                optimizer or a variable, a loss is given, or the precision is no good to train in.
        """
        phases = self.phases()
        parts = list(dict.fromkeys(part for phase in phases for part in phase.updates))
        one_each = ", ".join(f'"{part}": keras.optimizers.Adam(1e-4)' for part in parts)
        call = f"call compile({{{one_each}}})"
        if loss is not None or others:
            given = ", ".join((["loss"] if loss is not None else []) + list(others))
            raise InputError(f"compile() takes no {given}: losses are the system's own; {call}")
        if optimizer is None:
            optimizer = self.default_optimizers()
        if not isinstance(optimizer, dict) and optimizer is not None and len(parts) == 1:
            optimizer = {parts[0]: optimizer}
        if not isinstance(optimizer, dict):
            told = "; compile() takes the usual ones" if self.default_optimizers() else ""
            raise InputError(
                f"{type(self).__name__} trains {len(parts)} parts, each of which has an optimizer "
                f"of its own: {call}{told}"
            )
        if no := [p for p in optimizer if not isinstance(getattr(self, p, None), keras.Layer)]:
            raise InputError(f"{type(self).__name__} has no part {', '.join(no)}: {call}")
        self._check_precision()
        # In one order, whatever the caller's: Keras stores them by their place. It is that of the
        # system's own optimizers, which the recipes' files have.
        order = dict.fromkeys([*(self.default_optimizers() or ()), *parts, *sorted(optimizer)])
        optimizers = {
            part: keras.optimizers.get(optimizer[part]) for part in order if part in optimizer
        }
        if isinstance(l2, (int, float)):
            l2 = dict.fromkeys(phases[0].updates, l2) if l2 else {}
        self._l2 = dict(l2 or {})
        if not set(self._l2) <= set(optimizers):
            raise InputError(f"l2 is given for {', '.join(self._l2)}, of which one is not trained")
        missing = {part for phase in phases for part in phase.updates} - set(optimizers)
        if missing:
            raise InputError(
                f"no optimizer for {', '.join(sorted(missing))}: "
                f"compile() was given optimizers for {', '.join(optimizers) or 'nothing'}"
            )
        if len({id(o) for o in optimizers.values()}) < len(optimizers):
            raise InputError("two parts share one optimizer object; give each part its own")
        owner, owned = {}, []
        for part, part_optimizer in optimizers.items():
            for variable in getattr(self, part).trainable_variables:
                if id(variable) in owner:
                    raise InputError(f"{variable.path} belongs to two parts, {part} is one")
                owner[id(variable)] = part_optimizer
                owned.append(variable)
        self._frozen = [p for p in optimizers if not getattr(self, p).trainable_variables]
        # Routed by identity, not by path, and built over all parts now, before a callback
        # freezes any. Inner optimizers are applied directly: MultiOptimizer.apply wants every
        # gradient at once.
        multi = _PartOptimizers(lambda variable: owner[id(variable)])
        multi.build(owned)
        self._part_optimizers = optimizers
        self._agreed = False  # whether all processes have the same weights to begin with
        self._compile_arguments = {
            "jit_compile": jit_compile,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "l2": self._l2,
        }
        if jit_compile is None:
            jit_compile = autodiff.default_jit_compile()
        super().compile(
            optimizer=multi,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            auto_scale_loss=False,
        )
        for tracker in getattr(self, "_trackers", {}).values():  # of a compile before
            self._tracker.untrack(tracker)
        self._trackers = {
            name: keras.metrics.Mean(name=name)
            for phase in phases
            for name in dict.fromkeys((*phase.terms, *phase.measures))
        }
        if "loss" in self._trackers:
            raise ValueError('"loss" is the sum of all terms: give the term another name')

    @property
    def optimizers(self):
        """Dict from part name to its optimizer, once compiled."""
        return dict(self._part_optimizers)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        config = {"optimizer": dict(self._part_optimizers), **self._compile_arguments}
        return keras.saving.serialize_keras_object({**config, "frozen": self._frozen})

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        # Keras stores the optimizers' states by place, and one that trains nothing has none.
        for part in config.pop("frozen", ()):
            getattr(self, part).trainable = False
        self.compile(**config)

    def _check_precision(self):
        # Loss scaling for float16 would be bypassed by inner applies; bfloat16 needs none, but
        # weights that are bfloat16 themselves stay where they are at a usual learning rate.
        for layer in self._flatten_layers():
            if layer.compute_dtype == "float16" or layer.variable_dtype in ("float16", "bfloat16"):
                raise InputError(
                    f"{layer.name} is {layer.dtype_policy.name}, which does not train here (losses "
                    "are not scaled): build the model in float32 or mixed_bfloat16"
                )

    def fit(
        self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None,
        validation_split=0.0, validation_data=None, shuffle=False, **kwargs,
    ):  # fmt: skip
        """As in Keras, but `shuffle` is off by default: the batches bring their own order.

        Keras would shuffle with Python's global random numbers, and no run could be repeated or
        resumed exactly. Before the first step the data are compared with the model, and training
        stops at the first step that is not finite, see `StopWhereNotFinite`.

        Raises:
            InputError: data that do not fit the model or cannot be read, or a step that is not
                finite.
        """
        processes.start(self)
        if shuffle and processes.count() > 1:
            raise InputError(
                f"shuffle is {shuffle}, and {processes.count()} processes would each draw an order "
                "of their own: leave it out, the batches bring theirs"
            )
        x = self._fitting(x, y, batch_size=batch_size, **kwargs)
        if validation_data is not None:
            validation_data = self._fitting(*keras.utils.unpack_x_y_sample_weight(validation_data))
        guard = StopWhereNotFinite()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            guard.set_model(self)
            callbacks.callbacks.insert(0, guard)
            given = callbacks.callbacks
        else:  # the first of them: nobody saves what it refuses
            given = callbacks = [guard, *keras.tree.flatten(callbacks or [])]
        self._agree()
        try:
            with processes.quiet(), self._own_share_of(x), autodiff.training():
                return super().fit(
                    x, None, batch_size, epochs, verbose, callbacks, validation_split,
                    validation_data, shuffle, **kwargs,
                )  # fmt: skip
        except Exception as error:
            # TensorFlow wraps what data raise in the middle of training.
            if getattr(x, "failed", None) not in (None, error):
                raise x.failed from error
            raise
        finally:
            object.__setattr__(self, "_looked_up", None)
            for callback in given:  # Keras calls no on_train_end where it is interrupted
                if callable(getattr(callback, "leave", None)):
                    callback.leave(self)

    def _agree(self):
        """Has all processes begin with the first one's weights."""
        processes.same_weights([*self.variables, *self.optimizer.variables])
        self._agreed = True

    @contextlib.contextmanager
    def _own_share_of(self, data):
        """Inside, data that can do so draw this process's share of a batch, and no more."""
        draw = getattr(data, "draw_share", None)
        if draw is None or processes.count() == 1:
            yield
            return
        draw(*place())
        object.__setattr__(self, "_draws_share", True)
        try:
            yield
        finally:
            draw(0, 1)
            object.__setattr__(self, "_draws_share", False)

    def make_train_function(self, force=False):
        if self.jit_compile and processes.count() > 1:
            raise InputError(
                "a train step on several processes is not compiled: leave out --compiled, or "
                "jit_compile"
            )
        if self.jit_compile:
            autodiff.before_compiling(self)
        # Once, and not in each step: looking them up walks through all layers. Past Keras's own
        # __setattr__, which would track them a second time.
        object.__setattr__(self, "_looked_up", self._look_up())
        return super().make_train_function(force=force)

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", **kwargs):
        """As in Keras: the mean of every term, and "loss", their sum. Nothing changes by it."""
        if not kwargs.get("_use_cached_eval_dataset"):  # of `fit`, which looked at it
            x = self._fitting(x, y, kwargs.pop("sample_weight", None), batch_size=batch_size)
        epoch = getattr(x, "epoch", None)
        try:
            return super().evaluate(x, None, batch_size, verbose, **kwargs)
        finally:
            if epoch is not None:  # the next time it is the same images, and so is training after
                x.epoch = epoch

    def predict(self, *args, **kwargs):
        """As in Keras, of any number of images on any number of devices."""
        with processes.undivided():
            return super().predict(*args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, **kwargs):
        """As in Keras; the batch is compared with the model first."""
        processes.start(self)
        x = self._fitting(x, y, sample_weight, class_weight)
        if not self._agreed:  # once: from there on they stay the same
            self._agree()
        return super().train_on_batch(x, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """As in Keras; the batch is compared with the model first."""
        return super().test_on_batch(self._fitting(x, y, sample_weight), **kwargs)

    def _fitting(self, x, y=None, sample_weight=None, class_weight=None, batch_size=None, **_):
        """The data to give to Keras, once they are found to fit the model."""
        if class_weight is not None:
            raise InputError("class_weight is not taken: the losses weigh all people alike")
        x = self._joined(x, y, sample_weight)
        self.check_data(x)
        if isinstance(x, keras.utils.PyDataset):
            # Ours make a batch without moving on; of another one Keras, too, draws the first.
            first = x.batch(x.epoch, 0) if callable(getattr(x, "batch", None)) else x[0]
            first = self._joined(*keras.utils.unpack_x_y_sample_weight(first))
            self.check_batch(first)
            processes.check_rows(first)
        elif isinstance(x, dict):
            self.check_batch(x)
            processes.check_rows(x, batch_size)
        if not self.compiled:
            raise InputError("the model is not compiled: call model.compile() first")
        return x

    def _joined(self, x, y=None, sample_weight=None):
        """A batch in one piece: of a system that learns from images with labels, also of two."""
        if sample_weight is not None:
            raise InputError("sample_weight is not taken: the losses weigh all images alike")
        return x if y is None else self.from_images_and_labels(x, y)

    def from_images_and_labels(self, images, labels):
        """The batch that `fit(images, labels)` means. Systems say so where there is one."""
        raise InputError(
            f"{type(self).__name__} does not learn from images and labels apart: call "
            "fit(batches), with batches that are dicts, as keras_xreid.PairBatches makes them"
        )

    def train_step(self, *args):
        return autodiff.as_step(self, self._run_phases, *args)

    def test_step(self, *args):
        return autodiff.as_step(self, self._measure_phases, *args)

    def _measure_phases(self, data):
        """The terms of all phases in inference mode; no weight, average or seed changes."""
        raw = self._joined(*keras.utils.unpack_x_y_sample_weight(data))

        def measure():
            batch, logs, total = self.prepare(raw), {}, 0.0
            batch = dict(batch) if isinstance(batch, dict) else batch
            for phase in self.phases():
                terms, handed = _terms_of(phase, batch)
                if handed:
                    batch.update(handed)
                total += sum(terms.values())
                logs.update(terms)
                logs.update({name: batch[name] for name in phase.measures})
            return logs, total

        # Past Keras's own __setattr__; it counts while the step runs, or is traced.
        object.__setattr__(self, "learning", False)
        try:
            state = self.variables + self.metrics_variables
            return self._shown(*autodiff.without_gradient(measure, state))
        finally:
            object.__setattr__(self, "learning", True)

    def _run_phases(self, data):
        raw = self._joined(*keras.utils.unpack_x_y_sample_weight(data))
        if processes.count() == 1:
            return self._run_phases_on(raw)
        raw = keras.tree.map_structure(keras.ops.convert_to_tensor, raw)  # of `train_on_batch`
        with processes.sharing(raw, self._draws_share) as own:
            return self._run_phases_on(own)

    def _run_phases_on(self, raw):
        state, variables = self.__dict__.get("_looked_up") or self._look_up()
        batch = autodiff.without_gradient(lambda: self.prepare(raw), state)
        if isinstance(batch, dict):
            batch = dict(batch)  # phases may put in more; the trainer's own stays as it is
        shown, total = {}, 0.0
        for phase, of_parts in zip(self.phases(), variables, strict=True):
            terms, gradients = self._phase_gradients(phase, batch, state, *of_parts)
            total += sum(terms.values())
            gradients = iter(gradients)
            for part, trained in zip(phase.updates, of_parts[0], strict=True):
                if trained:
                    own = [next(gradients) for _ in trained]
                    if decay := self._l2.get(part):
                        own = [g + decay * v for g, v in zip(own, trained, strict=True)]
                    self._part_optimizers[part].apply(own, trained)
            shown.update(terms)
            shown.update({name: batch[name] for name in phase.measures})
        self.optimizer.iterations.assign_add(1)
        total, *values = processes.mean([total, *shown.values()])
        return self._shown(dict(zip(shown, values, strict=True)), total)

    def _shown(self, logs, total):
        """The means so far: "loss", the sum of all weighted terms, and each of them."""
        self._loss_tracker.update_state(total)
        for name, value in logs.items():
            self._trackers[name].update_state(value)
        means = {name: tracker.result() for name, tracker in self._trackers.items()}
        return {"loss": self._loss_tracker.result(), **means}

    def phase_gradients(self, phase, batch):
        """Runs one phase forwards and backwards, without applying its update.

        Args:
            phase: a `Phase` of this model.
            batch: a prepared batch; a dict where the phase hands something on, which is put in.

        Returns:
            A dict of the phase's terms, and the list of gradients for the trainable variables
            of the parts it updates, part by part.
        """
        return self._phase_gradients(phase, batch, self._state, *self._variables_of(phase))

    def gradient_norms(self, batch):
        """How hard each weighted term pulls: the norm of its own gradient.

        Nothing changes by it. Phases of one term are left out.

        Args:
            batch: what `__getitem__` of the data returned.

        Returns:
            Dict from a term's name to the norm over all weights that its phase updates.
        """
        raw = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
        with processes.sharing(raw) as own:
            return self._gradient_norms(own)

    def _gradient_norms(self, raw):
        batch = autodiff.without_gradient(lambda: self.prepare(raw), self._state)
        norms = {}
        phases = self.phases()
        for phase in phases:
            trained, _ = self._variables_of(phase)
            for term in phase.terms if len(phase.terms) > 1 else ():
                alone = phase._replace(losses=_only(phase.losses, term), terms=(term,))
                _, gradients = self._phase_gradients(alone, dict(batch), self._state, trained, [])
                squares = [keras.ops.sum(keras.ops.square(g)) for g in gradients]
                norms[term] = float(keras.ops.convert_to_numpy(sum(squares))) ** 0.5
            if phase is not phases[-1]:  # those after it may read what it hands on
                handed_on = functools.partial(_terms_of, phase, dict(batch))
                batch = {**batch, **autodiff.without_gradient(handed_on, self._state)[1]}
        return norms

    def _look_up(self):
        """Every variable, and those of each phase."""
        return self._state, [self._variables_of(phase) for phase in self.phases()]

    def _variables_of(self, phase):
        """The variables that a phase trains, part by part, and those whose changes it keeps."""
        parts = [getattr(self, part) for part in phase.updates]
        kept = [v for part in parts for v in part.non_trainable_variables]
        known = {id(v) for v in kept}
        kept += [v for v in self.seed_states if id(v) not in known]
        return [list(part.trainable_variables) for part in parts], kept

    def _phase_gradients(self, phase, batch, state, trained, kept):
        variables = [v for part in trained for v in part]

        def loss():
            terms, handed = _terms_of(phase, batch)
            return sum(terms.values()), (terms, handed)

        (terms, handed), gradients = autodiff.losses_and_gradients(loss, variables, kept, state)
        if handed:
            batch.update(handed)
        return terms, gradients

    @property
    def _state(self):
        """Every variable that a loss may read."""
        return self.variables + self.optimizer.variables + self.metrics_variables

    @property
    def seed_states(self):
        """The variables behind every `SeedGenerator`: in `variables`, but not in `weights`."""
        weights = {id(v) for v in self.weights}
        return [v for v in self.variables if id(v) not in weights]

    # Keras saves no seeds; without them a resumed run would draw its dropout anew.
    def save_own_variables(self, store):
        super().save_own_variables(store)
        for index, seed in enumerate(self.seed_states):
            store[f"seed_{index}"] = keras.ops.convert_to_numpy(seed)

    def load_own_variables(self, store):
        names = list(store.keys())  # Keras's store has keys, but is not iterable
        own = {name: store[name] for name in names if not name.startswith("seed_")}
        super().load_own_variables(own)
        for index, seed in enumerate(self.seed_states):
            seed.assign(store[f"seed_{index}"][()])
