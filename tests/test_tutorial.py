"""The tutorial notebook runs, its assertions hold, and what it shows is what it prints."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from eqprop.data import named as data
from eqprop.errors import DataUnavailable

NOTEBOOK = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


def has_mnist(monkeypatch: pytest.MonkeyPatch) -> bool:
    def refuse(*args):
        raise DataUnavailable("no test downloads anything")

    with monkeypatch.context() as patch:
        patch.setattr(data, "_download", refuse)
        return data.load("mnist", fallback=True).name == "mnist"


def prints(notebook: nbformat.NotebookNode) -> list[str]:
    return [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = prints(notebook)
    training = next(n for n, text in enumerate(shown) if text.startswith("mnist: "))
    if not has_mnist(monkeypatch):
        shown = shown[:training]
        for cell in notebook.cells:
            cell.source = cell.source.replace('dataset="mnist"', 'dataset="digits"')
    place = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=240, coalesce_streams=True, resources=place)
    client.execute()
    assert prints(notebook)[: len(shown)] == shown
