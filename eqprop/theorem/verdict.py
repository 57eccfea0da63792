"""What a verification means, in tables and sentences."""

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.table import Table

from eqprop.recipes.recipe import Recipe
from eqprop.theorem.agreement import Order, fit_order
from eqprop.theorem.questions import bias_order
from eqprop.theorem.settling import Settling
from eqprop.theorem.verification import Trial, Verification

_LABELS = {"all parameters": "all"}


def convergence(settling: Settling, recipe: Recipe, betas: Sequence[float]) -> str:
    """Whether the free phase had converged far enough, and if not, what T would do."""
    window, residual = f"in the last K = {recipe.K} of T = {recipe.T} steps", settling.residual
    needs = f"beta {min(betas, key=abs):g} needs {settling.tolerance:.0e}"
    if settling.settled:
        return (
            f"free phase: converged; {window} no unit moved by more than {residual:.0e} per step "
            f"({needs})"
        )
    layer = int(settling.residuals.max(axis=0).argmax()) + 1
    remedy = (
        "and no T was found that reaches it"
        if settling.needed is None
        else f"which --T {settling.needed} reaches"
    )
    return (
        f"free phase: NOT converged far enough; {window} units of layer {layer} still moved by up "
        f"to {residual:.0e} per step; {needs}, {remedy}"
    )


def tensor_table(found: Verification, recipe: Recipe) -> Table:
    """The rule as asked for against BPTT, tensor by tensor, with its orders of convergence."""
    asked, orders = found.asked, [("order in beta", found.beta_orders)]
    if found.eta_orders:
        orders.append(("order in eta", found.eta_orders))
    heads = ("elements", "RelMSE", "cosine", "angle", *(head for head, _ in orders))
    steps = f"t = 0 ... {recipe.K - 1}, {_at(recipe)}"
    table = _table(f"updates D(t) against gradients -grad(t), {steps}", "tensor", *heads)
    for row in (*asked.comparison.tensors, asked.comparison.together):
        if row is asked.comparison.together:
            table.add_section()
        table.add_row(
            _LABELS.get(row.name, row.name),
            str(row.size - row.silent),
            _show(row.relmse, ".2e"),
            _show(row.cosine, ".6f"),
            _show(row.angle, ".3g", "°"),
            *(_show_order(by_name[row.name]) for _, by_name in orders),
        )
    return table


def beta_table(found: Verification, recipe: Recipe) -> Table:
    """How the error of all parameters together depends on beta, and on eta."""
    trials = [(trial, "0", "BPTT") for trial in found.beta_trials]
    if not recipe.is_continual:
        table = _table("all parameters together", "beta", *_ERRORS)
        for trial, _, _ in trials:
            table.add_row(f"{trial.beta:g}", *_errors(trial))
        return table
    if found.eta_trials:
        trials.append((found.asked, "as asked", "BPTT"))
    trials += [(trial, f"x {trial.factor:g}", "eta = 0") for trial in found.eta_trials]
    table = _table("all parameters together", "beta", "eta", "against", *_ERRORS)
    for trial, eta, reference in trials:
        table.add_row(f"{trial.beta:g}", eta, reference, *_errors(trial))
    return table


def points_table(found: Verification, recipe: Recipe) -> Table:
    """How the error of all parameters together depends on the number of points of the nudge."""
    title = f"all parameters together, N betas on a circle of radius {recipe.beta:g}"
    table = _table(title, "N", "nudge", *_ERRORS)
    for n, trial in found.point_trials.items():
        nudge = {1: "one-sided", 2: "centered"}.get(n, "holomorphic")
        table.add_row(str(n), nudge, *_errors(trial))
    return table


def verdict(found: Verification, recipe: Recipe) -> str:
    """What was found, in plain words."""
    if any(trial.comparison.together.angle is None for trial in found.beta_trials):
        return "There is nothing to verify: the updates or the gradients are all zero."
    sentences = [_about_beta(found, recipe)]
    if found.eta_trials:
        sentences.append(_about_eta(found))
    return " ".join(sentences)


def _about_beta(found: Verification, recipe: Recipe) -> str:
    trials = found.beta_trials
    measured = [trial for trial in trials if not _within_noise(trial)] or trials
    smallest = min(measured, key=lambda trial: abs(trial.beta))
    first, least = trials[0].comparison.together, smallest.comparison.together
    order, expected = _limit(trials, "beta"), bias_order(recipe.nudge, recipe.points)
    resting = " with eta 0" if found.eta_trials else ""
    size = f"RelMSE {_relmse(smallest):.1e} at beta {smallest.beta:g}{resting}"
    if order is not None and abs(order / expected - 1) <= 0.1:
        power = "beta" if expected == 1 else f"beta^{expected}"
        return (
            "Theorem 1 holds: the difference between updates and BPTT gradients vanishes as "
            f"{power} (order {order:.2f} between the smallest betas), down to {size}."
            f"{_apart(recipe)}"
        )
    if all(_within_noise(trial) and _relmse(trial) < 1e-3 for trial in trials):
        return (
            "Theorem 1 holds: the updates equal the BPTT gradients within rounding "
            f"({size}).{_apart(recipe)}"
        )
    if order is not None and order < 0.5:
        return (
            f"The updates do NOT tend to the BPTT gradients as beta tends to 0: {least.angle:.3g} "
            f"degrees remain between total update and total gradient ({size})."
            f"{_reason(recipe, found.settling)}"
        )
    why = (
        "only one beta was tried: give others with --betas"
        if len({abs(trial.beta) for trial in trials}) == 1
        else _hidden(order, expected, settled=found.settling.settled)
    )
    return (
        f"At beta {trials[0].beta:g}{resting} the total update is {first.angle:.3g} degrees off "
        f"the BPTT gradient (RelMSE {_relmse(trials[0]):.1e}). Whether that vanishes with beta "
        f"does not show: {why}."
    )


