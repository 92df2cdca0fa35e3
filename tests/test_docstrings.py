"""The examples of all docstrings give what they say, and docstrings of the compiled core say what can go wrong."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("torch", reason="some examples show tensors")
pytest.importorskip("typer", reason="the command line is among the modules")
pytest.importorskip("matplotlib", reason="the plots are among the modules")

import expert_placement
import expert_placement.torch
from expert_placement import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = [kind for kind in vars(_core).values() if inspect.isclass(kind)]


def compiled() -> Iterator[tuple[str, str]]:
    """The docstrings of the compiled core with their names, since `doctest` looks at Python functions only."""
    for kind in CLASSES:
        yield kind.__name__, kind.__doc__ or ""
        for name in vars(kind):
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}", getattr(kind, name).__doc__ or ""


def examples() -> Iterator[doctest.DocTest]:
    finder, parser = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestParser()
    for module in pkgutil.walk_packages(expert_placement.__path__, "expert_placement."):
        if not module.name.endswith(("__main__", "_core")):
            loaded = importlib.import_module(module.name)
            yield from finder.find(loaded, module.name)
    yield from finder.find(expert_placement, "expert_placement")
    names: dict[str, Any] = {name: getattr(expert_placement, name) for name in expert_placement.__all__}
    for name, text in compiled():
        yield parser.get_doctest(inspect.cleandoc(text), dict(names), f"_core.{name}", None, None)


EXAMPLES = {test.name: test for test in examples() if test.examples}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_gives_what_it_says(name: str) -> None:
    failed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(EXAMPLES[name], out=failed.append)
    assert not failed, "".join(failed)


def test_there_are_examples_in_the_package_and_in_the_core() -> None:
    assert len(EXAMPLES) >= 9
    assert {"_core.ExpertMap.from_index_map", "_core.Partition.legal_ranks"} <= set(EXAMPLES)


def documented() -> Iterator[tuple[str, Any]]:
    """What the package and its torch implementation hand out, and the methods of the classes among it."""
    for module in (expert_placement, expert_placement.torch):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value):
                for method, of_class in inspect.getmembers(value, inspect.isroutine):
                    if not method.startswith("_") and method in vars(value):
                        yield f"{name}.{method}", of_class
            elif inspect.isroutine(value):
                yield f"{module.__name__}.{name}", value


REFERRED = ("as `", "as for `", "those of `", "likewise")
"""Words by which a docstring says that it goes on as another's."""


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in documented()])
def test_what_takes_something_says_what_and_what_it_refuses(name: str, value: Any) -> None:
    text = inspect.getdoc(value) or ""
    assert text, f"{name} has no docstring"
    parameters = [each for each in inspect.signature(value).parameters if each not in ("self", "cls")]
    if any(words in text for words in REFERRED):
        return
    for parameter in parameters:
        assert f"    {parameter}: " in text, f"{name} says nothing of {parameter}"
    if parameters:
        assert "Raises:" in text, f"{name} says nothing of what it raises"


def test_a_method_of_the_core_that_takes_something_says_what_and_what_it_refuses() -> None:
    for kind in CLASSES:
        for name in vars(kind):
            method = getattr(kind, name)
            if name.startswith("_") or not callable(method) or kind.__name__ == "Int32Exporter":
                continue
            parameters = [each for each in inspect.signature(method).parameters if each != "self"]
            text = inspect.getdoc(method) or ""
            for parameter in parameters:
                assert f"    {parameter}: " in text, f"{kind.__name__}.{name} says nothing of {parameter}"
            if parameters:
                assert "Raises:" in text, f"{kind.__name__}.{name} says nothing of what it raises"
