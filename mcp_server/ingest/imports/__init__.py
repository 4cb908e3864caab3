"""Collections of vectors computed elsewhere: run.py is the walk, vectors.py opens the vectors, items.py and exquisitor_json.py the rest."""
