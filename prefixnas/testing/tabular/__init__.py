"""A benchmark whose scores are looked up in a table: a strategy runs on it in a second."""
