"""One picture file. `decode.py` is the way in; it runs in processes of its own, so nothing here imports torch or a store.

reading.py reads the bytes · rgb.py makes them upright 8-bit RGB · facts.py says what the file tells of itself (exif.py, iptc.py, xmp.py,
tiff_tags.py, colours.py, clean.py) · sidecars.py what files beside it tell.
"""
