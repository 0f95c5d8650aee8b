"""The embedded models and the generated text suite of the default run."""
