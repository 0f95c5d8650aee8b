"""multitrial."""
