"""The reference model with one thing changed at a time, for proofs to refute. SPEC.md, "How it is checked".

The changes are made in the text of `reference.py`, systematically: each operator, comparison, number and choice of the
formulas and of the class's answers becomes another one. What a prover says of the reference model counts only where it
says otherwise of a mutant.
"""

from __future__ import annotations

import ast
import copy
import inspect
from dataclasses import dataclass
from functools import cache, cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from expert_placement_spec import reference

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMULAS = ("count", "start", "owner", "local_index", "before", "map_entry")
"""The functions that solvers read."""

ANSWERS = ("is_uniform", "experts", "offsets", "expert_map_with_shared", "_map", "_rank", "_expert", "map_length")
"""What the model's class adds to them."""

OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mod,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt,),
    ast.GtE: (ast.Gt,),
    ast.Eq: (ast.NotEq,),
}
"""What each operator becomes."""


@dataclass(frozen=True)
class FormulaMutant:
    """The reference model with one change.

    Args:
        name: the function, what stood there, and what stands there now.
        function: the function that is changed.
        place: where it is in the text, as `parts` and `numbers_of` count.
        change: what stands there now.
    """

    name: str
    function: str
    place: tuple[int, int]
    change: ast.AST

    @property
    def is_formula(self) -> bool:
        """Whether a solver reads the function that is changed."""
        return self.function in FORMULAS

    @cached_property
    def model(self) -> Any:
        """The module with the change, as far as it has public names."""
        module = ast.parse(inspect.getsource(reference))
        part, node = self.place
        old = list(numbers_of(parts(module)[part]))[node]
        Replacement(old, copy.deepcopy(self.change)).visit(module)
        # Under the reference's own name, since its class looks its module up.
        namespace: dict[str, Any] = {"__name__": reference.__name__}
        exec(compile(ast.fix_missing_locations(module), "<mutant of reference.py>", "exec"), namespace)
        return SimpleNamespace(**{name: value for name, value in namespace.items() if not name.startswith("__")})


class Replacement(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old = old
        self._new = new

    def visit(self, node: ast.AST) -> Any:
        """The new node for the old one, and every other as it is."""
        return self._new if node is self._old else self.generic_visit(node)


def parts(module: ast.Module) -> list[ast.FunctionDef]:
    """The functions that are changed: those of the module, and of its class what it adds to them."""
    found = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name in FORMULAS + ANSWERS]
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    methods = [node for kind in classes for node in kind.body if isinstance(node, ast.FunctionDef)]
    return found + [node for node in methods if node.name in ANSWERS]


def changed_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of one node of a formula."""
    if isinstance(node, ast.BinOp):
        for operator in OPERATORS.get(type(node.op), ()):
            yield ast.BinOp(node.left, operator(), node.right)  # type: ignore[arg-type]
    if isinstance(node, ast.Compare) and not names_a_word(node):
        for place, old in enumerate(node.ops):
            for operator in OPERATORS.get(type(old), ()):
                operators = [*node.ops[:place], operator(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, operators, node.comparators)  # type: ignore[arg-type]
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
        yield ast.Return(ast.BinOp(node.value, ast.Add(), ast.Constant(1)))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "choose":
            condition, then, otherwise = node.args
            yield ast.Call(node.func, [condition, otherwise, then], [])
        elif node.func.id == "least":
            yield from node.args


def names_a_word(node: ast.Compare) -> bool:
    """Whether a comparison asks which strategy or representation is meant, and not of numbers."""
    words = [one for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return bool(words) or any(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops)


def numbers_of(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function that compute, without its docstring, its annotations and its messages."""
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Subscript):
            continue
        yield node
        pending[:0] = list(ast.iter_child_nodes(node))


@cache
def formula_mutants() -> tuple[FormulaMutant, ...]:
    """Every mutant, in the order of the text."""
    named: dict[str, int] = {}
    mutants = []
    for part, function in enumerate(parts(ast.parse(inspect.getsource(reference)))):
        for number, node in enumerate(numbers_of(function)):
            for change in changed_nodes(node):
                name = f"{function.name}: `{ast.unparse(node)}` becomes `{ast.unparse(change)}`"
                named[name] = named.get(name, 0) + 1
                label = name if named[name] == 1 else f"{name}, place {named[name]}"
                mutants.append(FormulaMutant(label, function.name, (part, number), change))
    return tuple(mutants)
