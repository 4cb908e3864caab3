"""The README cannot drift: its commands run in CI, its example answer is real, every setting, argument and verb is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_server import config
from mcp_server.cli import main
from mcp_server.protocol import schemas

EXAMPLES = sorted(path.name for path in (Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_two_commands_of_the_readme_word_for_word(readme: str, repository: Path) -> None:
    blocks: list[str] = re.findall(r"```sh\n(.*?)\n```", readme, re.DOTALL)
    script = (repository / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command in blocks[:2]:
        assert command in script
    assert 'search "a red apple"' in blocks[0]
    assert "pytest" in blocks[1]


def test_every_verb_argument_setting_and_reason_is_in_the_readme(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    verbs = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"serve", "search", "filters", "doctor", "ingest"} <= set(verbs)
    arguments = [name for schema in schemas.INPUTS.values() for name in schema["properties"]]
    keys = [key for group in (config._DEFAULT_KEYS, config._COLLECTION_KEYS, *config._SECTION_KEYS.values()) for key in group]  # pyright: ignore[reportPrivateUsage]
    reasons = ["exhausted", "all_seen", "filters_match_only_", "below_min_score", "groups_full"]
    for word in [*verbs, *arguments, *(key for key in keys if key != "Reload"), *reasons]:
        assert re.search(rf"`[^`]*\b{word}", readme), word


def test_every_setting_is_in_the_example_configuration(repository: Path) -> None:
    example = repository / "data" / "config.example.ini"
    text = example.read_text(encoding="utf-8")
    for group in (config._DEFAULT_KEYS, config._COLLECTION_KEYS, *config._SECTION_KEYS.values()):  # pyright: ignore[reportPrivateUsage]
        for key in group:
            assert key == "Reload" or key in text, key
    assert config.load_settings(example).warnings == ()


def test_the_readmes_first_answer_is_what_the_first_command_prints(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = readme.split("answers offline:\n\n```text\n")[1].split("```", maxsplit=1)[0]
    assert main(["search", "a red apple", "--config", str(config.demo_folder() / "config.ini")]) == 0
    for line, expected in zip(capsys.readouterr().out.splitlines(), shown.splitlines(), strict=True):
        score, said = re.compile(r"\d\.\d{4}"), re.search(r"\d\.\d{4}", expected)
        assert score.sub("", line) == score.sub("", expected)
        assert said is None or float(score.findall(line)[0]) == pytest.approx(float(said[0]), abs=2e-3)


def test_the_readmes_example_answer_is_what_the_demo_answers(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(readme.split("over the demo:\n\n```json\n")[1].split("```", maxsplit=1)[0])
    command = ["search", "a red apple", "-n", "3", "--filters", '{"category": "food-drink"}', "--json"]
    assert main([*command, "--config", str(config.demo_folder() / "config.ini")]) == 0
    answer = json.loads(capsys.readouterr().out)
    for hit, expected in zip(answer.pop("hits"), shown.pop("hits"), strict=True):
        assert hit.pop("score") == pytest.approx(expected.pop("score"), abs=2e-3)
        assert hit == expected
    del shown["session"]  # which ends with the command
    assert answer == shown


def test_the_registry_finds_its_name_for_the_package_in_the_readme(readme: str, repository: Path) -> None:
    entry = json.loads((repository / "server.json").read_text(encoding="utf-8"))
    assert f"mcp-name: {entry['name']} " in readme  # which PyPI shows, and by which it knows whose the package is


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs_and_asserts(name: str, repository: Path) -> None:
    done = subprocess.run([sys.executable, str(repository / "examples" / name)], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "assert" in (repository / "examples" / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_benchmark_of_the_engine_takes_few_rows(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "tests" / "benchmarks" / "bench_engine.py"), "--only", "call", "--data", str(tmp_path)]
    no_model = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [*command, "--rows", "900", "--width", "64"], env=no_model, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("call, filter") == 4


@pytest.mark.slow
def test_a_wheel_alone_answers_from_the_bundled_demo(repository: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=repository, check=True, timeout=200
    )
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], check=True)
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import mcp_server.cli as cli; "
        "assert cli.__file__.startswith(sys.path[0]), cli.__file__; sys.exit(cli.main(['search', 'a red apple', '-n', '3', '--json']))"
    )
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=home, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "apple" in json.loads(done.stdout)["hits"][0]["title"]
    names = [path.relative_to(installed).as_posix() for path in installed.rglob("*")]
    assert not [name for name in names if "sessions.db" in name or name.startswith("tests")]
    assert [name for name in names if name.endswith("NOTICE")]
