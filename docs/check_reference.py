"""Is all that is public in the API reference? Asked by conf.py at the end of each build, where an
absence is a warning, hence an error.
"""

from __future__ import annotations

import inspect
from types import ModuleType


def public_names(module: ModuleType) -> set[str]:
    """The names of `module.__all__` and the public methods of the classes among them, with the
    module's name before them.
    """
    names = set()
    for name in module.__all__:
        thing = getattr(module, name)
        names.add(f"{module.__name__}.{name}")
        if not inspect.isclass(thing):
            continue
        for owner in thing.__mro__:
            if owner.__module__.split(".")[0] != module.__name__.split(".")[0]:
                continue  # what object, dict, Exception and the like bring is documented by Python
            for method, value in vars(owner).items():
                if not method.startswith("_") and inspect.isroutine(value):
                    names.add(f"{module.__name__}.{name}.{method}")
    return names


def missing(documented: set[str], *modules: ModuleType) -> list[str]:
    """The public names of `modules` that are not among `documented`."""
    return sorted(set().union(*(public_names(module) for module in modules)) - documented)
