"""Whatever is typed, or stands in a file: an error of one line, or a right result.

Files are those of real runs, changed at random. IDX files are fuzzed in test_data.py.
"""

import ast
import contextlib
import copy
import dataclasses
import io
import json
import math
import os
import pickle
import resource
import shutil
import typing
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from trainings import (
    _compile_once,  # noqa: F401
    digits,
    experiment_of,
    one_line,
    oracle,  # noqa: F401
    train,
)

import eqprop
from eqprop.cli.main import main
from eqprop.devices.record import Device
from eqprop.errors import EqpropError
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.recipe import Recipe
from eqprop.theorem import launch as launch_verify
from eqprop.training import checkpoint, evaluation, experiment, launch
from eqprop.training.metrics import flat
from eqprop.training.records import from_json, to_json
from eqprop.training.runs import read_metrics, read_record

EXAMPLES = Path(__file__).parents[2] / "docs" / "records" / "ep-1h" / "seed-0"


def assert_clear(error: EqpropError, *parts: object) -> None:
    """One line, of a length that can be read, with those parts in it."""
    message = str(error)
    assert "\n" not in message
    assert len(message) < 2000
    for part in parts:
        assert str(part) in message


def examples(number: int) -> Any:
    # Fixtures are only read from, and folders written anew by each example.
    return settings(max_examples=number, suppress_health_check=list(HealthCheck))


# ----------------------------------------------------------------------------- recipes, and words

HINTS = typing.get_type_hints(Recipe)
FREE = sorted(HINTS.keys() - {"name", "about", "dataset", "published"})
INTEGERS = st.integers(-2, 9) | st.sampled_from([16, 2**15, 2**31 - 1, 2**31, 10**30, -(10**30)])
NUMBERS = st.sampled_from([0.0, 0.5, 1.0, 45.0, 1e-3, -1.0, 1e-300, 1e39, math.inf, math.nan])


def values(kind: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1] is not ...:
        return st.tuples(*map(values, arguments))
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=4).map(tuple)
    if arguments:
        return st.none() | values(arguments[0])
    if dataclasses.is_dataclass(kind):
        parts = {name: values(hint) for name, hint in typing.get_type_hints(kind).items()}
        some = st.lists(st.sampled_from(sorted(parts)), unique=True, max_size=5)
        return some.flatmap(lambda names: st.fixed_dictionaries({n: parts[n] for n in names}))
    simple = {int: INTEGERS, float: NUMBERS | st.floats(), bool: st.booleans()}
    return simple.get(kind, st.sampled_from(["sigm", "hardsigm", "tanh", "flip", ""]) | st.text())


RECIPE = st.tuples(
    st.sampled_from(sorted(RECIPES)),
    st.lists(st.sampled_from(FREE), unique=True, max_size=4).flatmap(
        lambda names: st.fixed_dictionaries({name: values(HINTS[name]) for name in names})
    ),
)


def check_recipe(recipe: tuple[str, dict[str, Any]]) -> None:
    name, changes = recipe
    try:
        if "device" in changes:
            changes = changes | {"device": Device(**changes["device"])}
        built = dataclasses.replace(RECIPES[name], **changes, dataset="digits")
        with experiment.precision(built):
            prepared = experiment.prepare(built, digits())
            jax.eval_shape(lambda: prepared.start(0))
    except EqpropError as error:
        assert_clear(error)


