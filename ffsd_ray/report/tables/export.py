"""A table as CSV, Parquet, Markdown and LaTeX."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ffsd_ray.errors import JobError
from ffsd_ray.report.tables.text import Printable
from ffsd_ray.terminal import csv_text, plain


def render_csv(table: Printable) -> str:
    """The table's frame under a head; numbers with six digits, lists with `; ` between their entries."""
    frame = table.frame().astype(object)
    text: str = frame.map(_csv_cell).rename(columns=csv_text).to_csv(index=False, lineterminator="\n")
    return text


def _csv_cell(value: Any) -> str:
    if value is None or value is pd.NA:
        return ""
    if isinstance(value, float):
        return f"{round(value, 12):.6g}"  # a difference of equal means is 0, not what rounding left of it
    return csv_text(value if isinstance(value, str) else "; ".join(map(str, value)) if np.ndim(value) else str(value))


def write_parquet(table: Printable, out: str) -> Path:
    """The table's frame, with title and captions in the schema's metadata.

    Raises:
        JobError: the file cannot be written.
    """
    path = Path(out)
    content = pa.Table.from_pandas(table.frame(), preserve_index=False)
    content = content.replace_schema_metadata({"title": table.title, "captions": "\n".join(table.captions)})
    try:
        pq.write_table(content, path)
    except OSError as error:
        raise JobError(f"--out {out}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    return path


def render_markdown(table: Printable) -> str:
    """A heading, the captions, a table a section and the notes."""
    text = table.text()
    lines = [f"### {_markdown(text.title)}", *(f"\n{_markdown(caption)}" for caption in text.captions)]
    dashes = ["---" if index < text.words else "---:" for index in range(len(text.head))]
    below = f"| {' | '.join(dashes)} |"
    for section in text.sections:
        lines += [f"\n**{_markdown(section.title)}**"] if section.title else []
        lines += ["", _markdown_row(text.head), below, *map(_markdown_row, section.rows)]
    lines += [f"\n[{number}] {_markdown(note)}" for number, note in enumerate(text.notes, 1)]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is: names and errors may hold elements, links, borders of tables and headings."""
    return re.sub(r"([\\`*<|&]|(?<=\])[(:]|^[#>+=~-](?!\d))", r"\\\1", plain(" ".join(text.split())))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown, cells))} |"


_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # A row that begins with one would be an option of the \\ before it.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        # What pdfLaTeX has no letter for.
        "±": r"$\pm$",
        "×": r"$\times$",
        "−": "$-$",
        "≤": r"$\leq$",
        "√": r"$\surd$",
        "²": r"\textsuperscript{2}",
        "α": r"$\alpha$",
        "λ": r"$\lambda$",
        "Δ": r"$\Delta$",
        "’": "'",
        "…": r"\dots{}",
        **{character: f"\\{character}" for character in "&%$#_"},
    }
)


def escaped(text: str) -> str:
    """Text as LaTeX that prints it on one line, unless it has letters beyond Latin ones."""
    return plain(" ".join(text.split())).translate(_SPECIAL)  # an empty line would end the table's row


def render_latex(table: Printable) -> str:
    """A `table` environment with title and captions as its caption, a group of rows a section, and the notes below."""
    text = table.text()
    columns = "l" * text.words + "r" * (len(text.head) - text.words)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(text.title)}. {' '.join(map(_sentence, text.captions))}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _latex_row(text.head),
    ]
    for section in text.sections:
        lines.append(r"\midrule")
        if section.title:
            lines.append(rf"\multicolumn{{{len(text.head)}}}{{l}}{{\emph{{{escaped(section.title)}}}}} \\")
        lines += map(_latex_row, section.rows)
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {escaped(f'[{number}] {note}')}}}" for number, note in enumerate(text.notes, 1)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    # A minus sign, not a hyphen.
    return " & ".join(re.sub(r"^-(?=\d)", "$-$", escaped(cell)) for cell in cells) + r" \\"


def _sentence(text: str) -> str:
    return f"{escaped(text[:1].upper() + text[1:])}."
