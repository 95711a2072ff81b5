"""Rates over the steps of a training: functions `step -> rate`, as optax has them for learning rates.

Optax's own serve for the rest: `optax.constant_schedule`, `optax.linear_schedule`, `optax.cosine_decay_schedule`. A
loss of `jdrop.training` that has an argument named `step` gets the step of the state, for
``dropout(key, x, schedule(step))``. A rate that changes so is traced, and compiles nothing again.
"""

from jdrop.schedules._schedules import curriculum as curriculum
from jdrop.schedules._schedules import early as early
from jdrop.schedules._schedules import late as late
