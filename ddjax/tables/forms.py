"""Forms of numbers, and of tables: Markdown, comma separated values and LaTeX."""

import csv
import io

__all__ = ["csv_table", "latex_table", "markdown_table", "named", "percent"]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with columns as wide as their longest cell."""
    widths = [
        max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))
    ]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(str(c).ljust(w) for c, w in zip(line, widths)) + " |"
        for line in lines
    )


def csv_table(header: list[str], rows: list[list[str]]) -> str:
    """The same, as comma separated values."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


_LATEX = str.maketrans(
    {char: "\\" + char for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "±": r"$\pm$"}
    | {"^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
)


def latex_table(header: list[str], rows: list[list[str]], caption: str = "") -> str:
    """The same, as a LaTeX table for the package booktabs; numbers to the right."""
    columns = zip(*rows) if rows else [[] for _ in header]
    align = "".join(
        "r" if any(cells) and all(map(_is_number, filter(None, cells))) else "l"
        for cells in (list(map(str, column)) for column in columns)
    )
    lines = [
        " & ".join(str(cell).translate(_LATEX) for cell in line) + r" \\"
        for line in (header, *rows)
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            *([rf"\caption{{{caption.translate(_LATEX)}}}"] if caption else []),
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _is_number(cell: str) -> bool:
    return cell.lstrip("-+")[:1].isdigit()


def named(rows, header) -> list[str]:
    """The header, with a first column where records name their runs."""
    return ["run", *header] if any(row.get("run") for row in rows) else header


def percent(group) -> str:
    """Mean ± std of a group of `groups.summarise`; "" for None."""
    if group is None:
        return ""
    spread = f" ± {100 * group['std']:.1f}" if group["n"] > 1 else ""
    return f"{100 * group['mean']:.1f}{spread}"
