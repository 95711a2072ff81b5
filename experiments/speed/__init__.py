"""The speed of dropout, beside Flax, Equinox, Haiku and PyTorch.

Every figure is a ratio measured in one process: a time is the best of a block of calls, the median over blocks that
take turns (see `timing.py`). The floor is `x * c`, which reads and writes the array as any dropout must.

keys         forward and forward + backward passes of (1024, 4096), for each dtype, rate and PRNG key, beside Flax
sizes        one element to 2^26, jitted and eager, beside every peer
shapes       odd last axes, one to five axes, masks shared along axes, beside Flax
residual     bytes an element that the backward pass keeps
block        what three dropouts add to a train step of a transformer block
attention    attention with dropout of its weights, and its scratch memory by the length, beside Flax's dense one
family       every kind of dropout, beside plain dropout, Keras for JAX, PyTorch and timm (the extra family-peers)
compilation  the time to compile a train step with 24 dropouts
microbatches train steps of single examples and of micro-batches, beside that of the whole batch
gpu          on a GPU, beside a device copy, Flax and PyTorch: `python -m experiments speed --only gpu`, meant for eight
             minutes; without a GPU nothing, or with `--quick` too a small version on the CPU, which says so

    pip install -e ".[experiments,peers,torch]" && python -m experiments speed

Writes speed.csv, speed.md and speed.png, and in summary.csv and summary.md how many figures of each kind meet the
target of the issue that asked for them, with the worst one. A peer that is not installed is named as absent. About
nine minutes on two cores that nothing else uses, and 3 GiB of memory; expect ratios to repeat within a tenth there.
On a machine with a GPU everything but `gpu` is still measured on the CPU.
"""
