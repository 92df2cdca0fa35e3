"""Lines of the crate and of the binding: instrumented builds, and LLVM's own tools that read what they write."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.coverage.lines import from_lcov
from tests.coverage.workplace import PLACE, TREE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.coverage.lines import Lines

CRATES = ("rust/expert-placement/src/", "rust/expert-placement-py/src/")
FLAGS = "-C instrument-coverage"
# Where counts are written as they are made a process may end in any way, as those that tests start do. All processes
# share one file.
FLAGS_AT_ONCE = f"{FLAGS} -C llvm-args=-runtime-counter-relocation"
WRITTEN_AT_ONCE, WRITTEN_AT_EXIT = "%c%m.profraw", "%m.profraw"

PLANTED = """\
#[inline(never)]
fn called(number: usize) -> usize {
    number + 1
}

#[inline(never)]
pub fn never_called(number: usize) -> usize {
    number + 2
}

fn main() {
    if called(std::env::args().count()) > 100 {
        never_called(3);
    }
    std::process::abort();
}
"""
CALLED, NEVER_CALLED = {2, 3, 4}, {7, 8, 9}
"""Lines of the planted program."""


@dataclass(frozen=True)
class Tools:
    """LLVM's programs that read profiles."""

    profdata: Path
    cov: Path
    libraries: str = ""
    """Where they find their library, where it is not installed."""

    def run(self, program: Path, *arguments: str | Path) -> str:
        """Runs one of them, and gives what it prints."""
        environment = dict(os.environ)
        if self.libraries:
            environment["LD_LIBRARY_PATH"] = self.libraries
        ended = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{program.name}: {ended.stderr.strip()[-1000:]}")
        return ended.stdout

    def lines(self, profiles: Path, programs: Iterable[Path], root: Path) -> dict[str, Lines]:
        """The lines of the files below `root` by the profiles in a folder, which these programs wrote."""
        written = sorted(profiles.glob("*.profraw"))
        if not written:
            raise RuntimeError(f"nothing was measured: {profiles} has no profile")
        merged = profiles / "merged.profdata"
        self.run(self.profdata, "merge", "--sparse", *written, "-o", merged)
        first, *others = programs
        objects = [word for other in others for word in ("--object", str(other))]
        exported = self.run(
            self.cov, "export", "--format=lcov", f"--instr-profile={merged}", "--skip-functions", first, *objects
        )
        return from_lcov(exported, str(root))


def compiler() -> dict[str, str]:
    """What `rustc` says of itself."""
    said = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"^([\w-]+(?: \w+)?): (.*)$", said, re.MULTILINE))


def found_tools() -> Tools | None:
    """LLVM's tools of the compiler's version: the toolchain's own, installed ones, or those fetched before."""
    about = compiler()
    major = about["LLVM version"].partition(".")[0]
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    own = Path(sysroot) / "lib" / "rustlib" / about["host"] / "bin"
    fetched = _fetched(major)
    libraries = os.pathsep.join(sorted({str(path.parent) for path in fetched.rglob("libLLVM.so*")}))
    programs = fetched / "usr" / "lib" / f"llvm-{major}" / "bin"
    for folder, suffix, needed in ((own, "", ""), (None, f"-{major}", ""), (None, "", ""), (programs, "", libraries)):
        profdata, cov = (shutil.which(f"llvm-{name}{suffix}", path=folder) for name in ("profdata", "cov"))
        if profdata and cov:
            tools = Tools(Path(profdata), Path(cov), needed)
            if _version(tools) == major:
                return tools
    return None


def llvm_tools() -> Tools:
    """LLVM's tools of the compiler's version, from the system's packages where they are not here.

    Raises:
        RuntimeError: There are none.
    """
    tools = found_tools()
    major = compiler()["LLVM version"].partition(".")[0]
    if tools is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        _fetch(major)
        tools = found_tools()
    if tools is None:
        raise RuntimeError(
            f"llvm-profdata and llvm-cov of LLVM {major} are needed: `rustup component add llvm-tools`, or the "
            f"system's package `llvm-{major}`"
        )
    return tools


