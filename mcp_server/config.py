"""The configuration: an INI file in Exquisitor's layout, read into frozen values.

`[DEFAULT]` holds ModelDevice and Model, `[SERVER]` and `[LOGGING]` the server's settings, every other section is a collection. Relative
paths start at the *root*, never at the working directory; see `root_of`.
"""

from __future__ import annotations

import configparser
import difflib
import logging
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcp_server.errors import ConfigError

logger = logging.getLogger(__name__)

CONFIG_VARIABLE = "CLIP_SEARCH_CONFIG"
DEFAULT_MODEL = "ViT-SO400M-14-SigLIP-384"
DEFAULT_TARGET_RECALL = 0.99
RESERVED_SECTIONS = ("SERVER", "LOGGING")
LOCAL_DIR = "local-dir:"
SIDE_FOLDER = "search-cache"

_DEFAULT_KEYS = ("ModelDevice", "Model", "LogDirectory")
_SECTION_KEYS = {
    "SERVER": ("Host", "Port", "Reload", "AllowedHosts", "AllowedOrigins", "Token"),
    "LOGGING": ("Level",),
}
_COLLECTION_KEYS = (
    "Enabled",
    "IndexType",
    "EmbeddingsFile",
    "CLIPIndexFile",
    "TargetRecall",
    "DatabaseFile",
    "ThumbnailMediaURL",
    "OriginalMediaURL",
    "LogDirectory",
    "Model",
)
SECTION_HEADER = re.compile(r"\[\s*(?P<header>[^]]*[^]\s])\s*\]")
"""A section's name, without the blanks around it: nobody could name it with them."""
_TOML_TABLES = re.compile(r"^[ \t]*\[\[[^\[\]]+\]\]", re.MULTILINE)
"""What no INI file has and every `config.toml` with a collection does."""
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True)
class CollectionConfig:
    """One collection's section, paths absolute."""

    name: str
    index_type: Literal["zarr", "faiss"]
    embeddings_file: Path
    database_file: Path
    faiss_file: Path | None
    thumbnail_base: str
    """http(s) URL, or absolute path of a folder or zip; "" when there is none."""
    original_base: str
    log_directory: Path | None
    model: str
    """open_clip name, hf-hub:org/repo, or local-dir:ABSOLUTE PATH."""
    target_recall: float = DEFAULT_TARGET_RECALL
    """Part of the true nearest that a FAISS index must have been measured to find before it answers; 1: it never does."""


@dataclass(frozen=True)
class Settings:
    """The whole configuration.

    Attributes:
        config_file: where it was read.
        state_folder: writable folder for sessions and what was measured of collections.
        cache_folder: folder of the text-encoder cache (`model_text*.pth`); it may be one that cannot be written.
        side_folder: folder of what is worked out once to search faster; None keeps nothing.
        warnings: what was odd in the file, for the log and `doctor`.
    """

    config_file: Path
    model_device: str
    model: str
    host: str
    port: int
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    token: str | None
    log_level: str
    collections: tuple[CollectionConfig, ...]
    refused: tuple[tuple[str, str], ...]
    """Collections whose section cannot be used: name, and what to change. The others are served."""
    state_folder: Path
    cache_folder: Path
    side_folder: Path | None
    warnings: tuple[str, ...] = ()


def load_settings(config: Path | None = None, root: Path | None = None) -> Settings:
    """Read the configuration that applies.

    The file is `config`, else the one named by $CLIP_SEARCH_CONFIG, else ./data/config.ini if it is there, else the bundled demo's.

    Raises:
        ConfigError: the file is missing or cannot be used; the message says what to change. What is wrong with one collection's section
            only is in `Settings.refused`.
    """
    named = config or config_of_environment()
    file = named or next((path for path in (Path("data/config.ini"), demo_config()) if path.is_file()), None)
    if file is None:
        raise ConfigError("No configuration: give --config FILE, or make one from data/config.example.ini.")
    file = file.absolute()
    if not file.is_file():
        raise ConfigError(f"There is no configuration file {file}. Give --config FILE, or run `clip-search-mcp ingest FOLDER`.")
    parser = _parsed(file)
    base = (root or root_of(file)).absolute()
    warnings = tuple(_unknown_keys(parser))
    server, logs = _reserved(parser, "SERVER"), _reserved(parser, "LOGGING")
    names = [name for name in parser.sections() if name.upper() not in RESERVED_SECTIONS]
    collections: list[CollectionConfig] = []
    refused: list[tuple[str, str]] = []
    for name in names:
        try:
            if _flag(parser[name], "Enabled", default=True):
                collections.append(_collection(parser[name], base))
        except ConfigError as error:
            refused.append((name, str(error)))
    state, cache = _data_folders(file)
    return Settings(
        config_file=file,
        model_device=_device(parser["DEFAULT"].get("ModelDevice", "auto")),
        model=_model(parser["DEFAULT"].get("Model", DEFAULT_MODEL), base),
        host=server.get("Host", "127.0.0.1"),
        port=_port(server.get("Port", "8000")),
        allowed_hosts=_words(server.get("AllowedHosts", "")),
        allowed_origins=_words(server.get("AllowedOrigins", "")),
        token=server.get("Token", "") or None,
        log_level=_level(logs.get("Level", "INFO")),
        collections=tuple(collections),
        refused=tuple(refused),
        state_folder=state,
        cache_folder=cache,
        side_folder=state / SIDE_FOLDER,
        warnings=warnings,
    )


