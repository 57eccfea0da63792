"""What of the paper can be reproduced, by name."""

import dataclasses

from eqprop.paper.figures import (
    FigureAngle,
    FigureAsymmetric,
    FigureContrastive,
    FigureGradientAngle,
    FigureTheorem,
)
from eqprop.paper.item import PaperItem, Scope
from eqprop.paper.tables import TableMnist, TableOthers, TableShort, TableTime
from eqprop.theorem.questions import FIGURES


def paper_items(scope: Scope) -> dict[str, PaperItem]:
    """All there are, by the name under which they are asked for."""
    items: dict[str, PaperItem] = {
        "table-mnist": TableMnist(scope),
        "table-others": TableOthers(scope),
        "table-short": TableShort(scope),
        "figure-angle": FigureAngle(scope),
        "figure-gradient-angle": FigureGradientAngle(scope),
        "figure-contrastive": FigureContrastive(scope),
        "figure-asymmetric": FigureAsymmetric(scope),
        "table-time": TableTime(scope),
    }
    for name, question in FIGURES.items():
        recipe = dataclasses.replace(question.recipe, dataset=scope.dataset)
        asked = dataclasses.replace(question, recipe=recipe)
        items[f"figure-theorem-{name.removeprefix('fig-')}"] = FigureTheorem(asked)
    return items
