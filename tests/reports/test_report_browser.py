"""A report in a real browser, without a screen: on a telephone and a desk, light and dark.

Chromium runs on a profile of its own and is told to stay off the network. Skipped where none is
installed.
"""

import html
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from eqprop.cli.main import main

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)}")

RECORDS = Path(__file__).parents[2] / "docs" / "records"
PHONE, DESK = 390, 1280
# A window is never narrower than 500 pixels, a frame is. It is looked at from outside, where the
# page's policy does not reach, for what is wider than the frame, but for what scrolls by itself.
FRAME = """<iframe style="width: {width}px; height: 1600px; border: 0" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const view = document.querySelector("iframe").contentWindow, seen = view.document;
  for (const details of seen.querySelectorAll("details")) details.open = true;
  const wide = [...seen.body.querySelectorAll("*")].filter(
    e => !e.parentElement.closest(".scroll, pre")
      && e.getBoundingClientRect().right > view.innerWidth + 1);
  document.documentElement.dataset.measured = [
    view.innerWidth, seen.documentElement.scrollWidth, wide.map(e => e.tagName).join("+"),
    seen.querySelector("svg text").getBoundingClientRect().height,
  ].join(" ");
}});
</script>"""

Browse = Callable[..., str]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """Opens a page, and returns the document (``--dump-dom``) and what was logged."""

    def run(page: Path, width: int, *options: str) -> str:
        command = [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            *("--enable-logging=stderr", f"--window-size={width},1600", *options, page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes, several seeds, an angle: of records of real runs, without their networks."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    runs = [*sorted((RECORDS / "ep-1h").iterdir()), RECORDS / "c-vf-1h-sweeps"]
    assert main(["report", *map(str, runs), "--no-theorem", "--out", str(out)]) == 0
    return out


def measure(text: str, width: int, folder: Path, browse: Browse) -> list[str]:
    """Width of the frame and of the page, elements that stick out, height of a text in a figure."""
    framed = folder / "framed.html"
    framed.write_text(FRAME.format(width=width, page=html.escape(text)), encoding="utf-8")
    (found,) = re.findall(r'data-measured="(.*?)"', browse(framed, DESK))
    return found.split(" ")


@pytest.mark.parametrize("width", [320, PHONE, 1200])
def test_it_fits_the_window(page: Path, width: int, browse: Browse, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    inner, scroll, wide, height = measure(text, width, tmp_path, browse)
    assert int(inner) == width
    assert int(scroll) <= width
    assert wide == ""
    assert float(height) >= 8  # pixels


def test_what_is_too_wide_would_be_seen(page: Path, browse: Browse, tmp_path: Path) -> None:
    block = '<div style="width: 500px">wide</div></body>'
    text = page.read_text(encoding="utf-8").replace("</body>", block)
    inner, scroll, wide, _ = measure(text, PHONE, tmp_path, browse)
    assert int(scroll) > int(inner)
    assert wide == "DIV"


@pytest.mark.parametrize(("scheme", "number"), [("light", 1), ("dark", 0)])
def test_light_and_dark(
    scheme: str, number: int, page: Path, browse: Browse, tmp_path: Path
) -> None:
    """The page and its figures are in the colours of the scheme, and nothing is complained of."""
    shot = tmp_path / "shot.png"
    setting = f"--blink-settings=preferredColorScheme={number}"
    logged = browse(page, DESK, setting, f"--screenshot={shot}")
    assert "CONSOLE" not in logged
    pixels = np.rint(255 * imread(shot)[..., :3]).astype(int)
    style = page.read_text(encoding="utf-8").split("</style>")[0]
    light, dark = (
        dict(re.findall(r"--(\w+): #(\w{6})", part)) for part in style.split("@media")[:2]
    )
    assert light.keys() == dark.keys()
    here, other = (light, dark) if scheme == "light" else (dark, light)
    assert pixels[5, 5].tolist() == list(bytes.fromhex(here["surface"]))

    def count(colour: str) -> int:
        return int((pixels == list(bytes.fromhex(colour))).all(axis=-1).sum())

    for name in ("ink", "c0", "c1"):
        assert count(here[name]) > 100, name
        assert count(other[name]) < 20, name
    assert count(here["surface"]) > pixels.shape[0] * pixels.shape[1] / 4


def test_a_complaint_would_be_seen(page: Path, browse: Browse, tmp_path: Path) -> None:
    """Also, that the page's own policy keeps scripts from running, and images from loading."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    evil = '<script>document.body.id = "ran"</script><img src="http://127.0.0.1:9/x.png" alt="x">'
    broken.write_text(text.replace("</body>", evil + "</body>"), "utf-8")
    logged = browse(broken, DESK)
    assert logged.count("CONSOLE") >= 2
    assert 'id="ran"' not in logged
