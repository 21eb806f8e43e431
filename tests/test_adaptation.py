"""Batch normalization by camera and rate: measured exactly, used for its own images, put back."""

import importlib.util
import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import small

import keras_xreid as xr
from keras_xreid import adaptation
from keras_xreid.adaptation import CameraStatistics, normalizations, read, write
from keras_xreid.training import batch_statistics

RATES = (1, 2, 4)
PER_CAMERA = 36
tyro = pytest.mark.skipif(importlib.util.find_spec("tyro") is None, reason="tyro is not installed")


def shots(n=PER_CAMERA, seed=0, dark=1.0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 16, 8, 3)).astype("uint8")
    return list((coarse.repeat(5, axis=1).repeat(5, axis=2) * dark).astype("uint8"))


@pytest.fixture(scope="module")
def cameras():
    """Images of two cameras, of which one is dark."""
    images = shots() + shots(seed=1, dark=0.4)
    return images, ["bright"] * PER_CAMERA + ["dark"] * PER_CAMERA


def made(make=small.baseline, **options):
    return small.shared(make, **options)


def adapted_to(model, cameras, **options):
    return model.adapt(*cameras, rates=RATES, verbose=False, **options)


def same(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def moments(x):
    axes = tuple(range(x.ndim - 1))
    return x.mean(axes, dtype="float64"), x.var(axes, dtype="float64")


@pytest.mark.backend
@small.not_on_jax
def test_statistics_are_those_of_what_each_layer_is_given(cameras):
    """With a rate's statistics in place, each layer's input has just this mean and variance."""
    model = made(backbone="resnet_tiny", neck=True)
    adapted = adapted_to(model, cameras)
    backbone = model.network.get_layer("resnet_tiny")
    *normalizing, neck = normalizations(model)
    kind = keras.layers.BatchNormalization
    assert neck.name == "neck" and normalizing == [x for x in backbone.layers if type(x) is kind]
    seen = keras.Model(backbone.inputs, [layer.input for layer in normalizing])
    images = xr.prepare_images(cameras[0][PER_CAMERA:], small.SIZE, 2).astype("float32") / 255
    with adapted.applied(model, "dark", 2):
        given = [keras.ops.convert_to_numpy(x) for x in seen([images], training=False)]
        given.append(keras.ops.convert_to_numpy(model.network(images, training=False)[2]))
    mean, variance = (np.concatenate(kind) for kind in zip(*map(moments, given), strict=True))
    same(adapted.at("dark", 2)[0], mean)
    same(adapted.at("dark", 2)[1], variance)
    # The first layer's do not depend on what lies before it.
    first = keras.Model(backbone.inputs, normalizing[0].input)
    mean, variance = moments(keras.ops.convert_to_numpy(first(images, training=False)))
    channels = len(mean)
    same(adapted.at("dark", 2)[0, :channels], mean)
    same(adapted.at("dark", 2)[1, :channels], variance)


@pytest.mark.backend
@pytest.mark.parametrize(
    "make, options",
    [
        (small.baseline, {"neck": True, "flip": True}),
        pytest.param(small.intact, {}, marks=small.not_on_jax),
        pytest.param(small.rain, {"neck": True}, marks=small.not_on_jax),
        pytest.param(small.cadnet, {}, marks=small.not_on_jax),
        pytest.param(small.adaptive, {}, marks=small.not_on_jax),
        pytest.param(small.one_per_rate, {}, marks=small.not_on_jax),
    ],
)
def test_each_image_is_embedded_by_its_camera_and_rate(make, options, cameras):
    """As if the statistics had been written into the model by hand, and then they are put back."""
    model = made(make, **options)
    before = model.get_weights()
    adapted = adapted_to(model, cameras)
    pixels = xr.prepare_images([*shots(3, seed=7), *shots(3, seed=8)], small.SIZE, 2)
    rates = np.array([1, 2, 4, 4, 2, 1])
    where = ["dark", "bright", "dark", "dark", "bright", "bright"]
    found = model.embed(pixels, rates, cameras=where, adapted=adapted)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    plain, layers = model.embed(pixels, rates), normalizations(model)
    published = read(layers)
    for i in range(6):
        write(layers, adapted.values[where[i]][RATES.index(rates[i])])
        one = model.embed(pixels[i : i + 1], rates[i])[0]
        write(layers, published)
        np.testing.assert_allclose(found[i], one, atol=1e-4 * max(1, np.abs(one).max()))
        assert np.abs(found[i] - plain[i]).max() > 1e-3 * np.abs(plain[i]).max()


def test_where_the_model_has_a_cameras_statistics_already_nothing_changes(cameras):
    model = made(flip=True)
    adapted = adapted_to(model, cameras)
    pixels = xr.prepare_images(shots(4, seed=3), small.SIZE, 4)
    found = model.embed(pixels, 4, cameras="dark", adapted=adapted)
    write(normalizations(model), adapted.at("dark", 4))
    np.testing.assert_allclose(found, model.embed(pixels, 4), atol=1e-5)
    again = adapted_to(model, cameras)  # they do not depend on the statistics before
    np.testing.assert_allclose(again.values["dark"], adapted.values["dark"], atol=1e-5)


def test_a_decoder_that_no_embedding_passes_keeps_its_own():
    """That of RAIN does; CAD-Net embeds what its decoder makes."""

    def of(*parts):
        layers = [layer for part in parts for layer in part._flatten_layers()]
        return {id(x) for x in layers if isinstance(x, keras.layers.BatchNormalization)}

    rain, cadnet = small.rain(), small.cadnet()
    assert of(rain.decoder) and of(cadnet.decoder)
    assert {id(layer) for layer in normalizations(rain)} == of(rain.extractor)
    parts = cadnet.encoder, cadnet.decoder, cadnet.image_encoder
    assert {id(layer) for layer in normalizations(cadnet)} == of(*parts)


def test_a_generator_and_critics_keep_their_own(cameras):
    model = made(small.intact)
    ours = {id(layer) for layer in normalizations(model)}
    assert ours == {
        id(layer)
        for layer in model.reid._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    recovered = model.recover(xr.prepare_images(cameras[0], small.SIZE, 4))
    adapted = adapted_to(model, cameras)
    # What the re-identifier is given at rate 4 is what G recovers.
    first = model.reid.layers[1]
    while isinstance(first, keras.Model):
        inner, first = first, first.layers[1]
    with adapted.applied(model, "bright", 4):
        conv = keras.Model(inner.inputs, first.output)(recovered[:PER_CAMERA], training=False)
    mean, variance = moments(keras.ops.convert_to_numpy(conv))
    same(adapted.at("bright", 4)[0, : len(mean)], mean)
    same(adapted.at("bright", 4)[1, : len(mean)], variance)


def test_neither_batch_size_nor_order_matters(cameras):
    model = made()
    images, where = cameras
    adapted = adapted_to(model, cameras)
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = adapted_to(model, ([images[i] for i in order], [where[i] for i in order]))
    for camera in ("bright", "dark"):
        np.testing.assert_allclose(adapted.values[camera], shuffled.values[camera], atol=1e-4)
    pixels = xr.prepare_images(images, small.SIZE, 2)
    whole = model.embed(pixels, 2, cameras=where, adapted=adapted)
    parts = model.embed(pixels, 2, batch_size=3, cameras=where, adapted=adapted)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


def test_of_many_images_a_seed_draws_some(cameras):
    model = made()
    two = [model.adapt(*cameras, (1,), most=32, seed=s, verbose=False) for s in (0, 0, 1)]
    assert two[0].counts == {"bright": 32, "dark": 32}
    assert two[0].hash_of("dark") == two[1].hash_of("dark") != two[2].hash_of("dark")
    # They are among the camera's own images.
    drawn = adaptation._drawn(cameras[0][PER_CAMERA:], 32, 0)
    again = model.adapt(drawn, "dark", (1,), verbose=False)
    assert again.hash_of("dark") == two[0].hash_of("dark")


def test_between_rates_statistics_are_interpolated():
    values = np.array([[[1.0], [2.0]], [[3.0], [6.0]]], "float32")
    adapted = CameraStatistics("", (2, 8), {"1": values}, {})
    np.testing.assert_allclose(adapted.at(1, 4), [[2.0], [4.0]])  # 4 is half-way from 2 to 8
    np.testing.assert_array_equal(adapted.at(1, 2), values[0])
    np.testing.assert_array_equal(adapted.at(1, 1), values[0])
    np.testing.assert_array_equal(adapted.at(1, 99), values[1])
    adapted.interpolates = False
    np.testing.assert_array_equal(adapted.at(1, 4), values[0])
    np.testing.assert_array_equal(adapted.at(1, 5), values[1])  # as near to either


def test_systems_of_levels_take_the_nearest(cameras):
    assert not adapted_to(made(small.adaptive), cameras).interpolates
    assert not adapted_to(made(small.one_per_rate), cameras).interpolates
    assert adapted_to(made(), cameras).interpolates
    assert adapted_to(made(small.panned), cameras).interpolates  # its level comes after all layers


def test_too_few_images_fall_back_and_say_so(cameras):
    model = made()
    images, where = cameras
    with pytest.warns(UserWarning, match=r"camera few has 3 images.*32 or more are needed"):
        adapted = model.adapt(
            images + shots(3, seed=5), [*where, *["few"] * 3], RATES, verbose=False
        )
    assert adapted.cameras == ["bright", "dark", "few"] and adapted.hash_of("few") == ""
    pixels = xr.prepare_images(images[:2], small.SIZE)
    found = model.embed(pixels, 1, cameras=["few", "dark"], adapted=adapted)
    plain = model.embed(pixels, 1)
    np.testing.assert_allclose(found[0], plain[0], atol=1e-6)
    assert np.abs(found[1] - plain[1]).max() > 1e-3


def test_statistics_are_put_back_after_a_fault(cameras, monkeypatch):
    model = made()
    adapted, before = adapted_to(model, cameras), model.get_weights()

    def fails(*arguments):
        raise MemoryError

    monkeypatch.setattr(model, "_embed", fails)
    pixels = xr.prepare_images(cameras[0][:2], small.SIZE)
    for run in (
        lambda: model.embed(pixels, 1, cameras="dark", adapted=adapted),
        lambda: adapted_to(model, cameras),
    ):
        with pytest.raises(MemoryError):
            run()
        for a, b in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert not batch_statistics.taking()


@pytest.mark.backend
@pytest.mark.parametrize("second", ["another camera", "as published", "adapt"])
def test_two_threads_do_not_see_each_others_statistics(second, cameras, monkeypatch):
    """The first is held inside its forward pass until the second is done, or waits for it."""
    model = made()
    adapted = adapted_to(model, cameras)
    pixels = xr.prepare_images(shots(3, seed=7), small.SIZE, 2)

    def dark():
        return model.embed(pixels, 2, cameras="dark", adapted=adapted)

    def other():
        if second == "adapt":
            return adapted_to(model, cameras).values["bright"]
        told = {"cameras": "bright", "adapted": adapted} if second == "another camera" else {}
        return model.embed(pixels, 2, **told)

    expected, own_embed = (dark(), other()), model._embed
    inside, done = threading.Event(), threading.Event()

    def held(*given):
        if not inside.is_set():
            inside.set()
            done.wait(0.5)
        return own_embed(*given)

    def other_then():
        try:
            assert inside.wait(60)
            return other()
        finally:
            done.set()

    monkeypatch.setattr(model, "_embed", held)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(dark), pool.submit(other_then)]
        for one, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.result(60), wanted, atol=1e-5)


