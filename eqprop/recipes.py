"""Recipes: every published row as a frozen record, with its published result.

A recipe is data: it can be printed, saved as JSON and overridden field by field from the command
line. ``building.build`` turns it into the objects that do the work; nothing here loads JAX.
"""

import dataclasses
import math
from typing import Literal

from eqprop.errors import EqpropError


@dataclasses.dataclass(frozen=True)
class Published:
    """A published result, as reported: test error in %, mean and std over ``seeds`` runs; train
    error in %.
    """

    test: float
    std: float
    train: float | None = None
    seeds: int = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines a training, but for the seed. The docstring of a field is its
    help.
    """

    name: str
    """Name of the recipe."""
    about: str = ""
    """What the recipe is, in a line."""
    dataset: Literal["mnist", "fashion-mnist", "cifar-10", "cifar-100", "svhn", "digits"] = "mnist"
    """Data set."""
    shift: int = 0
    """Move each training image by up to so many pixels up or down, and left or right, at random."""
    flip: bool = False
    """Mirror each training image, left to right, or not, at random."""
    mean: tuple[float, ...] = ()
    """Subtract this from the input, channel by channel; as it is when left out."""
    std: tuple[float, ...] = ()
    """Divide the input by this, channel by channel, after mean."""
    channels: tuple[int, ...] = ()
    """Channels of the convolutional layers, from the input side; none for a net of dense layers."""
    kernel: int = 5
    """Rows and columns of the kernels."""
    padding: tuple[int, ...] = (0,)
    """Zeros around the input of convolutions: one number for all, or one for each."""
    pool: Literal["max", "average", "none"] = "max"
    """Pooling after each convolution."""
    window: tuple[int, ...] = (2,)
    """Rows and columns of pooling windows: one number for all, or one for each convolution."""
    hidden: tuple[int, ...] = (512,)
    """Sizes of the hidden dense layers, from the input side to the output."""
    skips: tuple[tuple[int, int], ...] = ()
    """Connections past the next layer, as pairs of layers: 1 3 4 6. Layer 0 is the input."""
    lateral: tuple[int, ...] = ()
    """Layers with connections between their own units."""
    setting: Literal["prototypical", "energy"] = "prototypical"
    """Discrete time (prototypical), or real time on an energy."""
    activation: str = "sigm"
    """Activation: sigm, hardsigm, half-hardsigm, tanh."""
    dt: float = 0.2
    """Time step of the energy-based setting; no effect in the prototypical one."""
    clip: bool = True
    """Keep states in [0, 1] in the energy-based setting."""
    raw_input: bool = False
    """The input sends its pixels as they are, not rho of them, in the energy-based setting."""
    rule: Literal["ep", "c-ep", "vf", "c-vf", "bptt", "rbp"] = "ep"
    """Learning rule: ep, vf; or continually, c-ep, c-vf. As baselines backpropagation through the
    last K free steps, bptt, and recurrent backpropagation, rbp: they nudge nothing.
    """
    angle: float | None = None
    """Initial angle in degrees between forward and feedback weights; None ties them."""
    nudge: Literal["one-sided", "random-sign", "centered", "holomorphic"] = "one-sided"
    """How the output is nudged; holomorphic, by complex betas, needs a smooth activation."""
    points: int = 4
    """Betas on the circle of the holomorphic nudge; no effect on other nudges."""
    cost: Literal["squared-error", "cross-entropy"] = "squared-error"
    """Cost whose force nudges the output: the squared error of the last layer; or the cross-entropy
    of a softmax readout of it, which takes no part in the dynamics and replaces the output layer.
    """
    inside: bool = False
    """Nudge inside the activation (a force on the potential) instead of outside, as the paper
    does.
    """
    beta: float = 0.1
    """Nudging strength."""
    positive: float = 0.5
    """Probability of a positive beta, for the random-sign nudge."""
    T: int = 30
    """Free steps; the most that are taken when there is a tolerance."""
    K: int = 10
    """Nudged steps."""
    tolerance: float = 0.0
    """Stop the free phase when no unit moves by this much in a step; 0 takes all T steps."""
    relaxation: Literal["steps", "anderson"] = "steps"
    """Take free steps as they are; or accelerate them, anderson, which needs a tolerance."""
    sweeps: bool = False
    """Sweep even and odd layers in turn in the free phase, instead of synchronous steps."""
    nudged_sweeps: bool = False
    """Sweep in the nudged phase, too, instead of K synchronous steps."""
    lr: tuple[float, ...] = (0.08, 0.04)
    """Learning rates of the connections, from the input side to the output; then those of skips,
    then of lateral connections, then that of a readout.
    """
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """What scales the updates before the learning rates."""
    momentum: float = 0.9
    """Momentum of the momentum optimizer."""
    weight_decay: float = 0.0
    """Decay of the weights, as a term added to the update: lr * weight_decay * weight."""
    schedule: Literal["constant", "cosine"] = "constant"
    """How the learning rates change over the training: constant, or cosine to 0 at the last
    epoch.
    """
    batch: int = 20
    """Examples in a minibatch."""
    epochs: int = 30
    """Passes through the training set."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of states and weights."""
    states: Literal["full", "bfloat16"] = "full"
    """States as they are (full), or rounded to bfloat16 after each step and multiplied with rounded
    weights; sums, weights and updates are of type dtype in either case.
    """
    published: Published | None = None
    """The published result."""

    @property
    def connections(self) -> int:
        """The number of connections, each of which has a learning rate."""
        chain = len(self.channels) + len(self.hidden) + 1
        return chain + len(self.skips) + len(self.lateral)

    @property
    def two_colours(self) -> bool:
        """Whether every connection joins an even layer and an odd one, as sweeps need it; those
        from the input, which does not move, do not count.
        """
        return not self.lateral and all((post - pre) % 2 or not pre for pre, post in self.skips)

    def __post_init__(self) -> None:
        def require(ok: bool, message: str) -> None:
            if not ok:
                raise EqpropError(message)

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int):
                    require(abs(number) < 2**31, f"{field.name} is {number}: give less than 2^31")
                if isinstance(number, float):
                    require(
                        abs(number) <= 3e38,
                        f"{field.name} is {number}: give a finite number, at most 3e38",
                    )
        # Bounds of what the built objects do not see; the rest is checked where it is used.
        require(self.batch >= 1, f"batch is {self.batch}: a minibatch needs at least 1 example")
        require(self.epochs >= 1, f"epochs is {self.epochs}: it must be at least 1")
        require(
            math.isfinite(self.tolerance) and self.tolerance >= 0,
            f"the tolerance is {self.tolerance}: give a number above 0, or 0 for all T steps",
        )
        require(
            self.relaxation == "steps" or self.tolerance > 0,
            f"relaxation {self.relaxation} ends at a tolerance, but the tolerance is "
            f"{self.tolerance}: give one, as --tolerance 1e-3",
        )
        require(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"weight_decay is {self.weight_decay}: it must be at least 0",
        )
        require(
            self.states == "full" or self.nudge != "holomorphic",
            f"states are {self.states}, but a holomorphic nudge needs complex ones: use --states "
            "full or another nudge",
        )
        for field in ("padding", "window"):
            given, layers = getattr(self, field), len(self.channels)
            require(
                len(given) in (1, layers),
                f"{field} is {given}: give one number, or one for each of {layers} convolutions",
            )
        require(
            0 <= self.momentum < 1, f"momentum is {self.momentum}: give a number from 0 to below 1"
        )
        require(
            self.angle is None or not self.rule.endswith("ep"),
            f"rule {self.rule} needs tied weights, but angle is {self.angle}: leave the angle out, "
            "or use rule vf or c-vf",
        )
        require(
            self.cost == "squared-error" or not self.rule.startswith("c-"),
            f"rule {self.rule} with cost {self.cost}: a continual rule cannot train a readout; use "
            "--cost squared-error, or rule ep or vf",
        )
        require(
            self.cost == "squared-error" or bool(self.hidden or self.channels),
            f"cost {self.cost} reads out a hidden layer, and there is none: give --hidden or "
            "--channels",
        )
        require(
            not self.rule.startswith("c-") or (self.optimizer == "sgd" and not self.weight_decay),
            f"rule {self.rule} moves the weights inside the nudged phase, where {self.optimizer} "
            f"with weight_decay {self.weight_decay} has no place: use --optimizer sgd "
            "--weight-decay 0",
        )


