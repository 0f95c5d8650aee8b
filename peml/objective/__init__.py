"""The joint loss of LoRA and a prefix, as a training problem of PrefixNAS.

Others take `LanguageModelConfig`, the entry point ``language-model``, which imports nothing heavy
until it builds. It imports every room above it.
"""
