"""What lies in a collection is what open_clip's own pipeline makes of the same files, whatever their format."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image, ImageDraw, ImageOps

from mcp_server.config import demo_folder
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.run import ingest_folder

MODEL = f"local-dir:{demo_folder() / 'model'}"


def scene(seed: int, mode: str = "RGB") -> Image.Image:
    """Draw something with colours, edges and noise."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(90, 160, (240, 320, 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = (int(number) for number in rng.integers(0, 200, 2))
        pen.ellipse((x, y, x + 90, y + 70), fill=tuple(int(number) for number in rng.integers(0, 256, 3)))
    return image.convert(mode)


def write_all(folder: Path) -> None:
    """Write one scene in each format and way of storing it."""
    folder.mkdir()
    upside = Image.Exif()
    upside[0x0112] = 6
    scene(1).save(folder / "plain.jpg", quality=90)
    scene(2).save(folder / "progressive.jpeg", quality=70, progressive=True)
    scene(3).save(folder / "turned.jpg", exif=upside)
    scene(4, "CMYK").save(folder / "press.jpg")
    scene(5, "L").save(folder / "grey.jpg")
    scene(6).save(folder / "plain.png")
    scene(7).quantize(64).save(folder / "palette.png")
    clear = scene(8, "RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(folder / "alpha.png")
    scene(9).save(folder / "lossy.webp", quality=60)
    clear.save(folder / "alpha.webp", lossless=True)
    scene(10).save(folder / "still.gif")
    scene(11).save(folder / "moving.gif", save_all=True, append_images=[scene(12)])
    scene(13).save(folder / "packed.tif", compression="tiff_lzw")
    scene(14, "CMYK").save(folder / "press.tiff")
    scene(15).save(folder / "plain.bmp")
    scene(16).save(folder / "new.avif", quality=80)


def expected(file: Path) -> Image.Image:
    """Return the picture as a person would hand it to open_clip: first frame, upright, on white."""
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def test_vectors_equal_open_clips_own_pipeline_for_every_format(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    write_all(pictures)
    report = ingest_folder(pictures, tmp_path / "out", tmp_path / "config.ini", "all", MODEL, "cpu")
    assert (report.pictures, report.failed) == (16, ())
    with closing(sqlite3.connect(tmp_path / "out" / "collection.db")) as database:
        sources = [source for (source,) in database.execute("SELECT source FROM medias ORDER BY id")]
    stored = load_embeddings(tmp_path / "out" / "embeddings.zarr.zip").rows
    model, preprocess = open_clip.create_model_from_pretrained(MODEL)
    with torch.inference_mode():
        batch = torch.stack([preprocess(expected(pictures / source)) for source in sources])
        wanted = torch.nn.functional.normalize(model.eval().encode_image(batch), dim=-1).numpy()
    cosines = dict(zip(sources, np.einsum("nd,nd->n", stored, wanted).tolist(), strict=True))
    assert min(cosines.values()) >= 0.9999, cosines
