"""Training in a notebook: one display that is updated, and lines that stay."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """
import numpy as np
import eqprop as ep

x = np.random.default_rng(0).normal(size=(60, 3))
data = ep.Dataset.from_arrays(x, (x[:, 0] > 0).astype(int))
run = ep.fit("ep-1h", data, "run", epochs=2, hidden=(4,), T=5, K=2)
"""


def test_a_training_shows_one_display_and_leaves_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    seen: list[tuple[str, Any]] = []

    class Client(NotebookClient):
        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            seen.append((msg["msg_type"], msg["content"]))
            return super().process_message(msg, cell, cell_index)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    place = {"metadata": {"path": str(tmp_path)}}
    Client(notebook, timeout=240, coalesce_streams=True, resources=place).execute()
    shown = [it["data"]["text/html"] for kind, it in seen if kind == "update_display_data"]
    assert any("epoch 1/2" in html and "loss" in html for html in shown)
    lines, display = notebook.cells[0].outputs
    assert "\x1b" not in lines.text
    assert [line[:9] for line in lines.text.splitlines()][-4:-2] == ["epoch 1/2", "epoch 2/2"]
    assert display.data["text/html"] == ""  # nothing of the display is left
