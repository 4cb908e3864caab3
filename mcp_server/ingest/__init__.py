"""From a folder of pictures to a collection, and from version to version of it.

`run.py` is the walk: scan.py finds the files · plan.py holds them against ledger.py, which remembers · workers.py has them decoded by
worker.py processes (`pictures/`) · embed.py runs the model · own_metadata.py enters the user's own fields (`tables/`) · publish.py writes
the collection's files out of the ledger (`catalog/`, write_archives.py, duplicates.py, grouping.py) and puts them in place.
`imports/` makes collections of vectors that were computed elsewhere.
"""
