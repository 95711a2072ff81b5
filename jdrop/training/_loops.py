"""The two ways to train up to an event: a batch from the host after another, or one compiled loop."""

import collections
import functools

import jax
from jax import lax

from jdrop.training._data import as_sent
from jdrop.training._layout import constrain, keep_layout, on_devices
from jdrop.training._metrics import write
from jdrop.training._state import TrainState


def each_step(run, train_step, source, sharding):
    """A function that trains up to a step, a batch from the host after the other; or less far, if asked."""

    def train(stop, asked, advance):
        in_flight = collections.deque()
        while run.step < stop and not (asked.is_set() and jax.process_count() == 1):
            batch = source.batch(run.step)
            try:
                state, metrics = _pair(train_step(run.state, batch))
            except KeyboardInterrupt:
                # In the middle of the step its result is lost, and other processes may have gone on.
                if run.is_deleted() or jax.process_count() > 1:
                    raise
                asked.set()
                return
            run.advance(state, metrics)
            advance(run.step)
            # The host must not run far ahead: the batches in flight take up memory, and Ctrl-C would have to wait.
            in_flight.append(metrics["loss"])
            if len(in_flight) > 2:
                jax.block_until_ready(in_flight.popleft())

    return train


def _pair(result):
    """What a train step returned, (state, metrics)."""
    if not isinstance(result, (tuple, list)) or len(result) != 2 or not isinstance(result[0], TrainState):
        raise TypeError(
            f"train_step returned a {type(result).__name__}, but (state, metrics) is needed: use make_train_step."
        )
    return result


def all_steps(run, train_step, source, sharding):
    """A function that trains up to a step in one compiled loop over data on the device."""
    data = on_devices(jax.tree.map(as_sent, source.data), run.everywhere)
    shardings = sharding and tuple(jax.tree.leaves(jax.tree.broadcast(sharding, data)))
    step = functools.partial(_step_on, train_step, shardings)
    loop = keep_layout(_loop, run.state, run.everywhere, static_argnums=(0, 1), donate_argnums=(2, 3))

    def train(stop, asked, advance):
        of_epoch, first = source.rows(run.step // run.steps), run.step % run.steps
        run.metrics.make_room(run.metrics.dtypes or jax.eval_shape(step, run.state, data, of_epoch[0])[1])
        last, arrays = first + stop - run.step, run.metrics.arrays
        state, run.metrics.arrays = loop(train_step, shardings, run.state, arrays, data, of_epoch, first, last)
        run.advance_to(stop, state)
        advance(stop)

    return train


def _loop(train_step, shardings, state, arrays, data, rows, first, stop):
    # Its bounds are arguments, so that one program, and one way of rounding, serves wherever a run is taken up again.
    def body(place, carry):
        state, arrays = carry
        state, metrics = _step_on(train_step, shardings, state, data, rows[place])
        return state, write(arrays, metrics, place)

    return lax.fori_loop(first, stop, body, (state, arrays))


def _step_on(train_step, shardings, state, data, rows):
    batch = jax.tree.map(lambda leaf: leaf[rows], data)
    return _pair(train_step(state, batch if shardings is None else constrain(batch, shardings)))
