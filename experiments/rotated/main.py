"""The network, the rotations and the report."""

import jax
import numpy as np

import jdrop
from experiments.common.images import load_images, take
from experiments.common.networks import NETWORKS, of_network, train
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.shifts import turned
from experiments.common.tables import estimate, save_table

NEEDS_DATA = True
ANGLES, PASSES, DIGIT = range(0, 180, 15), 100, 1
UNCERTAINTY = jdrop.mc.uncertainty


def run(args):
    images = load_images(args.data_dir)
    root = jdrop.fold_in(jax.random.key(args.seed), "rotated")
    ones, passes, data = 100, PASSES, images.train
    setting = NETWORKS["conv"]._replace(epochs=2)
    if args.quick:
        ones, passes, data, setting = 5, 10, take(data, slice(500)), setting._replace(epochs=1)
    params = of_network(train(setting, data, root[None]), 0)
    predict = jdrop.linen.predictor(setting.model, {"params": params})
    x = np.asarray(images.test[0][images.test[1] == DIGIT][:ones])
    views = [turned(x, angle) for angle in ANGLES]
    logits = [jdrop.mc.samples(predict, jdrop.fold_in(root, i), images, passes) for i, images in enumerate(views)]
    single = [jax.nn.softmax(setting.model.apply({"params": params}, images, True)) for images in views]

    table = []
    for angle, drawn, alone in zip(ANGLES, map(np.asarray, logits), single):
        p = jax.nn.softmax(drawn)
        preferred = p.mean(0).argmax(-1)
        spread = np.take_along_axis(drawn.std(0), np.asarray(preferred)[:, None], 1)
        highest = np.argsort(drawn.mean(0), -1)[:, -2:]
        second, first = np.moveaxis(np.take_along_axis(drawn, highest[None], -1), -1, 0)
        table.append(
            {"angle, degrees": angle, "spread of the softmax input": estimate(spread)}
            | {"distance of the two highest": estimate((first - second).mean(0) / (first - second).std(0))}
            | {"predictive entropy": estimate(UNCERTAINTY.predictive_entropy(p))}
            | {"mutual information": estimate(UNCERTAINTY.mutual_information(p))}
            | {"highest mean probability": estimate(p.mean(0).max(-1))}
            | {"highest probability, deterministic": estimate(alone.max(-1))}
            | {"passes disagree": estimate(UNCERTAINTY.variation_ratio(p) > 0.1)}
            | {"said to be 1": estimate(preferred == DIGIT)}
        )
    preface = f"{made_by()} {images.name}, {passes} passes of {len(x)} images; ± is a standard error over images."
    print(save_table(table, args.out, "rotated", preface))
    first = [of_angle[0, ..., 0] for of_angle in views], [np.asarray(each[:, 0]) for each in logits]
    draw(args.out / "rotated.png", *first)
    print(f"wrote rotated.csv, rotated.md and rotated.png in {args.out}")


def draw(path, views, logits):
    """Softmax input and output of one image at each angle, for the classes that are preferred at some angle."""
    means = np.stack([np.asarray(jax.nn.softmax(each).mean(0)) for each in logits])
    classes = np.argsort(-means.max(0))[:3]
    figure = plt.figure(figsize=(13, 5.5), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(5, 1))
    axes = top.subplots(1, 2)
    for axis, values, label in zip(axes, (logits, [jax.nn.softmax(each) for each in logits]), ("input", "output")):
        for rank, of_class in enumerate(classes):
            for place, drawn in enumerate(values):
                x = np.full(len(drawn), ANGLES[place] + 3 * (rank - 1))
                name = f"class {of_class}" if place == 0 else None
                axis.plot(x, np.asarray(drawn)[:, of_class], "_", color=f"C{rank}", alpha=0.5, label=name)
        axis.set(xlabel="rotation, degrees", ylabel=f"softmax {label}", xticks=ANGLES)
        axis.grid(alpha=0.3)
    axes[0].legend()
    for axis, image in zip(bottom.subplots(1, len(views)), views):
        axis.imshow(image, cmap="gray_r")
        axis.set_axis_off()
    figure.suptitle('A "1" as it is turned: each mark is a pass of Monte Carlo dropout')
    save(figure, path)
