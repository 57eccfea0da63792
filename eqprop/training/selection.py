"""Selection: which epoch of a training with a validation part is the best, and when it is over.

All follow from what its run directory holds, so that a training that was cut goes on as one that
was not.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from eqprop.recipes.recipe import Recipe
from eqprop.training import metrics
from eqprop.training.places import newest_path, position_of
from eqprop.training.runs import CHECKPOINTS, read_metrics, read_result


def best_epoch(rows: Sequence[metrics.Row]) -> int:
    """The epoch, from 1 on, with the lowest error on the validation part, the first of equals; 0
    where there is none.

    The error is the first metric of the target's kind: of classes, of labels, or the RMSE.
    """
    names = [f"validation_{metric.name}" for metric in metrics.of_examples()]
    name = next((name for name in names if rows and name in rows[0]), None)
    if name is None:
        return 0
    values = [row.get(name, math.inf) for row in rows]
    return values.index(min(values)) + 1


def has_waited(recipe: Recipe, rows: Sequence[metrics.Row]) -> bool:
    """Whether as many epochs as the patience of the recipe allows have not been better."""
    return 0 < recipe.patience <= len(rows) - best_epoch(rows)


def is_over(recipe: Recipe, rows: Sequence[metrics.Row]) -> bool:
    """Whether all epochs are done, or the patience is at its end."""
    return len(rows) >= recipe.epochs or has_waited(recipe, rows)


def has_ended(recipe: Recipe, folder: Path) -> bool:
    """Whether there is nothing left to do for the seed in a run directory: what its last epoch has
    learnt was saved and, where a best epoch was chosen, that has been tested. One whose checkpoints
    were all deleted has ended, too.
    """
    rows = read_metrics(folder)
    saved = newest_path(folder / CHECKPOINTS)
    if not is_over(recipe, rows) or (saved and position_of(saved) < (len(rows), 0)):
        return False
    if not recipe.validation:
        return True
    tested = read_result(folder)
    return tested is not None and tested["epoch"] == best_epoch(rows)
