"""`--fast`: the settings of a recipe that reach its error sooner."""

import dataclasses

from eqprop.recipes.recipe import Recipe, changes


def fast(recipe: Recipe, published: Recipe | None = None) -> Recipe:
    """The recipe with settings that reach the same test error sooner, where it has left them as
    they are, and those in which it differs from ``published`` as they are.

    In discrete time: sweeps, half as many in the nudged phase as there are steps, and a tolerance
    of 1e-3 in the free phase. They find the same fixed points sooner, but follow another path. By
    EP and VF, nets of two hidden layers and more, and those in real time on an energy, take a
    looser tolerance and few nudged sweeps, centered, which cancels the drift that such a free phase
    leaves; BPTT of such nets the tolerance alone, for fewer steps back are too few for its lower
    layers. Where layers have no two colours there are no sweeps, and the tolerance is all; where a
    tolerance is given, free phases keep it.
    """
    quick = _quick(recipe)
    own = changes(recipe, published or recipe).keys() & changes(quick, recipe).keys()
    return dataclasses.replace(quick, **{name: getattr(recipe, name) for name in own})


def _quick(recipe: Recipe) -> Recipe:
    loose = recipe.two_colours and not recipe.tolerance
    deep = len(recipe.channels + recipe.hidden) > 1
    if recipe.setting == "energy" and loose and recipe.rule in {"ep", "vf"}:
        # In longer steps a unit can cycle by itself.
        dt, tolerance, nudged = (0.3, 0.02, 12) if deep else (0.5, 0.05, 8)
        return _loosely(dataclasses.replace(recipe, dt=max(recipe.dt, dt)), tolerance, nudged)
    if recipe.setting != "prototypical":
        return recipe
    settled = dataclasses.replace(recipe, tolerance=recipe.tolerance or 1e-3)
    if not recipe.two_colours:
        return settled
    if deep and loose and recipe.rule in {"ep", "vf", "bptt"}:
        return _loosely(recipe, 0.05, 4)
    swept = dataclasses.replace(settled, sweeps=True)
    # These nudge nothing, or in synchronous steps.
    if recipe.nudged_sweeps or recipe.differentiates:
        return swept
    return dataclasses.replace(swept, nudged_sweeps=True, K=-(-recipe.K // 2))


def _loosely(recipe: Recipe, tolerance: float, nudged: int) -> Recipe:
    """In sweeps to a loose tolerance, then so many nudged ones, centered; by BPTT, which nudges
    nothing, as many steps back as it has.
    """
    swept = dataclasses.replace(
        recipe,
        sweeps=True,
        tolerance=tolerance,
        test_tolerance=max(recipe.test_tolerance, 1e-2),
    )
    if recipe.rule == "bptt":
        return swept
    K = min(recipe.K, nudged)
    return dataclasses.replace(swept, nudged_sweeps=True, nudge="centered", K=K)
