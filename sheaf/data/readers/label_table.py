"""Parsing of a CSV table of labels: which columns contain the names of files, their labels and splits.

The delimiter is a comma, semicolon, tab or vertical bar. The first row is a header if its cells name no file,
and it contains a common name of such a column or the next row names a file. ``data.input`` and ``data.label``
choose other columns. A column is one of splits if its values are names of splits.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from sheaf.core.errors import DataError
from sheaf.data.readers.encoded import abbreviate
from sheaf.data.readers.folder_layout import SPLIT_OF

logger = logging.getLogger("sheaf")

SUFFIXES = frozenset({".csv", ".tsv"})
DELIMITERS = ",;\t|"
ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte-order mark -> encoding; all other tables are UTF-8."""

FILE_NAMES = (
    *("filename", "file", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "img"),
    *("imgname", "imgpath", "audio", "audiofile", "audiofilename", "audiopath", "sound", "soundfile"),
    *("clip", "fname", "slicefilename", "wav", "photo", "picture", "imageid", "id", "name"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classname", "classlabel", "category", "categoryname", "target"),
    *("species", "breed", "tag", "word", "y", "classid", "labelid", "categoryid"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "partition")
"""Common names of the columns, without capitals and punctuation, in the order of precedence."""

IsFile = Callable[[str], bool]
Row = tuple[int, list[str]]
"""(number, cells)."""


@dataclass(frozen=True)
class LabelRow:
    """A row of the table.

    Attributes:
        number: of its line as spreadsheets count, from 1 with the header.
        file: the name of the file.
        label: not empty.
        split: train, test or validation; None without a column of splits.
    """

    number: int
    file: str
    label: str
    split: str | None


def read_label_table(
    path: Path,
    is_file: IsFile,
    suffixes: Collection[str],
    file_column: str | None = None,
    label_column: str | None = None,
) -> list[LabelRow]:
    """Return the rows of the table at ``path``.

    Args:
        path: of the table.
        is_file: whether a cell names an existing file.
        suffixes: of the files, in lower case.
        file_column: the header of the column of files. Unset: see the module's docstring.
        label_column: the header of the column of labels, likewise.

    Raises:
        DataError: the table cannot be read, a column is missing or ambiguous, or a cell is empty.
    """
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} has no rows; add one for each file")
    first = rows[0][1]
    known = not {*FILE_NAMES, *LABEL_NAMES, *SPLIT_COLUMNS}.isdisjoint(map(_simple, first))
    has_header = bool(file_column or label_column)
    if not has_header and not any(is_file(cell) or cell.lower().endswith(tuple(suffixes)) for cell in first):
        has_header = known or (len(rows) > 1 and any(map(is_file, rows[1][1])))
        if has_header and not known:
            logger.info("%s: the first row is taken for the header: %s", path, abbreviate(first))
    header, body = (first, rows[1:]) if has_header else (None, rows)
    if not body:
        raise DataError(f"{path} has no rows below its header; add one for each file")
    files = _file_column(path, header, body, is_file, file_column)
    splits = _split_column(path, header, body)
    labels = _label_column(path, header, len(first), (files, splits), label_column)
    parsed = []
    for number, cells in body:
        for kind, column in (("name of a file", files), ("label", labels)):
            if column >= len(cells) or not cells[column]:
                raise DataError(f"{path}, row {number} has no {kind}; add it, or remove the row")
        split = None if splits is None else SPLIT_OF[cells[splits].lower()]
        parsed.append(LabelRow(number, cells[files], cells[labels], split))
    return parsed


def _split_column(path: Path, header: Sequence[str] | None, body: Sequence[Row]) -> int | None:
    """Return the index of the column of splits; None without one.

    Raises:
        DataError: some of its values are names of splits, and others are not.
    """
    column = _column(header, SPLIT_COLUMNS)
    if column is None:
        return None
    values = {
        cells[column].lower() if column < len(cells) else "": number for number, cells in reversed(body)
    }
    others = {value: number for value, number in values.items() if value not in SPLIT_OF}
    if len(others) == len(values):
        logger.info("%s: the column %r does not contain splits", path, (header or ())[column])
        return None
    if others:
        value, number = min(others.items(), key=itemgetter(1))
        raise DataError(
            f"{path}, row {number}: the split is {value!r}, but must be train, test or validation; correct it"
        )
    return column


def _rows(path: Path) -> list[Row]:
    """Return (number, stripped cells) of each row that is not empty."""
    content = path.read_bytes()
    encoding = ENCODINGS.get(content[:2], "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 at byte {error.start}; save it again as CSV in UTF-8"
        ) from error
    start = text.lstrip().splitlines()[:1]
    try:
        delimiter = max(DELIMITERS, key=lambda one: len(next(csv.reader(start, delimiter=one), [])))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        rows = [(number, [cell.strip() for cell in row]) for number, row in enumerate(reader, 1)]
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV table: {error}; save it again as CSV in UTF-8") from error
    return [(number, row) for number, row in rows if any(row)]


def _file_column(
    path: Path,
    header: Sequence[str] | None,
    body: Sequence[Row],
    is_file: IsFile,
    chosen: str | None,
) -> int:
    """Return the index of the column of files: the chosen one, or the first whose cells name files."""
    if chosen is not None:
        return _chosen_column(path, header or (), "input", chosen)
    named = [] if header is None else [_simple(cell) for cell in header]
    width = max(len(cells) for _, cells in body)
    by_name = sorted(range(width), key=lambda column: _precedence(named, column))
    for _, cells in body[:10]:  # some rows may name missing files
        for index in by_name:
            if index < len(cells) and is_file(cells[index]):
                return index
    column = _column(header, FILE_NAMES)
    if column is not None:
        return column  # its files are missing: the reader names the first one
    number, cells = body[0]
    raise DataError(
        f"{path}, row {number} names no file beside it or in a folder beside it: {abbreviate(cells)}; "
        "correct the names, or choose the column of files with data.input"
    )


def _precedence(named: Sequence[str], column: int) -> int:
    name = named[column] if column < len(named) else ""
    return FILE_NAMES.index(name) if name in FILE_NAMES else len(FILE_NAMES) + column


def _label_column(
    path: Path, header: Sequence[str] | None, width: int, taken: Iterable[int | None], chosen: str | None
) -> int:
    """Return the index of the column of labels: the chosen one, a common name, or the only other column."""
    if chosen is not None:
        return _chosen_column(path, header or (), "label", chosen)
    column = _column(header, LABEL_NAMES)
    if column is not None and column not in taken:
        return column
    others = [column for column in range(width) if column not in taken]
    if len(others) == 1:
        return others[0]
    if not others:
        raise DataError(f"{path} has one column, but needs one of file names and one of labels; add labels")
    if header is None:
        raise DataError(
            f"{path} has {width} columns without a header; add a first row with the names of the columns, "
            "such as file,label"
        )
    raise DataError(
        f"{path}: the columns {abbreviate(header, 20)} do not show which one contains the labels; "
        "choose it with data.label"
    )


def _chosen_column(path: Path, header: Sequence[str], key: str, name: str) -> int:
    if header.count(name) != 1:
        count = header.count(name) or "no"
        raise DataError(
            f"{path} has {count} column{'s' if header.count(name) else ''} {name!r}; choose one that exists "
            f"once with data.{key}: {abbreviate(header, 20)}"
        )
    return header.index(name)


def _column(header: Sequence[str] | None, names: Sequence[str]) -> int | None:
    """Return the index of the column with the first of ``names`` that the header contains."""
    named = [] if header is None else [_simple(cell) for cell in header]
    return next((named.index(name) for name in names if name in named), None)


def _simple(name: str) -> str:
    """Return a name without capitals and punctuation: ``File Name`` and ``file_name`` are ``filename``."""
    return re.sub(r"[\W_]", "", name.lower())
