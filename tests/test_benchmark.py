"""The benchmark: hand-written networks that are ours, ratios by hand, and the recipe end to end."""

import importlib.util
import json
import random
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import small
from PIL import Image
from small import fill, pairs, step

import keras_xreid as xr
from keras_xreid.data.resolution import degrade, resize
from keras_xreid.evaluation.flops import forward_flops
from keras_xreid.layers.discriminator import build_image_discriminator
from keras_xreid.layers.generator import build_generator
from keras_xreid.layers.head import build_reid_network

benchmark = pytest.importorskip("speed")
BACKEND = keras.backend.backend()
has_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="needs torch, for the hand-written side"
)
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="compares two models on torch")
has_tyro = pytest.mark.skipif(
    importlib.util.find_spec("tyro") is None,
    reason='recipes need pip install -e ".[recipes]"',
)


def test_what_a_step_costs(monkeypatch):
    """The median over rounds of what 20 more steps take: what is done once does not count."""
    costs = pytest.importorskip("costs")
    once = iter([7, 7, 9, 8, 5, 6])

    def cpu_seconds(words, steps, folder):
        if steps == 1:
            return 1000  # the first run draws the images
        assert words[-2:] == ("--precision", "mixed_bfloat16") and folder.is_dir()
        return next(once) + 0.5 * steps * (2 if words[0] == "rain" else 1)

    monkeypatch.setattr(costs, "cpu_seconds", cpu_seconds)
    monkeypatch.setattr(costs, "ROWS", {"RAIN": ("rain",)})
    found = costs.train(costs.Options("train", precision="mixed_bfloat16"))
    assert found == {"RAIN": pytest.approx((1.0, 0.95, 1.05))}


# --- ratios and overheads ----------------------------------------------------------------------


def measured(speeds, case="tiny", task="train", memory=None):
    """Measurements from dict contender -> speed of each round."""
    return [
        {"case": case, "task": task, "contender": contender, "round": number,
         "images_per_second": speed, "peak_bytes": (memory or {}).get(contender)}
        for contender, values in speeds.items()
        for number, speed in enumerate(values)
        if speed is not None
    ]  # fmt: skip


def test_ratios_are_taken_within_a_round():
    # The machine halves its speed in the second round: in every round torch is at 0.9 or 1.0.
    rows = benchmark.summarise(
        measured({"torch": [90, 50, 180], "handwritten": [100, 50, 200]}, memory={
            "torch": 300, "handwritten": 200,
        })
    )  # fmt: skip
    torch, handwritten = rows
    assert (torch["case"], torch["task"], torch["contender"]) == ("tiny", "train", "torch")
    assert torch["images_per_second"] == {"median": 90, "min": 50, "max": 180}
    # Of the ratios, not of the medians: 90 / 100 is the same by chance, 50 / 50 is the largest.
    assert torch["ratio"] == pytest.approx({"median": 0.9, "min": 0.9, "max": 1.0})
    assert torch["memory_ratio"] == {"median": 1.5, "min": 1.5, "max": 1.5}
    assert handwritten["ratio"] == {"median": 1, "min": 1, "max": 1}

    drifting = {"torch": [10, 200, 30], "handwritten": [20, 100, 60]}
    (row, _) = benchmark.summarise(measured(drifting))
    assert row["ratio"] == {"median": 0.5, "min": 0.5, "max": 2.0}
    assert row["images_per_second"]["median"] / 60 == 0.5 and row["memory_ratio"] is None


def test_ratios_need_the_same_task_and_round():
    rows = benchmark.summarise(
        measured({"torch": [None, 8, 9], "handwritten": [4, 2, None]})
        + measured({"torch": [7]}, task="embed")
        + measured({"real batches": [19], "cached batch": [20]}, case="input-train")
    )
    ratios = {(r["case"], r["task"], r["contender"]): r["ratio"] for r in rows}
    assert ratios["tiny", "train", "torch"]["median"] == 4  # round 1 is the only common one
    assert ratios["tiny", "embed", "torch"] is None
    assert ratios["input-train", "train", "real batches"]["median"] == 0.95


