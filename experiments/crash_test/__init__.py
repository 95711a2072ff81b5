"""Crashes: training processes killed by `kill -9` and restarted, against the run that was never interrupted.

A dense network with dropout and batch norm learns scikit-learn's 8x8 digits (adam with a schedule and clipping, an
evaluation every 5 steps, a checkpoint every 3), a batch at a time or as one compiled loop, and returns its last state
or, by early stopping, its best one. A process that trains is killed at a random moment, another makes the same call of
`jdrop.training.fit`, is killed as well, and so on, until a run has had its share of kills and is left to finish.
A quarter of the kills come at a random time after the process's start. Half are aimed at a save and a quarter at the
removal of an old checkpoint: they wait until one begins, and come within the time to the next, or that it takes.

A run differs if one bit of the parameters, the optimizer's state, the batch statistics, the key or the history is not
as in the run that was never interrupted. None may, and no process may fail or warn; else the command exits with 1 and
says which run differs and where. `--fault` has every restarted process draw other masks, or forget the optimizer's
state: the command must then fail.

    python -m experiments crash_test --kills 200

Writes crash_test.csv and crash_test.md. About 15 minutes on two cores that others use too. Expect no run that differs,
and two kills of five in a save: a compiled step takes a millisecond, a checkpoint with its `fsync`s many.
"""
