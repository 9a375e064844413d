"""Checkpoints in other programs' formats, read and written through their libraries; `puna convert` joins them."""
