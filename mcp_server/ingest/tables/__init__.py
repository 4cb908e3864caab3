"""Metadata files: read.py yields the rows of JSON Lines, JSON, CSV and Parquet, metadata.py finds the picture each row is about."""
