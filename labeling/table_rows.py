"""What a row of a table means: rows of CSV and Parquet become the lines of `labeling.exchange_lines`, and back.

Prompts, pairs and unpaired completions have TRL's columns: in Parquet conversations are lists of messages (TRL's
conversational format); in CSV a conversation of one user turn, or one response, is its text (the standard format),
and any other is a list of messages in JSON. Labels are one row each in both, flat, with lists in JSON, so that a
spreadsheet or a data frame holds all of them; a slate without labels has one row without an annotator.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from labeling.argilla_records import is_argilla
from labeling.exchange_lines import Format, ReadFormat, format_of_keys
from labeling.jsonl import parse_value
from labeling.label_studio import refuse_shortened
from labeling.parquet_files import write_parquet
from labeling.records import UserError
from labeling.tables import Row, Table, write_csv

LABEL_COLUMNS: dict[str, type] = {  # list: a list or object in JSON
    "slate": str,
    "prompt": str,
    "split": str,
    "category": str,
    "candidates": list,
    "policies": list,
    "finished": list,
    "clips": list,
    "segments": list,
    "run": str,
    "iteration": int,
    "selector": str,
    "propensity": float,
    "reward_model": str,
    "predicted": list,
    "requests": list,
    "gold": list,
    "annotator": str,
    "kind": str,
    "weight": float,
    "flip_rate": float,
    "revoked": str,
    "outcome": str,
    "ranks": list,
    "probability": float,
    "strength": float,
    "order": list,
    "seconds": float,
    "created": float,
    "reason": str,
    "unranked": list,
    "flags": list,
    "criteria": list,
    "purpose": str,
    "client_key": str,
    "supersedes": str,
}
SLATE_LISTS = {
    "candidates": "text",
    "policies": "policy",
    "finished": "finished",
    "clips": "clip",
    "segments": "segment",  # what a clip shows, or null
}
WITHOUT = {"clip": ""}  # what stands for a key that a candidate does not have, where that is not null
LINEAGE = ("run", "iteration", "selector", "propensity", "reward_model", "predicted", "requests")
MAY_LACK = {"requests", "gold", "revoked"}  # tables that were exported before there were any
ANNOTATOR = {
    "annotator": "id",
    "kind": "kind",
    "weight": "weight",
    "flip_rate": "flip_rate",
    "revoked": "revoked",
}
SAID: tuple[str, ...] = (
    "outcome",
    "ranks",
    "probability",
    "strength",
    "order",
    "seconds",
    "created",
    "reason",
    "unranked",
    "flags",
)
SAID += ("criteria", "purpose", "client_key", "supersedes")
COLUMNS: dict[Format, tuple[str, ...]] = {
    "prompts": ("prompt", "split", "category"),
    "pairs": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", "label"),
    "labels": tuple(LABEL_COLUMNS),
}
TALKS = ("prompt", "chosen", "rejected", "completion")  # columns that hold a conversation or a part of one


def write_table(path: Path, what: Format, lines: Iterable[Mapping[str, Any]]) -> int:
    """Write lines as a table, in the format that the file's name ends in, and return how many rows.

    Of labels, each line is a slate with its id under `slate`. Raises UserError when the file cannot be written.
    """
    columns = COLUMNS[what]
    rows = (row for line in lines for row in label_rows(line)) if what == "labels" else map(_conversational, lines)
    if path.suffix.lower() == ".parquet":
        return write_parquet(path, _schema(what), rows)
    return write_csv(path, columns, rows if what == "labels" else map(_standard, rows))


def _schema(what: Format) -> Any:
    import pyarrow

    messages = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), list: pyarrow.string()}
    types = {name: kinds[kind] for name, kind in LABEL_COLUMNS.items()}
    if what != "labels":
        types |= dict.fromkeys(TALKS, messages) | {"label": pyarrow.bool_()}
    return pyarrow.schema([(name, types[name]) for name in COLUMNS[what]])


def _conversational(line: Mapping[str, Any]) -> Row:
    """The line with its prompt as a list of messages, under `prompt`."""
    if "messages" in line:
        return {**line, "prompt": line["messages"]}
    asked = line["prompt"]
    return {**line, "prompt": [{"role": "user", "content": asked}] if isinstance(asked, str) else asked}


def _standard(row: Row) -> Row:
    """The row with every conversation as text: of a single user turn or response its content, else JSON."""
    asker = {"prompt": "user"}
    return {key: _talk_cell(cell, asker.get(key, "assistant")) if key in TALKS else cell for key, cell in row.items()}


def _talk_cell(turns: Sequence[Mapping[str, Any]], role: str) -> str:
    alone = len(turns) == 1 and turns[0]["role"] == role
    # A text that looks like messages would be read back as such: it is wrapped into one message.
    plain = alone and isinstance(_talk(turns[0]["content"]), str)
    return turns[0]["content"] if plain else json.dumps(list(turns), ensure_ascii=False)


def _talk(cell: Any) -> Any:
    """What a cell of TALKS says: text, or messages. Inverse of `_talk_cell` for the text in CSV."""
    if isinstance(cell, list):  # Parquet's structs name every key, also those that a message does not have
        return [{k: v for k, v in turn.items() if v is not None} if isinstance(turn, dict) else turn for turn in cell]
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        try:
            turns = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        if all(isinstance(turn, dict) and turn.keys() == {"role", "content"} for turn in turns):
            return parse_value(cell.encode())
    return cell


def label_rows(line: Mapping[str, Any]) -> Iterator[Row]:
    """One row for each label of a line as `exchange_lines.label_line` makes it, with the slate's id under `slate`."""
    asked = _conversational(line)["prompt"]
    slate: Row = dict.fromkeys(LABEL_COLUMNS)
    slate |= {key: line[key] for key in ("slate", "split", "category")} | {"prompt": _talk_cell(asked, "user")}
    slate |= {
        name: _json([c.get(key, WITHOUT.get(key)) for c in line["candidates"]]) for name, key in SLATE_LISTS.items()
    }
    whence = {key: line["lineage"].get(key) for key in LINEAGE} | {"gold": line.get("gold")}
    slate |= {key: _json(cell) if isinstance(cell, list | tuple) else cell for key, cell in whence.items()}
    for label in line["labels"]:
        said = {key: label.get(key) for key in SAID}
        said |= {key: None if said[key] is None else _json(said[key]) for key in SAID if LABEL_COLUMNS[key] is list}
        yield slate | said | {name: label["annotator"].get(key) for name, key in ANNOTATOR.items()}
    if not line["labels"]:
        yield slate


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def chosen_columns(path: Path, table: Table) -> tuple[ReadFormat | None, tuple[str, ...], tuple[str, ...]]:
    """Which format a table has (None: it holds records of Argilla), which columns are read, and which are left.

    Raises UserError when the columns are of no known format.
    """
    every = (*table.columns, *table.unreadable)
    try:
        refuse_shortened(every, "CSV")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if is_argilla(every):
        if table.unit == "line":
            raise UserError(f"{path}: a record of Argilla does not fit into CSV: export it as JSON or Parquet")
        return None, table.columns, tuple(table.unreadable)
    if {"candidates", "client_key"} & set(every):
        what: ReadFormat = "labels"
        missing = sorted(LABEL_COLUMNS.keys() - MAY_LACK - set(table.columns))
        if missing:
            cure = "export it again, or call responses that nobody compared response_1, response_2, …"
            raise UserError(f"{path}: a table of labels needs the column {missing[0]!r}: {cure}")
        known = set(LABEL_COLUMNS)
    else:
        what, known = format_of_keys(every)
    for name, held in table.unreadable.items():
        if name in known:
            raise UserError(f"{path}: the column {name!r} holds {held}, not text, numbers or lists: convert it")
    used = tuple(name for name in table.columns if name in known)
    if not used:
        found = ", ".join(map(repr, table.columns[:8]))
        need = "it needs 'prompt', and 'response_1', 'response_2' or 'chosen', 'rejected'; first line, with commas"
        raise UserError(f"{path}: no column has a name that is known here, only {found[:200]}: {need}")
    return what, used, tuple(name for name in every if name not in known)