def bias_order(nudge: str, points: int) -> int:
    """The power of beta with which the bias of a nudge falls, where F is smooth."""
    return {"centered": 2, "holomorphic": points}.get(nudge, 1)


_ONE, _TWO, _THREE = (512,), (512, 512), (512, 512, 512)

_EP_CONV_FAST = Recipe(
    name="ep-conv-fast",
    about="our own: ep-conv in few steps, centered, to 1 % in minutes",
    channels=(32, 64),
    hidden=(),
    activation="hardsigm",
    lr=(0.15, 0.035, 0.015),
    sweeps=True,
    nudged_sweeps=True,
    nudge="centered",
    T=10,
    K=4,
    beta=0.4,
    schedule="cosine",
    epochs=5,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="ep-1h",
            about="EP, one hidden layer, discrete time",
            published=Published(2.00, 0.13, 0.20),
        ),
        Recipe(
            name="ep-2h",
            about="EP, two hidden layers, discrete time",
            hidden=_TWO,
            lr=(0.2, 0.05, 0.005),
            T=100,
            K=20,
            beta=0.5,
            epochs=50,
            published=Published(1.95, 0.10, 0.14),
        ),
        Recipe(
            name="ep-3h",
            about="EP, three hidden layers, discrete time",
            hidden=_THREE,
            lr=(0.2, 0.05, 0.01, 0.002),
            T=180,
            K=20,
            beta=0.5,
            epochs=100,
            published=Published(2.01, 0.18, 0.10),
        ),
        Recipe(
            name="eb-1h",
            about="EP, one hidden layer, real time on an energy",
            setting="energy",
            lr=(0.1, 0.05),
            T=100,
            K=12,
            beta=0.5,
            published=Published(2.06, 0.17, 0.13),
        ),
        Recipe(
            name="eb-2h",
            about="EP, two hidden layers, real time on an energy",
            hidden=_TWO,
            setting="energy",
            lr=(0.4, 0.1, 0.01),
            T=500,
            K=40,
            beta=0.5,
            epochs=50,
            published=Published(2.01, 0.21, 0.11),
        ),
        Recipe(
            name="c-ep-1h",
            about="continual EP, one hidden layer",
            rule="c-ep",
            lr=(0.0056, 0.0028),
            T=40,
            K=15,
            beta=0.2,
            epochs=100,
            published=Published(2.28, 0.16, 0.41),
        ),
        Recipe(
            name="c-ep-2h",
            about="continual EP, two hidden layers",
            hidden=_TWO,
            rule="c-ep",
            lr=(0.01, 0.0018, 0.00018),
            T=100,
            K=20,
            beta=0.5,
            epochs=150,
            published=Published(2.44, 0.14, 0.31),
        ),
        Recipe(
            name="c-vf-1h",
            about="continual vector field (untied weights), one hidden layer",
            rule="c-vf",
            angle=0.0,
            nudge="random-sign",
            lr=(0.0076, 0.0038),
            T=40,
            K=15,
            beta=0.2,
            epochs=100,
            published=Published(2.43, 0.08, 0.77),
        ),
        Recipe(
            name="c-vf-2h",
            about="continual vector field (untied weights), two hidden layers",
            hidden=_TWO,
            rule="c-vf",
            angle=0.0,
            nudge="random-sign",
            lr=(0.009, 0.0016, 0.00016),
            T=100,
            K=20,
            beta=0.35,
            epochs=150,
            published=Published(2.97, 0.19, 1.58),
        ),
        Recipe(
            name="ep-conv",
            about="EP, two convolutional layers, discrete time",
            channels=(32, 64),
            hidden=(),
            activation="hardsigm",
            lr=(0.15, 0.035, 0.015),
            T=200,
            K=10,
            beta=0.4,
            epochs=40,
            published=Published(1.02, 0.04, 0.54),
        ),
        _EP_CONV_FAST,
        dataclasses.replace(
            _EP_CONV_FAST,
            name="ep-conv-best",
            about="our own: ep-conv-fast for longer, on images shifted at random",
            shift=2,
            epochs=30,
        ),
        Recipe(
            name="ep-1h-shift",
            about="our own: ep-1h in few steps, centered, on images shifted at random",
            shift=1,
            lr=(0.08, 0.04),
            sweeps=True,
            nudged_sweeps=True,
            nudge="centered",
            T=15,
            K=3,
            beta=0.2,
            schedule="cosine",
        ),
        Recipe(
            name="c-ep-1h-few",
            about="our own: c-ep-1h with so few nudged steps that moving weights do little harm",
            rule="c-ep",
            lr=(0.08, 0.04),
            sweeps=True,
            nudged_sweeps=True,
            T=15,
            K=2,
            beta=0.2,
            schedule="cosine",
            epochs=20,
        ),
        # The published learning rates of BPTT are not known here: these are those of EP.
        # Settings of the authors' program for arXiv:2006.03824 with squared errors, but for what is
        # ours: shifts fill in black, not with the edge; the cosine ends at the last epoch; and
        # weights decay beside the momentum, not within it, hence by ten times their 3e-4.
        Recipe(
            name="ep-cifar10-conv",
            about="EP, four convolutional layers, on CIFAR-10 (arXiv:2006.03824)",
            dataset="cifar-10",
            shift=4,
            flip=True,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.6069, 0.5982, 0.6030),
            channels=(128, 256, 512, 512),
            kernel=3,
            padding=(1, 1, 1, 0),
            hidden=(),
            activation="half-hardsigm",
            nudge="centered",
            inside=True,
            lr=(0.25, 0.15, 0.1, 0.08, 0.05),
            optimizer="momentum",
            weight_decay=3e-3,
            schedule="cosine",
            T=250,
            K=30,
            beta=0.5,
            batch=128,
            epochs=120,
        ),
        Recipe(
            name="ep-cifar10-skip",
            about="our own: five convolutional layers with skip connections, as in a ResNet",
            dataset="cifar-10",
            shift=4,
            flip=True,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.6069, 0.5982, 0.6030),
            channels=(64, 128, 128, 256, 256),
            kernel=3,
            padding=(1,),
            window=(2, 1, 2, 1, 2),
            hidden=(),
            skips=((1, 3), (3, 5)),
            activation="half-hardsigm",
            nudge="centered",
            inside=True,
            lr=(0.25, 0.2, 0.15, 0.1, 0.08, 0.05, 0.15, 0.08),
            optimizer="momentum",
            weight_decay=3e-3,
            schedule="cosine",
            T=250,
            K=30,
            beta=0.5,
            batch=128,
            epochs=120,
        ),
        Recipe(
            name="bptt-1h",
            about="BPTT with the settings of ep-1h",
            rule="bptt",
            published=Published(2.00, 0.12),
        ),
        Recipe(
            name="bptt-2h",
            about="BPTT with the settings of ep-2h",
            hidden=_TWO,
            rule="bptt",
            lr=(0.2, 0.05, 0.005),
            T=100,
            K=20,
            epochs=50,
            published=Published(2.09, 0.12),
        ),
        Recipe(
            name="bptt-3h",
            about="BPTT with the settings of ep-3h",
            hidden=_THREE,
            rule="bptt",
            lr=(0.2, 0.05, 0.01, 0.002),
            T=180,
            K=20,
            epochs=100,
            published=Published(2.30, 0.17),
        ),
        Recipe(
            name="bptt-conv",
            about="BPTT with the settings of ep-conv",
            channels=(32, 64),
            hidden=(),
            activation="hardsigm",
            rule="bptt",
            lr=(0.15, 0.035, 0.015),
            T=200,
            K=10,
            epochs=40,
            published=Published(0.88, 0.06),
        ),
    )
}
"""The published rows, and some of our own, by name."""


