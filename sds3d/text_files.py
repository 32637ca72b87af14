"""Text files that people wrote, by whatever program: encodings, byte-order marks, line ends, tables."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from sds3d.errors import ConfigError

MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
DELIMITERS = ",;\t|"
SAVE = "save it as UTF-8 text: in a spreadsheet 'CSV UTF-8', in an editor the encoding UTF-8"
DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)")


def is_stand_in(data: bytes) -> bool:
    """Whether a file that begins so is what Git LFS leaves where the real one was not fetched."""
    return data.startswith(b"version https://git-lfs")


def refuse_stand_in(path: Path, data: bytes) -> None:
    """ConfigError where a file that begins so is such a one."""
    if is_stand_in(data):
        raise ConfigError(f"{path} only stands for the file, which Git LFS has", hint="git lfs pull")


def read_text(path: Path, most_bytes: int, what: str) -> str:
    """A text file, lines ended by one newline each. It is UTF-8, or what its byte-order mark says (UTF-8, 16 or 32).

    Nothing else is guessed: the same bytes are other letters in each of the older encodings. ConfigError for a file
    that cannot be read, has more than `most_bytes`, or is not such text; `what` it should be is in the message.
    """
    try:
        if path.stat().st_size > most_bytes:
            raise ConfigError(f"{path} has more than {most_bytes} bytes: not {what}")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    refuse_stand_in(path, data)
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = f"line {line} has the byte 0x{data[error.start]:02x}"
        raise ConfigError(f"{path} is not {encoding.removesuffix('-sig').upper()} text: {found}", hint=SAVE) from error
    if "\0" in text:
        raise ConfigError(f"{path} is no text: it has zero bytes, as UTF-16 without a byte-order mark", hint=SAVE)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """(number, line) of the lines that are not blank, from 1. Only a newline ends one: U+2028 may stand in a string."""
    return ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def read_table(text: str, known: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells by column) of the rows of a CSV that are not blank; empty cells are left out.

    The first row names the columns, in any case; a line `sep=;` may come before it. The delimiter is the one of comma,
    semicolon, tab and bar by which a column is named `known`. Where it is a semicolon, decimal commas become points.
    ValueError says what is wrong, with the line.
    """
    rows, delimiter = _rows(text, known)
    columns: list[str] = []
    for line, row in rows:
        if not any(row):
            continue
        if not columns:
            columns = [_column(name) for name in row]
            twice = next((name for name in columns if name and columns.count(name) > 1), None)
            if twice:
                raise ValueError(f"line {line}: two columns are named {twice}")
            continue
        if any(cell and not name for name, cell in zip(columns + [""] * len(row), row, strict=False)):
            problem = "more cells than columns, or a column without a name"
            raise ValueError(f"line {line}: {problem}; a cell with {delimiter!r} in it needs quotes")
        cells = {name: cell for name, cell in zip(columns, row, strict=False) if cell}
        if delimiter == ";":
            cells = {name: DECIMAL_COMMA.sub(r"\1.\2", cell) if DECIMAL_COMMA.fullmatch(cell) else cell
                     for name, cell in cells.items()}  # fmt: skip
        yield line, cells


def _column(name: str) -> str:
    return "_".join(name.lower().split())


def _rows(text: str, known: str) -> tuple[Iterator[tuple[int, list[str]]], str]:
    """(line, stripped cells) of every row, and the delimiter."""
    said = re.match(r'\s*"?sep=([,;\t|])"?[ ;,]*\n', text)
    lines_before = 0
    if said:
        lines_before, text = text[: said.end()].count("\n"), text[said.end() :]
    head = next((line for _, line in numbered_lines(text)), "x")
    names = {mark: next(csv.reader([head[:10_000]], delimiter=mark)) for mark in DELIMITERS}
    found = (mark for mark, cells in names.items() if known in map(_column, cells))
    delimiter = said[1] if said else next(found, ",")

    def rows() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                yield reader.line_num + lines_before, [cell.strip() for cell in row]
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num + lines_before}: not valid CSV: {error}") from error

    return rows(), delimiter
