"""Equilibrium Propagation."""