def test_engine_overhead_by_hand():
    # A step of 1 s, its passes 0.8 s, its optimizers 0.1 s; then 1.2, 0.8 and 0.2.
    found = [
        m
        for task, seconds in {
            "train": (1, 1.2),
            "passes": (0.8, 0.8),
            "optimizer": (0.1, 0.2),
        }.items()
        for m in measured({"torch": [1 / s for s in seconds]}, case="intact", task=task)
    ]
    overhead = benchmark.engine_overhead(found)
    assert overhead["step"] == pytest.approx({"median": 0.375, "min": 0.25, "max": 0.5})
    assert overhead["optimizer"] == pytest.approx({"median": 0.1875, "min": 0.125, "max": 0.25})
    assert benchmark.engine_overhead(measured({"torch": [1]})) is None


# --- the hand-written networks -----------------------------------------------------------------


def built(make):
    """A filled model, and its variables in the order in which the code creates them."""
    variables, add_weight = [], keras.layers.Layer.add_weight

    def noting(self, *args, **kwargs):
        variables.append(add_weight(self, *args, **kwargs))
        return variables[-1]

    keras.layers.Layer.add_weight = noting
    try:
        model = make()
    finally:
        keras.layers.Layer.add_weight = add_weight
    return fill(model), variables


def in_order(network, images):
    """The layers with weights, in the order in which they are called first."""
    from torch import nn

    kinds, called = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d), []
    hooks = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    network.eval()(images)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(called))


def copy(variables, modules, shuffled=(), mirrored=False):
    """Copies our weights, in order, into PyTorch's layers.

    `shuffled` are convolutions before a pixel shuffle: Keras's channels come block by block, the
    pixel's place first, and PyTorch's place last. `mirrored` kernels are turned by 180 degrees.
    """
    import torch

    left = iter(variables)
    for module in modules:
        names = ["weight", "bias"] if module.bias is not None else ["weight"]
        if hasattr(module, "running_mean"):
            names += ["running_mean", "running_var"]
        for name in names:
            array = np.array(keras.ops.convert_to_numpy(next(left)))
            if module in shuffled:
                array = array.reshape(*array.shape[:-1], 4, -1).swapaxes(-1, -2)
                array = array.reshape(*array.shape[:-2], -1)
            if array.ndim == 4:
                array = array[::-1, ::-1] if mirrored else array
                depthwise = module.groups > 1
                array = array.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
            array = array.T if array.ndim == 2 else array
            with torch.no_grad():
                getattr(module, name).copy_(torch.from_numpy(array.copy()))
    assert next(left, None) is None


def images():
    """Images that differ in more than their noise, for ours and for PyTorch."""
    import torch

    values = pairs(16)["lr"].astype("float32") / 255
    return values, torch.from_numpy(values).permute(0, 3, 1, 2)


def close(ours, theirs):
    ours = keras.ops.convert_to_numpy(ours)
    # Plain Keras takes a variance as a difference of squares, and loses digits.
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-3, atol=1e-3)
    assert np.std(ours) > 1e-3  # no constants that are equal by chance


@on_torch
@pytest.mark.parametrize("backbone", ["resnet_tiny", "osnet_x0_25", "efficientnet_lite0"])
def test_reid_networks_are_ours(backbone):
    import handwritten

    ours, variables = built(lambda: build_reid_network(401, backbone, (64, 32)))
    network = handwritten.ReID(backbone)
    values, tensor = images()
    copy(variables, in_order(network, tensor))
    for training in (False, True):
        network.train(training)
        for a, b in zip(ours(values, training=training), network(tensor), strict=True):
            close(a, b)


@on_torch
def test_generator_is_ours():
    import handwritten

    widths = (4, 6, 8, 8)
    ours, variables = built(lambda: build_generator((64, 32), widths, batch_normalization=False))
    network = handwritten.Generator(widths)
    values, tensor = images()
    copy(variables, in_order(network, tensor), shuffled=set(network.enlarge))
    close(ours(values), network(tensor).permute(0, 2, 3, 1))


@on_torch
def test_discriminator_is_ours_mirrored():
    import handwritten

    ours, variables = built(lambda: build_image_discriminator((64, 32), 4))
    network = handwritten.Discriminator(4)
    values, tensor = images()
    copy(variables, in_order(network, tensor), mirrored=True)
    for training in (False, True):
        network.train(training)
        mirrored = network(tensor.flip(2, 3))
        for a, b in zip(ours(values, training=training), mirrored, strict=True):
            close(a, b)


