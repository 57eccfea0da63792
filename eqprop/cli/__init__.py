"""The command line: a module for each subcommand, with its options, its help and its checks.

Read first `main.py`, then any command. `arguments.py` turns what was typed into dataclasses, with
one line for each mistake.
"""
