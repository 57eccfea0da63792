"""Pictures inside an HTML page, light or dark: SVG in the page's own colours, and signed images.

Matplotlib draws; its colours are then exchanged for the CSS variables of the page, its fonts for
the page's own. Images hold no background: what is zero is transparent.
"""

import base64
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from jaxtyping import Shaped
from markupsafe import Markup
from matplotlib.rcsetup import cycler

from eqprop.training.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2563c9", "#c2500e", "#0c8068", "#8345c8", "#bf2f69", "#857000")
"""Colours of lines on a light page; on a dark one the page's variables ``--c0`` ... hold others."""
INK, MUTED = "#000000", "#808080"

_VARIABLES = {INK: "ink", MUTED: "muted", "#ffffff": "surface"} | {
    colour: f"c{n}" for n, colour in enumerate(COLOURS)
}
_POSITIVE, _NEGATIVE = (37, 122, 222), (222, 96, 22)
"""Blue and orange that show on white and on black alike."""

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.size": 8,
    "grid.color": MUTED,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "eqprop",
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_FAMILY = re.compile(r"font-family: [^;]*;? ?")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def figure(
    draw: Callable[["Figure"], None], label: str, name: str, size: tuple[float, float] = (3.6, 2.4)
) -> Markup:
    """What ``draw`` draws on a Matplotlib figure of ``size`` inches, as an SVG element.

    ``label`` is read out in its stead; ``name`` tells it from other figures of the page.
    """
    with matplotlib.rc_context(_STYLE):
        drawn = new_figure(size)
        draw(drawn)
        file = io.BytesIO()
        # Without the metadata, which would name a time and web addresses.
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        drawn.savefig(file, format="svg", metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())  # leaves comments out
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    _inline(root, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {"role": "img", "aria-label": label}
    # It escapes all text and attributes, so this is markup that says what was drawn.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _inline(root: ElementTree.Element, name: str) -> None:
    """Namespaces, global styles, colours, fonts and identifiers as they suit the inside of HTML."""
    for parent in list(root.iter()):
        for style in parent.findall(f"{_SVG}style"):
            parent.remove(style)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for key, value in list(element.attrib.items()):
            del element.attrib[key]
            element.attrib[key.removeprefix(_XLINK)] = _attribute(key, value, name)


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{_XLINK}href":
        return f"#{name}-{value[1:]}" if value.startswith("#") else value
    if key == "clip-path":
        return value.replace("url(#", f"url(#{name}-")
    if key == "style":
        return _COLOUR.sub(_variable, _FAMILY.sub("", value))
    return value


def _variable(match: re.Match[str]) -> str:
    return f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0]


def tint(values: Shaped[np.ndarray, "rows columns"]) -> Shaped[np.ndarray, "rows columns 4"]:
    """Signed values as colours, red, green, blue and opacity in bytes.

    Blue is positive, orange negative, and opacity the size in parts of the largest; zeros, and what
    is no number, are transparent.
    """
    finite = np.where(np.isfinite(values), values, 0.0)
    largest = np.abs(finite).max()
    rgba = np.empty((*values.shape, 4), np.uint8)
    rgba[..., :3] = np.where(finite[..., None] >= 0, _POSITIVE, _NEGATIVE)
    rgba[..., 3] = np.rint(255 * np.abs(finite) / largest) if largest else 0
    return rgba


def image(values: Shaped[np.ndarray, "rows columns"]) -> str:
    """Signed values as a picture of as many pixels, in the form of a ``data:`` address."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, tint(values), format="png", metadata=dict[str, Any](Software=None))
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
