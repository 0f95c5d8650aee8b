"""Figures of one run; all of them look as `style` says."""
