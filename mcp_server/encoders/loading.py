"""A text encoder that loads behind the server's back and remembers what it encoded. Imports no torch; the `load` it is given may."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from mcp_server.domain.search import EncodedText
from mcp_server.encoders.cache import TowerRecord, checked_record
from mcp_server.errors import EncoderError, ModelLoadingError, ModelUnavailableError, SearchServerError

if TYPE_CHECKING:
    from mcp_server.encoders.base import TextEncoder

logger = logging.getLogger(__name__)

State = Literal["idle", "loading", "ready", "failed"]

CACHED_QUERIES = 1024
_WARM_UP = "a photo"
_NOT_STARTED = (
    "The text encoder could not start on the server. Your arguments are fine. "
    "Tell the user that the server's log names the reason, then call again; describe_filters works meanwhile."
)


@runtime_checkable
class _Keyed(Protocol):
    """An encoder that can say which texts look the same to it."""

    def cache_key(self, text: str) -> Hashable: ...


def text_loader(model: str, device: str, data_folder: Path) -> Callable[[], TextEncoder]:
    """Return a function that loads the open_clip text encoder; only calling it imports torch. Errors as `load_text_encoder`."""

    def load() -> TextEncoder:
        record: Future[TowerRecord | None] = Future()

        def check() -> None:
            try:
                record.set_result(checked_record(model, data_folder))
            except BaseException as error:
                record.set_exception(error)
                raise

        threading.Thread(target=check, name="text-cache-check", daemon=True).start()
        from mcp_server.encoders.open_clip import load_text_encoder  # seconds, and so is reading a big cache through: side by side

        return load_text_encoder(model, device, data_folder, record.result())

    return load


class BackgroundText:
    """A `TextEncoder` whose model loads once, in a thread of its own, from `start` or from the first call that needs it.

    Query vectors are remembered (the last 1,024), and equal queries at the same time run once. Safe to call from several threads.
    The vectors it returns are shared, so they are read-only.
    """

    def __init__(self, load: Callable[[], TextEncoder], model: str, width: int | None, patience_seconds: float = 25.0) -> None:
        """Set up without loading.

        Args:
            load: makes the encoder; called in a thread, again after a failure, never twice at once.
            model: its name, for the log.
            width: D if it is known before loading.
            patience_seconds: how long a call waits for the model before it raises `ModelLoadingError`; inf waits to the end.
        """
        self._load = load
        self._model = self.model = model
        self._width = width
        self._patience = patience_seconds
        self._lock = threading.Lock()
        self._attempt: Future[TextEncoder] | None = None
        self._started = self._ended = 0.0
        self._waiting = 0
        self._vectors: OrderedDict[Hashable, EncodedText] = OrderedDict()
        self._running: dict[Hashable, Future[EncodedText]] = {}

    @property
    def state(self) -> State:
        """Where loading stands."""
        with self._lock:
            return self._state()

    @property
    def loading_seconds(self) -> float:
        """Seconds that loading has taken so far, or took; 0 before it began."""
        with self._lock:
            return (self._ended or time.monotonic()) - self._started if self._attempt else 0.0

    @property
    def width(self) -> int:
        """D; waits for the model, like `encode_text`, only if it was not known before."""
        return self._width if self._width is not None else self._ready().width

    @property
    def logits(self) -> tuple[float, float] | None:
        """Scale and bias that make a cosine the logit of a match; None for models without a bias, and before the model is loaded."""
        with self._lock:
            encoder = self._attempt.result() if self._attempt is not None and self._state() == "ready" else None
        scale, bias = getattr(encoder, "logit_scale", None), getattr(encoder, "logit_bias", None)
        return None if scale is None or bias is None else (scale, bias)

    def start(self) -> None:
        """Begin loading unless it has begun. Returns at once; a failure shows in `state`, in the log, and in the next call."""
        with self._lock:
            if self._attempt is None:
                self._begin()

    def encode_text(self, text: str, waiting: Callable[[float], None] | None = None) -> EncodedText:
        """Return the vector of `text`, which is not blank.

        `waiting` is called with the seconds that loading has taken, about once a second, while this call waits for the model.

        Raises:
            ModelLoadingError: the model is still loading; the same call will work later.
            EncoderError: loading failed (the next call tries again), or encoding did.
        """
        encoder = self._ready(waiting)
        key = encoder.cache_key(text) if isinstance(encoder, _Keyed) else text
        with self._lock:
            known = self._vectors.get(key)
            if known is not None:
                self._vectors.move_to_end(key)
                return known
            running = self._running.get(key)
            mine = running or self._running.setdefault(key, Future())
        if running is None:
            self._encode(encoder, key, text, mine)
        return mine.result()

    def _encode(self, encoder: TextEncoder, key: Hashable, text: str, promise: Future[EncodedText]) -> None:
        """Encode once and settle `promise`; a failure is passed on to all who wait for it, and not remembered."""
        try:
            encoded = encoder.encode_text(text)
            vector = encoded.vector.copy()
            vector.setflags(write=False)
            encoded = replace(encoded, vector=vector)
        except BaseException as error:
            with self._lock:
                del self._running[key]
            promise.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._vectors[key] = encoded
            if len(self._vectors) > CACHED_QUERIES:
                self._vectors.popitem(last=False)
        promise.set_result(encoded)

    def _state(self) -> State:
        if self._attempt is None:
            return "idle"
        if not self._attempt.done():
            return "loading"
        return "failed" if self._attempt.exception() else "ready"

    def _begin(self) -> Future[TextEncoder]:
        attempt: Future[TextEncoder] = Future()
        self._attempt = attempt
        self._started, self._ended = time.monotonic(), 0.0
        threading.Thread(target=self._run, args=(attempt,), name="text-encoder-load", daemon=True).start()
        return attempt

    def _ready(self, waiting: Callable[[float], None] | None = None) -> TextEncoder:
        """Return the encoder, starting or restarting the load and waiting for it as needed."""
        with self._lock:
            attempt = self._attempt if self._attempt is not None and self._state() != "failed" else self._begin()
            self._waiting += 1
        try:
            patience_ends = time.monotonic() + self._patience
            while waiting is not None and not attempt.done() and time.monotonic() + 1 < patience_ends:
                waiting(self.loading_seconds)
                wait([attempt], timeout=1)
            left = patience_ends - time.monotonic()
            return attempt.result(timeout=None if math.isinf(left) else max(0.0, left))
        except TimeoutError as error:
            raise ModelLoadingError(
                f"The text encoder is still loading ({self.loading_seconds:.0f} s so far). "
                "Your arguments are fine; try again shortly; describe_filters works now."
            ) from error
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self, attempt: Future[TextEncoder]) -> None:
        """Load in this thread and settle `attempt`, whatever happens: nobody may wait for ever."""
        failure: EncoderError = EncoderError(_NOT_STARTED)
        encoder: TextEncoder | None = None
        logger.info("encoder.load model=%s", self._model)
        try:
            encoder = self._loaded()
        except (SearchServerError, ImportError, OSError, RuntimeError, ValueError) as error:
            failure = error if isinstance(error, EncoderError) else failure
            failure.__cause__ = None if failure is error else error
            reason = error.remedy if isinstance(error, ModelUnavailableError) else str(error)
            logger.error("encoder.load_failed model=%s error=%s reason=%s", self._model, type(error).__name__, reason)
        finally:  # any other error is a bug: it rises out of this thread, and those who wait get the plain failure
            with self._lock:
                self._ended = time.monotonic()
            if encoder is None:
                attempt.set_exception(failure)
            else:
                attempt.set_result(encoder)
                logger.info("encoder.ready model=%s seconds=%.1f", self._model, self.loading_seconds)

    def _loaded(self) -> TextEncoder:
        encoder = self._load()
        if self._width is not None and encoder.width != self._width:
            raise EncoderError(
                f"The text encoder on the server gives {encoder.width} numbers where its configuration says {self._width}. "
                "Your arguments are fine; tell the user that the model's files do not belong together."
            )
        with self._lock:
            wanted = self._waiting > 0
        if not wanted:  # the first run touches every weight; with a query waiting, that query is the first run
            encoder.encode_text(_WARM_UP)
        return encoder
