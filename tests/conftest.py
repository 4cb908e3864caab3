"""The bundled demo, opened once: real catalog, real vectors, the real small model."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from mcp_server.config import Settings, demo_folder, load_settings
from mcp_server.engine.opening import open_engine
from mcp_server.engine.search import SearchEngine

settings.register_profile("repeatable", derandomize=True, deadline=None)  # the same examples each time, however busy the machine
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def demo_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The demo's settings on the CPU, with sessions in a temporary folder."""
    folder = tmp_path_factory.mktemp("state")
    return replace(
        load_settings(demo_folder() / "config.ini"),
        model_device="cpu",
        state_folder=folder,
        cache_folder=folder,
        side_folder=folder / "side",
    )


@pytest.fixture(scope="session")
def demo(demo_settings: Settings) -> Iterator[SearchEngine]:
    """An engine over the demo."""
    with closing(open_engine(demo_settings)) as engine:
        yield engine


class LentEngine(SearchEngine):
    """An engine that the server in front of it does not close, so that the next test need not load the model again."""

    def close(self) -> None:
        """Leave everything open."""


@pytest.fixture
def lent(demo: SearchEngine) -> SearchEngine:
    """The engine over the demo, for a server of its own."""
    return LentEngine(demo.shelf, demo.sessions)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """A command run inside a test sets up logging for its process; the next test finds it as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio, as the server does."""
    return "asyncio"
