"""Blocks whose gradients are written by hand, for training in a low precision over float32 weights.

The formulas are transformer.py's; fewer passes over memory are made than autograd makes, and less is kept.
"""

from puna.model.handwritten.block import BlockWeights, suits_block, train_block

__all__ = ["BlockWeights", "suits_block", "train_block"]
