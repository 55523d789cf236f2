"""The tables of federation.toml, each of which knows its place: every key is checked.

A secret does not stand in the file: ``${NAME}`` takes it, or a whole URL, from the environment.
Every objection names the file, the key, and what to write.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from flmq.common.errors import UsageError
from flmq.common.names import MAX_NAME_LENGTH, is_name

__all__ = ["VARIABLE", "InvalidFederation", "Table", "hint", "read_tables"]

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""What stands for a text of the environment."""


class InvalidFederation(UsageError):
    """A file of sites cannot be used."""

    def __init__(self, file: Path, key: str, objection: str) -> None:
        """Name the ``file`` and the ``key`` in it; ``objection`` says what to write."""
        self.file = file
        self.key = key
        super().__init__(f"{file}: {key + ': ' if key else ''}{objection}")


def read_tables(file: Path, environ: Mapping[str, str] | None = None) -> Table:
    """Read ``file``; ``${NAME}`` in it comes from ``environ``, the process's unless given.

    Raises:
        InvalidFederation: it cannot be read, or is not TOML.
    """
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFederation(file, "", f"cannot be read ({error})") from error
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidFederation(file, "", f"is not TOML: {error}") from error
    return Table(file, "", tables, os.environ if environ is None else environ)


class Table:
    """One table of the file, which knows where it stands in it."""

    def __init__(
        self, file: Path, where: str, values: Mapping[str, Any], environ: Mapping[str, str]
    ) -> None:
        """Be the table ``where`` of ``file``, with its ``values``."""
        self.file = file
        self.where = where
        self._values = values
        self._environ = environ

    def key(self, name: str) -> str:
        """Return how a key is named in objections."""
        return f"{self.where}.{name}" if self.where else name

    def objection(self, name: str, text: str) -> InvalidFederation:
        """Return the error about a key; ``text`` says what to write."""
        return InvalidFederation(self.file, self.key(name), text)

    def check_keys(self, known: Collection[str]) -> None:
        """Object to a key that is not ``known``."""
        for name in self._values:
            if name not in known:
                raise self.objection(name, f"unknown key; {hint(name, known)}")

    def has(self, name: str) -> bool:
        """Return whether a key is given."""
        return name in self._values

    def table(self, name: str) -> Self:
        """Return an inner table, which is empty if it is not given."""
        found = self._values.get(name, {})
        if not isinstance(found, dict):
            raise self.objection(name, f"must be a table: [{self.key(name)}]")
        return self._inner(self.key(name), found)

    def tables(self, name: str, *, some: bool = False) -> list[Self]:
        """Return the tables ``[[name]]``; with ``some``, there must be one."""
        found = self._values.get(name, [])
        if not (isinstance(found, list) and all(isinstance(each, dict) for each in found)):
            raise self.objection(name, f"write a table [[{name}]] for each")
        if some and not found:
            raise self.objection(name, f"names none: write a table [[{name}]] for each")
        return [
            self._inner(f"{name} {each.get('name', number)!r}", each)
            for number, each in enumerate(found, 1)
        ]

    def texts(self, name: str) -> list[str] | None:
        """Return a list of texts, as they stand; None: there is none."""
        value = self._values.get(name)
        if value is None:
            return None
        if not (isinstance(value, list) and value and all(isinstance(each, str) for each in value)):
            raise self.objection(name, 'must be a list of texts: ["...", "..."]')
        return value

    def one_of(self, name: str, known: Collection[str], default: str) -> str:
        """Return a text that is one of ``known``."""
        value = self._values.get(name, default)
        if value not in known:
            raise self.objection(name, f"is {value!r}; {hint(str(value), known)}")
        return str(value)

    def is_list(self, name: str) -> bool:
        """Return whether a value is written as a list."""
        return isinstance(self._values.get(name), list)

    def number(self, name: str, default: int, allowed: range) -> int:
        """Return a whole number that is in the range ``allowed``."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
            raise self.objection(
                name, f"is {value!r}: give a whole number, {allowed[0]} to {allowed[-1]}"
            )
        return value

    def text(self, name: str, *, quoted: bool = False) -> str | None:
        """Return a text with its variables, each ``quoted`` if it is only a part of a URL."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self.objection(name, 'must be a text in quotes: "..."')
        whole = VARIABLE.fullmatch(value) is not None

        def resolved(found: re.Match[str]) -> str:
            variable = found[1]
            if variable not in self._environ:
                raise self.objection(name, f"the environment has no {variable}: set it")
            read = self._environ[variable]
            return quote(read, safe="") if quoted and not whole else read

        return VARIABLE.sub(resolved, value)

    def name(self, key: str) -> str | None:
        """Return a name of a site or tenant; None: it is not given."""
        value = self.text(key)
        if value is not None and not is_name(value):
            raise self.objection(
                key,
                f"{value[:80]!r} is no name: choose 1 to {MAX_NAME_LENGTH} characters "
                "of A-Z, a-z, 0-9, '_' and '-'",
            )
        return value

    def written(self, name: str) -> str:
        """Return a text as it stands in the file, with its variables."""
        return str(self._values.get(name, ""))

    def _inner(self, where: str, values: Mapping[str, Any]) -> Self:
        return type(self)(self.file, where, values, self._environ)


def hint(unknown: str, known: Collection[str]) -> str:
    """Return which of the ``known`` names was meant, or all of them."""
    near = difflib.get_close_matches(unknown, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
