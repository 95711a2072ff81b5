"""Each library's Monte Carlo dropout of the same weights."""

import importlib.util
from pathlib import Path

import jax
import numpy as np

import jdrop
from experiments.common.networks import RATE, Convolutional, Deep

NETWORKS = {"dense 128": Deep((128,)), "dense 256-256": Deep((256, 256)), "convolutional": Convolutional()}
JDROP, PROBLY = "jdrop", "probly"
ON_BATCH, IN_LOOP = "torch-uncertainty, on the batch", "torch-uncertainty, in a loop"
MODULES = {JDROP: "jdrop", ON_BATCH: "torch_uncertainty", IN_LOOP: "torch_uncertainty", PROBLY: "probly"}


def installed(name, network) -> bool:
    return importlib.util.find_spec(MODULES[name]) is not None and (name, network) != (PROBLY, "convolutional")


def sampler(name, network, params, passes):
    """A function of a seed and images, which returns class probabilities, shape (passes, n, classes)."""
    if name == JDROP:
        predict = jdrop.linen.predictor(NETWORKS[network], {"params": params})
        draw = jax.jit(lambda key, x: jax.nn.softmax(jdrop.mc.samples(predict, key, x, passes)))
        return lambda seed, x: draw(jax.random.key(seed), x)
    import torch

    model = torch_model(name, network, params, passes)

    def draw(seed, x):
        torch.manual_seed(seed)
        images = torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))  # its channels are the second axis
        with torch.inference_mode():
            return model(images).numpy()

    return draw


def torch_model(name, network, params, passes):
    import torch
    from torch import nn

    dropout = [] if name == PROBLY else [nn.Dropout(RATE)]
    if network == "convolutional":
        dense = params["Dense_0"]
        side = int((dense["Dense_0"]["kernel"].shape[0] // 64) ** 0.5)
        first = np.asarray(dense["Dense_0"]["kernel"]).reshape(side, side, 64, -1).transpose(2, 0, 1, 3)
        convolutions = []
        for name_of in ("Conv_0", "Conv_1"):
            convolutions += [convolution(params[name_of]), nn.MaxPool2d(2), nn.ReLU()]
        dense_0 = linear({"kernel": first.reshape(side * side * 64, -1), "bias": dense["Dense_0"]["bias"]})
        layers = [*convolutions, nn.Flatten(), dense_0, nn.ReLU(), *dropout, linear(dense["Dense_1"])]
    else:
        layers = [nn.Flatten()]
        for i in range(len(params) - 1):
            layers += [linear(params[f"Dense_{i}"]), nn.ReLU(), *dropout]
        layers.append(linear(params[f"Dense_{len(params) - 1}"]))
    core = nn.Sequential(*layers)
    if name == PROBLY:
        from probly.representation.dropout import Dropout

        # It takes the first child of the network for the first dense layer, and leaves it without dropout.
        wrapped = Dropout(nn.Sequential(*list(core)[1:]), p=RATE)
        wrapped.eval()
        return lambda images: wrapped.predict_representation(images.flatten(1), passes).swapaxes(0, 1)
    from torch_uncertainty.methods.mc_dropout import mc_dropout

    wrapped = mc_dropout(core, passes, on_batch=name == ON_BATCH).eval()
    return lambda images: torch.softmax(wrapped(images), -1).reshape(passes, len(images), -1)


def linear(params):
    import torch

    outputs, inputs = params["kernel"].shape[::-1]
    layer = torch.nn.Linear(inputs, outputs)
    layer.load_state_dict({"weight": tensor(np.asarray(params["kernel"]).T), "bias": tensor(params["bias"])})
    return layer


def convolution(params):
    import torch

    height, width, inputs, outputs = params["kernel"].shape
    layer = torch.nn.Conv2d(inputs, outputs, (height, width), padding="same")
    kernel = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
    layer.load_state_dict({"weight": tensor(kernel), "bias": tensor(params["bias"])})
    return layer


def tensor(array):
    import torch

    return torch.from_numpy(np.array(array))


def memory(name, network, params, x, passes) -> float:
    """MiB that a draw takes at its peak beyond what this new process has then; needs Linux, elsewhere it is NaN."""
    draw = sampler(name, network, params, passes)
    np.asarray(draw(0, x[:1]))  # so that what a library loads is not counted
    status, peak = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not peak.exists():
        return float("nan")

    def kibibytes(field):
        return int(next(line for line in status.read_text().splitlines() if line.startswith(field)).split()[1])

    peak.write_text("5")  # the peak starts anew; the one of `resource` begins with that of the process before
    before = kibibytes("VmRSS")
    np.asarray(draw(0, x))
    return (kibibytes("VmHWM") - before) / 2**10