def _fetched(major: str) -> Path:
    return PLACE / f"llvm-{major}"


def _version(tools: Tools) -> str:
    try:
        found = re.search(r"LLVM version (\d+)", tools.run(tools.cov, "--version"))
    except (OSError, RuntimeError):
        return ""
    return found[1] if found else ""


def _fetch(major: str) -> None:
    """Unpacks the system's packages of the tools, without installing them."""
    packages = [f"llvm-{major}", f"libllvm{major}", "libpfm4", "libz3-4"]
    with tempfile.TemporaryDirectory() as folder:
        download = ["apt-get", "download", *packages]
        if subprocess.run(download, cwd=folder, capture_output=True, check=False).returncode == 0:
            for package in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(package), str(_fetched(major))], check=True)


def check_tools(tools: Tools) -> None:
    """Sees that a planted function that runs is reached, in a program that is killed, and another is not.

    Raises:
        RuntimeError: It is otherwise.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        source, program = folder / "planted.rs", folder / "planted"
        source.write_text(PLANTED, encoding="utf-8")
        subprocess.run(["rustc", "-O", *FLAGS_AT_ONCE.split(), source.name, "-o", program], cwd=folder, check=True)
        profiles = folder / "profiles"
        environment = os.environ | {"LLVM_PROFILE_FILE": str(profiles / WRITTEN_AT_ONCE)}
        subprocess.run([program], cwd=folder, env=environment, check=False)
        measured = tools.lines(profiles, [program], folder)["planted.rs"]
    if not measured.reached >= CALLED or not measured.unreached >= NEVER_CALLED:
        raise RuntimeError(
            f"the planted program's lines are {sorted(measured.reached)} reached and {sorted(measured.unreached)} not"
        )


def build_binding() -> Path:
    """The binding's library, built as for a release but for what has no bearing on its lines."""
    messages = _cargo(
        "build", "--release", "--package", "expert-placement-py", flags=FLAGS_AT_ONCE, folder=PLACE / "binding"
    )
    made = [file for one in messages if one["target"]["name"] == "_core" for file in one["filenames"]]
    (library,) = (Path(file) for file in made if Path(file).suffix in (".so", ".dylib"))
    return library


def build_own_tests() -> list[Path]:
    """The programs of the crate's own tests, but for those in its documentation."""
    messages = _cargo("test", "--no-run", "--tests", "--package", "expert-placement", flags=FLAGS, folder=PLACE / "own")
    return [Path(one["executable"]) for one in messages if one["executable"] and one["profile"]["test"]]


def _cargo(*arguments: str, flags: str, folder: Path) -> list[dict[str, Any]]:
    """Builds instrumented in a folder, and gives what was made."""
    environment = os.environ | {
        "RUSTFLAGS": flags,
        "CARGO_TARGET_DIR": str(folder),
        "CARGO_PROFILE_RELEASE_LTO": "off",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16",
        "CARGO_PROFILE_RELEASE_STRIP": "none",
    }
    # With a target named the flags are not those of what runs while building, which would write profiles as well.
    command = ["cargo", *arguments, "--locked", "--quiet", "--target", compiler()["host"], "--message-format", "json"]
    ended = subprocess.run(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    messages = map(json.loads, ended.stdout.splitlines())
    return [message for message in messages if message["reason"] == "compiler-artifact"]


def run_own_tests(programs: Iterable[Path], profiles: Path) -> None:
    """Runs the crate's own tests where Cargo would run them."""
    folder = TREE / "rust" / "expert-placement"
    named = {"LLVM_PROFILE_FILE": str(profiles / WRITTEN_AT_EXIT), "CARGO_MANIFEST_DIR": str(folder)}
    for program in programs:
        subprocess.run([program, "--quiet"], cwd=folder, env=os.environ | named, check=True)