def test_threads_embed_at_once(monkeypatch):
    """By published statistics none waits for another."""
    model = made()
    both, own_embed = threading.Barrier(2), model._embed

    def held(*given):
        both.wait(60)
        return own_embed(*given)

    pixels = xr.prepare_images(shots(2), small.SIZE)
    expected = model.embed(pixels)
    monkeypatch.setattr(model, "_embed", held)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(model.embed, [pixels] * 2):
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_predicts_as_before(cameras):
    """What was traced while statistics were taken is not used afterwards."""
    model = made()
    pixels = xr.prepare_images(cameras[0][:PER_CAMERA], small.SIZE)
    before = model.embed(pixels, 1, batch_size=PER_CAMERA)
    adapted_to(model, cameras)
    np.testing.assert_allclose(model.embed(pixels, 1, batch_size=PER_CAMERA), before, atol=1e-6)


def test_a_file_holds_them(cameras, tmp_path):
    model = made()
    adapted = adapted_to(model, cameras)
    adapted.too_few["few"] = 3
    adapted.save(tmp_path / "cameras.npz")
    loaded = CameraStatistics.load(tmp_path / "cameras.npz")
    assert loaded.about() == adapted.about() and loaded.cameras == adapted.cameras
    pixels = xr.prepare_images(cameras[0][:3], small.SIZE)
    for camera in ("dark", "few"):
        np.testing.assert_array_equal(
            *(model.embed(pixels, 3, cameras=camera, adapted=x) for x in (adapted, loaded))
        )
    # Nothing in it is code.
    with np.load(tmp_path / "cameras.npz", allow_pickle=False) as held:
        assert {held[name].dtype.kind for name in held.files} == {"U", "f"}