def _hidden(order: float | None, expected: int, *, settled: bool) -> str:
    """Why the limit does not show though several betas were tried, and what to do."""
    fall = (
        "too few differences exceed the noise that rounding and the free phase leave"
        if order is None
        else f"the order is {order:.2f} instead of {expected} between the smallest betas"
    )
    return f"{fall}; {'try other betas' if settled else 'raise T'}"


def _about_eta(found: Verification) -> str:
    order, asked = _limit(found.eta_trials, "factor"), found.asked.comparison.together
    size = "could not be measured" if order is None else f"vanishes as eta (order {order:.2f})"
    if order is not None and abs(order - 1) > 0.1:
        size = f"falls with eta, but with order {order:.2f} instead of 1"
    angle = "none" if asked.angle is None else f"{asked.angle:.3g} degrees"
    return (
        f"What moving the weights adds {size}; with eta as asked for, {angle} lie between total "
        f"update and total gradient (RelMSE {_relmse(found.asked):.1e})."
    )


def _limit(trials: Sequence[Trial], key: Literal["beta", "factor"]) -> float | None:
    """The order between the two smallest sizes whose errors exceed the noise.

    With all of them, a nudge as strong as those of trainings would spoil it.
    """
    measured = {abs(getattr(it, key)): _relmse(it) for it in trials if not _within_noise(it)}
    sizes = sorted(measured)[:2]
    return fit_order(sizes, [measured[size] for size in sizes], [0.0] * len(sizes)).slope


def _apart(recipe: Recipe) -> str:
    """Of which tensors the theorem does not hold, though of all parameters."""
    if recipe.setting != "prototypical" or not recipe.inside:
        return ""
    return " States stay apart from their gradients by the slope of the activation; weights do not."


def _reason(recipe: Recipe, settling: Settling) -> str:
    """Why, where that is known, or may be."""
    reasons: list[str] = []
    if recipe.angle:
        reasons.append("Feedback weights that differ from the forward ones send back other errors.")
    if recipe.feedback == "none":
        reasons.append("Without feedback weights no error is sent back.")
    if recipe.setting == "prototypical" and not recipe.inside:
        reasons.append(
            "In discrete time a nudge outside the activation leaves out its slope at the output "
            "and has one too many elsewhere (docs/theory.md): --inside mends that."
        )
    if recipe.setting == "energy" and not recipe.output_slope:
        reasons.append(
            "An output that moves without its slope follows no energy: --output-slope mends that."
        )
    if not settling.settled:
        longer = "raise T" if settling.needed is None else f"try --T {settling.needed}"
        reasons.append(f"The free phase had not settled, which may be why: {longer}.")
    return "".join(f" {reason}" for reason in reasons)


def _relmse(trial: Trial) -> float:
    return trial.comparison.together.relmse or 0.0


def _within_noise(trial: Trial) -> bool:
    """Whether an error may be rounding and drift alone, as ``fit_order`` judges it."""
    return _relmse(trial) <= 3 * trial.floors[trial.comparison.together.name]


def _at(recipe: Recipe) -> str:
    signs = {"random-sign": " (sign drawn from the seed)", "mixed-sign": " (of both signs)"}
    sign = signs.get(recipe.nudge, "")
    eta = f", eta {' '.join(f'{rate:g}' for rate in recipe.lr)}"
    return f"beta {recipe.beta:g}{sign}{eta if recipe.is_continual else ''}"


def _show_order(order: Order) -> str:
    # Adding 0 turns -0.00 into 0.00.
    return "-" if order.slope is None else f"{round(order.slope, 2) + 0:.2f}"


def _show(value: float | None, digits: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{digits}}{unit}"


_ERRORS = ("RelMSE", "noise", "angle")


def _errors(trial: Trial) -> tuple[str, str, str]:
    """Those of all parameters together."""
    row = trial.comparison.together
    noise = _show(trial.floors[row.name], ".0e")
    return _show(row.relmse, ".2e"), noise, _show(row.angle, ".3g", "°")


def _table(title: str, *heads: str) -> Table:
    """Numbers to the right, names to the left."""
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
    for head in heads:
        name = head in {"tensor", "nudge"}
        table.add_column(head, justify="left" if name else "right", no_wrap=True)
    return table
