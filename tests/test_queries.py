"""queries.csv against what was ranked, and against the manifest."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from test_each_rate import Recovering, drawn_data
from test_fixed_rates import Plain

import keras_xreid as xr
from keras_xreid.data.protocols import apply_protocol
from keras_xreid.evaluation.queries import COLUMNS, read_queries, write_queries

CONTENT = "query,person,camera,rate,variant,rank1,AP,INP\nq/a.jpg,7,1,4,plain,100.0,62.5,50.0\n"


@pytest.fixture
def data(tmp_path):
    """Six people, two cameras, two images each, on disk: noise, so that few are found."""
    rng, records = np.random.default_rng(0), []
    for name in (
        f"{p}_{camera}_{shot}.png" for p in range(6) for camera in (1, 2) for shot in "ab"
    ):
        noise = rng.integers(0, 255, (64, 32, 3)).astype("uint8")
        Image.fromarray(noise).save(tmp_path / name)
        records.append(xr.Record(str(tmp_path / name), f"p{name[0]}", int(name[2])))
    query, gallery = ([r for r in records if r.camera == camera] for camera in (1, 2))
    return xr.DataSet("csv", [], query, gallery, root=str(tmp_path))


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_counted_query_at_every_rate(tmp_path):
    drawn = drawn_data()
    for i, record in enumerate(drawn.query):
        record.path = f"somewhere/query/{i}.png"
    drawn.query[3].person = 99  # whom the gallery does not have
    result = xr.evaluate(Recovering(), drawn, rates=(1, 4), verbose=False)
    write_queries(tmp_path / "queries.csv", result)
    rows = rows_of(tmp_path / "queries.csv")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * 2 * 11
    assert {row["query"] for row in rows} == {f"query/{i}.png" for i in range(12) if i != 3}
    for variant, scores in (("plain", result.scores), ("upscaled", result.scores["enlarged"])):
        found = read_queries(tmp_path / "queries.csv", variant)
        assert found["query/5.png", "4"][0] == "6"
        for rate in ("1", "4"):
            means = np.mean([x[1:] for key, x in found.items() if key[1] == rate], axis=0)
            told = [scores["per_rate"][rate][name] for name in ("rank1", "mAP", "mINP")]
            assert means.tolist() == pytest.approx(told, abs=1e-9)
    # Nothing is rounded, and nothing is mixed up.
    of_each = result.trials[1].scores["plain"]
    assert found["query/5.png", "1"][1:] == tuple(result.trials[0].scores["upscaled"][5, [0, 4, 5]])
    exact = read_queries(tmp_path / "queries.csv")["query/7.png", "4"]
    assert exact == ("8", *of_each[7, [0, 4, 5]])
    assert any(float(row["AP"]) not in (0, 100) for row in rows)


def test_queries_of_a_protocol_are_called_as_in_the_manifest(data, tmp_path):
    fixed = apply_protocol(data, "paper")
    result = xr.evaluate(Plain(), fixed, verbose=False)
    write_queries(tmp_path / "queries.csv", result)
    rows = rows_of(tmp_path / "queries.csv")
    listed = {
        row["path"]: (row["person"], str(row["camera"]), str(row["rate"]))
        for row in xr.manifest_rows(fixed, ())
        if row["role"] == "query"
    }
    assert {row["query"]: (row["person"], row["camera"], row["rate"]) for row in rows} == listed
    # The chance to be found in a single-shot gallery, and not 0 or 100 alone.
    values = [float(row["rank1"]) for row in rows]
    assert np.mean(values) == pytest.approx(result.scores["mixed"]["rank1"], abs=1e-9)
    assert set(values) - {0, 100}


def test_a_rate_that_nobody_knows_stays_open(data, tmp_path):
    fixed = apply_protocol(data, "multi-shot")
    fixed.query = [xr.Record(r.path, r.person, r.camera) for r in fixed.query]
    result = xr.evaluate(Plain(), fixed, verbose=False)
    write_queries(tmp_path / "queries.csv", result)
    found = read_queries(tmp_path / "queries.csv")
    assert {rate for _, rate in found} == {""} and len(found) == result.scores["queries"]


def test_one_unknown_rate_leaves_the_others_as_they_are(data, tmp_path):
    fixed = apply_protocol(data, "multi-shot")
    fixed.query = [xr.Record(r.path, r.person, r.camera, rate=r.rate) for r in fixed.query]
    fixed.query[0] = dataclasses.replace(fixed.query[0], rate=None)
    result = xr.evaluate(Plain(), fixed, verbose=False)
    write_queries(tmp_path / "queries.csv", result)
    rows = rows_of(tmp_path / "queries.csv")
    per_rate = result.scores["per_rate"]
    assert {row["rate"] for row in rows} == {"", *per_rate} and len(per_rate) > 1
    for rate, scores in per_rate.items():
        ranks = [float(row["rank1"]) for row in rows if row["rate"] == rate]
        assert np.mean(ranks) == pytest.approx(scores["rank1"])
        assert len(ranks) == result.scores["queries_per_rate"][rate]


def test_what_cannot_be_read(tmp_path):
    path = tmp_path / "queries.csv"
    with pytest.raises(xr.InputError, match=r"queries.csv cannot be read \(No such file"):
        read_queries(path)
    path.write_text(CONTENT)
    assert read_queries(path) == {("q/a.jpg", "4"): ("7", 100.0, 62.5, 50.0)}
    with pytest.raises(xr.InputError, match="holds no flip scores"):
        read_queries(path, "flip")
    for broken in (CONTENT.replace("62.5", "many"), CONTENT.replace("variant", "kind"),
                   CONTENT.replace(",62.5,50.0", ""), CONTENT.replace("62.5", "nan"),
                   CONTENT.replace(",4,", ",x2,"), CONTENT + '"' + "x" * 200_000,
                   json.dumps({"a": 1})):  # fmt: skip
        path.write_text(broken)
        with pytest.raises(xr.InputError, match=r"is no list|holds no plain"):
            read_queries(path)