def test_a_damaged_file_is_refused(cameras, tmp_path):
    adapted_to(made(), cameras).save(tmp_path / "cameras.npz")
    whole = (tmp_path / "cameras.npz").read_bytes()
    path = tmp_path / "damaged.npz"
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole.replace(b"PK", b"KP")):
        path.write_bytes(content)
        with pytest.raises(xr.InputError, match="no cameras' statistics are at"):
            CameraStatistics.load(path)
    with np.load(tmp_path / "cameras.npz") as held:
        about, values = held["about"], held["values"]
    for other in (values + 1, values[:1], values.astype("float64")):
        np.savez(path, about=about, values=other)
        with pytest.raises(xr.InputError, match="no cameras' statistics are at"):
            CameraStatistics.load(path)
    with pytest.raises(xr.InputError, match="no cameras' statistics are at"):
        CameraStatistics.load(tmp_path / "missing.npz")


def test_another_model_is_refused(cameras):
    model = made()
    adapted = adapted_to(model, cameras)
    pixels = xr.prepare_images(cameras[0][:2], small.SIZE)
    model.network.get_layer("classifier").kernel.assign_add(
        np.full(model.network.get_layer("classifier").kernel.shape, 1e-3, "float32")
    )
    with pytest.raises(xr.InputError, match="measured with other weights"):
        model.embed(pixels, 1, cameras="dark", adapted=adapted)


