"""``eqprop device``."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import tyro

from eqprop.cli.arguments import listing, require_at_least, split_name
from eqprop.cli.data import DEFAULT_SPLIT, SplitOptions, choose_data
from eqprop.cli.recipe_options import as_options, parse_with_fields
from eqprop.devices.presets import PRESETS
from eqprop.errors import typed
from eqprop.recipes.catalogue import RECIPES

_EPOCHS = 2


@final
@dataclass(frozen=True)
class DeviceOptions:
    """What to study, and where."""

    factors: tuple[float, ...] = (0.25, 1.0, 4.0)
    """Sizes of each imperfection, relative to the device's own: bounds closer, bits fewer."""
    seeds: int = 1
    """Seeds of each training."""
    data: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Data of your own, as for eqprop train; the same for all trainings, kept beside them."""
    split: Annotated[SplitOptions, tyro.conf.arg(name="")] = DEFAULT_SPLIT
    out: Path | None = None
    """Directory for the trainings and the page; runs/device-RECIPE-NAME when left out."""


_ABOUT = """What would a network learn on a device? Each imperfection of it alone, less and more
of it, and all together; trained on the device, and trained without it and then programmed; with a
centered nudge, continually, with asymmetric EP. Ends with what limits the device, the size of each
imperfection that is tolerated, and a page with the curves. Stopped or killed, the same command goes
on where it was. Short by default, of 2 epochs: --epochs and --seeds make it a longer one."""


def run(args: Sequence[str]) -> None:
    """Studies what the arguments say."""
    devices = {name: device.source for name, device in PRESETS.items() if device.effects}
    about = "\n".join(
        [
            *(_ABOUT, "", "Devices, or a .toml or .json file:", *listing(devices), ""),
            *("Start with: eqprop device ep-1h --device reram", ""),
            "Every field of a recipe is an option too: eqprop device ep-1h --help lists them.",
        ]
    )
    name, rest = split_name(args, RECIPES, "eqprop device", DeviceOptions, about)
    defaults = DeviceOptions(), as_options(dataclasses.replace(RECIPES[name], epochs=_EPOCHS))
    options, recipe = parse_with_fields(*defaults, rest, f"eqprop device {name}", about)
    require_at_least(1, {"seeds": options.seeds})
    recipe, dataset = choose_data(options.data, options.split, recipe, "eqprop device")

    from eqprop.sweeps.device_study import Study, study

    out = options.out or Path("runs") / f"device-{name}-{recipe.device.name}"
    with typed():
        asked = Study(recipe, options.factors, tuple(range(options.seeds)), out, dataset)
    study(asked, ["eqprop", "device", *args])