@on_torch
def test_intact_trains_as_ours():
    """Losses of two train steps; the second sees what the first did to every part."""
    import handwritten

    ours, variables = built(lambda: xr.INTACT(401, "tiny", image_size=(64, 32)))
    ours.compile()
    theirs = handwritten.INTACT()
    _, tensor = images()
    left = list(variables)

    def copy_part(modules, **kwargs):
        size = sum(4 if hasattr(m, "running_mean") else 1 + (m.bias is not None) for m in modules)
        copy(left[:size], modules, **kwargs)
        del left[:size]

    copy_part(in_order(theirs.reid, tensor))
    copy_part(in_order(theirs.generator, tensor), shuffled=set(theirs.generator.enlarge))
    copy_part(in_order(theirs.discriminator, tensor), mirrored=True)
    copy_part([m for m in theirs.association.modules() if hasattr(m, "weight") and m.weight.ndim])
    assert not left
    theirs.discriminator.train()
    theirs.discriminator.register_forward_pre_hook(lambda _, x: (x[0].flip(2, 3),))
    batch = pairs(8)
    for tolerance in (1e-3, 1e-2):
        expected = {name: float(value) for name, value in theirs.train_step(batch).items()}
        expected["id"] /= ours.lambda_c  # shown is the cross-entropy, whatever its weight
        found = step(ours, batch)
        assert 0 <= found.pop("discriminator_accuracy") <= 1
        assert found == pytest.approx(expected, rel=tolerance)
    assert all(p.requires_grad for p in theirs.discriminator.parameters())


@on_torch
@pytest.mark.parametrize("make", [small.intact, small.rain])
def test_passes_are_those_of_the_engine(make):
    """Gradients of every phase, in which the next ones see what the ones before hand on."""
    import cases
    import torch

    model = make()
    model.compile()
    told = SimpleNamespace(
        keras=keras, model=model, batch=small.couples(), device=SimpleNamespace(library=torch)
    )
    found = [(variables, gradients) for _, variables, gradients in cases.Ours.passes(told)]
    parts = [part for phase in model.phases() for part in phase.updates]
    assert len(found) == len(parts)
    for part, (variables, gradients) in zip(parts, found, strict=True):
        assert variables == getattr(model, part).trainable_variables
        assert any(float(g.abs().sum()) > 0 for g in gradients), part


