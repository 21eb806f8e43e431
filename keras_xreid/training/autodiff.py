"""Gradients and the train-step signature on each backend.

Beside this file `fast_torch/`, `fast_tensorflow.py`, `fast_jax.py`, `inference.py`,
`processes.py`, `collectives.py` and `keras_xreid/_backend.py` name a backend, and no others. A new
backend is one more function here.
"""

import contextlib
import ctypes
import importlib
import os
import platform

import keras

from keras_xreid.training import fast_torch, processes

BACKEND = keras.backend.backend()
if BACKEND in ("tensorflow", "jax"):  # switched on by importing it, as fast_torch is
    importlib.import_module(f"keras_xreid.training.fast_{BACKEND}")

# Options of glibc's `mallopt` by their number in malloc.h, in training and afterwards: how much
# freed memory is kept, how much is asked for beyond what is needed, from which size on blocks have
# pages of their own, and how many may have. Once one is set, glibc adapts them no more. So those
# afterwards are the most that it comes to by itself.
MALLOPT = (
    (-1, -1, 64 << 20), (-2, 256 << 20, 128 << 10), (-3, 32 << 20, 32 << 20), (-4, 0, 65536),
)  # fmt: skip


def _torch(loss, variables, kept, state):
    import torch

    # PyTorch keeps for the backward pass what a gradient of any trainable variable would need. Of
    # the parts that the loss only passes through none is wanted: they are seen detached.
    own = {id(v) for v in variables}
    passed = [(v, v.value.detach()) for v in state if v.trainable and id(v) not in own]
    with keras.StatelessScope(passed) as scope:
        total, found = loss()
    # autograd.grad rather than backward(): nothing to zero, and nothing is left behind in the
    # parts that the phase only passes through.
    gradients = [None] * len(variables)
    if variables and total.requires_grad:
        gradients = torch.autograd.grad(total, [v.value for v in variables], allow_unused=True)
    gradients = [
        torch.zeros_like(v.value) if g is None else g
        for g, v in zip(gradients, variables, strict=True)
    ]
    gradients = processes.averaged(gradients, variables)
    _commit(scope, kept)
    return keras.tree.map_structure(lambda value: value.detach(), found), gradients


def _tensorflow(loss, variables, kept, state):
    import tensorflow as tf

    values = [v.value for v in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        with keras.StatelessScope() as scope:
            total, found = loss()
    gradients = tape.gradient(total, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    _commit(scope, kept)
    return found, gradients


def _jax(loss, variables, kept, state):
    import jax

    frozen = [(v, v.value) for v in state]

    def pure(values):
        pairs = frozen + list(zip(variables, values, strict=True))
        with keras.StatelessScope(pairs) as scope:
            total, found = loss()
        return total, (found, [scope.get_current_value(v) for v in kept])

    values = [v.value for v in variables]
    (_, (found, new)), gradients = jax.value_and_grad(pure, has_aux=True)(values)
    for variable, value in zip(kept, new, strict=True):
        variable.assign(value)
    return found, gradients


def _commit(scope, kept):
    for variable in kept:
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)


def losses_and_gradients(loss, variables, kept, state):
    """Differentiates a loss, and keeps only the changes of state that are asked for.

    The forward pass runs in a `keras.StatelessScope`: what it does to moving averages and seeds
    is written back for the variables in `kept` and forgotten for all others. So a discriminator's
    phase that calls the generator does not move the generator's batch statistics.

    Args:
        loss: function without arguments, returning a scalar to minimise and what was found on
            the way: tensors in any nest of dicts, lists and tuples.
        variables: list of `keras.Variable` to differentiate by.
        kept: list of `keras.Variable` whose change in the forward pass is kept.
        state: list of every `keras.Variable` that the loss may read.

    Returns:
        What was found, without a gradient, and a list of gradients, one a variable. The gradient
        of a variable that the loss does not reach is zero on every backend.
    """
    implementation = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}[BACKEND]
    return implementation(loss, variables, kept, state)


def without_gradient(function, state):
    """Runs a function that nothing is differentiated by, and forgets what it does to state.

    Args:
        function: function without arguments.
        state: list of every `keras.Variable` that it may read.

    Returns:
        What the function returns.
    """
    # TensorFlow records inside a tape only, JAX inside a transformation only. A scope inside
    # JAX's own scope sees nothing of it, so it is given the values.
    recording, pairs = contextlib.nullcontext(), None
    if BACKEND == "torch":
        import torch

        recording = torch.no_grad()
    elif BACKEND == "jax":
        pairs = [(v, v.value) for v in state]
    with recording, keras.StatelessScope(pairs):
        return function()


