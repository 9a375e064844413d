"""Checkpoints in other programs' formats, read and written as streams of tensors; `puna convert` joins them."""