def test_critics_do_not_count(tmp_path):
    """A published file leaves them out, and they begin anew."""
    model = made(small.intact)
    before = adaptation.weights_sha256(model)
    for variable in model.discriminator.weights:
        variable.assign(np.ones(variable.shape, "float32"))
    assert adaptation.weights_sha256(model) == before


@pytest.mark.parametrize(
    "options, words",
    [
        ({"rates": None, "cameras": "dark"}, "say which rates"),
        ({"rates": 1, "cameras": None}, "a camera is missing"),
        ({"rates": 1, "cameras": ["dark"]}, "1 cameras for 2 images"),
        (
            {"rates": 1, "cameras": "other"},
            "nothing is known of camera other, only of bright, dark",
        ),
    ],
)
def test_bad_input(options, words, cameras):
    model = made()
    adapted = adapted_to(model, cameras)
    pixels = xr.prepare_images(cameras[0][:2], small.SIZE)
    with pytest.raises(xr.InputError, match=words):
        model.embed(pixels, **options, adapted=adapted)
    with pytest.raises(xr.InputError, match="give adapted"):
        model.embed(pixels, 1, cameras="dark")
    with pytest.raises(xr.InputError, match="no images"):
        model.adapt([], [])
    with pytest.raises(xr.InputError, match="no camera is known"):
        model.adapt(cameras[0])
    with pytest.raises(xr.InputError, match="most is 16 and least is 32: give more of most or"):
        model.adapt(*cameras, most=16)


def test_no_images_have_no_embeddings(cameras):
    model = made()
    adapted = adapted_to(model, cameras)
    empty = np.zeros((0, *small.SIZE, 3), "uint8")
    assert model.embed(empty, 1, cameras=[], adapted=adapted).shape == model.embed(empty, 1).shape


# --- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path):
    """36 images of each of two cameras, in a folder for each."""
    from PIL import Image

    for camera, dark in (("hall", 1.0), ("yard", 0.4)):
        folder = tmp_path / "gallery" / camera
        folder.mkdir(parents=True)
        for i, image in enumerate(shots(seed=len(camera), dark=dark)):
            Image.fromarray(image).save(folder / f"{i:02}.png")
    return tmp_path / "gallery"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "baseline.weights.h5"
    xr.save(small.fill(xr.Baseline(small.PEOPLE, "tiny", image_size=small.SIZE)), path)
    return str(path)


@pytest.fixture
def statistics(gallery, weights, tmp_path):
    from keras_xreid.app import adapt

    out = str(tmp_path / "cameras.npz")
    adapt.main(adapt.Options(str(gallery), out, weights=weights, rates=(1, 4)))
    return out


