"""The SQLite catalog: write_catalog.py makes it in one pass; fields.py decides what kind a field has, fitting.py what fits a kind."""