def config_of_environment() -> Path | None:
    """Return the configuration that $CLIP_SEARCH_CONFIG names, if it is set."""
    return Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None


def root_of(config_file: Path) -> Path:
    """Return the folder that relative paths in `config_file` start at: the parent of its folder if that is called data, else its folder."""
    folder = config_file.absolute().parent
    return folder.parent if folder.name == "data" else folder


def demo_folder() -> Path:
    """Return the folder of the bundled demo: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "data" / "demo"
    return checkout if checkout.is_dir() else package / "demo"


def demo_config() -> Path:
    """Return the configuration of the bundled demo."""
    return (demo_folder() / "config.ini").absolute()


def ini_parser() -> configparser.ConfigParser:
    """Return an empty parser that reads a configuration as this package does."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.SECTCRE = SECTION_HEADER
    return parser


def wrong_with(file: Path) -> str | None:
    """Return what is to be said of `file`, whose name comes before it, if nothing can be read there; None if something can."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "does not exist"
    except OSError as error:  # such as a folder above it that is closed to this user, or a network drive that is gone
        return f"cannot be reached ({error.strerror})"
    return None


def not_writable(folder: Path) -> str | None:
    """Return why no file can be put into `folder`, which may have to be made first; None if one can. Writes nothing."""
    # on Windows not even the drive has to be there
    there = next((path for path in (folder, *folder.parents) if wrong_with(path) is None), folder)
    if not there.is_dir():
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"


def is_loopback(host: str) -> bool:
    """Return whether `host` is one of the three names under which only this machine can reach a server."""
    return host in ("127.0.0.1", "localhost", "::1")


def too_open(settings: Settings, host: str) -> str | None:
    """Return why nothing is served on `host`: others can reach it, and there is no allowlist or no token. None if it is."""
    if is_loopback(host) or (settings.allowed_hosts and settings.token):
        return None
    return (
        f"{host} can be reached by other machines. In [SERVER], set AllowedHosts (names clients use, such as search.example.org:*) "
        "and Token (a long secret that clients send as a bearer token), or listen on 127.0.0.1."
    )


def _parsed(file: Path) -> configparser.ConfigParser:
    parser = ini_parser()
    try:
        text = file.read_text(encoding="utf-8-sig")
        if _TOML_TABLES.search(text):
            raise ConfigError(
                f"{file} is TOML, which newer Exquisitor engines read; this server needs an INI file. Write one with the same paths: "
                "data/config.example.ini explains every key."
            )
        parser.read_string(text, source=file.name)
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{file} is not a readable INI file: {' '.join(str(error).split())}") from error
    return parser


def _reserved(parser: configparser.ConfigParser, name: str) -> configparser.SectionProxy:
    found = next((section for section in parser.sections() if section.upper() == name), "DEFAULT")
    return parser[found]


def _unknown_keys(parser: configparser.ConfigParser) -> list[str]:
    found: list[str] = []
    inherited = set(parser.defaults())
    for section in ("DEFAULT", *parser.sections()):
        known = _DEFAULT_KEYS if section == "DEFAULT" else _SECTION_KEYS.get(section.upper(), _COLLECTION_KEYS)
        folded = {key.lower(): key for key in known}
        handed_down = {key.lower() for keys in (_COLLECTION_KEYS, *_SECTION_KEYS.values()) for key in keys} if section == "DEFAULT" else ()
        for key in parser.defaults() if section == "DEFAULT" else parser[section]:
            if key in folded or key in handed_down or (section != "DEFAULT" and key in inherited):
                continue
            near = difflib.get_close_matches(key, folded, n=1)
            hint = f'; did you mean "{folded[near[0]]}"?' if near else f"; known here: {', '.join(known)}"
            found.append(f'[{section}] has an unknown key "{key}", which is ignored{hint}')
    return found


def _collection(section: configparser.SectionProxy, root: Path) -> CollectionConfig:
    kind = section.get("IndexType", "zarr").strip().lower()
    if kind not in ("zarr", "faiss"):
        raise ConfigError(f'[{section.name}] IndexType is "{kind}"; it takes zarr or faiss.')
    index_file = section.get("CLIPIndexFile", "")
    if kind == "faiss" and not index_file:
        raise ConfigError(f"[{section.name}] IndexType is faiss, which needs CLIPIndexFile = FILE.faiss; or set IndexType = zarr.")
    log_directory = section.get("LogDirectory", "")
    return CollectionConfig(
        name=section.name,
        index_type=kind,
        embeddings_file=_needed_path(section, "EmbeddingsFile", root),
        database_file=_needed_path(section, "DatabaseFile", root),
        faiss_file=_path(index_file, root) if kind == "faiss" else None,
        thumbnail_base=_base(section.get("ThumbnailMediaURL", ""), root),
        original_base=_base(section.get("OriginalMediaURL", ""), root),
        log_directory=_path(log_directory, root) if log_directory else None,
        model=_model(section.get("Model", DEFAULT_MODEL), root),
        target_recall=_recall(section, "TargetRecall"),
    )


def _recall(section: configparser.SectionProxy, key: str) -> float:
    value = section.get(key, "").strip() or str(DEFAULT_TARGET_RECALL)
    try:
        recall = float(value)
    except ValueError:
        recall = 0.0
    if not 0.5 <= recall <= 1:
        raise ConfigError(f'[{section.name}] {key} is "{value}"; it takes a number from 0.5 to 1, such as 0.99.')
    return recall


def _needed_path(section: configparser.SectionProxy, key: str, root: Path) -> Path:
    value = section.get(key, "")
    if not value:
        raise ConfigError(f"[{section.name}] lacks {key}; give it a file, or set Enabled = False.")
    return _path(value, root)


def _path(value: str, root: Path) -> Path:
    if "\0" in value:
        raise ConfigError(f"{value!r} is no path: none can hold the character \\0.")
    try:
        # only what is written at the very beginning: a folder may be called ~pictures, and is entered as ./~pictures
        return Path(os.path.normpath(root / (Path(value).expanduser() if value.startswith("~") else value)))
    except RuntimeError as error:
        raise ConfigError(f'"{value}" names the home of a user who does not exist.') from error


def _base(value: str, root: Path) -> str:
    if not value or value.lower().startswith(("http://", "https://")):
        return value
    return str(_path(value, root))


def _model(value: str, root: Path) -> str:
    value = value.strip() or DEFAULT_MODEL
    if value.lower().startswith(LOCAL_DIR):
        return LOCAL_DIR + str(_path(value[len(LOCAL_DIR) :], root))
    return value


def _device(value: str) -> str:
    device = value.strip().lower() or "auto"
    number = device.removeprefix("cuda:")
    if device in ("auto", "cpu", "cuda", "mps") or (device.startswith("cuda:") and number.isdecimal()):
        return device
    raise ConfigError(f'[DEFAULT] ModelDevice is "{value}"; it takes auto, cpu, cuda, cuda:N or mps.')


def _port(value: str) -> int:
    if value.isdecimal() and 0 <= int(value) <= 65535:
        return int(value)
    raise ConfigError(f'[SERVER] Port is "{value}"; it takes a number from 0 to 65535.')


def _level(value: str) -> str:
    level = value.strip().upper()
    if level in _LEVELS:
        return level
    raise ConfigError(f'[LOGGING] Level is "{value}"; it takes one of {", ".join(_LEVELS)}.')


def _flag(section: configparser.SectionProxy, key: str, *, default: bool) -> bool:
    try:
        return section.getboolean(key, fallback=default)
    except ValueError as error:
        raise ConfigError(f'[{section.name}] {key} is "{section[key]}"; it takes True or False.') from error


def _words(value: str) -> tuple[str, ...]:
    return tuple(word for word in value.replace(",", " ").split() if word)


def _data_folders(config_file: Path) -> tuple[Path, Path]:
    """Return (state folder, cache folder): beside the configuration, or the user's data folder where that cannot be written."""
    folder = config_file.parent
    if folder == demo_folder():
        checkout = folder.parent if (folder.parent.parent / "pyproject.toml").is_file() else None
        folder = checkout if checkout is not None and folder.parent.name == "data" else _user_folder()
    if _is_writable(folder):
        return folder, folder
    user = _user_folder()
    return user, folder if any(folder.glob("*model_text*.json")) else user  # a cache is there


def _user_folder() -> Path:
    import platformdirs

    folder = platformdirs.user_data_path("clip-search-mcp", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Neither the configuration's folder nor {folder} can be written; make one of them writable.") from error
    return folder


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