def as_step(model, run, *args):
    """Runs `run(batch)` as the train or test step that this backend's trainer expects.

    Args:
        model: the `keras.Model` being trained or tested.
        run: function of a batch that updates variables in place and returns a dict of logs.
        *args: what the trainer passed: `(data,)`, on JAX `(state, data)`.

    Returns:
        The logs; on JAX the logs and the new state.
    """
    if BACKEND != "jax":
        return run(*args)
    state, data = args
    groups = [model.trainable_variables, model.non_trainable_variables, model.metrics_variables]
    if len(state) > len(groups):  # a test step is not handed the optimizer's
        groups.insert(2, model.optimizer.variables)
    pairs = [
        pair
        for group, values in zip(groups, state, strict=True)
        for pair in zip(group, values, strict=True)
    ]
    with keras.StatelessScope(pairs) as scope:
        logs = run(data)
    return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)


def default_jit_compile():
    """Returns whether to compile a train step on this backend and device.

    JAX always compiles. TensorFlow's XLA halves the training speed of convolutions on a CPU and
    pays on a GPU. PyTorch runs as it is written.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.list_physical_devices("GPU"))
    return BACKEND == "jax"


@contextlib.contextmanager
def training():
    """Inside, PyTorch is told what makes long runs quick, and changes no result that matters.

    Numbers below 1e-38 are zero, as they always are on TensorFlow and JAX. Processors are many
    times slower with them, and L2 and Adam make dead channels so small: without this the last
    epochs of a run of EfficientNet-Lite0 took four times as long.

    Freed memory is taken again, in place of new pages of the system. Each step takes and frees the
    same gigabytes, and new pages were a sixth of RAIN's time. It is glibc that keeps it: nothing
    changes on other systems, or where the user has told glibc by its variables.
    """
    if BACKEND != "torch":
        yield
        return
    import torch

    before = (torch.tensor(1e-39) * 1.0).item() == 0.0
    told = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in os.environ
    )
    glibc = None if told or platform.libc_ver()[0] != "glibc" else ctypes.CDLL(None)
    torch.set_flush_denormal(True)
    for option, inside, _ in MALLOPT if glibc else ():
        glibc.mallopt(option, inside)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
        for option, _, afterwards in MALLOPT if glibc else ():
            glibc.mallopt(option, afterwards)
        if glibc:
            glibc.malloc_trim(0)


def any_batch(inputs):
    """What `torch.export` is told, so that it takes any number of images: see its `dynamic_shapes`.

    Args:
        inputs: the inputs of a functional model, one or a list.
    """
    import torch

    count = {0: torch.export.Dim("n")}
    return [([count] * len(inputs),)] if isinstance(inputs, list) else count


def before_compiling(model):
    """Prepares the backend's compiler for a model's train step of several phases.

    Args:
        model: the `keras.Model` to be trained.
    """
    if BACKEND != "torch":
        return
    import torch

    # Off by default: `torch.autograd.grad` would cut the compiled step in pieces.
    if hasattr(torch._dynamo.config, "trace_autograd_ops"):
        torch._dynamo.config.trace_autograd_ops = True
    # Keras notes scopes in attributes that the first one makes: the compiler would take the
    # second step for another program, and compile it anew.
    with keras.StatelessScope():
        pass
    fast_torch.plan_ahead(model)


def repeatable(seed, compiled=None):
    """Seeds Python, NumPy and the backend, and asks it for operations that repeat exactly.

    Args:
        seed: int, 0 or more.
        compiled: bool, what `compile(jit_compile=compiled)` will be told; None for the default.
    """
    keras.utils.set_random_seed(seed)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        if compiled is None:
            compiled = default_jit_compile()
        if compiled:  # Keras compiles nothing under TensorFlow's switch: XLA has its own
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
        else:
            tf.config.experimental.enable_op_determinism()
    elif BACKEND == "torch":
        import torch

        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling fresh memory guards against reading it unwritten, which Keras does not do.
        torch.utils.deterministic.fill_uninitialized_memory = False
