"""A table for LaTeX, with the rules of the booktabs package."""

import re
from collections.abc import Sequence

from ffsd_ray.report.tables.text import Printable
from ffsd_ray.terminal import plain

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
    sheet = table.sheet()
    columns = "l" * sheet.words + "r" * (len(sheet.head) - sheet.words)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(sheet.title)}. {' '.join(map(_sentence, sheet.captions))}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(sheet.head),
    ]
    for section in sheet.sections:
        lines.append(r"\midrule")
        if section.title:
            lines.append(rf"\multicolumn{{{len(sheet.head)}}}{{l}}{{\emph{{{escaped(section.title)}}}}} \\")
        lines += map(_row, section.rows)
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par{{\footnotesize {escaped(f'[{number}] {note}')}}}" for number, note in enumerate(sheet.notes, 1)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _row(cells: Sequence[str]) -> str:
    # A minus sign, not a hyphen.
    return " & ".join(re.sub(r"^-(?=\d)", "$-$", escaped(cell)) for cell in cells) + r" \\"


def _sentence(text: str) -> str:
    return f"{escaped(text[:1].upper() + text[1:])}."