WORDS = st.one_of(
    st.sampled_from([f"--{name.replace('_', '-')}" for name in HINTS]),
    st.sampled_from([f"--device.{f.name.replace('_', '-')}" for f in dataclasses.fields(Device)]),
    st.sampled_from(["--device", "reram", "--device=capacitor", "--device.stuck=3", "mine.toml"]),
    st.sampled_from(["--seeds", "--seed", "--out", "--no-clip", "--fast", "--epochs", "--random"]),
    st.sampled_from(
        ["--beta=1", "--lr", "0.1", "-", "--", "-x", "---", "=", "nan", "1e999", "None"]
    ),
    st.sampled_from(
        ["true", "3", "-1", "9" * 5000, "vf", "ep-1h", "fig-toy", "--help", "1_0", "٣"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What has been typed is understood, and nothing done."""
    monkeypatch.chdir(tmp_path)
    for module, name in (
        (launch, "train"),
        (launch, "resume"),
        (evaluation, "evaluate_run"),
        (launch_verify, "verify"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: None)


def check_words(command: tuple[str, str, list[str]]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([command[0], *([command[1]] if command[1] else []), *command[2]])
    assert code in {0, 2}
    assert (code == 0 and not err.getvalue()) or one_line(err.getvalue())


COMMAND = st.tuples(
    st.sampled_from(["train", "train", "verify", "resume", "evaluate"]),
    st.sampled_from(["ep-1h", "c-vf-1h", "ep-conv", "c-vf-1h-angle", "fig-toy", "", "."]),
    st.lists(WORDS, max_size=5),
)


@examples(60)
@given(RECIPE)
def test_recipes(recipe) -> None:
    check_recipe(recipe)


@examples(60)
@given(COMMAND)
def test_words(no_work, command) -> None:
    check_words(command)


@pytest.mark.slow
@examples(4000)
@given(RECIPE)
def test_many_recipes(recipe) -> None:
    check_recipe(recipe)


@pytest.mark.slow
@examples(4000)
@given(COMMAND)
def test_many_words(no_work, command) -> None:
    check_words(command)


def test_more_than_there_is_memory_for() -> None:
    for changes in ({"hidden": (2**31 - 1,)}, {"batch": 1000, "hidden": (2**30,)}):
        recipe = dataclasses.replace(RECIPES["ep-1h"], dataset="digits", **changes)
        with pytest.raises(EqpropError, match="GiB of memory: make layers"):
            experiment.prepare(recipe, digits())
    recipe = dataclasses.replace(RECIPES["ep-1h"], T=2**30)
    with pytest.raises(EqpropError, match=r"T is 1073741824.*lower T"):
        experiment.prepare(recipe, digits())


# ---------------------------------------------------------------------------- records and metrics

STRANGE = st.one_of(
    st.sampled_from([None, True, 0, 1, -1, 2**31, 10**400, 1e308, math.nan, math.inf]),
    st.sampled_from(["", "x", "\ud800", "\x1b[31m", "../../x", "|O", "<f8"]),
    st.sampled_from([[], [1], [0, 0], ["x"], [2**40], {}, {"a": [{}]}, {"a": {"b": 1}}]),
)
CHANGE = st.tuples(
    st.integers(0, 10**6), st.sampled_from(["set", "set", "set", "delete", "add"]), STRANGE
)
CHANGES = st.lists(CHANGE, max_size=3)
EDIT = st.tuples(st.integers(0, 10**6), st.binary(max_size=3))
BYTES = st.one_of(
    st.none(),
    st.none(),
    EDIT,
    st.sampled_from([b"", b"[" * 10**5, b'{"a":' * 10**5, b"1" * 10**5, b"\xff\xfe", b"null\n"]),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values in a tree of JSON."""
    if not isinstance(tree, dict | list):
        return []
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [way for key, v in steps for way in ((*path, key), *places(v, (*path, key)))]


def change(tree: Any, changes: list[tuple[int, str, Any]]) -> Any:
    """The tree of JSON with some values replaced, deleted or added."""
    for number, how, value in changes:
        known = places(tree)
        if not known:
            break
        *path, last = known[number % len(known)]
        at = tree
        for key in path:
            at = at[key]
        if how == "set":
            at[last] = copy.deepcopy(value)
        elif how == "delete":
            del at[last]
        elif isinstance(at, dict):
            at["added"] = copy.deepcopy(value)
    return tree


def disturb(content: bytes, how: Any) -> bytes:
    """The bytes with some replaced, or cut there, or others altogether."""
    if how is None:
        return content
    if isinstance(how, bytes):
        return how
    place, new = how
    at = place % (len(content) + 1)
    return content[:at] + new + content[at + len(new) :] if new else content[:at]


def check_record(folder: Path, changes: Any, how: Any) -> None:
    tree = change(json.loads((EXAMPLES / "run.json").read_text()), changes)
    (folder / "run.json").write_bytes(disturb(json.dumps(tree).encode(), how))
    try:
        record = read_record(folder)
    except EqpropError as error:
        assert_clear(error, folder / "run.json")
        return
    written = json.dumps(to_json(record))
    assert json.dumps(to_json(from_json(json.loads(written)))) == written


def check_metrics(folder: Path, changes: Any, how: Any) -> None:
    lines = (EXAMPLES / "metrics.jsonl").read_text().splitlines()[:3]
    rows = change([json.loads(line) for line in lines], changes)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / "metrics.jsonl").write_bytes(disturb(content, how))
    try:
        found = read_metrics(folder)
    except EqpropError as error:
        assert_clear(error, folder / "metrics.jsonl")
        return
    assert [row["epoch"] for row in found] == list(range(1, len(found) + 1))
    for row in found:
        assert 0 <= flat(row).get("test_error", 0) <= 100
        json.dumps(row, allow_nan=False)


@examples(150)
@given(CHANGES, BYTES)
def test_records(tmp_path, changes, how) -> None:
    check_record(tmp_path, changes, how)


@examples(150)
@given(CHANGES, BYTES)
def test_metrics(tmp_path, changes, how) -> None:
    check_metrics(tmp_path, changes, how)


@pytest.mark.slow
@examples(20000)
@given(CHANGES, BYTES)
def test_many_records_and_metrics(tmp_path, changes, how) -> None:
    check_record(tmp_path, changes, how)
    check_metrics(tmp_path, changes, how)


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1], [2**31]])
def test_seeds_that_cannot_be(seeds) -> None:
    record = json.loads((EXAMPLES / "run.json").read_text()) | {"seeds": seeds}
    with pytest.raises(ValueError, match="different whole numbers"):
        from_json(record)


