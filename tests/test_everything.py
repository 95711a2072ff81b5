"""What each experiment writes, read where `all --quick` wrote it, which runs once for all of these tests."""

import csv
import fcntl
import os
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from commands import SIMPLE, run

from experiments.all.main import LEFT_OUT, RAN
from experiments.crash_test import kill
from experiments.speed import peers
from experiments.uncertainty import classification

pytestmark = pytest.mark.slow
MODELS = {"bert": "transformers", "lora": "qwix", "equinox": "equinox", "haiku": "haiku"}  # and their libraries
WITHOUT_DATA = {"co2", "mnist", "uci"}


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """The folder of one run, which the processes of the tests share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "everything"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            # Experiments in small say themselves what need not be optimised.
            settings = {"JDROP_DATA": "", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": SIMPLE}
            result = run("all", "--quick", "--out", str(folder), **settings)
            (folder / "result.txt").write_text(f"{result.returncode}\n{result.stdout}{result.stderr}")
    return folder


def table(path) -> list[dict]:
    return list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))


def log(folder) -> str:
    return (folder / "log.txt").read_text()


def is_picture(path) -> bool:
    return path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_all_run_but_those_without_data(everything):
    outcomes = {row["experiment"]: row["outcome"] for row in table(everything / "all")}
    assert {name for name, outcome in outcomes.items() if outcome == LEFT_OUT} == WITHOUT_DATA
    assert {"regularizers", "data_size", "rates", "averaging", "rotated", "ood", "active", "concrete"} < set(outcomes)
    for name, outcome in outcomes.items():
        assert outcome == RAN or name in WITHOUT_DATA, log(everything / name)
    assert (everything / "result.txt").read_text().startswith("0\n")


def test_published_tables_say_what_was_published_and_what_made_them(everything):
    rows = table(everything / "regularizers" / "regularizers")
    assert [row["published error %"] for row in rows] == ["1.62", "1.6", "1.55", "1.35", "1.25", "1.05", "1.08", "0.95"]
    made_by = (everything / "rates" / "rates.md").read_text().splitlines()[0]
    assert made_by.startswith("Made by `python -m experiments rates --seed 0 --out FOLDER --quick` at commit ")


def test_digits(everything):
    folder = everything / "digits"
    rows = table(folder / "digits")
    assert [row["method"] for row in rows] == ["no dropout", "dropout, deterministic", "dropout, Monte Carlo"]
    for row in rows:
        assert 0 < float(row["test accuracy"]) <= 1
        assert float(row["NLL standard error"]) > 0
        assert f"{float(row['NLL']):.4f} ± {float(row['NLL standard error']):.4f}" in log(folder)
    assert (folder / "digits.md").read_text().rstrip() in log(folder)
    assert is_picture(folder / "digits")


def test_meshes(everything):
    folder = everything / "meshes"
    rows = table(folder / "meshes")
    meshes = ["one device", "data 4 x model 2", "data 2 x model 4", "data 4, 2 processes"]
    assert [row["mesh"] for row in rows] == meshes
    for row in rows:
        assert row["masks equal"] == "yes"
        assert float(row["largest difference of a loss"]) < 1e-5
        assert float(row["largest difference of a parameter"]) < 1e-5
        assert abs(float(row["test accuracy"]) - float(rows[0]["test accuracy"])) < 0.01
    assert (folder / "meshes.md").read_text().rstrip() in log(folder)


TABLES = {  # the first cells of each table, and the figures, that an experiment or a topic of `uncertainty` writes
    "active_learning": ({"active_learning": ["BALD", "max entropy", "BatchBALD", "random"]}, ["active_learning"]),
    "classification": (
        {
            "calibration": ["deterministic", "deterministic, temperature", "Monte Carlo", "Monte Carlo, temperature"],
            "detection": [*classification.MEASURES, "deterministic: entropy"],
            "shift": [
                "test",
                *(f"rotated {a}°" for a in (15, 30, 45, 60, 75, 90)),
                *(f"{n} % noise" for n in (25, 50, 75)),
            ],
            "conformal": [f"{kind}, {share} %" for kind in ("LAC", "APS") for share in (99, 98, 95, 90, 80)],
        },
        ["calibration", "selection", "shift", "conformal", "certain"],
    ),
    "regression": (
        {"regression": ["prior tau", "fitted tau", "conformal, one width", "conformal, width by std"]},
        ["regression", "band"],
    ),
    "speed": ({"speed": None}, ["speed"]),
}


def names_of(topic) -> set:
    tables, figures = TABLES[topic]
    return {f"{each}.{suffix}" for each in tables for suffix in ("csv", "md")} | {f"{each}.png" for each in figures}


def test_uncertainty_writes_what_its_topics_write_alone(everything):
    topics = ("classification", "regression", "speed")
    written = {path.name for path in (everything / "uncertainty").iterdir()}
    assert written - {"log.txt"} == set().union(*map(names_of, topics))


@pytest.mark.parametrize("topic", TABLES)
def test_uncertainty(topic, everything):
    folder = everything / ("active_learning" if topic == "active_learning" else "uncertainty")
    tables, figures = TABLES[topic]
    for figure in figures:
        assert is_picture(folder / figure)
    for name, first_cells in tables.items():
        assert (folder / f"{name}.md").read_text().rstrip() in log(folder)
        rows = table(folder / name)
        if name != "speed":
            first, *columns = rows[0]
            assert [row[first] for row in rows] == first_cells
            values = {(row[first], c): float(row[c]) for row in rows for c in columns if row[c] not in ("-", "")}
            assert len(values) >= len(rows) * 4
            assert np.isfinite(list(values.values())).all()
        else:
            assert all(float(row["ratio"]) > 0 for row in rows)
            torch = next(peer for peer in peers.PEERS if peer.name == "torch").installed
            assert len(rows) == (5 if torch else 4)
            assert torch or "torch is not installed: absent from the comparison" in log(folder)


def test_speed(everything):
    folder = everything / "speed"
    rows = table(folder / "speed")
    for row in rows:
        if row["ours ms"] != "-":
            assert float(row["ours ms"]) > 0
            assert float(row["peer ms"]) > 0
            assert np.isfinite(float(row["figure"]))
            assert row["met"] == "-" or row["met"] in ("aim", "yes", "no")
    count = {what: [row["what"] for row in rows].count(what) for what in {row["what"] for row in rows}}
    for mode in ("forward", "forward + backward"):
        assert count[f"{mode}, threefry2x32 key: times faster than Flax"] == 2
        assert count[f"{mode}, threefry4x32 and philox4x32 keys: times faster than Flax"] == 4
        assert count[f"{mode}: times faster than Flax with its fastest key"] == 6
        assert count[f"{mode}: times the floor"] == 6
    for peer in peers.PEERS:
        if peer.installed:
            assert count[f"sizes: times faster than {peer.name}"] == 2 * 2 * 2
        else:
            assert f"{peer.name} is not installed: absent from every comparison" in log(folder)
            (row,) = (row for row in rows if row["what"] == f"sizes: times faster than {peer.name}")
            assert (row["peer"], row["figure"]) == (peer.name, "not installed")
    residuals = {row["what"].split(": ")[1]: float(row["figure"]) for row in rows if row["what"].startswith("residual")}
    assert residuals == {"jdrop.dropout, save='key'": 0, "jdrop.dropout, save='mask'": 1 / 8, "flax.linen": 5}
    for what in (
        "transformer block: share of Flax's added time",
        "compile time of a train step: times Flax's",
        "attention, length 16: times Flax's",
        "family: drop_block, times dropout",
        "attention: scratch memory, times that of half the length",
        "attention: scratch memory, times dense Flax's",
        "step of a dense network, per_example: times whole batch",
        "step of a transformer block, accumulate=4: times whole batch",
    ):
        assert count[what] == 1
    assert "nothing was measured on a GPU" in log(folder)
    assert (folder / "summary.md").read_text().rstrip() in log(folder)
    assert f"jax {jax.__version__}" in (folder / "speed.md").read_text()
    assert is_picture(folder / "speed")


def test_models_that_exist(everything):
    folder = everything / "existing_models"
    rows = table(folder / "existing_models")
    absent = {name for name, library in MODELS.items() if not find_spec(library)}
    assert {row["model"] for row in rows} == {"vit", "lm", *MODELS} - absent
    for name in absent:
        assert f"{name} is left out: {MODELS[name]} is not installed" in log(folder)
    cases = ["no dropout", "as it is", "accelerate"]
    assert [row["dropout"] for row in rows] == cases * (len(rows) // 3)
    for row in rows:
        assert float(row["step, ms"]) > 0
        assert float(row["compilation, s"]) > 0
        if row["dropout"] == "accelerate":
            assert row["draws left"] == "0"
            assert row["model"] != "equinox" or row["masks by jdrop"] == "4"
    assert is_picture(folder / "existing_models")


def test_family(everything):
    folder = everything / "family"
    rows = table(folder / "family")
    assert {"none", "dropout", "masksembles", "concrete_dropout"} < {row["kind"] for row in rows}
    for row in rows:
        assert 0 <= float(row["test error, %"]) <= 100
        assert float(row["NLL"]) > 0
        assert float(row["NLL standard error"]) > 0
    tried = table(folder / "rates")
    of_dropout = {row["rate"]: float(row["validation NLL"]) for row in tried if row["kind"] == "dropout"}
    (chosen,) = (row["rate"] for row in rows if row["kind"] == "dropout")
    assert float(chosen) == pytest.approx(float(min(of_dropout, key=of_dropout.get)), rel=1e-6)
    assert is_picture(folder / "family")


def test_crash_test(everything):
    folder = everything / "crash_test"
    *rows, total = table(folder / "crash_test")
    assert [row["mode"] for row in rows] == ["steps, best state", "scan, last state"]
    for row in (*rows, total):
        assert int(row["kills"]) == sum(int(row[place]) for place in kill.PLACES)
        assert row["runs that differ"] == "0"
    assert total["kills"] == "4"
    assert (folder / "crash_test.md").read_text().rstrip() in log(folder)


def test_articles(everything):
    """The quick version of all, as a command, on the digits that need no download."""
    folder = everything / "articles"
    assert "these are scikit-learn's 8x8 digits" in log(folder)
    claims = table(folder / "claims")
    assert {row["article"] for row in claims} == {"000", "001", "002", "003", "004"}
    assert {row["verdict"] for row in claims} <= {"confirmed", "refuted", "not separable at this size"}
    exact = {row["claim"]: row["verdict"] for row in claims if row["standard error"] == "-"}
    assert {text for text, verdict in exact.items() if verdict == "refuted"} == {
        "unlike L1 and L2, dropout adds no penalty, in expectation either",
        "at test time the output is multiplied by 1 / (1 - p)",
        "and so it is with a ReLU layer between dropout and the softmax layer (random weights)",
        "dropout must hand as much as its input to the backward pass (784-256-10)",
        "a step as one program needs less memory with jdrop than with Flax (784-256-10)",
    }
    assert {text for text, verdict in exact.items() if verdict == "confirmed"} == {
        "dropout is only active in training",
        "the gradient of D(x) is 0 or 1",
        "units dropped forward get no gradient backward",
        "in linear regression it adds p/(1-p) sum w² x² in expectation",
        "training and prediction differ only by the mask and the scale",
        "classic and inverted scaling give the same network (rate 0.5)",
        "classic and inverted scaling give the same network (rate 0.3)",
        "weight scaling is the geometric mean over all masks (dropout before the softmax layer)",
        "E[r x] = (1 - p) x",
        "classic dropout with rate 0.5 turns [x1, x2] into 0.5 [x1, x2] at test time",
    }
    systems = table(folder / "articles")
    assert {row["article"] for row in systems} == {"000", "001", "002", "003", "004"}
    assert all(float(row["test error % standard error"]) >= 0 for row in systems)
    details = ("rates", "sizes", "regularizers", "ensemble", "language", "width", "cost")
    for name in ("articles", "claims", "errors", *details):
        lines = (folder / f"{name}.md").read_text().splitlines()
        assert len({line.count("|") for line in lines if line.startswith("|")}) == 1, name
    assert is_picture(folder / "articles")
