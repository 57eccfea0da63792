"""Estimators of scikit-learn: networks that learn by relaxing, in pipelines and grid searches.

``EPClassifier`` and ``EPRegressor`` train a recipe in memory, without a run directory. They are
pickled as scikit-learn's own are; a fitted one holds its network as NumPy arrays.
"""

import abc
import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping
from typing import Any, final, no_type_check, override

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from eqprop.data.scaling import BRIGHT, Scaling, ScalingName
from eqprop.data.targets import Classes, Real, Target, as_float32, check_told_apart
from eqprop.errors import Diverged, EqpropError, suggest
from eqprop.networks.model import Model
from eqprop.recipes.catalogue import recipe as recipe_of
from eqprop.recipes.recipe import Recipe
from eqprop.training.divergence import whole
from eqprop.training.experiment import Program, plan, precision
from eqprop.training.settled import ROWS, settle_rows
from eqprop.training.trainer import Examples, Trainer
from eqprop.types import Float, Shape


class _Estimator(BaseEstimator, abc.ABC):
    """Abstract: a network that is trained by a recipe on rows of numbers."""

    n_features_in_: int

    # scikit-learn wants all parameters here, and no check of them before they are used.
    @no_type_check
    def __init__(  # noqa: PLR0913
        self,
        recipe: str | Recipe = "ep-1h",
        *,
        hidden: tuple[int, ...] | None = (64,),
        epochs: int = 50,
        lr: float | tuple[float, ...] | None = None,
        batch: int = 20,
        beta: float | None = None,
        rule: str | None = None,
        nudge: str | None = None,
        scaling: ScalingName = "auto",
        shape: Shape | None = None,
        fields: Mapping[str, Any] | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe, self.hidden, self.epochs, self.lr = recipe, hidden, epochs, lr
        self.batch, self.beta, self.rule, self.nudge = batch, beta, rule, nudge
        self.scaling, self.shape, self.fields = scaling, shape, fields
        self.early_stopping, self.validation_fraction = early_stopping, validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.random_state, self.verbose = random_state, verbose

    def fit(self, X: Any, y: Any):  # returns Self, which runtime checks of tests do not know
        """Trains from the beginning on inputs ``(n, features)`` and their targets.

        Raises ``ValueError`` for inputs, targets or parameters that cannot be.
        """
        X, y = self._checked(X, y, reset=True)
        self._targets_are(y)
        if self.early_stopping and self.n_iter_no_change < 1:
            raise EqpropError(
                f"n_iter_no_change is {self.n_iter_no_change}: give at least 1 epoch, after which "
                "to stop"
            )
        held = None
        if self.early_stopping:
            train, validation = train_test_split(
                np.arange(len(X)),
                test_size=self.validation_fraction,
                random_state=check_random_state(self.random_state),
                stratify=self._strata(y),
            )
            held = X[validation], y[validation]
            X, y = X[train], y[train]
        self._begin(X)
        with precision(self.recipe_):
            self._train(X, y, held, self.recipe_.epochs)
        return self

    @property
    def network_(self) -> Model:
        """The trained network, which takes scaled inputs; its arrays are NumPy's."""
        return self._state.network

    @property
    def n_iter_(self) -> int:
        """Epochs that were trained."""
        return len(self.loss_curve_)

    # A network holds functions that cannot be pickled: what it is made of follows from the recipe.
    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if "_state" in state:
            state["_state"] = jax.tree.leaves(state["_state"])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_state" in state:
            program = self._program(1)
            with precision(self.recipe_):
                like = jax.eval_shape(lambda: program.trainer.start(program.init, 0))
            self._state = jax.tree.unflatten(jax.tree.structure(like), state["_state"])

    @abc.abstractmethod
    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets as scikit-learn checks them; ``reset`` where features are new."""

    @abc.abstractmethod
    def _targets_are(self, y: np.ndarray) -> None:
        """Takes down what is to be learnt from all targets."""

    @abc.abstractmethod
    def _strata(self, y: np.ndarray) -> np.ndarray | None:
        """What a validation part has an equal share of."""

    @abc.abstractmethod
    def _encoded(self, y: np.ndarray) -> np.ndarray:
        """Targets as a ``Trainer`` takes them."""

    @property
    @abc.abstractmethod
    def _target(self) -> Target:
        """What is learnt."""

    @property
    @abc.abstractmethod
    def _rate(self) -> float:
        """What learning rates are multiplied by that the recipe has, and no parameter."""

    def _begin(self, X: np.ndarray) -> None:
        """The state before the first minibatch."""
        if math.prod(self._shape) != self.n_features_in_:
            raise EqpropError(
                f"shape is {self._shape}, of {math.prod(self._shape)} numbers, but a row of X has "
                f"{self.n_features_in_}: give a shape of as many"
            )
        self.recipe_ = self._recipe()
        names = getattr(self, "feature_names_in_", ())
        check_told_apart(X, names, "feature", type(self).__name__)
        counts = X.dtype == np.uint8 and X.max() <= BRIGHT  # no images
        self._scaling = Scaling.fit(self.recipe_.scaling, as_float32(X) if counts else X)
        self.loss_curve_: list[float] = []
        self.validation_losses_: list[float] = []
        self._seed = check_random_state(self.random_state).randint(2**31 - 1)
        program = self._program(len(X))
        with precision(self.recipe_):
            self._state = program.trainer.start(program.init, self._seed)

    def _recipe(self) -> Recipe:
        """The recipe that the parameters make. Predictions take all T steps, so that what comes of
        a row does not depend on others.
        """
        base = recipe_of(self.recipe) if isinstance(self.recipe, str) else self.recipe
        own = ("hidden", "epochs", "batch", "beta", "rule", "nudge", "scaling")
        given = {name: getattr(self, name) for name in own if getattr(self, name) is not None}
        known = [field.name for field in dataclasses.fields(Recipe)]
        for name in (fields := dict(self.fields or {})).keys() - set(known):
            raise EqpropError(f"fields has no field of a recipe: {suggest(name, known)}")
        if held := fields.keys() & {"validation", "patience"}:
            raise EqpropError(
                f"fields has {min(held)}, which has no place here: use early_stopping"
            )
        if twice := fields.keys() & {*own, "lr", "dataset"}:
            name = min(twice)
            remedy = "the data are those of fit" if name == "dataset" else f"give {name}=..."
            raise EqpropError(f"fields has {name}: leave it out, {remedy}")
        given |= {"dataset": "own", "published": None, "test_tolerance": 0.0} | fields
        recipe = dataclasses.replace(base, **given)
        rates, n = self.lr, recipe.connections
        if rates is None:
            rates = recipe.lr if len(recipe.lr) == n else (min(recipe.lr),) * n
            rates = tuple(self._rate * rate for rate in rates)
        if isinstance(rates, numbers.Real):
            rates = (float(rates),) * n
        return dataclasses.replace(recipe, lr=tuple(rates))

    def _go_on(self, X: np.ndarray, y: np.ndarray, *, first: bool):
        """Another epoch, or the first, on these examples."""
        schedule = (self._recipe() if first else self.recipe_).schedule
        if schedule != "constant":
            raise EqpropError(
                f"schedule is {schedule}, which ends with the epochs of fit: partial_fit would go "
                "on at a rate of 0; use fields={'schedule': 'constant'}"
            )
        if first:
            self._begin(X)
        with precision(self.recipe_):
            self._train(X, y, None, 1)
        return self

    @property
    def _shape(self) -> Shape:
        """Of an input."""
        return (
            (self.n_features_in_,) if self.shape is None else tuple(np.ravel(self.shape).tolist())
        )

    def _program(self, n: int) -> Program:
        """What trains on n examples."""
        recipe = dataclasses.replace(self.recipe_, batch=min(self.recipe_.batch, n))
        batches = 1 if recipe.schedule == "constant" else n // recipe.batch
        return _program(recipe.essence, self._shape, self._target, batches)

    def _train(
        self,
        X: np.ndarray,
        y: np.ndarray,
        held: tuple[np.ndarray, np.ndarray] | None,
        epochs: int,
    ) -> None:
        """All epochs, or fewer where the loss on the validation part has stopped to fall: then the
        state with the lowest is kept.
        """
        trainer = self._program(len(X)).trainer
        examples = self._examples(X, y, _padded(len(X)))
        validation = held and self._examples(*held, len(held[1]))
        best = self._state
        for _ in range(epochs):
            self._learn(trainer, examples, len(X))
            if validation is None:
                continue
            total = trainer.test(self.network_, validation)["loss"]
            self.validation_losses_.append(float(total) / len(validation))
            since = self.n_iter_ - 1 - int(np.argmin(self.validation_losses_))
            if not since:
                best = jax.device_get(self._state)
            if since >= self.n_iter_no_change:
                break
        self._state = jax.device_get(self._state) if validation is None else best

    def _learn(self, trainer: Trainer, examples: Examples, n: int) -> None:
        """Another epoch of the first n examples, in an order that seed and epoch decide."""
        batch = trainer.batch
        order = np.random.default_rng((self._seed, self.n_iter_)).permutation(n)
        order = order[: n // batch * batch].reshape(-1, batch).astype(np.int32)
        stop = len(order)
        order = jnp.asarray(np.resize(order, (_padded(stop), batch)))
        state = trainer.advance(self._state, examples, order, stop)
        if not whole(state):
            raise Diverged(
                f"the training diverged in epoch {self.n_iter_ + 1}: lower lr, {self.recipe_.lr}, "
                f"or beta, {self.recipe_.beta}"
            )
        self.loss_curve_.append(float(state.totals["loss"]) / (stop * batch))
        self._state = trainer.next_epoch(state)
        if self.verbose:
            print(f"epoch {self.n_iter_}: loss {self.loss_curve_[-1]:.4g}")

    def _examples(self, X: np.ndarray, y: np.ndarray, rows: int) -> Examples:
        """Inputs, scaled, and targets on the device; repeated, to that many rows."""
        x = np.resize(self._inputs(X), (rows, *self.network_.shapes[0]))
        targets = self._encoded(y)
        return Examples.put(x, np.resize(targets, (rows, *targets.shape[1:])), self.network_)

    def _inputs(self, X: np.ndarray) -> np.ndarray:
        self._scaling.check_range(X)
        with np.errstate(over="ignore"):
            x = np.asarray(self._scaling.apply(X), self.network_.dtype)
        if not np.isfinite(x).all():
            raise EqpropError("X has a number too large for float32: give it in another unit")
        return x.reshape(len(x), *self.network_.shapes[0])

    def _scores(self, X: Any) -> Float[np.ndarray, "n outputs"]:
        """Outputs for inputs ``(n, features)``, in blocks of equal size, however few there are: one
        program serves all, and treats a row as it does any other.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        system = self._program(len(X)).trainer.tested
        with precision(self.recipe_):
            x = self._inputs(X)
            found = settle_rows(
                system, self.network_, lambda rows: jnp.asarray(x[rows]), len(x), block=ROWS
            )
        return found.scores.astype(np.float64)


@final
class EPClassifier(ClassifierMixin, _Estimator):
    """A classifier of scikit-learn that learns by Equilibrium Propagation, or by another rule.

    Args:
        recipe: a recipe, or the name of one. All that follows is as there, where it is None.
        hidden: sizes of the hidden layers.
        epochs: passes through the training set.
        lr: a learning rate for all connections, or one for each. None: those of the recipe, or the
            least of them for all, where it has another number of connections.
        batch: examples in a minibatch; all, where there are fewer.
        beta: strength of the nudge.
        rule: learning rule, as the field of a recipe.
        nudge: how the output is nudged, as the field of a recipe.
        scaling: of inputs, as the field of a recipe; fitted on what is trained on.
        shape: of an input, as (28, 28) for images that are rows of 784, where there are
            convolutions.
        fields: other fields of the recipe, by name.
        early_stopping: hold out a ``validation_fraction`` of the examples, stop when the loss on
            these has not fallen for ``n_iter_no_change`` epochs, and keep the best network.
        random_state: decides the first weights, the order of examples and the part held out.
        verbose: print the loss of each epoch.

    Attributes:
        classes_: labels of the classes, in the order of outputs.
        loss_curve_, validation_losses_: mean loss of each epoch, and after it on the part held out.
        n_iter_: epochs trained.
        network_, recipe_: the trained network, and what it was trained by.
    """

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> "EPClassifier":
        """Trains for an epoch on these examples, on top of what has been learnt; inputs are scaled
        as the first ones suggest. ``classes`` lists all there will ever be, in the first call.
        """
        first = not hasattr(self, "_state")
        X, y = self._checked(X, y, reset=first)
        if first:
            if classes is not None and not np.size(classes):
                raise EqpropError("classes is empty: list all that there will ever be")
            self._targets_are(y if classes is None else np.asarray(classes))
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise EqpropError(
                f"classes are {np.unique(classes).tolist()}, but the first ones were "
                f"{self.classes_.tolist()}: give the same, or none"
            )
        if len(unknown := np.setdiff1d(y, self.classes_)):
            raise EqpropError(
                f"class {unknown.tolist()[0]!r} is none of {self.classes_.tolist()}: list all "
                "classes in the first call of partial_fit"
            )
        return self._go_on(X, y, first=first)

    def predict(self, X: Any) -> np.ndarray:
        """The classes ``(n,)`` of inputs ``(n, features)``."""
        numbers = self._scores(X).argmax(axis=1)
        return self.classes_[numbers]

    def decision_function(self, X: Any) -> Float[np.ndarray, "n ..."]:
        """The outputs ``(n, classes)``, of which the largest is predicted; of two classes ``(n,)``,
        by how much the second exceeds the first.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n classes"]:
        """The softmax of the outputs, in the order of ``classes_``. It ranks classes as outputs
        do; but outputs that learn by squared error lie between 0 and 1, and so it is far from
        certain even where they are.
        """
        return softmax(self._scores(X), axis=1)

    @override
    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset)
        check_classification_targets(y)
        return X, y

    @override
    def _targets_are(self, y: np.ndarray) -> None:
        classes = np.unique(y)
        if len(classes) < 2:
            only = classes.tolist()[0]
            raise EqpropError(f"all targets are of one class, {only!r}: give some of another")
        self.classes_ = classes

    @override
    def _strata(self, y: np.ndarray) -> np.ndarray:
        return y

    @override
    def _encoded(self, y: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.classes_, y)

    @property
    @override
    def _target(self) -> Target:
        return Classes.of(len(self.classes_))

    @property
    @override
    def _rate(self) -> float:
        return 1.0


@final
class EPRegressor(RegressorMixin, _Estimator):
    """A regressor of scikit-learn that learns by Equilibrium Propagation, or by another rule, to
    put out real numbers, one or several; they are scaled as standard within.

    Parameters and attributes are those of ``EPClassifier``, but for classes; where ``lr`` is None,
    rates are a quarter of the recipe's, which are those of a classification.
    """

    def partial_fit(self, X: Any, y: Any) -> "EPRegressor":
        """Trains for an epoch on these examples, on top of what has been learnt; inputs and targets
        are scaled as the first ones suggest.
        """
        first = not hasattr(self, "_state")
        X, y = self._checked(X, y, reset=first)
        if first:
            self._targets_are(y)
        if y.shape[1:] != self._row:
            raise EqpropError(
                f"targets have shape {y.shape}, but the first ones had {('n', *self._row)}: give "
                "as many for each example"
            )
        return self._go_on(X, y, first=first)

    def predict(self, X: Any) -> Float[np.ndarray, "n ..."]:
        """Real numbers, ``(n,)`` or ``(n, outputs)`` as in the training."""
        scores = self._scores(X)
        return self._target_scaling.undo(scores).reshape(len(scores), *self._row)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @override
    def _checked(self, X: Any, y: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, reset=reset, multi_output=True, y_numeric=True)
        if y.dtype.kind not in "biuf":
            raise EqpropError(f"targets are {y.dtype}: give numbers")
        return X, y

    @override
    def _targets_are(self, y: np.ndarray) -> None:
        check_told_apart(y, (), "target", type(self).__name__)
        self._row = y.shape[1:]
        self._target_scaling = Scaling.fit("standard", y.reshape(len(y), -1))

    @override
    def _strata(self, y: np.ndarray) -> None:
        return None

    @override
    def _encoded(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(self._target_scaling.apply(y.reshape(len(y), -1)), np.float32)

    @property
    @override
    def _target(self) -> Target:
        return Real(tuple(f"y{n}" for n in range(self._target_scaling.shift.size)))

    @property
    @override
    def _rate(self) -> float:
        return 0.25


@functools.lru_cache(maxsize=32)
def _program(recipe: Recipe, shape: Shape, target: Target, batches: int) -> Program:
    """Made once, so that the fits of a cross-validation share what is compiled."""
    with precision(recipe):
        return plan(recipe, shape, target, batches, None)


def _padded(n: int) -> int:
    """The next power of two: sizes that differ by little share what is compiled."""
    return 1 << (n - 1).bit_length()
