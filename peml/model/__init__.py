"""The base model as it is loaded, put on a device and run, before anything is trained.

Others take `load_language_model` and `LanguageModel`, and calls that compute no more logits than
needed. It imports nothing else of PEML.
"""
