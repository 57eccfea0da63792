"""What a recipe can say: a frozen record of all that determines a training.

A recipe is data: it can be printed, saved as JSON and overridden field by field from the command
line. ``build.build`` turns it into the objects that do the work; nothing here loads JAX.
"""

import dataclasses
import functools
import math
from typing import Literal, final

from eqprop.devices.record import IDEAL, Device
from eqprop.errors import EqpropError
from eqprop.fields import conform


@final
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
    dataset: Literal["mnist", "fashion-mnist", "cifar-10", "cifar-100", "svhn", "digits", "own"] = (
        "mnist"
    )
    """Data set; own, of a file that is named."""
    model: str = ""
    """Name of an energy or a map of one's own (``ep.Energy``, ``ep.Map``), which then has the
    layers, and settles, in the place of what the recipe says of them.
    """
    shift: int = 0
    """Move each training image by up to so many pixels up or down, and left or right, at random."""
    flip: bool = False
    """Mirror each training image, left to right, or not, at random."""
    rotate: float = 0.0
    """Turn each training image by up to so many degrees either way, at random."""
    zoom: float = 0.0
    """Stretch rows and columns of each training image by up to this part, or shrink them."""
    elastic: float = 0.0
    """Bend each training image at random, by displacements of so many pixels (root mean square)."""
    erase: int = 0
    """Blacken a square of so many rows and columns of each training image, at random."""
    input_dropout: float = 0.0
    """Silence each input with that probability while an example is learnt: at 0 after scaling."""
    dropout: float = 0.0
    """Silence each hidden unit with that probability while an example is learnt, in discrete time.
    """
    scaling: Literal["auto", "none", "unit", "standard"] = "auto"
    """Bring each input to [0, 1], unit, or to mean 0 and standard deviation 1, standard; auto:
    bytes, as those of images, to [0, 1] by 1/255, other numbers as standard.
    """
    mean: tuple[float, ...] = ()
    """Subtract this from the input, channel by channel; as it is when left out. In real time from
    the rho of it, unless raw_input.
    """
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
    setting: Literal["prototypical", "energy", "resistive"] = "prototypical"
    """Discrete time (prototypical), or real time on an energy; or a circuit of conductances and
    diodes (resistive), where each input is a pair of voltage sources and each output the difference
    of two nodes.
    """
    gain: float = 1.0
    """Voltage of an input of 1; no effect but in the resistive setting."""
    least: float = 0.0
    """Least conductance, in the resistive setting."""
    activation: str = "sigm"
    """Activation: sigm, hardsigm, half-hardsigm, tanh."""
    dt: float = 0.2
    """Time step of the energy-based setting; no effect in the prototypical one."""
    clip: bool = True
    """Keep states in [0, 1] in the energy-based setting."""
    raw_input: bool = False
    """The input sends its pixels as they are, not rho of them, in the energy-based setting."""
    output_slope: bool = True
    """Multiply the drive of the output by rho', as the energy has it and the published programs do
    not, in the energy-based setting. In discrete time: let backpropagation count the slope of the
    activation of the output, which is 0 where a hardsigm is flat.
    """
    train_input_bias: bool = True
    """Train the bias into the first layer, which the published C-VF programs leave as it is drawn.
    """
    output: Literal["auto", "activation", "linear"] = "auto"
    """Whether the output has the activation, or none, linear; auto: linear for real targets."""
    rule: Literal["ep", "c-ep", "vf", "c-vf", "aep", "c-aep", "bptt", "rbp"] = "ep"
    """Learning rule: ep, vf, or aep, exact for untied weights too; continually c-ep, c-vf, c-aep.
    As baselines backpropagation through the last K free steps, bptt, and recurrent
    backpropagation, rbp: they nudge nothing.
    """
    angle: float | None = None
    """Initial angle in degrees between forward and feedback weights; None ties them."""
    feedback: Literal["trained", "frozen", "none"] = "trained"
    """Feedback weights learn, trained; stay as they are drawn, frozen, which needs an angle; or are
    left out, none, and layers hear only those before them.
    """
    nudge: Literal[
        "one-sided",
        "positive",
        "negative",
        "random-sign",
        "mixed-sign",
        "centered",
        "holomorphic",
    ] = "one-sided"
    """How the output is nudged: one-sided, by beta, whatever its sign; positive and negative, by
    plus or minus a beta above 0; random-sign, one of these for each minibatch; mixed-sign, half of
    a minibatch by each; centered, every example by both; holomorphic, by complex betas, needs a
    smooth activation.
    """
    hold: bool = False
    """Hold the output in the nudged phase, at its free state plus beta times the force, instead of
    pushing it: coupled learning, and contrastive learning with beta 1.
    """
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
    test_tolerance: float = 1e-4
    """Stop iterating a test when no unit moves faster than this, per unit of time; 0 takes all T
    steps.
    """
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
    validation: float = 0.0
    """Hold back that part of the training set, the same for every seed, and measure each epoch on
    it. The best epoch is kept, and the test set is looked at once, at the end, with that.
    """
    patience: int = 0
    """Stop when so many epochs have not improved the error on the validation part; 0 never does."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of states and weights."""
    states: Literal["full", "bfloat16"] = "full"
    """States as they are (full), or rounded to bfloat16 after each step and multiplied with rounded
    weights; sums, weights and updates are of type dtype in either case.
    """
    device: Device = IDEAL
    """Hardware that it is trained on: --device NAME or FILE, and then its fields one by one.
    Weights of a device run from w_min to w_max, about 1 each way; what is 0, or None, is ideal.
    What differs from device to device is drawn by chip, what differs from time to time by the seed
    of the training.
    """
    published: Published | None = None
    """The published result."""

    @property
    def connections(self) -> int:
        """The number of connections, each of which has a learning rate."""
        chain = len(self.channels) + len(self.hidden) + 1
        return chain + len(self.skips) + len(self.lateral)

    @property
    def is_continual(self) -> bool:
        """Whether weights move at every step of the nudged phase."""
        return self.rule.startswith("c-")

    @property
    def is_asymmetric(self) -> bool:
        """Whether the nudged phase is that of asymmetric EP."""
        return self.rule in {"aep", "c-aep"}

    @property
    def is_nudged(self) -> bool:
        """Whether the rule has a nudged phase, as all have but baselines."""
        return self.rule not in {"bptt", "rbp"}

    @property
    def differentiates(self) -> bool:
        """Whether the rule takes derivatives of whole steps, not products of rates alone."""
        return self.is_asymmetric or not self.is_nudged

    @property
    def measured_part(self) -> Literal["validation", "test"]:
        """The part of the data that each epoch is measured on."""
        return "validation" if self.validation else "test"

    @property
    def warps(self) -> bool:
        """Whether training images are turned, stretched or bent."""
        return any((self.rotate, self.zoom, self.elastic))

    @property
    def augments(self) -> bool:
        """Whether training images are altered at random."""
        return any((self.shift, self.flip, self.warps, self.erase))

    @functools.cached_property
    def essence(self) -> "Recipe":
        """What decides how a training goes: recipes of equal essence train equal networks.

        Names do not, nor do epochs, which only say where it ends, unless a schedule ends with them.
        """
        epochs = 1 if self.schedule == "constant" else self.epochs
        device = self.device.essence
        return dataclasses.replace(
            self, name="", about="", published=None, epochs=epochs, device=device
        )

    @property
    def two_colours(self) -> bool:
        """Whether every connection joins an even layer and an odd one, as sweeps need it; those
        from the input, which does not move, do not count.
        """
        return not self.lateral and all((post - pre) % 2 or not pre for pre, post in self.skips)

    def check_converter(self) -> None:
        """Raises ``EqpropError`` where the converter of the device reads no states below 0, which
        this recipe has.
        """
        if self.device.adc_bits and self.device.adc_low >= 0:
            raise EqpropError(
                f"device.adc_low is {self.device.adc_low}, but states go below 0: give the range "
                "of the states, as --device.adc-low -1 --device.adc-high 1"
            )

    def __post_init__(self) -> None:
        conform(self)
        for check in (_check_numbers, _check_layers, _check_rule, _check_setting, _check_device):
            check(self)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise EqpropError(message)


