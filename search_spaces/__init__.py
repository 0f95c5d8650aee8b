"""Shipped search spaces: one space, one YAML file."""
