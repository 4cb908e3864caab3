"""Lays pictures out on one sheet of numbered tiles, for a model to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SHEET_SIDE = 1024
"""Longest side of a sheet."""
GROUND = 232
"""Grey behind transparent pictures: light, and yet darker than white."""

_GAP = 8
_MARGIN = 4
_STRIP = 34
_FONT = 24
_LEAST_FONT = 11
_LEAST_LABEL_FONT = 18
_LARGEST_ENLARGEMENT = 2.0
_PAPER, _INK, _LABEL, _EMPTY = "white", "white", "black", (205, 205, 205)


@dataclass(frozen=True)
class Tile:
    """One tile: its label, and the picture or the reason why there is none."""

    label: str
    picture: Image.Image | None
    reason: str = ""


@dataclass(frozen=True)
class Grid:
    """Columns and rows of equal cells, and the room for a picture in each, in pixels."""

    columns: int
    rows: int
    width: int
    height: int


def draw_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Return `tiles`, at least one, in reading order on one RGB sheet, each side at most `SHEET_SIDE` pixels.

    Pictures keep their proportions and are as large as the best grid allows, at most twice their size. Each tile has its label in white on
    black above it; labels too wide for their tile are set a little smaller, and no grid is taken in which that would not do.
    """
    grid = grid_for([_size(tile) for tile in tiles], _room_for_labels(tiles))
    placed = [_fitted(tile.picture, grid) if tile.picture is not None else None for tile in tiles]
    rows = [placed[start : start + grid.columns] for start in range(0, len(placed), grid.columns)]
    heights = [max(one.height if one is not None else min(grid.height, grid.width) // 2 for one in row) for row in rows]
    width = grid.columns * grid.width + (grid.columns + 1) * _GAP
    sheet = Image.new("RGB", (width, sum(heights) + len(rows) * (_STRIP + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in enumerate(heights):
        for column, picture in enumerate(rows[row]):
            tile, left = tiles[row * grid.columns + column], _GAP + column * (grid.width + _GAP)
            draw.rectangle((left, top, left + grid.width - 1, top + _STRIP - 1), fill=_LABEL)
            _write(draw, tile.label, (left, top, grid.width, _STRIP), _INK)
            if picture is not None:
                sheet.paste(picture, (left + (grid.width - picture.width) // 2, top + _STRIP))
            else:
                draw.rectangle((left, top + _STRIP, left + grid.width - 1, top + _STRIP + height - 1), fill=_EMPTY)
                _write(draw, tile.reason, (left, top + _STRIP, grid.width, height), _LABEL)
        top += height + _STRIP + _GAP
    return sheet


def grid_for(sizes: Sequence[tuple[int, int]], least_width: int = 1) -> Grid:
    """Return the grid in which pictures of these (width, height) come out largest; of equal ones that with fewer columns.

    Cells are at least `least_width` pixels wide, unless there is one column. The roots of their areas are added up, so that
    a few huge pictures do not make the others tiny.
    """

    def shown(grid: Grid) -> float:
        return sum(math.sqrt(width * height) * _scale((width, height), grid) for width, height in sizes)

    grids = [_grid(len(sizes), columns) for columns in range(1, len(sizes) + 1)]
    return max((grid for grid in grids if grid.columns == 1 or grid.width >= least_width), key=shown)


def _room_for_labels(tiles: Sequence[Tile]) -> int:
    font = ImageFont.load_default(_LEAST_LABEL_FONT)
    return math.ceil(max(font.getlength(tile.label) for tile in tiles)) + 2 * _MARGIN


def _grid(count: int, columns: int) -> Grid:
    rows = -(-count // columns)
    width = (SHEET_SIDE - (columns + 1) * _GAP) // columns
    height = (SHEET_SIDE - (rows + 1) * _GAP) // rows - _STRIP
    return Grid(columns, rows, width, max(1, height))


def _size(tile: Tile) -> tuple[int, int]:
    return tile.picture.size if tile.picture is not None else (256, 256)


def _scale(size: tuple[int, int], grid: Grid) -> float:
    return min(grid.width / size[0], grid.height / size[1], _LARGEST_ENLARGEMENT)


def _fitted(picture: Image.Image, grid: Grid) -> Image.Image:
    scale = _scale(picture.size, grid)
    size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, text: str, box: tuple[int, int, int, int], colour: str) -> None:
    """Write `text` in the middle of `box` (left, top, width, height), smaller if it would not fit."""
    left, top, width, height = box
    size = _FONT
    font = ImageFont.load_default(size)
    while draw.textlength(text, font) > width - 2 * _MARGIN and size > _LEAST_FONT:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text((left + width / 2, top + height / 2), text, fill=colour, font=font, anchor="mm")
