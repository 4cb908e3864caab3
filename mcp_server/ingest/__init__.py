"""From a folder of pictures to a collection.

scan.py finds the pictures · metadata.py matches rows to them · fields.py types the values · pictures.py decodes · embed.py runs the model ·
write_archives.py and write_catalog.py make the files · write.py puts them in place in one step · config_section.py enters the collection ·
run.py is the walk through all of these.
"""
