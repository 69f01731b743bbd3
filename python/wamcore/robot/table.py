"""A table of a TOML file that is read key by key: what is missing, unknown or of another type is an error."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NoReturn

from .._core import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


class Table:
    """Keys are taken out one by one; `finish` refuses what nobody took.

    Args:
        values: the table.
        file: for messages.
        where: the table's own key, e.g. "joints[2]"; "" for the file itself.
    """

    def __init__(self, values: dict[str, Any], file: Path, where: str = ""):
        self.values, self.file, self.where = dict(values), file, where

    def refuse(self, key: str, wanted: str, got: object) -> NoReturn:
        """Raises ConfigError: file, key, what was wanted and what came."""
        full = f"{self.where}.{key}" if self.where and key else self.where or key
        raise ConfigError(f"read_robot: {self.file}: {full}: wanted {wanted}, got {got}")

    def take(self, key: str, wanted: str) -> Any:
        """The value of a key that must be there."""
        if key not in self.values:
            self.refuse(key, wanted, "nothing")
        return self.values.pop(key)

    def has(self, key: str) -> bool:
        return key in self.values

    def number(self, key: str, wanted: str = "a number", *, positive: bool = False, least: float = -math.inf) -> float:
        """A finite number."""
        value = self.take(key, wanted)
        if not _finite(value) or value < least or (positive and not value > 0):
            self.refuse(key, wanted, repr(value))
        return float(value)

    def numbers(self, key: str, count: int, wanted: str) -> list[float]:
        """A list of `count` finite numbers."""
        value = self.take(key, wanted)
        if not isinstance(value, list) or len(value) != count or not all(map(_finite, value)):
            self.refuse(key, wanted, repr(value))
        return [float(v) for v in value]

    def text(self, key: str, wanted: str = "a text", choices: tuple[str, ...] = ()) -> str:
        """A text that is not empty; one of `choices` if there are any."""
        if choices:
            wanted = " or ".join(f'"{c}"' for c in choices)
        value = self.take(key, wanted)
        if not isinstance(value, str) or not value or (choices and value not in choices):
            self.refuse(key, wanted, repr(value))
        return value

    def texts(self, key: str, wanted: str) -> list[str]:
        """A list of texts, at least one."""
        value = self.take(key, wanted)
        if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
            self.refuse(key, wanted, repr(value))
        return value

    def flag(self, key: str) -> bool:
        """True or false; false if the key is missing."""
        value = self.values.pop(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "true or false", repr(value))
        return value

    def table(self, key: str) -> Table:
        """A table; empty if the key is missing."""
        value = self.values.pop(key, {})
        if not isinstance(value, dict):
            self.refuse(key, "a table", repr(value))
        return Table(value, self.file, f"{self.where}.{key}" if self.where else key)

    def tables(self, key: str) -> list[Table]:
        """A list of tables; empty if the key is missing."""
        value = self.values.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.refuse(key, "a list of tables", repr(value))
        where = f"{self.where}.{key}" if self.where else key
        return [Table(v, self.file, f"{where}[{i}]") for i, v in enumerate(value)]

    def finish(self) -> None:
        """Refuses keys that nobody took."""
        for key in self.values:
            self.refuse(key, "no such key", "one; is it misspelt?")


def read_table(path: Path) -> Table:
    """The file as a table.

    Raises:
        ConfigError: it cannot be read, or it is no TOML; a key that stands twice is an error there.
    """
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise ConfigError(f"read_robot: {path}: wanted at most {MAX_BYTES} bytes, got {len(data)}")
        return Table(tomllib.loads(data.decode()), path)
    except OSError as e:
        raise ConfigError(f"read_robot: {path}: {e.strerror}") from e
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise ConfigError(f"read_robot: {path}: {e}") from e


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
