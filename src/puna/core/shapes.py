"""The dimension names that jaxtyping signatures use, so that one word means one thing in every file.

A signature writes them as text: `Float[Tensor, "batch seq dim"]`. A single name takes a leading space:
`Float[Tensor, " pair"]`. The checks run in the tests only.
"""

__all__ = ["DIMENSIONS"]

DIMENSIONS: dict[str, str] = {
    "batch": "sequences processed together",
    "row": "packed training rows, each holding one or more documents",
    "seq": "token positions of a sequence or row",
    "query": "positions that attend",
    "key": "positions attended to, cached ones included",
    "token": "tokens of all sequences, flattened",
    "target": "tokens whose next-token loss counts, flattened",
    "dim": "width of the residual stream",
    "hidden_dim": "inner width of the feed-forward layer",
    "head": "query heads",
    "kv_head": "key and value heads (grouped-query attention)",
    "head_dim": "width of one head",
    "vocab": "entries of the vocabulary",
    "pair": "annotated comparisons",
    "sample": "sampled responses",
}
"""Name to meaning."""
