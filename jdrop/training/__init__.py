"""Training that can be repeated to the bit: a run is (seed, code, data)."""

from jdrop.training._first import CheckpointError as CheckpointError
from jdrop.training._fit import fit as fit
from jdrop.training._metrics import NonFiniteLossError as NonFiniteLossError
from jdrop.training._seeds import vmap_seeds as vmap_seeds
from jdrop.training._state import TrainState as TrainState
from jdrop.training._step import make_eval_step as make_eval_step
from jdrop.training._step import make_train_step as make_train_step
from jdrop.training._tensorboard import tensorboard as tensorboard