def _check_numbers(recipe: Recipe) -> None:
    """Each number by itself, and those that go with it."""
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int):
                _require(abs(number) < 2**31, f"{field.name} is {number}: give less than 2^31")
            if isinstance(number, float):
                _require(
                    abs(number) <= 3e38,
                    f"{field.name} is {number}: give a finite number, at most 3e38",
                )
    # Bounds of what the built objects do not see; the rest is checked where it is used.
    _require(recipe.batch >= 1, f"batch is {recipe.batch}: a minibatch needs at least 1 example")
    _require(recipe.epochs >= 1, f"epochs is {recipe.epochs}: it must be at least 1")
    _require(
        0 <= recipe.validation < 1,
        f"validation is {recipe.validation}: give a part of the training set, from 0 to below 1",
    )
    _require(
        recipe.patience == 0 or (recipe.patience > 0 and recipe.validation > 0),
        f"patience is {recipe.patience} with validation {recipe.validation}: give at least 1 epoch "
        "and a validation part, as --validation 0.1",
    )
    _require(
        math.isfinite(recipe.tolerance) and recipe.tolerance >= 0,
        f"the tolerance is {recipe.tolerance}: give a number above 0, or 0 for all T steps",
    )
    _require(
        recipe.test_tolerance >= 0,
        f"test_tolerance is {recipe.test_tolerance}: give a number above 0, or 0 for all T steps",
    )
    _require(
        recipe.relaxation == "steps" or recipe.tolerance > 0,
        f"relaxation {recipe.relaxation} ends at a tolerance, but the tolerance is "
        f"{recipe.tolerance}: give one, as --tolerance 1e-3",
    )
    _require(
        math.isfinite(recipe.weight_decay) and recipe.weight_decay >= 0,
        f"weight_decay is {recipe.weight_decay}: it must be at least 0",
    )
    _require(
        0 <= recipe.momentum < 1, f"momentum is {recipe.momentum}: give a number from 0 to below 1"
    )
    _require(
        recipe.nudge not in {"positive", "negative"} or recipe.beta > 0,
        f"beta is {recipe.beta} with nudge {recipe.nudge}, which has the sign: give it above 0",
    )


