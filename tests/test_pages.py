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
PAGES = ("README.md", "docs/quickstart.md", "docs/extending.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_prints_what_it_says(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    expected = re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE)
    assert expected
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # programs run once
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == expected


def test_each_way_to_extend_the_library_takes_less_than_thirty_lines() -> None:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?sm)^## A new (\w+)\n.*?```python\n(.*?)```", text)
    assert [what for what, _ in sections] == ["connection", "rule", "nudge", "cost"]
    assert all(len(code.splitlines()) < 30 for _, code in sections)
