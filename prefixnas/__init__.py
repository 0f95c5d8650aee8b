"""PrefixNAS: architecture search for small modules inside a bigger training problem."""