@tyro
def test_adapt_then_search(gallery, weights, statistics, tmp_path, capsys, monkeypatch):
    from keras_xreid.app import embed, search

    monkeypatch.setattr(search, "draw", lambda *arguments: [])
    assert CameraStatistics.load(statistics).counts == {"hall": 36, "yard": 36}
    query = str(gallery / "yard" / "03.png")

    def found(**options):
        options = {"weights": weights, "cache": str(tmp_path / "cache"), "top": 72, **options}
        options |= {"out": str(tmp_path / "out"), "overwrite": True, "rates": (4,)}
        search.main(search.Options(str(gallery), (query,), **options))
        printed = capsys.readouterr().out
        return json.loads((tmp_path / "out" / "ranked.json").read_text()), printed

    ranked, printed = found(adapted=statistics, camera="yard")
    assert printed.count("36 to embed") == 2 and list(ranked["adapted"]["sha256"]) == [
        "hall",
        "yard",
    ]
    model, adapted = xr.load(weights), CameraStatistics.load(statistics)
    paths = [one["path"] for one in ranked["queries"][0]["ranked"]]
    records = [xr.Record(path, None, 0) for path in paths]
    names = ["hall" if "hall" in path else "yard" for path in paths]
    known = model.embed(xr.prepare_images(records, small.SIZE), 1, cameras=names, adapted=adapted)
    image = xr.prepare_images([xr.Record(query, None, 0)], small.SIZE)
    of_query = model.embed(image, 4, cameras="yard", adapted=adapted)
    expected = model.distances(of_query, known, 4)[0]
    distances = [one["distance"] for one in ranked["queries"][0]["ranked"]]
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    embed.main(
        embed.Options(
            str(gallery), str(tmp_path / "x.npz"), weights, adapted=statistics,
            cache=str(tmp_path / "cache"),
        )
    )  # fmt: skip
    assert capsys.readouterr().out.count(" 0 to embed") == 2
    with np.load(tmp_path / "x.npz") as held:
        order = [held["paths"].tolist().index(path) for path in paths]
        np.testing.assert_allclose(held["features"][order], known, atol=1e-4)
    # Kept embeddings are found again; those of the plain model are others.
    assert found(adapted=statistics, camera="yard")[1].count(" 0 to embed") == 2
    plain, printed = found()
    assert "72 to embed" in printed and plain["adapted"] is None
    other = [one["distance"] for one in plain["queries"][0]["ranked"]]
    assert np.abs(np.subtract(other, distances)).max() > 1e-4


@tyro
def test_commands_refuse_in_one_line(gallery, weights, statistics, tmp_path):
    from keras_xreid.app import adapt, export, search

    def search_with(**options):
        options = {"weights": weights, "out": str(tmp_path / "out"), **options}
        search.main(search.Options(str(gallery), (str(gallery / "yard/03.png"),), **options))

    (gallery / "people.csv").write_text("path,person\nyard/03.png,yard")  # a folder of that name
    for run, words in (
        (
            lambda: search_with(adapted=statistics),
            "give --rates, --full-height or --estimate-rates",
        ),
        (lambda: search_with(camera="yard"), "--camera is of no use without --adapted"),
        (lambda: search_with(adapted=statistics, rates=(4,)), "nothing says which camera took"),
        (
            lambda: search_with(adapted=statistics, rates=(4,), camera="roof"),
            "nothing is known of camera roof",
        ),
        (lambda: adapt.main(adapt.Options(str(gallery), statistics)), "is there already"),
        (lambda: adapt.main(adapt.Options(str(gallery), "x.csv")), "ending in .npz"),
        (
            lambda: adapt.main(adapt.Options(str(gallery / "yard"), "x.npz", weights=weights)),
            "nothing says which camera took",
        ),
        (
            lambda: adapt.main(adapt.Options(str(gallery / "people.csv"), "x.npz", weights)),
            "nothing says which camera took",
        ),
    ):
        with pytest.raises(xr.InputError, match=words):
            run()
    if keras.backend.backend() != "jax" and importlib.util.find_spec("onnx"):
        options = export.Options(weights, str(tmp_path / "x.onnx"), adapted=statistics)
        with pytest.raises(xr.InputError, match="--adapted and --camera go together"):
            export.main(options)
        with pytest.raises(xr.InputError, match="--rate is of use with --adapted only"):
            export.main(export.Options(weights, str(tmp_path / "x.onnx"), rate=4.0))


@tyro
def test_the_camera_is_what_a_csv_a_name_or_a_folder_says():
    from keras_xreid.app.index import cameras_of

    records = [
        xr.Record("a/0001_c3s1_000151_00.jpg", "a", 0),
        xr.Record("a/0001_c12.jpg", "a", 0),
        xr.Record("a/0001_c3.jpg", "a", 7),
        xr.Record("a/0001.jpg", "a", 0),
        xr.Record("yard/abc3.jpg", "yard", 0),
    ]
    assert cameras_of(records) == ["3", "12", "7", "a", "yard"]
    assert cameras_of(records, "roof") == ["roof"] * 5
    with pytest.raises(xr.InputError, match=r"nothing says which camera took a/1\.jpg"):
        cameras_of([xr.Record("a/1.jpg", "anna", 0)])  # a person of a CSV is no camera


