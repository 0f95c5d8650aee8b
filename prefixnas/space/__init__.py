"""What can be chosen: operations, nodes, decisions, architectures; YAML both ways.

For all rooms above. May import: base. Reading and writing spaces needs no torch; operations do.
"""
