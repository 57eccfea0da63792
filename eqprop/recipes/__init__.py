"""A training as data: all that determines it, and every published row as such a record.

Read first `recipe.py`, the record, of which every field is an option of the command line; then
`catalogue.py`, the recipes there are. `build.py` alone knows which object a word stands for.
"""