@pytest.mark.backend
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="there is no export from JAX")
@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is missing")
@tyro
def test_an_exported_graph_is_that_of_a_camera(weights, statistics, tmp_path, monkeypatch):
    from keras_xreid.app import export

    monkeypatch.setattr(export, "IMAGES", 4)
    out = tmp_path / "yard.onnx"
    options = {"adapted": statistics, "camera": "yard", "rate": 2.0}
    export.main(export.Options(weights, str(out), **options))
    session, model = export.open_onnx(out), xr.load(weights)
    images, _ = export.drawn_images(model.image_size)
    (found,) = session.run(["embedding"], {"image": images})
    adapted = CameraStatistics.load(statistics)
    expected = model.embed(images, 2, cameras="yard", adapted=adapted)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))
    assert np.abs(found - model.embed(images)).max() > 1e-3
    about = session.get_modelmeta().custom_metadata_map
    assert about["camera"] == "yard" and about["camera_rate"] == "2"
    assert about["camera_statistics_sha256"] == adapted.hash_of("yard")


def test_evaluate_hands_on_each_images_camera():
    """By hand: embeddings with each image's camera, then ranked."""
    model = made()
    data = made_data()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        adapted = model.adapt(data.gallery, rates=(1, 2), least=4, verbose=False)
    result = xr.evaluate(model, data, (1, 2), verbose=False, adapted=adapted)

    def embed(records, rate):
        images = xr.prepare_images(records, small.SIZE, rate)
        cameras = [record.camera for record in records]
        return model.embed(images, rate, cameras=cameras, adapted=adapted)

    gallery = embed(data.gallery, 1)
    np.testing.assert_allclose(result.trials[0].gallery["plain"], gallery, atol=1e-5)
    np.testing.assert_allclose(result.trials[1].query["plain"], embed(data.query, 2), atol=1e-5)
    distances = model.distances(embed(data.query, 2), gallery)
    scores = xr.evaluate_ranking(distances, data.query, data.gallery)
    assert result.scores["per_rate"]["2"]["mAP"] == pytest.approx(scores["mAP"])


def made_data():
    from test_each_rate import Picture

    rng, parts = np.random.default_rng(0), {"query": [], "gallery": []}
    for person in range(1, 6):
        for camera, dark in ((1, 1.0), (2, 0.4)):
            for i, image in enumerate(shots(3, seed=person, dark=dark)):
                noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype("uint8")
                name = f"{person}_{camera}_{i}.png"
                picture = Picture(path=name, person=person, camera=camera, pixels=noisy, rate=None)
                parts["gallery" if i else "query"].append(picture)
    return xr.DataSet("made", [], **parts)


@tyro
def test_the_report_says_what_was_looked_at():
    from keras_xreid.app import evaluate

    options = evaluate.Options("NAME", adapted="gallery")
    said = "adapted on unlabelled gallery images, queries not looked at"
    assert evaluate.adapted_on(options) == said
    from keras_xreid.report.report import _about_scores

    told = _about_scores({"adapted": {"on": said, "images": {"1": 256, "2": 40}}})
    assert f"Batch normalization: {said} (256 of camera 1, 40 of camera 2)." in told


@tyro
def test_evaluate_looks_at_the_gallery_alone(statistics):
    """At the rates that the model is told, and high resolution for the gallery."""
    from types import SimpleNamespace

    from keras_xreid.app import evaluate

    asked = []
    model = SimpleNamespace(adapt=lambda images, rates: asked.append((images, rates)) or "found")
    data = xr.DataSet("made", [], ["query"], ["gallery"])
    options = evaluate.Options("NAME", adapted="gallery", rates=(4, 3))
    assert evaluate.adapted_to(options, model, data, {3: 2.0}) == "found"
    assert asked == [(["gallery"], {1, 2.0, 4})]
    assert evaluate.adapted_to(evaluate.Options("NAME"), model, data, {}) is None
    loaded = evaluate.adapted_to(evaluate.Options("NAME", adapted=statistics), model, data, {})
    assert loaded.cameras == ["hall", "yard"]
