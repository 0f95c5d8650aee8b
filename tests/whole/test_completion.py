"""Completion in shells: commands, flags and names, without starting a program."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import peml.__main__
import prefixnas.__main__
from peml.methods.method import METHODS
from prefixnas.commands.completion import SHELLS
from prefixnas.run.strategy import STRATEGIES
from prefixnas.space.loading import SPACES

MAINS = {"prefixnas": prefixnas.__main__, "peml": peml.__main__}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The scripts, each made once."""
    folder = tmp_path_factory.mktemp("completion")

    def script(program: str, shell: str) -> Path:
        path = folder / f"{program}.{shell}"
        if not path.exists():
            from contextlib import redirect_stdout

            with path.open("w") as stream, redirect_stdout(stream):
                assert MAINS[program].main(["completion", shell]) == 0
        return path

    return script


def offered(script: Path, line: str) -> set[str]:
    """Return what bash offers for the last word of a line, where no program can be found."""
    words = line.split(" ")
    code = f"""
    source {script}
    PATH=
    COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
    COMP_LINE={line!r}; COMP_POINT={len(line)}
    _shtab_{words[0]}
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run([bash, "--norc", "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("program", MAINS)
def test_commands_are_offered(program: str, scripts: Callable[[str, str], Path]) -> None:
    assert offered(scripts(program, "bash"), f"{program} ") >= set(MAINS[program].COMMANDS)


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("prefixnas search --re", {"--relaxation", "--resume"}),
        ("prefixnas search --strategy ", set(STRATEGIES.names())),
        ("prefixnas search --space ", set(SPACES.names())),
        ("prefixnas search --entropy-scale ", {"gradient", "loss"}),
        ("prefixnas experiment s", {"start", "status", "stop"}),
        ("prefixnas experiment start --nni", {"--nni-python"}),
        ("prefixnas strategies ", set(STRATEGIES.names())),
        ("prefixnas show --j", {"--json"}),
        ("prefixnas compare --bud", {"--budget"}),
        ("prefixnas completion ", set(SHELLS)),
        ("peml train --method ", set(METHODS.names())),
        ("peml train --lora-r", {"--lora-rank"}),
        ("peml methods ", set(METHODS.names())),
        ("peml schema ta", {"task", "table"}),
    ],
)
def test_flags_and_names_are_offered(
    line: str, some: set[str], scripts: Callable[[str, str], Path]
) -> None:
    assert some <= offered(scripts(line.split()[0], "bash"), line)


def test_what_a_command_sets_itself_is_not_offered(scripts: Callable[[str, str], Path]) -> None:
    assert "--strategy" not in offered(scripts("peml", "bash"), "peml train --str")


def test_files_are_offered(
    scripts: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts("prefixnas", "bash")
    (tmp_path / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert offered(script, "prefixnas search --config mi") == {"mine.yaml"}


@pytest.mark.parametrize("program", MAINS)
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_the_commands(
    program: str, shell: str, scripts: Callable[[str, str], Path]
) -> None:
    script = scripts(program, shell)
    assert all(command in script.read_text() for command in MAINS[program].COMMANDS)
    if (binary := shutil.which(shell)) is not None:  # the others' syntax is their library's word
        subprocess.run([binary, "-n", str(script)], check=True)


def test_an_unknown_shell_is_one_line_and_json_holds_the_script(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert peml.__main__.main(["completion", "bsh"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'bash'?" in error and error.count("\n") == 1
    assert peml.__main__.main(["completion", "fish", "--json"]) == 0
    assert "complete -c peml" in json.loads(capsys.readouterr().out)["script"]
