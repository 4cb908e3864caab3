"""The configuration: files written for Exquisitor's engine work unchanged; what is wrong is said with the way out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mcp_server.config import DEFAULT_MODEL, Settings, demo_folder, load_settings, not_writable
from mcp_server.errors import ConfigError

EXQUISITOR = """
[DEFAULT]
# Device for running models
ModelDevice = auto
LogDirectory = ./logs/

[SERVER]
Host = 127.0.0.1
Port = 8000
Reload = True

[LOGGING]
Level = INFO

[photos]
Enabled = True
IndexType = zarr
EmbeddingsFile = ./data/photos/embeddings.zarr.zip
DatabaseFile = ./data/photos/photos.db
ThumbnailMediaURL = https://host/a%20b/thumbs
OriginalMediaURL = https://host/originals   ; the full pictures

[videos]
Enabled = yes
IndexType = FAISS
CLIPIndexFile = ./data/videos/index.faiss
EmbeddingsFile = ./data/videos/embeddings.zarr.zip
DatabaseFile = /abs/videos.db
ThumbnailMediaURL = ./data/videos/thumbs.zip
OriginalMediaURL =

[off]
Enabled = False
"""


def settings_of(tmp_path: Path, text: str, folder: str = "data") -> Settings:
    file = tmp_path / folder / "config.ini"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def test_a_file_written_for_exquisitor_is_read_unchanged(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, EXQUISITOR)
    assert settings.warnings == ()
    photos, videos = settings.collections
    assert (photos.name, photos.index_type, photos.model) == ("photos", "zarr", DEFAULT_MODEL)
    assert photos.embeddings_file == tmp_path / "data/photos/embeddings.zarr.zip"
    assert photos.log_directory == tmp_path / "logs"
    assert photos.faiss_file is None
    assert (videos.index_type, videos.faiss_file) == ("faiss", tmp_path / "data/videos/index.faiss")
    assert videos.database_file == Path("/abs/videos.db")
    assert videos.thumbnail_base == str(tmp_path / "data/videos/thumbs.zip")


def test_a_percent_sign_is_a_plain_character_and_a_comment_may_follow_a_value(tmp_path: Path) -> None:
    photos = settings_of(tmp_path, EXQUISITOR).collections[0]
    assert photos.thumbnail_base == "https://host/a%20b/thumbs"
    assert photos.original_base == "https://host/originals"


def test_relative_paths_start_beside_the_config_unless_its_folder_is_called_data(tmp_path: Path) -> None:
    text = "[x]\nEmbeddingsFile = e.zarr.zip\nDatabaseFile = d.db\nModel = local-dir:./model\n"
    there = settings_of(tmp_path, text, folder="elsewhere").collections[0]
    assert there.embeddings_file == tmp_path / "elsewhere/e.zarr.zip"
    assert there.model == f"local-dir:{tmp_path / 'elsewhere' / 'model'}"
    file = tmp_path / "elsewhere" / "config.ini"
    assert load_settings(file, root=tmp_path / "r").collections[0].database_file == tmp_path / "r/d.db"


def test_blanks_around_the_name_of_a_section_are_no_part_of_it(tmp_path: Path) -> None:
    text = "[ DEFAULT ]\nModelDevice = cpu\n[ server]\nPort = 9000\n[ my photos\t]\nEmbeddingsFile = e\nDatabaseFile = d\n"
    settings = settings_of(tmp_path, text)
    assert [collection.name for collection in settings.collections] == ["my photos"]
    assert (settings.model_device, settings.port, settings.refused, settings.warnings) == ("cpu", 9000, (), ())


def test_keys_ignore_letter_case_and_a_misspelt_one_is_warned_about_by_name(tmp_path: Path) -> None:
    text = "[DEFAULT]\nmodeldevice = CPU\n[x]\nembeddingsfile = e\nDATABASEFILE = d\nEmbedingsFile = f\n"
    settings = settings_of(tmp_path, text)
    assert settings.model_device == "cpu"
    assert len(settings.warnings) == 1
    assert "EmbeddingsFile" in settings.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[DEFAULT]\nModelDevice = gpu\n", "cuda:N"),
        ("[SERVER]\nPort = eighty\n", "Port"),
        ("[LOGGING]\nLevel = loud\n", "DEBUG"),
        ("no section\n", "INI"),
        ("[x]\n[x]\n", "INI"),
        ("[x]\n[ x ]\n", "'x' already exists"),
        ("[ ]\n", "INI"),
        ('[[collections]]\nname = "lsc"\n', "is TOML.* needs an INI file.*data/config.example.ini"),
        ('log = "debug"\n\n [[collections]]\nname = "lsc"\n', "is TOML"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_can(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of(tmp_path, text)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("IndexType = annoy\nEmbeddingsFile = e\nDatabaseFile = d\n", "zarr or faiss"),
        ("IndexType = faiss\nEmbeddingsFile = e\nDatabaseFile = d\n", "CLIPIndexFile"),
        ("DatabaseFile = d\n", "EmbeddingsFile"),
        ("TargetRecall = much\nEmbeddingsFile = e\nDatabaseFile = d\n", "from 0.5 to 1"),
        ("TargetRecall = 0.4\nEmbeddingsFile = e\nDatabaseFile = d\n", "from 0.5 to 1"),
        ("TargetRecall = 99\nEmbeddingsFile = e\nDatabaseFile = d\n", "from 0.5 to 1"),
        ("Enabled = perhaps\nEmbeddingsFile = e\nDatabaseFile = d\n", "True or False"),
    ],
)
def test_one_section_that_cannot_be_used_leaves_the_others_served(tmp_path: Path, section: str, words: str) -> None:
    settings = settings_of(tmp_path, f"[bad]\n{section}[good]\nEmbeddingsFile = e\nDatabaseFile = d\n")
    assert [collection.name for collection in settings.collections] == ["good"]
    ((name, reason),) = settings.refused
    assert name == "bad"
    assert words in reason


def test_the_recall_asked_of_an_index_is_99_percent_unless_the_section_says_otherwise(tmp_path: Path) -> None:
    section = "EmbeddingsFile = e\nDatabaseFile = d\n"
    text = f"[a]\n{section}[b]\n{section}TargetRecall = 0.95   ; faster\n[c]\n{section}targetrecall = 1\n[d]\n{section}TargetRecall =\n"
    assert [collection.target_recall for collection in settings_of(tmp_path, text).collections] == [0.99, 0.95, 1.0, 0.99]


def test_what_default_hands_down_to_the_sections_is_not_said_to_be_ignored(tmp_path: Path) -> None:
    text = "[DEFAULT]\nTargetRecall = 0.9\nPort = 9\nEmbedingsFile = e\n[SERVER]\n[x]\nEmbeddingsFile = e\nDatabaseFile = d\n"
    settings = settings_of(tmp_path, text)
    assert (settings.collections[0].target_recall, settings.port) == (0.9, 9)
    (warning,) = settings.warnings
    assert "embedingsfile" in warning


def test_server_and_logging_are_no_collections_whatever_their_letter_case(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[Server]\nPort = 9\n[logging]\nLevel = debug\n[x]\nEmbeddingsFile = e\nDatabaseFile = d\n")
    assert ([collection.name for collection in settings.collections], settings.port, settings.log_level) == (["x"], 9, "DEBUG")


def test_a_home_that_does_not_exist_is_said_of_its_own_section(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[x]\nEmbeddingsFile = ~nobody-of-that-name/e\nDatabaseFile = d\n")
    assert "home" in settings.refused[0][1]


def test_only_a_path_that_begins_with_a_tilde_begins_at_a_home(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "[x]\nEmbeddingsFile = ./~root/e\nDatabaseFile = ~/d\nOriginalMediaURL = ./~nobody-of-that-name\n")
    (collection,) = settings.collections
    assert collection.embeddings_file == tmp_path / "~root" / "e"
    assert collection.database_file == Path.home() / "d"
    assert collection.original_base == str(tmp_path / "~nobody-of-that-name")


def test_what_a_file_holds_decides_whether_it_is_toml_not_its_name(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[good]\nEmbeddingsFile = e\nDatabaseFile = d\n", encoding="utf-8")  # as `ingest --config config.toml` writes it
    assert [collection.name for collection in load_settings(file).collections] == ["good"]


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.ini"):
        load_settings(tmp_path / "nowhere.ini")


def test_the_environment_names_the_config_and_the_demo_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().config_file == demo_folder() / "config.ini"
    assert [collection.name for collection in load_settings().collections] == ["demo"]
    named = settings_of(tmp_path, "[a]\nEmbeddingsFile = e\nDatabaseFile = d\n", folder="x").config_file
    monkeypatch.setenv("CLIP_SEARCH_CONFIG", str(named))
    assert load_settings().config_file == named
    monkeypatch.delenv("CLIP_SEARCH_CONFIG")
    settings_of(tmp_path, "[b]\nEmbeddingsFile = e\nDatabaseFile = d\n")
    assert [collection.name for collection in load_settings().collections] == ["b"]


def test_state_goes_to_the_users_folder_where_the_configs_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    file = tmp_path / "gone" / "config.ini"
    settings = settings_of(tmp_path, "[a]\nEmbeddingsFile = e\nDatabaseFile = d\n", folder="ro")
    assert settings.state_folder == tmp_path / "ro"
    from mcp_server.config import _data_folders  # pyright: ignore[reportPrivateUsage]

    state, cache = _data_folders(file)
    assert state.is_dir()
    assert "clip-search-mcp" in str(state)
    assert cache == state


def test_a_folder_below_one_that_is_closed_is_not_writable(tmp_path: Path) -> None:
    class Closed(type(Path())):
        def stat(self, **options: bool) -> os.stat_result:
            if self != tmp_path and self.is_relative_to(tmp_path):
                raise PermissionError(errno.EACCES, "Permission denied")
            return super().stat(**options)

    (tmp_path / "file").touch()
    assert not_writable(tmp_path / "a" / "b") is None
    assert not_writable(tmp_path / "file" / "b") == f"{tmp_path / 'file'} is no folder"
    assert not_writable(Closed(tmp_path / "a" / "b")) is None, "asked of the nearest folder that can be seen"


@pytest.mark.parametrize(
    ("file", "is_used"),
    [
        ("model_text.json", True),
        ("model_text.ViT-B-32.json", True),
        ("clip-search.model_text.json", True),
        ("model_text.pth", False),  # perhaps a pickled program
    ],
)
def test_a_text_encoder_cached_in_a_folder_that_cannot_be_written_is_used(
    file: str, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mcp_server.config._is_writable", lambda _: False)
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / file).touch()
    settings = settings_of(tmp_path, "[a]\nEmbeddingsFile = e\nDatabaseFile = d\n", folder="ro")
    assert (settings.cache_folder == tmp_path / "ro") is is_used
    assert settings.state_folder.is_relative_to(tmp_path / "home")
