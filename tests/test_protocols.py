"""What Flax does with its own layers it does with jdrop's: modes, views, attributes, tables, copies, updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiers import some

import jdrop

X = jnp.ones((4, 8))
SEQUENCE = jnp.ones((2, 5, 8))


def cell(rngs):
    return nnx.LSTMCell(8, 8, rngs=rngs)


LAYERS = {
    "dropout": lambda rngs: jdrop.nnx.Dropout(0.5, rngs=rngs),
    "recurrent": lambda rngs: nnx.RNN(jdrop.nnx.RecurrentDropout(cell(rngs), 0.5, rngs=rngs)),
    "zoneout": lambda rngs: nnx.RNN(jdrop.nnx.Zoneout(cell(rngs), 0.5, rngs=rngs)),
    "both": lambda rngs: nnx.RNN(
        jdrop.nnx.Zoneout(jdrop.nnx.RecurrentDropout(cell(rngs), 0.5, rngs=rngs), 0.5, rngs=rngs)
    ),
}
EACH = some("name", LAYERS, 3)


class Net(nnx.Module):
    """Flax's layer and jdrop's, one after the other, so that whatever reaches the one must reach the other."""

    def __init__(self, name, rngs):
        self.flax, self.jdrop = nnx.Dropout(0.5, rngs=rngs), LAYERS[name](rngs)
        self.inputs = X if name == "dropout" else SEQUENCE

    def draws(self):
        """Whether (Flax's, jdrop's) draw: two calls differ."""
        first, second = ((np.asarray(self.flax(X)), np.asarray(self.jdrop(self.inputs))) for _ in range(2))
        return tuple(bool((a != b).any()) for a, b in zip(first, second))


def modes(model):
    """The modes of all layers of a model that have one."""
    return {layer.deterministic for _, layer in nnx.iter_modules(model) if hasattr(layer, "deterministic")}


@EACH
def test_train_and_eval(name):
    model = Net(name, nnx.Rngs(0))
    assert model.draws() == (True, True)
    model.eval()
    assert model.draws() == (False, False)
    assert modes(model) == {True}
    model.train()
    assert model.draws() == (True, True)


@EACH
def test_views_share_the_variables_and_leave_the_model(name):
    model = Net(name, nnx.Rngs(0))
    view = nnx.view(model, deterministic=True)
    assert view.draws() == (False, False)
    assert modes(model) == {False}
    assert nnx.view(view, deterministic=False).draws() == (True, True)
    mine, theirs = (jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, view))
    assert all((a == b).all() for a, b in zip(mine, theirs, strict=True))
    with pytest.raises(ValueError, match="nonsense"):
        nnx.view(model, nonsense=True)


@EACH
def test_views_by_a_filter(name):
    kinds = {"dropout": (jdrop.nnx.Dropout,)}.get(name, (jdrop.nnx.RecurrentDropout, jdrop.nnx.Zoneout))

    def chosen(path, node):
        return isinstance(node, kinds)

    view = nnx.view(Net(name, nnx.Rngs(0)), only=chosen, deterministic=True)
    assert view.draws() == (True, False)


@EACH
def test_what_a_view_may_set_is_told(name):
    told = nnx.view_info(Net(name, nnx.Rngs(0)))
    assert "deterministic" in told
    for kind in {"dropout": ("Dropout",), "both": ("Zoneout", "RecurrentDropout")}.get(name, ()):
        assert kind in told


@EACH
def test_set_attributes(name):
    model = Net(name, nnx.Rngs(0))
    model.set_attributes(deterministic=True)
    assert model.draws() == (False, False)
    model.set_attributes(lambda path, node: path[-1:] != ("flax",) and path != (), deterministic=False)
    assert model.draws() == (False, True)


@EACH
def test_a_table(name):
    """Of a cell by itself, since Flax has none of an `nnx.RNN`."""
    layer, inputs = LAYERS[name](nnx.Rngs(0)), (X,)
    if name != "dropout":
        layer = layer.cell
        inputs = (layer.initialize_carry((4, 8), nnx.Rngs(0)), X)
    table = nnx.tabulate(layer, *inputs, console_kwargs={"width": 200, "force_terminal": False})
    for _, module in nnx.iter_modules(layer):
        assert type(module).__name__ in table


@some("kind", [nnx.GRUCell, nnx.SimpleCell], 1)
def test_a_table_of_a_cell_with_one_state(kind):
    """Its layers have their rows; the cell itself, whose call can't be taken apart, has that of the wrapper."""
    layer = jdrop.nnx.RecurrentDropout(kind(8, 8, rngs=nnx.Rngs(0)), 0.5, rngs=nnx.Rngs(0))
    carry = layer.initialize_carry((4, 8), nnx.Rngs(0))
    wanted = np.asarray(layer(carry, X)[1])
    table = nnx.tabulate(layer, carry, X, console_kwargs={"width": 200, "force_terminal": False})
    for name in ("RecurrentDropout", "Linear"):
        assert name in table
    np.testing.assert_array_equal(layer(carry, X)[1], wanted)


class Projected(nnx.RNNCellBase):
    """A cell of the user's, whose output is made of the state of one of Flax's."""

    def __init__(self, rngs):
        self.cell, self.head = cell(rngs), nnx.Linear(8, 8, rngs=rngs)

    def initialize_carry(self, input_shape, rngs=None, carry_init=None):
        return self.cell.initialize_carry(input_shape, rngs, carry_init)

    def __call__(self, carry, inputs):
        carry, output = self.cell(carry, inputs)
        return carry, self.head(output)

    num_feature_axes = 1


def test_a_projected_output_is_not_taken_for_flax_s_own():
    layer = jdrop.nnx.Zoneout(Projected(nnx.Rngs(0)), 0.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="project the result outside"):
        layer(layer.initialize_carry((4, 8), nnx.Rngs(0)), X)


@EACH
def test_split_merge_clone_update_and_state(name):
    model = Net(name, nnx.Rngs(0))
    graphdef, state = nnx.split(nnx.clone(model))
    copy, clone = nnx.merge(graphdef, state), nnx.clone(model)
    wanted = np.asarray(model.jdrop(model.inputs))
    for other in (copy, clone):
        np.testing.assert_array_equal(other.jdrop(other.inputs), wanted)
    assert hash(graphdef) == hash(nnx.graphdef(Net(name, nnx.Rngs(0))))
    pure = nnx.to_pure_dict(nnx.state(model))
    again = Net(name, nnx.Rngs(1))
    restored = nnx.state(again)
    nnx.replace_by_pure_dict(restored, pure)
    nnx.update(again, restored)
    np.testing.assert_array_equal(again.jdrop(again.inputs), model.jdrop(model.inputs))


@pytest.mark.slow
@EACH
def test_jit_moves_the_stream_and_reseed_sets_it_back(name):
    model = Net(name, nnx.Rngs(0))
    call = nnx.jit(lambda model, x: model.jdrop(x))
    first, second = call(model, model.inputs), call(model, model.inputs)
    assert (first != second).any()
    nnx.reseed(model, default=5)
    one = call(model, model.inputs)
    nnx.reseed(model, default=5)
    np.testing.assert_array_equal(call(model, model.inputs), one)


@EACH
def test_iteration_finds_the_layer(name):
    model = Net(name, nnx.Rngs(0))
    kinds = [type(layer).__name__ for _, layer in nnx.iter_modules(model)]
    wanted = {"recurrent": ["RecurrentDropout"], "zoneout": ["Zoneout"], "both": ["RecurrentDropout", "Zoneout"]}
    for kind in wanted.get(name, ["Dropout"]):
        assert kind in kinds