@on_torch
@pytest.mark.parametrize(
    "backbone", ["resnet50", "osnet_x1_0", "resnet_tiny", "efficientnet_lite0"]
)
def test_as_many_parameters_and_operations(backbone):
    import handwritten
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ours = build_reid_network(401, backbone, (64, 32))
    theirs = handwritten.ReID(backbone).eval()
    trained = sum(int(np.prod(v.shape)) for v in ours.trainable_variables)
    assert trained == sum(p.numel() for p in theirs.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs(torch.zeros(1, 3, 64, 32))
    assert forward_flops(ours) == counter.get_total_flops()


@has_torch
def test_the_data_loader_does_the_same_operations(tmp_path, monkeypatch):
    import handwritten

    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype="uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    records = [xr.Record(tmp_path / "a.png", "p", 1)]
    data = handwritten.People(records, (64, 32), (3,), pairs=True)
    # The largest crop, at the left and top, and flipped.
    monkeypatch.setattr(random, "randint", lambda low, high: high if low else 0)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    item = data[0]
    np.testing.assert_array_equal(item["hr"], resize(pixels, (64, 32))[:, ::-1])
    np.testing.assert_array_equal(item["lr"], resize(degrade(pixels, 3), (64, 32))[:, ::-1])
    monkeypatch.undo()
    (batch,) = handwritten.loader(records * 3, (64, 32), (2, 3), False, 3, workers=0)
    assert tuple(batch["image"].shape) == (3, 64, 32, 3) and batch["image"].numpy().dtype == "uint8"


# --- the recipe --------------------------------------------------------------------------------


@pytest.mark.slow
@has_tyro
@has_torch
@on_torch
def test_end_to_end(tmp_path):
    out = tmp_path / "benchmark"
    command = [
        sys.executable, benchmark.__file__, "--cases", "tiny", "--contenders", "handwritten",
        "torch", "--rounds", "2", "--seconds", "0.01", "--batch-size", "2", "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    results = json.loads((out / "benchmark.json").read_text())
    assert {p.name for p in out.iterdir()} == {"benchmark.json", "benchmark.md"}
    for key in ("date", "command", "options", "machine", "peak_flops", "workers"):
        assert results[key], key
    assert results["tf32"] is False and results["left_out"] == {}
    assert results["options"]["batch_size"] == 2

    turns = [(m["task"], m["round"], m["contender"]) for m in results["measurements"]]
    both = ("handwritten", "torch")
    assert sorted(turns) == [(t, r, c) for t in ("embed", "train") for r in (0, 1) for c in both]
    # Nobody is always the first.
    assert [c for t, _, c in turns if t == "train"] == [*both, *reversed(both)]
    for m in results["measurements"]:
        assert m["images_per_second"] == m["images"] / m["seconds"] and m["images"] % 2 == 0
    rows = {(row["task"], row["contender"]): row for row in results["rows"]}
    assert set(rows) == {(task, c) for task in ("train", "embed") for c in both}
    assert benchmark.summarise(results["measurements"]) == [
        {k: v for k, v in row.items() if k not in ("gflops_per_step", "share_of_peak")}
        for row in results["rows"]
    ]
    train = rows["train", "torch"]
    assert 2**20 < train["peak_bytes"]["median"] < 2**31 and train["memory_ratio"]["median"] > 0.1
    # Backward takes twice the operations of forward, less the gradient by the image.
    embed = rows["embed", "torch"]
    assert 2.5 < train["gflops_per_step"] / embed["gflops_per_step"] < 3
    assert embed["gflops_per_step"] * 1e9 == 2 * forward_flops(
        build_reid_network(401, "resnet_tiny", (128, 64))
    )
    speed, peak = train["images_per_second"]["median"], results["peak_flops"]
    share = speed / 2 * train["gflops_per_step"] * 1e9 / peak
    assert train["share_of_peak"] == pytest.approx(share)
    told = results["workers"]["tiny"]
    assert told["torch"]["parameters"] == told["handwritten"]["parameters"] == 3599825
    page = (out / "benchmark.md").read_text()
    assert re.search(r"\| tiny \| train \| torch \| [\d.]+ \([\d.]+-[\d.]+\) \|", page)
    assert "TF32 off" in page and "Peak" in done.stdout

    with pytest.raises(xr.InputError, match="--overwrite"):
        benchmark.main(benchmark.Options(out=str(out)))


@has_tyro
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cases", "alexnet", "resnet50"),
        ("--contenders", "caffe", "handwritten"),
        ("--precision", "int8", "mixed_bfloat16"),
        ("--rounds", "0", "1 or more"),
        ("--batch-size", "1", "2 or more"),
        ("--seconds", "0", "more than 0"),
        ("--threads", "4096", "cores"),
        ("--out", "FILE/benchmark", "cannot write"),
        ("--data", "imagenet", "synthetic"),
    ],
)
def test_bad_options(monkeypatch, capsys, tmp_path, option, value, said):
    from keras_xreid import app

    (tmp_path / "FILE").write_text("")
    monkeypatch.chdir(tmp_path)
    cases = () if option == "--cases" else ("--cases", "input")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *cases, option, value])
    with pytest.raises(SystemExit) as left:
        app.command(benchmark.main, benchmark.Options, "")
    assert left.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_missing_backends(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = benchmark.Options(contenders=("torch", "jax"), out=str(tmp_path))
    with pytest.raises(xr.InputError, match="none of torch, jax is installed"):
        benchmark.main(options)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "torch is left out: torch is not installed",
        "jax is left out: jax is not installed",
    ]


def test_a_contender_that_fails_is_left_out(monkeypatch, capsys, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    options, left_out = benchmark.Options(rounds=1), {}
    with benchmark.Case("tiny", ["torch"], options, left_out) as case:
        assert case.measure() == []
    assert left_out == {"tiny, torch": "ended with status 3: out of memory"}
    assert len(capsys.readouterr().out.splitlines()) == 1
