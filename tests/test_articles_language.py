"""The language model of the articles' experiment: its bits per character, and its split of the text."""

import itertools

import jax.numpy as jnp
import numpy as np

from experiments.articles import language


class Bigrams:
    """A model whose logits are those of a table, by the last character alone."""

    def apply(self, variables, x, deterministic):
        assert deterministic
        return variables["params"][x]


def test_bits_per_character_are_those_of_numpy():
    table = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    sequences = np.random.default_rng(1).integers(0, 5, (3, 7))
    bits = language.bits(Bigrams(), jnp.asarray(table), jnp.asarray(sequences))

    probabilities = np.exp(table) / np.exp(table).sum(1, keepdims=True)
    expected = [
        -np.mean([np.log2(probabilities[before, after]) for before, after in itertools.pairwise(sequence)])
        for sequence in sequences
    ]
    np.testing.assert_allclose(bits, expected, rtol=1e-5)


def test_the_parts_are_the_text_cut_up():
    """And every tenth block, from the fourth on, is in none."""
    parts, characters = language.split()
    text = language.read()
    alphabet = np.array(sorted(set(text)))
    assert characters == len(alphabet)
    of_part = {name: ["".join(alphabet[block]) for block in blocks] for name, blocks in parts.items()}
    ends = range(language.BLOCK, len(text) + 1, language.BLOCK)
    cut = [text[end - language.BLOCK : end] for end in ends]
    assert sorted(itertools.chain(cut[3::10], *of_part.values())) == sorted(cut)
    assert of_part["train"][:3] == [*cut[:2], cut[10]]
    assert of_part["validation"][:2] == [cut[2], cut[12]]
    assert of_part["test"][:7] == [*cut[4:10], cut[14]]


def test_no_paragraph_is_in_two_parts():
    """Each is in the text once; the cuts between blocks may divide it."""
    paragraphs = language.read().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) > 1000


def test_a_claim_s_verdict_follows_the_sign_of_its_difference():
    """Of made-up bits: fresh masks cost a bit, one mask a sequence saves one, zoneout does nothing."""
    noise = np.random.default_rng(0).normal(0, 1e-3, (4, 5, 50))
    level = {"none": 2.0, "fresh masks": 3.0, "variational masks": 1.0, "zoneout": 2.0}
    tests = {name: value + part for (name, value), part in zip(level.items(), noise)}
    rows = language.claims(tests, 5)
    assert [row["verdict"] for row in rows] == ["confirmed"] * 3 + ["not separable at this size", "confirmed"]
    np.testing.assert_allclose([float(row["figure"]) for row in rows], [1, -2, -1, 0, -1], atol=1e-3)
