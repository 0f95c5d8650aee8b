"""PEML: LoRA and a searched continuous prefix, trained jointly for many tasks."""
