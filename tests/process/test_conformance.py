"""The official conformance suite against the real server over HTTP: every scenario that applies to a product server passes.

The suite is written for a reference server with tools, prompts and resources of fixed names. Scenarios that need those are named here with
the reason; any other scenario, one that a newer suite adds as well, must pass.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.node_tools import tool
from tests.process.serving import http_server

FIXTURE_TOOL = "calls a tool of the suite's reference server"
FIXTURE_PROMPT = "asks for a prompt of the suite's reference server"
FIXTURE_RESOURCE = "reads a resource of the suite's reference server"
ASKS_BACK = "needs a tool that asks the client for something; no tool here does"
NOT_OFFERED = "tests a capability that this server does not declare"

NOT_APPLICABLE = {
    **dict.fromkeys(
        (
            "tools-call-image",
            "tools-call-audio",
            "tools-call-embedded-resource",
            "tools-call-mixed-content",
            "tools-call-with-logging",
            "tools-call-with-progress",
            "tools-call-sampling",
            "tools-call-elicitation",
            "json-schema-2020-12",
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
            "server-sse-polling",
        ),
        FIXTURE_TOOL,
    ),
    **dict.fromkeys(
        ("prompts-get-simple", "prompts-get-with-args", "prompts-get-embedded-resource", "prompts-get-with-image"), FIXTURE_PROMPT
    ),
    **dict.fromkeys(("resources-read-text", "resources-read-binary", "resources-templates-read"), FIXTURE_RESOURCE),
    **dict.fromkeys(("logging-set-level", "resources-subscribe", "resources-unsubscribe"), NOT_OFFERED),
    "http-custom-header-server-validation": "needs a tool with x-mcp-header annotations",
    **dict.fromkeys(
        (
            "input-required-result-basic-elicitation",
            "input-required-result-basic-sampling",
            "input-required-result-basic-list-roots",
            "input-required-result-request-state",
            "input-required-result-multiple-input-requests",
            "input-required-result-multi-round",
            "input-required-result-non-tool-request",
            "input-required-result-result-type",
            "input-required-result-tampered-state",
            "input-required-result-capability-check",
        ),
        ASKS_BACK,
    ),
}
PARTLY = {"server-stateless": 2}
"""Checks of a scenario that call tools of the reference server (test_missing_capability), where all others must pass."""
LEAST = {"2025-11-25": 11, "2026-07-28": 13}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with http_server(tmp_path_factory.mktemp("conformance")) as url:
        yield url


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_every_scenario_that_applies_passes(address: str, version: str, tmp_path: Path) -> None:
    command = [*tool("conformance"), "server", "--url", address, "--spec-version", version, "--suite", "all", "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    counts = re.findall(r"^\W+ ([\w-]+): (\d+) passed, (\d+) failed", done.stdout.split("=== SUMMARY ===")[-1], re.MULTILINE)
    passed = {name for name, _, failed in counts if failed == "0"}
    failures = {name: int(failed) for name, _, failed in counts if failed != "0" and name not in NOT_APPLICABLE}
    assert len(passed) >= LEAST[version], done.stdout[-2_000:] + done.stderr[-2_000:]
    assert {name: failed for name, failed in failures.items() if failed != PARTLY.get(name)} == {}, done.stdout[-4_000:]