# ------------------------------------------------------------------------------------ checkpoints

ARRAYS = st.integers(0, 10**6)
SPOIL = st.lists(
    st.tuples(ARRAYS, st.sampled_from(["drop", "add", "swap", "type", "cut", "shape"]), ARRAYS),
    max_size=2,
)


@pytest.fixture(scope="module")
def whole_checkpoint(oracle: Path) -> tuple[Path, Any]:
    """A checkpoint, and the state that it is of."""
    experiment = experiment_of(oracle)
    return oracle / "checkpoints" / "0003-00000.safetensors", jax.eval_shape(
        lambda: experiment.start(0)
    )


def spoil(arrays: dict[str, np.ndarray], spoils: Any) -> None:
    for which, how, other in spoils:
        names = sorted(arrays)
        name, second = names[which % len(names)], names[other % len(names)]
        array = arrays[name]
        if how == "drop":
            del arrays[name]
        elif how == "add":
            arrays[f"{name}.x"] = array
        elif how == "swap":
            arrays[name], arrays[second] = arrays[second], array
        elif how == "type":
            arrays[name] = array.astype([np.int8, np.float64, bool][other % 3])
        elif how == "cut":
            arrays[name] = array.ravel()[:-1].copy()
        else:
            arrays[name] = array[None].copy()


def check_checkpoint(
    whole: tuple[Path, Any], root: Path, spoils: Any, texts: Any, how: Any
) -> None:
    """By somebody who knows how to seal it, unless bytes are disturbed afterwards."""
    good, like = whole
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    arrays = load_file(good)
    spoil(arrays, spoils)
    notes, form = texts
    sealed = safetensors.numpy.save(arrays, checkpoint._sealed(arrays, form, notes))
    content = disturb(sealed, how)
    (root / good.name).write_bytes(content)
    try:
        found = checkpoint.newest(root, like)
    except EqpropError as error:
        assert_clear(error)
        return
    assert found is not None
    assert isinstance(found.notes, dict)
    assert (root / good.name).read_bytes() == content
    for ours, wanted in zip(jax.tree.leaves(found.state), jax.tree.leaves(like), strict=True):
        assert (ours.shape, ours.dtype) == (wanted.shape, wanted.dtype)


