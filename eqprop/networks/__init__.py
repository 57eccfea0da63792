"""What is wired to what: connections, edges between layers, graphs of edges.

Read first `connections.py` (one function; feedback and statistics are its derivatives), then
`edges.py` (tied, untied) and `network.py`. Convolutions and normalised inputs are further
connections; `graphs.py` draws networks from links. `energy.py` has energies and maps of one's own,
`resistive.py` circuits: like networks they are a `Model`, which is all that stands above this
folder needs.
"""
