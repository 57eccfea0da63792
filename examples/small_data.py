"""Small data sets by EP, continual EP and BPTT, beside scikit-learn's perceptron of the same size.

    python examples/small_data.py

Five-fold cross-validation of each on iris, wine, breast cancer, digits and diabetes, with inputs
and real targets scaled to mean 0 and standard deviation 1 on the training part. Prints Markdown:
mean ± standard deviation over the folds of accuracy in %, of R² for diabetes, and the seconds of
all five fits.
"""

import time
import warnings

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eqprop.sklearn import EPClassifier, EPRegressor

CLASSES = {
    "iris": load_iris,
    "wine": load_wine,
    "breast cancer": load_breast_cancer,
    "digits": load_digits,
}
# At EP's learning rates weights move far in a nudged phase: so that of C-EP is a short one.
RULES = {
    "EP": {"rule": "ep"},
    "C-EP": {"rule": "c-ep", "fields": {"K": 2}},
    "BPTT": {"rule": "bptt"},
}
HIDDEN = (64,)


def main() -> None:
    """Prints the table."""
    print(f"| data set | {' | '.join(RULES)} | MLP |")
    print("|---" * (len(RULES) + 2) + "|")
    for name, load in CLASSES.items():
        models = [EPClassifier(hidden=HIDDEN, random_state=0, **rule) for rule in RULES.values()]
        perceptron = MLPClassifier(hidden_layer_sizes=HIDDEN, max_iter=300, random_state=0)
        print_row(f"{name} (accuracy, %)", *load(return_X_y=True), [*models, perceptron])
    models = [EPRegressor(hidden=HIDDEN, random_state=0, **rule) for rule in RULES.values()]
    perceptron = MLPRegressor(
        hidden_layer_sizes=HIDDEN, max_iter=300, early_stopping=True, random_state=0
    )
    scaled = TransformedTargetRegressor(perceptron, transformer=StandardScaler())
    print_row("diabetes (R²)", *load_diabetes(return_X_y=True), [*models, scaled])


def print_row(name: str, x: np.ndarray, y: np.ndarray, models: list[BaseEstimator]) -> None:
    """Scores and seconds of all models, the last of which does not scale inputs by itself."""
    *own, perceptron = models
    cells = [score(model, x, y) for model in (*own, make_pipeline(StandardScaler(), perceptron))]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def score(model: BaseEstimator, x: np.ndarray, y: np.ndarray) -> str:
    """Mean ± standard deviation over the folds, and seconds."""
    kind = StratifiedKFold if is_classifier(model) else KFold
    folds = kind(5, shuffle=True, random_state=0)
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(model, x, y, cv=folds)
    seconds = time.perf_counter() - began
    unit, digits = (100, 1) if is_classifier(model) else (1, 2)
    mean, std = unit * scores.mean(), unit * scores.std(ddof=1)
    return f"{mean:.{digits}f} ± {std:.{digits}f} ({seconds:.1f} s)"


if __name__ == "__main__":
    main()
