"""What a training says on the screen, beside the progress of its epochs."""

from collections.abc import Sequence

import jax

from eqprop.data.dataset import Dataset
from eqprop.recipes.catalogue import RECIPES, published_for
from eqprop.recipes.recipe import Published, Recipe, changes
from eqprop.training import metrics
from eqprop.training.display import Display
from eqprop.training.experiment import Experiment
from eqprop.training.figures import training_curves
from eqprop.training.records import Made, Record
from eqprop.training.replicas import DATA, REPLICA
from eqprop.training.results import read_run, scores_of
from eqprop.training.runs import Run, read_metrics


def introduce(dataset: Dataset, recipe: Recipe, display: Display) -> None:
    """Tells what is trained on, and on which device, if one is imperfect."""
    shape = "x".join(map(str, dataset.shape))
    inputs = f"images of {shape}" if len(dataset.shape) > 1 else f"rows of {shape} numbers"
    sizes = f"{len(dataset.train_y)} training and {len(dataset.test_y)} test {inputs}"
    if recipe.validation:
        sizes += f", {recipe.validation:g} of the training ones held back for validation"
    line = f"{dataset.source} {sizes}"
    if recipe.dataset == "own":
        line += f"; target: {dataset.target.about}"
    if recipe.device.effects:
        named = (f"{name} {getattr(recipe.device, name)}" for name in recipe.device.effects)
        source = f" ({recipe.device.source})" if recipe.device.source else ""
        display.say(f"device: {recipe.device.title}{source}, {', '.join(named)}")
    display.say(f"{'data' if recipe.dataset in (dataset.name, 'own') else 'NOTE'}: {line}")


def describe_devices(experiment: Experiment) -> str:
    """The devices, and what each of them does."""
    layout, batch = experiment.trainer.layout, experiment.recipe.batch
    across, along = layout.devices[REPLICA], layout.devices[DATA]
    shares = [f"{(layout.replicas or 1) // across} of {layout.replicas} seeds"] * (across > 1)
    shares += [f"{batch // along} of {batch} examples of each minibatch"] * (along > 1)
    return f"{across * along} of {jax.device_count()} devices, each with {' and '.join(shares)}"


def compare(record: Record, now: Made, display: Display) -> None:
    """Tells what keeps a resumed run from being the same to the last bit."""
    before = (record.started, *record.resumed)[-1]
    pairs = {n: (before.versions.get(n), now.versions.get(n)) for n in ("eqprop", "jax", "jaxlib")}
    pairs["the device"] = before.device.get("kind"), now.device.get("kind")
    pairs["the number of devices"] = before.device.get("count"), now.device.get("count")
    for name, (old, new) in pairs.items():
        if old != new:
            display.say(f"note: {name} was {old} and is {new}: the last bits may differ")


def tell_damage(damaged: Sequence[str], display: Display) -> None:
    """Tells of checkpoints that could not be read."""
    for damage in damaged:
        display.say(f"note: {damage}; the one before it is used")


def report(run: Run, display: Display) -> None:
    """The result, beside the published one, and the curves."""
    recipe, folder, results = run.record.recipe, run.folder, read_run(run.folder)
    columns = {name for result in results for name in result.columns}
    told = [m for m in metrics.of_examples() if m.name != "loss" and f"train_{m.name}" in columns]
    words_of = {"test": "test", "validation": "validation", "train": "training"}
    parts: list[str] = []
    for part, words in words_of.items():
        for metric in told:
            if not (scores := scores_of(results, part, metric)):
                continue
            shown = metrics.show_mean_and_std(scores, metric.form)
            what = (metric.title or metric.name).partition(" (")[0]
            parts.append(f"{words} {what} {shown}{metric.unit}")
    seeds = f", mean ± std of {len(results)} seeds" if len(results) > 1 else ""
    epochs = " and ".join(str(n) for n in sorted({result.epochs for result in results}))
    best = f"best of {epochs}" if recipe.validation else epochs
    display.say(f"{', '.join(parts)} ({best} epochs{seeds})")
    if published := published_for(recipe, run.record.data.name):
        display.say(_published(recipe, published))
    folders = [result.folder for result in results]
    if len(folders) > 1:
        run.summarise([read_metrics(place) for place in folders])
    with display.doing("drawing"):
        figure = training_curves(folders, folder / "training.png", recipe.name)
    display.say(f"curves in {figure}")


def _published(recipe: Recipe, published: Published) -> str:
    base = RECIPES[recipe.name]
    train = "" if published.train is None else f", training error {published.train:.2f} %"
    line = (
        f"published, as reported: test error {published.test:.2f} ± {published.std:.2f} %{train} "
        f"({base.epochs} epochs, {published.seeds} runs)"
    )
    if different := changes(recipe, base):
        pairs = (f"{name} {ours}, not {theirs}" for name, (ours, theirs) in different.items())
        line += f"; this run has {', '.join(pairs)}"
    return line