def _check_layers(recipe: Recipe) -> None:
    """How layers are wired."""
    there = {(n, n + 1) for n in range(len(recipe.channels) + len(recipe.hidden) + 1)}
    for pre, post in recipe.skips:
        pair = min(pre, post), max(pre, post)
        _require(
            pair not in there,
            f"skips have {pre} {post}, but these two layers are connected already: name each "
            "pair once, and layers that do not follow each other",
        )
        there.add(pair)
    _require(
        len(set(recipe.lateral)) == len(recipe.lateral),
        f"lateral is {recipe.lateral}: name each layer once",
    )
    for field in ("padding", "window"):
        given, layers = getattr(recipe, field), len(recipe.channels)
        _require(
            len(given) in (1, layers),
            f"{field} is {given}: give one number, or one for each of {layers} convolutions",
        )
    _require(
        recipe.cost == "squared-error" or bool(recipe.hidden or recipe.channels),
        f"cost {recipe.cost} reads out a hidden layer, and there is none: give --hidden or "
        "--channels",
    )


def _check_rule(recipe: Recipe) -> None:
    """What a rule asks for."""
    _require(
        recipe.states == "full" or recipe.nudge != "holomorphic",
        f"states are {recipe.states}, but a holomorphic nudge needs complex ones: use --states "
        "full or another nudge",
    )
    _require(
        recipe.states == "full" or not (recipe.is_asymmetric or recipe.rule == "rbp"),
        f"states are {recipe.states}, but rule {recipe.rule} takes the Jacobian of a step, which "
        "rounded ones have not: use --states full or another rule",
    )
    _require(
        recipe.angle is None or recipe.rule not in {"ep", "c-ep"},
        f"rule {recipe.rule} needs tied weights, but angle is {recipe.angle}: leave the angle out, "
        "or use rule vf, c-vf, aep or c-aep",
    )
    _require(
        recipe.feedback == "trained" or recipe.rule not in {"ep", "c-ep"},
        f"rule {recipe.rule} needs tied weights, but feedback is {recipe.feedback}: use rule vf, "
        "c-vf, aep or c-aep",
    )
    _require(
        (recipe.angle is None) == (recipe.feedback == "none") or recipe.feedback == "trained",
        f"feedback is {recipe.feedback} and angle {recipe.angle}: frozen feedback weights need an "
        "angle, as --angle 90, and where there are none there is no angle",
    )
    _require(
        not recipe.is_asymmetric or not (recipe.inside or recipe.nudged_sweeps),
        f"rule {recipe.rule} corrects synchronous nudged steps, with the force outside the "
        "activation: use --no-inside --no-nudged-sweeps",
    )
    _require(
        recipe.output_slope or recipe.setting == "energy" or not recipe.is_nudged,
        f"output_slope is {recipe.output_slope}, but rule {recipe.rule} has nothing to do with the "
        f"slope of the output in the setting {recipe.setting}: use --output-slope",
    )
    _require(
        recipe.cost == "squared-error" or (recipe.output != "linear" and recipe.output_slope),
        f"output is {recipe.output} and output_slope {recipe.output_slope} with cost {recipe.cost}:"
        " there the output is a linear readout, and all layers that settle are hidden; leave both "
        "out",
    )
    _require(
        not recipe.hold or not recipe.dropout or recipe.cost == "squared-error",
        f"hold with dropout {recipe.dropout} and cost {recipe.cost}: what is held is a hidden "
        "layer, whose silent units would not stay so; leave hold or dropout out",
    )
    _require(
        not recipe.hold or (recipe.rule == "ep" and recipe.nudge != "holomorphic"),
        f"hold with rule {recipe.rule} and nudge {recipe.nudge}: a held output is for the two ends "
        "of a phase, which rule ep compares, and for a real beta",
    )
    _require(
        not recipe.hold or not recipe.inside,
        f"inside is {recipe.inside} with hold: a held output is moved, not pushed; leave one out",
    )
    _require(
        recipe.cost == "squared-error" or not recipe.is_continual,
        f"rule {recipe.rule} with cost {recipe.cost}: a continual rule cannot train a readout; use "
        "--cost squared-error, or rule ep or vf",
    )
    _require(
        not recipe.is_continual or (recipe.optimizer == "sgd" and not recipe.weight_decay),
        f"rule {recipe.rule} moves the weights inside the nudged phase, where {recipe.optimizer} "
        f"with weight_decay {recipe.weight_decay} has no place: use --optimizer sgd "
        "--weight-decay 0",
    )


