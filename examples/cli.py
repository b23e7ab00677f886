"""Command lines of the scripts: typed options, short errors."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from difflib import get_close_matches
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from datasets import DataError
from jsonargparse import ArgumentParser, auto_cli
from safetensors import SafetensorError

__all__ = ["Parser", "as_dict", "check_ranges", "exit_on_data_error", "parse_config", "run_function"]

T = TypeVar("T")


class Parser(ArgumentParser):
    """Takes options by their whole names; says what is wrong with one, not how all of them are used."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        given = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        near = [name for word in given if word not in options for name in get_close_matches(word, options, 1)]
        hint = f"did you mean {', '.join(near)}? " if near else ""
        sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {message.strip()}\n({hint}--help lists the options)\n")
        raise SystemExit(2)


def parse_config(kind: type[T], argv: Sequence[str] | None, description: str) -> T:
    """A dataclass from the command line and the YAML file that ``--config`` names.

    Ends the script with a message where an option is unknown or a value is not allowed.
    """
    parser = Parser(description=description)
    parser.add_argument("--config", action="config", help="YAML file; later arguments override it")
    parser.add_class_arguments(kind, as_group=False)
    namespace = parser.parse_args(argv)
    try:
        config = parser.instantiate(namespace)
        return kind(**{field.name: config[field.name] for field in fields(kind)})  # type: ignore[arg-type]
    except ValueError as error:
        parser.error(str(error))


def run_function(function: Callable[..., T], argv: Sequence[str] | None) -> T:
    """Call a function with the arguments that the command line gives it.

    Ends the script with a message where an argument is unknown, a value is not allowed, or data cannot be used.
    """
    with exit_on_data_error():
        args = join_lists(sys.argv[1:] if argv is None else argv, function)
        result: T = auto_cli(function, args=args, as_positional=False, parser_class=Parser)
        return result


def join_lists(argv: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """``--names a b`` as ``--names '["a", "b"]'`` for each argument that is a list, as jsonargparse wants them."""
    hints = get_type_hints(function)
    lists = {f"--{name}": get_args(hint) for name, hint in hints.items() if get_origin(hint) in (list, tuple)}
    options: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not options:
            options.append([word])
        else:
            options[-1].append(word)
    for option in options:
        name, *values = option
        if name in lists and values and not values[0].startswith("["):
            option[1:] = [f"[{', '.join(map(json.dumps, values) if str in lists[name] else values)}]"]
    return list(chain.from_iterable(options))


@contextmanager
def exit_on_data_error() -> Iterator[None]:
    """End the script with a message, not a traceback, where data cannot be used or a file cannot be written."""
    try:
        yield
    except (DataError, OSError, SafetensorError) as error:
        raise SystemExit(str(error)) from error


def as_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain values, for YAML and JSON."""
    plain: dict[str, Any] = _plain(asdict(config))
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def check_ranges(config: Any, ranges: dict[str, str]) -> None:
    """Check numbers against intervals: ``[`` and ``]`` include the bound, ``(`` and ``)`` do not.

    Args:
        config: nested dataclasses.
        ranges: interval to names of fields, with dots and separated by spaces.

    Raises:
        ValueError: names the field, its value and the interval.
    """
    for interval, names in ranges.items():
        low, high = map(float, interval[1:-1].split(","))
        for name in names.split():
            value = attrgetter(name)(config)
            for number in value if isinstance(value, (list, tuple)) else [value]:
                above = number > low or (interval[0] == "[" and number == low)
                if not (above and (number < high or (interval[-1] == "]" and number == high))):
                    raise ValueError(f"{name}={value} must be in {interval}")