@dataclasses.dataclass(frozen=True)
class Series:
    """One recipe, trained once for each of several values of a field."""

    about: str
    base: str
    field: str
    values: tuple[float, ...]

    def members(self, base: Recipe) -> dict[str, Recipe]:
        """The recipes of the series, made from ``base``, under names such as ``angle-22.5``."""
        return {
            f"{self.field}-{value:g}": dataclasses.replace(base, **{self.field: value})
            for value in self.values
        }


_ANGLES = tuple(22.5 * n for n in range(9))

SERIES: dict[str, Series] = {
    f"{base}-angle": Series(f"{base} at initial angles from 0 to 180", base, "angle", _ANGLES)
    for base in ("c-vf-1h", "c-vf-2h")
}


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises ``EqpropError`` that lists the names there are."""
    if name not in RECIPES:
        raise EqpropError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def fast(recipe: Recipe) -> Recipe:
    """The recipe with settings that reach the same test error sooner, where it has left them as
    they are.

    In the prototypical setting: sweeps, half as many in the nudged phase as there are steps, and a
    tolerance of 1e-3 in the free phase. They find the same fixed points sooner, but follow another
    path. Convolutional nets take ten sweeps, then four nudged ones, centered, which cancels the
    drift such a short phase leaves. Where layers have no two colours there are no sweeps, and the
    tolerance is all.
    """
    if recipe.setting != "prototypical":
        return recipe
    if not recipe.two_colours:
        return dataclasses.replace(recipe, tolerance=recipe.tolerance or 1e-3)
    if recipe.channels and recipe.rule in {"ep", "vf"}:
        fields = ("sweeps", "nudged_sweeps", "nudge", "T", "K")
        return dataclasses.replace(
            recipe, **{name: getattr(_EP_CONV_FAST, name) for name in fields}
        )
    short = dataclasses.replace(recipe, sweeps=True, tolerance=recipe.tolerance or 1e-3)
    if recipe.nudged_sweeps or recipe.rule in {"bptt", "rbp"}:  # these nudge nothing
        return short
    return dataclasses.replace(short, nudged_sweeps=True, K=-(-recipe.K // 2))


def changes(recipe: Recipe, base: Recipe) -> dict[str, tuple[object, object]]:
    """The fields in which a recipe differs from another: name to (its value, value in the
    other).
    """
    pairs = {
        f.name: (getattr(recipe, f.name), getattr(base, f.name)) for f in dataclasses.fields(Recipe)
    }
    return {name: (ours, theirs) for name, (ours, theirs) in pairs.items() if ours != theirs}
