"""Print the public names and their signatures: python tests/public_api.py > tests/public_api.txt"""

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

MODULES = ("mfsf2", "mfsf2.layers", "mfsf2.heads", "mfsf2.models", "mfsf2.deploy", "mfsf2.weights")


def is_ours(member: Any) -> bool:
    return str(getattr(member, "__module__", "")).partition(".")[0] == "mfsf2"


def parameters(function: Any) -> str:
    """Names, kinds and defaults; annotations are left out, because Python's versions spell them differently."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def members_of(cls: type) -> Iterator[str]:
    """Public methods and properties that a class has from this package, also inherited ones."""
    for name in sorted(dir(cls)):
        raw = inspect.getattr_static(cls, name)
        function = raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw
        if name.startswith("_") or not is_ours(raw.fget if isinstance(raw, property) else function):
            continue
        yield f"    {name}" if isinstance(raw, property) else f"    {name}{parameters(function)}"


def describe(name: str, member: Any) -> Iterator[str]:
    if inspect.isclass(member):
        # torch's own constructors differ from version to version.
        is_torchs = getattr(member.__init__, "__module__", "").startswith("torch.")
        yield f"class {name}" + ("" if is_torchs else parameters(member))
        yield from members_of(member)
    else:
        yield f"{name}{parameters(member)}" if callable(member) else name


def public_api() -> str:
    """A line for each name; classes and functions are described where they come first."""
    lines: list[str] = []
    described: list[Any] = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            member, full_name = getattr(module, name), f"{module_name}.{name}"
            is_known = any(member is other for other in described)
            lines += [full_name] if is_known else describe(full_name, member)
            described.append(member)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(public_api(), end="")