def line_of(what: ReadFormat | None, row: Row) -> dict[str, Any]:
    """A row as the line that `labeling.exchange_lines` reads. Raises UserError for a cell that cannot be read."""
    if what is None:
        return row
    if what == "labels":
        return _label_line({name: _typed(name, row.get(name)) for name in LABEL_COLUMNS})
    line = {key: _talk("" if cell is None and key in TALKS else cell) for key, cell in row.items()}
    if isinstance(line.get("label"), str):
        line["label"] = _typed("label", line["label"])
    return {key: cell for key, cell in line.items() if cell is not None}


def _typed(name: str, cell: Any) -> Any:
    """A cell by its column's kind; text is converted, other values are what they are."""
    kind = LABEL_COLUMNS.get(name, bool)
    if not isinstance(cell, str) or kind is str:
        return cell
    try:
        if kind is list:
            return parse_value(cell.encode())
        return {"true": True, "false": False}[cell.lower()] if kind is bool else kind(cell)
    except (ValueError, KeyError) as error:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise UserError(f"{name!r} must be {wanted}, not {cell!r}") from error
    except UserError as error:
        raise UserError(f"{name!r} is {error}") from error


def _label_line(row: Row) -> dict[str, Any]:
    lists = [row[name] if isinstance(row[name], list) else [] for name in SLATE_LISTS]
    if len(set(map(len, lists))) != 1:
        raise UserError(f"{', '.join(map(repr, SLATE_LISTS))} must be lists of the same length in JSON")
    candidates = [
        {key: value for key, value in zip(SLATE_LISTS.values(), values, strict=True) if value is not None}
        for values in zip(*lists, strict=True)
    ]
    line: dict[str, Any] = {"prompt": _talk(row["prompt"]), "split": row["split"], "category": row["category"]}
    line |= {"candidates": candidates, "lineage": {key: row[key] for key in LINEAGE}}
    line["gold"] = row["gold"]
    said = {key: row[key] for key in SAID if row[key] is not None}
    if row["annotator"] is not None:
        said["annotator"] = {key: row[name] for name, key in ANNOTATOR.items()}
    return line | {"labels": [said] if said else []}
