"""Counting, comparing and printing, for the comparison with peers.

code_lines(text)                     # lines that are neither blank nor comment
history_faults(rows, expected)       # "1 lost, 0 doubled, 2 changed"
markdown(columns)                    # name -> (measure -> value), as a table
"""

from __future__ import annotations

import ast
import collections
import io
import tokenize
from collections.abc import Mapping, Sequence

Row = Mapping[str, float]

_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


def code_lines(source: str) -> int:
    """Returns the number of lines with code: not blank, comment or docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef
        ) and ast.get_docstring(node):
            docstring = node.body[0]
            assert docstring.end_lineno is not None
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def history_faults(rows: Sequence[Row], expected: Sequence[Row]) -> str:
    """Tells how a history differs from the one that it should be.

    Args:
      rows: History of a resumed run, with `epoch` and `loss`.
      expected: History of the run that was not interrupted.

    Returns:
      "none", or the numbers of epochs that are lost, doubled and changed. A row is
      changed when its loss differs by more than one part in 100,000.
    """
    times = collections.Counter(row["epoch"] for row in rows)
    right = {row["epoch"]: row["loss"] for row in expected}
    faults = {
        "lost": sum(epoch not in times for epoch in right),
        "doubled": sum(count > 1 for count in times.values()),
        "changed": sum(
            abs(row["loss"] - right[row["epoch"]]) > 1e-5 * abs(right[row["epoch"]])
            for row in rows
            if row["epoch"] in right
        ),
    }
    return ", ".join(f"{n} {fault}" for fault, n in faults.items() if n) or "none"


def number(value: float) -> str:
    """Returns a difference as text: 0 if it is exactly that, else two digits."""
    return "0" if value == 0 else f"{value:.1e}"


def markdown(columns: Mapping[str, Mapping[str, object]]) -> str:
    """Returns a Markdown table with a column for each program.

    Args:
      columns: Program -> measure -> value. A program without measures is not installed.
    """
    heads = [name if of else f"{name} (not installed)" for name, of in columns.items()]
    measures = list(dict.fromkeys(m for column in columns.values() for m in column))
    cells = [["", *heads], ["---"] * (len(columns) + 1)]
    cells += [[m, *(str(of.get(m, "")) for of in columns.values())] for m in measures]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
