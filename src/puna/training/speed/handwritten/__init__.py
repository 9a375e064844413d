"""Blocks whose gradients are written by hand, for training in a low precision over float32 weights.

The formulas are model/transformer.py's; fewer passes over memory are made than autograd makes, and less is kept.
"""

from puna.training.speed.handwritten.block import BlockWeights, suits_block, train_block, weights_of

__all__ = ["BlockWeights", "suits_block", "train_block", "weights_of"]
