"""The pytest plugin: every law of an implementation as one test, named after the law.

    pytest --expert-placement my_engine.moe:Partition --expert-placement balance=my_engine.eplb -m expert_placement

or, in `pyproject.toml`, for every run that names no files:

    [tool.pytest.ini_options]
    expert_placement = ["my_engine.moe:Partition", "balance=my_engine.eplb"]
    expert_placement_deviations = "deviations.toml"

A law that is broken fails with its sentence and a counterexample to be pasted, one that can not be looked at is skipped
with the reason, and a declared deviation is an expected failure as long as it applies. All laws of an implementation
are looked at together when the first of its tests runs; `pytest -n 2 --dist loadgroup` keeps them on one worker.

Nothing but this module is loaded where no implementation is named.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from expert_placement_spec.deviations import Declared
    from expert_placement_spec.outcome import Outcome

MARK = "expert_placement"
"""The mark of the tests, and the name of the setting that names implementations."""
OPTION = "--expert-placement"
DEVIATIONS = "expert_placement_deviations"
PROFILE = "expert_placement_profile"
CHAPTER = "expert_placement_chapter"
REAL = "expert_placement_real"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options, and the settings of the same names."""
    group = parser.getgroup("expert-placement", "the specification of expert placement")
    group.addoption(
        OPTION,
        action="append",
        metavar="[CHAPTER=]NAME",
        help="check an implementation, `module:attribute`, against every law of a chapter; may be repeated",
    )
    group.addoption("--expert-placement-chapter", metavar="CHAPTER", help="the chapter where none is named: partition")
    group.addoption("--expert-placement-profile", metavar="NAME", help="how much is looked at: small, or full")
    group.addoption(
        "--expert-placement-no-real",
        dest=REAL,
        action="store_const",
        const="false",
        help="look at no cases of real sizes, which take up to minutes where planners are slow",
    )
    group.addoption("--expert-placement-deviations", metavar="FILE", help="a TOML file with known deviations")
    parser.addini(MARK, "implementations to be checked, [CHAPTER=]NAME each", type="args", default=[])
    parser.addini(CHAPTER, "the chapter where none is named", default="partition")
    parser.addini(PROFILE, "how much is looked at: small, or full", default="small")
    parser.addini(REAL, "whether cases of real sizes are looked at: true, or false", default="true")
    parser.addini(DEVIATIONS, "a TOML file with known deviations, from where the settings are", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark."""
    config.addinivalue_line("markers", f"{MARK}: a law of the specification of expert placement")


def setting(config: pytest.Config, name: str) -> str:
    """What the command line says, or else the settings."""
    return str(config.getoption(name, default=None) or config.getini(name))


def named_implementations(config: pytest.Config) -> list[tuple[str, str]]:
    """The chapter and the name of each implementation; those of the settings where no files are named."""
    named: list[str] = list(config.getoption(MARK, default=None) or [])
    if not named and config.args_source is not pytest.Config.ArgsSource.ARGS:
        named = list(config.getini(MARK))
    chapter = setting(config, CHAPTER)
    found = []
    for text in named:
        before, equals, after = text.partition("=")
        # The command of a program may have an equals sign of its own.
        has_chapter = bool(equals) and before.isidentifier()
        found.append((before, after) if has_chapter else (chapter, text))
    return list(dict.fromkeys(found))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Adds a test for each law of each implementation, before others choose among them."""
    named = named_implementations(config)
    if not named:
        if config.getoption(DEVIATIONS, default=None):
            raise pytest.UsageError(f"--expert-placement-deviations names a file, expected {OPTION} as well")
        return
    try:
        for group in implementations(session, config, named):
            items.extend(group.collect())
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def implementations(
    session: pytest.Session, config: pytest.Config, named: list[tuple[str, str]]
) -> Iterator[Implementation]:
    """A collector for each implementation.

    Raises:
        ValueError: an unknown chapter or profile, or a file of deviations with an error.
    """
    from expert_placement_spec.commands.profiles import profile_of
    from expert_placement_spec.deviations import Declared, read_deviations

    profile, file, real = (setting(config, name) for name in (PROFILE, DEVIATIONS, REAL))
    profile_of(profile)
    if real not in ("true", "false"):
        raise ValueError(f"{REAL}=`{real}` is unknown, expected true or false")
    # A file of the command line is looked for from where pytest was called, one of the settings from where they are.
    is_of_settings = not config.getoption(DEVIATIONS, default=None)
    base = config.rootpath if is_of_settings else config.invocation_params.dir
    deviations = read_deviations(Path(base) / file) if file else []
    for chapter in dict.fromkeys(chapter for chapter, _ in named):
        names = [name for one, name in named if one == chapter]
        declared = Declared(deviations, chapter, names)
        for name in names:
            made: Implementation = Implementation.from_parent(
                session, name=f"{chapter}={name}", nodeid=f"{MARK}::{chapter}={name}"
            )
            made.about(chapter, name, profile, declared, is_real=real == "true")
            yield made


class Implementation(pytest.Collector):
    """One implementation with the laws of one chapter."""

    chapter: str
    implementation: str
    profile: str
    declared: Declared
    is_real: bool
    _outcomes: dict[str, Outcome[Any]] | None = None
    _error: str = ""

    def about(self, chapter: str, implementation: str, profile: str, declared: Declared, *, is_real: bool) -> None:
        """Says what the collector is of."""
        self.chapter, self.implementation = chapter, implementation
        self.profile, self.declared, self.is_real = profile, declared, is_real
        self.add_marker(MARK)
        # Laws that share answers stay together where xdist groups tests.
        if self.config.pluginmanager.has_plugin("xdist"):
            self.add_marker(pytest.mark.xdist_group(self.name))

    def collect(self) -> Iterator[LawItem]:
        """A test for each law.

        Raises:
            ValueError: there is no such chapter.
        """
        from expert_placement_spec.conformance import is_asked_of_all, laws_about

        for name, law in laws_about(self.chapter).items():
            item: LawItem = LawItem.from_parent(self, name=name)
            item.sentence, item.is_optional = law.sentence, not is_asked_of_all(law)
            yield item

    def outcome(self, law: str) -> Outcome[Any]:
        """What came of a law; all of them are looked at when the first is asked for.

        Raises:
            ValueError: the implementation can not be had.
        """
        if self._outcomes is None and not self._error:
            from expert_placement_spec.conformance import outcomes
            from expert_placement_spec.processes import Workers

            try:
                # In a process of its own, so that an implementation that ends its process does not end pytest.
                with Workers(processes_of(self.config)) as workers:
                    self._outcomes = outcomes(
                        self.chapter, self.implementation, self.profile, workers, real=self.is_real
                    )
            except ValueError as error:
                self._error = str(error)
        if self._outcomes is None:
            raise ValueError(self._error)
        return self._outcomes[law]


def processes_of(config: pytest.Config) -> int:
    """How many processes share the work: all cores, or one for each worker of xdist."""
    return 1 if hasattr(config, "workerinput") else os.cpu_count() or 1


class LawIsBrokenError(Exception):
    """An implementation breaks a law, or no longer deviates from one as is declared. Its text is all that is shown."""


class LawItem(pytest.Item):
    """One law of one implementation."""

    parent: Implementation
    sentence: str
    is_optional: bool

    def runtest(self) -> None:
        """Fails where the law is broken, and skips where it can not be looked at."""
        group = self.parent
        outcome = group.outcome(self.name)
        unmet = group.declared.no_longer_applies(outcome)
        if unmet:
            raise LawIsBrokenError(unmet)
        if outcome.result == "not offered":
            pytest.skip(f"not offered: {', '.join(outcome.missing)}")
        if outcome.result == "no cases":
            pytest.skip("not offered: a faster way to ask" if self.is_optional else "there is no case to look at")
        example = outcome.counterexample
        if example is None:
            return
        declared = group.declared.of(outcome)
        if declared is not None:
            pytest.xfail(f"deviates as declared: {declared}")
        reason = f"\nit raised {example.message}" if example.message else ""
        raise LawIsBrokenError(
            f"{group.implementation} breaks {self.name}: {self.sentence}{reason}\n\n"
            f"    import expert_placement_spec\n\n    {example.call()}"
        )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """What is shown of a failure: what is wrong, without the way to it."""
        if isinstance(excinfo.value, (LawIsBrokenError, ValueError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """What the test is called in reports: there is no file that it is in."""
        return self.config.rootpath, None, f"{self.parent.name}: {self.name}"
