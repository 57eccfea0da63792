"""The Python blocks of the README and of the pages in docs/ run, and print what their comments say.

The blocks of a page are one program, run as a reader would: without the type checks of the tests.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/quickstart.md", "docs/your-data.md", "docs/extending.md")
# Trainings tell of their progress on standard output, too.
PRELUDE = """
import functools
print = functools.partial(print, file=open("printed", "w", encoding="utf-8"), flush=True)
"""


def check(page: str, fences: str, folder: Path) -> None:
    """The blocks with these fences print what their comments say."""
    text = (ROOT / page).read_text(encoding="utf-8")
    program = "\n".join(re.findall(rf"```(?:{fences})\n(.*?)```", text, re.DOTALL))
    expected = re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE)
    assert expected
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # programs run once
    )
    assert result.returncode == 0, result.stderr
    assert (folder / "printed").read_text(encoding="utf-8").splitlines() == expected


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_says(page: str, tmp_path: Path) -> None:
    check(page, "python", tmp_path)


def test_an_exported_network_in_pytorch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    check("docs/your-data.md", "python|py", tmp_path)


def test_each_way_to_extend_the_library_takes_less_than_thirty_lines() -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?sm)^## A new (\w+)\n.*?```python\n(.*?)```", text)
    assert [what for what, _ in sections] == ["connection", "rule", "nudge", "cost"]
    assert all(len(code.splitlines()) < 30 for _, code in sections)
