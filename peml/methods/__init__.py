"""Ways to fine-tune a model, one a file, found by name.

Others take `METHODS`, `Method`, `Attached`, `Setting`, and `attach_method`. It imports `model`,
`tasks` and `prefix`; a method's file imports a mechanism of this room, never another method.
"""
