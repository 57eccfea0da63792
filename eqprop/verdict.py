"""What a verification means, in tables and sentences."""

import math

from rich import box
from rich.table import Table

from eqprop.diagnostics import Order
from eqprop.recipes import Recipe
from eqprop.settling import Settling
from eqprop.verification import Trial, Verification


def convergence(settling: Settling, recipe: Recipe) -> str:
    """Whether the free phase had converged, and if not, what T would do."""
    enough = f"{settling.tolerance:.1g} is small enough"
    if settling.settled:
        return (
            f"free phase: converged. In the last K = {recipe.K} of T = {recipe.T} steps no unit "
            f"moved by more than {settling.residual:.1e} per step ({enough})"
        )
    layer = int(settling.residuals.max(axis=0).argmax()) + 1
    remedy = (
        "and does not slow down: no T was found that would do"
        if settling.needed is None
        else f"{enough}: --T {settling.needed} would do"
    )
    return (
        f"free phase: NOT converged. In the last K = {recipe.K} of T = {recipe.T} steps units of "
        f"layer {layer} moved by up to {settling.residual:.1e} per step; {remedy}"
    )


def tensor_table(found: Verification, recipe: Recipe) -> Table:
    """The rule as asked for against BPTT, tensor by tensor, with its orders of convergence."""
    asked, orders = found.asked, [("order in beta", found.beta_orders)]
    title = f"updates D(t) against gradients -grad(t) for t = 0 ... {recipe.K - 1}, {_at(recipe)}"
    if found.eta_orders:
        orders.append(("order in eta", found.eta_orders))
    table = _table(title)
    table.add_column("tensor")
    for head in ("elements", "RelMSE", "cosine", "angle", *(head for head, _ in orders)):
        table.add_column(head, justify="right")
    rows = (*asked.comparison.tensors, asked.comparison.together)
    for row in rows:
        if row is asked.comparison.together:
            table.add_section()
        table.add_row(
            row.name,
            str(row.size - row.silent),
            "-" if row.relmse is None else f"{row.relmse:.2e}",
            "-" if row.cosine is None else f"{row.cosine:.6f}",
            "-" if row.angle is None else f"{row.angle:.3g}°",
            *(_show_order(by_name[row.name]) for _, by_name in orders),
        )
    return table


def beta_table(found: Verification, recipe: Recipe) -> Table:
    """How the error of all parameters together depends on beta, and on eta."""
    table = _table("all parameters")
    for head in ("beta", "eta", "compared with", "RelMSE", "of it noise", "angle"):
        table.add_column(head, justify="right")

    def add(trial: Trial, eta: str, reference: str) -> None:
        row = trial.comparison.together
        table.add_row(
            f"{trial.beta:g}",
            eta,
            reference,
            "-" if row.relmse is None else f"{row.relmse:.2e}",
            f"{trial.floors[row.name]:.0e}",
            "-" if row.angle is None else f"{row.angle:.3g}°",
        )

    for trial in found.beta_trials:
        add(trial, "0" if recipe.rule.startswith("c-") else "-", "BPTT")
    if found.eta_trials:
        add(found.asked, "lr", "BPTT")
    for trial in found.eta_trials:
        add(trial, f"lr x {trial.factor:g}", "eta = 0")
    return table


def verdict(found: Verification, recipe: Recipe) -> str:
    """What was found, in plain words."""
    sentences = [_about_beta(found, recipe)]
    if recipe.setting == "prototypical" and recipe.inside:
        sentences.append(
            "States stay apart from their gradients by the slope of the activation; weights do not."
        )
    if found.eta_trials:
        sentences.append(_about_eta(found))
    return " ".join(sentences)


def _about_beta(found: Verification, recipe: Recipe) -> str:
    name = found.asked.comparison.together.name
    order, expected = found.beta_orders[name], 2 if recipe.nudge == "centered" else 1
    smallest = min(found.beta_trials, key=lambda trial: abs(trial.beta))
    least = smallest.comparison.together
    at = f"at beta {smallest.beta:g}" + (" and eta 0" if found.eta_trials else "")
    if least.relmse is None or least.angle is None:
        return "There is nothing to verify: updates and gradients are zero."
    size = f"RelMSE {least.relmse:.1e} {at}"
    noisy = all(_at_floor(trial) for trial in found.beta_trials)
    if noisy and found.settling.settled:
        return f"Theorem 1 holds: the updates equal the BPTT gradients to round-off ({size})."
    if noisy:
        return (
            "No verdict: what the unfinished free phase still moves is as large as the difference "
            f"between updates and gradients ({size}); raise T."
        )
    if order.slope is not None and abs(order.slope / expected - 1) <= 0.1:
        power = "beta^2" if expected == 2 else "beta"
        return (
            f"Theorem 1 holds: the difference between updates and BPTT gradients vanishes as "
            f"{power} (order {order.slope:.2f}), down to {size}."
        )
    slope = "none that could be measured" if order.slope is None else f"{order.slope:.2f}"
    if order.slope is not None and order.slope > 0.5:
        return (
            f"Inconclusive: the difference falls with beta, but with order {slope} instead of "
            f"{expected} ({size}); try smaller betas, or a larger T."
        )
    return (
        f"The updates do NOT follow the BPTT gradients, however small beta is ({size}, order "
        f"{slope}): {least.angle:.3g} degrees are left between the total update and the total "
        f"gradient.{_reason(found, recipe)}"
    )


def _about_eta(found: Verification) -> str:
    order = found.eta_orders[found.asked.comparison.together.name]
    asked, angle = found.asked.comparison.together, found.asked.comparison.together.angle
    fall = (
        "The error that moving weights add could not be measured"
        if order.slope is None
        else f"What moving the weights adds falls as eta to the power {order.slope:.2f}"
    )
    if asked.relmse is None or angle is None:
        return f"{fall}."
    return (
        f"{fall}; with eta and beta as asked for, the total update is {angle:.3g} degrees off the "
        f"gradient (RelMSE {asked.relmse:.1e})."
    )


def _reason(found: Verification, recipe: Recipe) -> str:
    """Why, where that is known."""
    if not found.settling.settled:
        return " The free phase has not converged: raise T first."
    if recipe.angle:
        return " Feedback weights that differ from the forward ones send back another error."
    if recipe.setting == "prototypical" and not recipe.inside:
        return (
            " In discrete time a nudge outside the activation lacks its slope at the output and "
            "has one too many elsewhere (docs/theory.md); --inside mends that."
        )
    return ""


def _at_floor(trial: Trial) -> bool:
    row = trial.comparison.together
    return row.relmse is None or row.relmse <= 3 * trial.floors[row.name]


def _at(recipe: Recipe) -> str:
    eta = f", eta = {' '.join(f'{rate:g}' for rate in recipe.lr)}"
    return f"beta {recipe.beta:g}{eta if recipe.rule.startswith('c-') else ''}"


def _show_order(order: Order) -> str:
    return "-" if order.slope is None or not math.isfinite(order.slope) else f"{order.slope:.2f}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD)
