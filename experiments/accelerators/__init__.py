"""What compilers for a GPU and for TPUs make of dropout, on a machine that has neither: jdrop beside Flax.

XLA's compilers compile ahead of time without a device. What they emit says how many kernels a program starts, what it
keeps in device memory, how many bytes it moves, and on a TPU v5e how many instruction bundles a kernel takes. Nothing
runs: "compiled" is not "measured", and no figure here is a time.

launches   kernels that run one after another: fusions, calls, products and copies, bodies of loops times their turns
scratch    bytes of temporary device memory, for each element of x
moved      bytes of the operands and results of all kernels, times those of `x * c`
bundles    instruction bundles of the largest kernel on a v5e, a cycle each, times the cycles in which its memory can
           read and write the array once (871 bytes a cycle); 1 and less is bound by memory. Flax's kernels loop
           inside on arrays of three axes, whose bundles are counted once: there its figure is too small
loops      loops of a program; collectives: operations by which devices exchange data

    pip install -e ".[aot]" && python -m experiments accelerators

A target whose compiler is not installed is named and left out, but its rows of an earlier run are kept. About ten
minutes on two cores. Writes accelerators.csv, accelerators.md and accelerators.png.
"""