TEXTS = st.tuples(
    st.sampled_from(
        ['{"seconds": 1.0}', "{}", "[]", "", "[" * 10**5, "\x1b[31m", '{"seconds": NaN}']
    ),
    st.sampled_from(["eqprop 1", "eqprop 1", "eqprop 1", "eqprop 2", "pt"]),
)


@examples(30)
@given(SPOIL, TEXTS, BYTES)
def test_checkpoints(whole_checkpoint, tmp_path, spoils, texts, how) -> None:
    check_checkpoint(whole_checkpoint, tmp_path / "checkpoints", spoils, texts, how)


@pytest.mark.slow
@examples(2000)
@given(SPOIL, TEXTS, BYTES)
def test_many_checkpoints(whole_checkpoint, tmp_path, spoils, texts, how) -> None:
    check_checkpoint(whole_checkpoint, tmp_path / "checkpoints", spoils, texts, how)


def test_a_checkpoint_takes_no_more_memory_than_it_has_bytes(whole_checkpoint, tmp_path) -> None:
    """Shapes are those of the values that are there, whatever a header says."""
    good, like = whole_checkpoint
    content = good.read_bytes()
    for before, after in (
        (b"[64,16]", b"[9999,9999]"),
        (b'"F32"', b'"F64"'),
        (b'"F32"', b'"BF16"'),
    ):
        length = int.from_bytes(content[:8], "little")
        header = content[8 : 8 + length].replace(before, after)
        changed = len(header).to_bytes(8, "little") + header + content[8 + length :]
        (tmp_path / good.name).write_bytes(changed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(EqpropError, match="is damaged"):
            checkpoint.newest(tmp_path, like)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024  # KiB


def test_checkpoints_of_another_place_or_seed(oracle, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    found = run / "checkpoints" / "0003-00000.safetensors"
    found.rename(run / "checkpoints" / "0004-00000.safetensors")
    assert main(["evaluate", str(run)]) == 1
    assert "under another name" in one_line(capsys.readouterr().err)
    shutil.copytree(oracle / "checkpoints", run / "checkpoints", dirs_exist_ok=True)
    assert main(["evaluate", str(run)]) == 0
    assert "0004-00000.safetensors is damaged" in capsys.readouterr().out
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"seeds": [1]}))
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    assert "checkpoint of seed 0, not of seed 1" in one_line(capsys.readouterr().err)


def test_nothing_waits_for_a_pipe(oracle, tmp_path, capsys) -> None:
    run = tmp_path / "run"
    shutil.copytree(oracle, run)
    path = run / "checkpoints" / "0003-00000.safetensors"
    kept = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    assert main(["evaluate", str(run)]) == 1
    assert "it is no file" in one_line(capsys.readouterr().err)
    path.unlink()
    path.write_bytes(kept)
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    assert main(["resume", str(run), "--epochs", "4"]) == 1
    one_line(capsys.readouterr().err)
    (run / "run.json").unlink()
    os.mkfifo(run / "run.json")
    assert main(["evaluate", str(run)]) == 2
    one_line(capsys.readouterr().err)


# ---------------------------------------------------------------------------------------- pickles


def test_nothing_is_unpickled_in_the_life_of_a_run(tmp_path, monkeypatch) -> None:
    digits()  # scikit-learn brings joblib, which makes a subclass of the unpickler

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler", "_Unpickler", "_load", "_loads"):
        monkeypatch.setattr(pickle, name, refuse)
    run = tmp_path / "run"
    assert train(run, "--epochs", "1") == 0
    assert main(["resume", str(run), "--epochs", "2"]) == 0
    assert main(["evaluate", str(run)]) == 0


def test_no_module_imports_what_unpickles_or_runs_text() -> None:
    forbidden = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    for path in Path(eqprop.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.partition(".")[0] for alias in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in forbidden, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.unparse(node.value) == "False", path