def _check_setting(recipe: Recipe) -> None:
    """What there is in one setting only."""
    _require(
        not recipe.dropout or (recipe.setting == "prototypical" and not recipe.model),
        f"dropout is {recipe.dropout}, but units are silenced in discrete time only: leave it "
        "out, or use --input-dropout",
    )
    _require(
        not recipe.input_dropout or recipe.setting != "energy" or recipe.raw_input,
        f"input_dropout is {recipe.input_dropout}, but a silent input has a rate there, rho(0): "
        "use --raw-input",
    )
    wired = {"channels": (), "skips": (), "lateral": (), "angle": None, "feedback": "trained"}
    plain = {"cost": "squared-error", "inside": False, "states": "full", "mean": (), "std": ()}
    plain |= {"train_input_bias": True, "output_slope": True}
    for field, value in (wired | plain).items():
        _require(
            recipe.setting != "resistive" or getattr(recipe, field) == value,
            f"{field} is {getattr(recipe, field)}, but a resistive network has dense layers of "
            "conductances, and its nudge is a current: leave it out",
        )

    _require(
        recipe.setting != "resistive" or recipe.output != "activation",
        f"output is {recipe.output}, but outputs of a resistive network are voltages, without an "
        "activation: leave it out",
    )
    _require(
        not recipe.inside or recipe.setting == "prototypical",
        f"inside is {recipe.inside}, but only in discrete time is there a potential to nudge: "
        "leave it out",
    )


def _check_device(recipe: Recipe) -> None:
    """What a device goes with."""
    _require(
        recipe.rule != "bptt" or not recipe.device.step_noise,
        f"device.step_noise is {recipe.device.step_noise}, but rule bptt goes back through steps "
        "that it would have to take with the same noise again: leave it out, or use another rule",
    )
    noisy = recipe.device.reads or recipe.device.step_noise > 0
    _require(
        not noisy or recipe.nudge != "holomorphic",
        f"device is {recipe.device.title}, whose noise and converter are of real states, but "
        "a holomorphic nudge makes complex ones: use another nudge",
    )
    _require(
        not recipe.device.feedback_spread or (recipe.setting != "resistive" and not recipe.model),
        f"device.feedback_spread is {recipe.device.feedback_spread}, but here feedback goes "
        "through no copies of weights: leave it out",
    )
    unclipped = recipe.setting == "energy" and not recipe.clip
    if recipe.activation == "tanh" or recipe.setting == "resistive" or recipe.model or unclipped:
        recipe.check_converter()


def settable() -> list[str]:
    """The fields that may be given: all but those that say what a recipe is called."""
    fixed = ("name", "about", "model", "published")
    return [field.name for field in dataclasses.fields(Recipe) if field.name not in fixed]


def changes(recipe: Recipe, base: Recipe) -> dict[str, tuple[object, object]]:
    """The fields in which a recipe differs from another: name to (its value, value in the
    other).
    """
    ours, theirs = flat(recipe), flat(base)
    return {name: (it, theirs[name]) for name, it in ours.items() if it != theirs[name]}


def flat(recipe: Recipe) -> dict[str, object]:
    """The values of a recipe by field, those of its device as ``device.adc_bits``."""

    def values(record: Recipe | Device, within: str) -> dict[str, object]:
        return {within + f.name: getattr(record, f.name) for f in dataclasses.fields(record)}

    own = values(recipe, "")
    del own["device"]
    return own | values(recipe.device, "device.")
