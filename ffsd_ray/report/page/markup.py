"""Elements of a page. What is text is escaped when the page is written."""

import re
from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ffsd_ray.report.plots.style import GRID, INK, MUTED, PAPER
from ffsd_ray.terminal import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The page's colours in place of a picture's, so that it is read on dark ground too.
_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PAPER: "var(--paper)"}
_XLINK = "{http://www.w3.org/1999/xlink}href"


def tag(name: str, *content: Element | str, **attributes: str) -> Element:
    """`class_` stands for the attribute `class`."""
    element = Element(name, {key.rstrip("_"): value for key, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            element.append(part)
        elif len(element):
            element[-1].tail = (element[-1].tail or "") + part
        else:
            element.text = (element.text or "") + part
    return element


def fold(summary: Element | str, *content: Element | str) -> Element:
    """A section that opens at a click, without a script."""
    return tag("details", tag("summary", summary), *content)


def html(elements: Iterable[Element]) -> str:
    return plain("\n".join(ElementTree.tostring(element, encoding="unicode", method="html") for element in elements))


def svg(figure: "Figure", title: str) -> Element:
    """A picture as part of the page: its ids are its own as long as titles differ, and it names nothing outside."""
    import matplotlib

    out = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = plain(out.getvalue())  # XML has no place for control characters
    for colour, own in _COLOURS.items():
        text = text.replace(colour, own)
    root = ElementTree.fromstring(text)
    for metadata in root.findall("{*}metadata"):
        root.remove(metadata)
    used = set(re.findall(r"#([\w-]+)", text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if _XLINK in element.attrib:
            element.set("href", element.attrib.pop(_XLINK))
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    # As large as it was drawn where there is room.
    width = root.attrib.pop("width")
    del root.attrib["height"]
    root.attrib |= {"role": "img", "aria-label": title, "style": f"max-width: {width}"}
    return root
