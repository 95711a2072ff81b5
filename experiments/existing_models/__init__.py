"""Models that exist, drawn by jdrop without an edit: what `jdrop.accelerate` makes of their train steps.

Six models of other libraries, each as its own library builds it, with dropout of rate 0.1 wherever that has it:

vit      a vision transformer of Flax Linen, four blocks scanned and rematerialised
lm       a causal language model of Flax Linen, with dropout of the attention weights
bert     FlaxBertForSequenceClassification of Hugging Face's transformers 4, three layers
lora     a dense network of Flax NNX with low-rank adapters by qwix, and dropout before them
equinox  a dense network of Equinox, mapped over examples with a key each
haiku    a dense network of Haiku

A train step (the loss, its gradient, and plain gradient descent) is compiled three times: with all rates at zero, as
it is, and as it is in `jdrop.accelerate`. The table says how long each step takes, in one process and by turns; how
much scratch memory; how long it takes to trace and compile; how many masks a step draws by jdrop then; and how many
draws were left. A model counts only if its new parameters are finite, and of the shapes and dtypes that they had.

    pip install -e ".[existing-models]" && python -m experiments existing_models

A model whose library is not installed is named and left out. Writes existing_models.csv, existing_models.md and
existing_models.png. About five minutes on two cores that nothing else uses.
"""
