"""The scalar head of reward and value models (§3.2.2)."""

from jaxtyping import Float, Int
from torch import Tensor, nn

from puna.model.attention import Cache
from puna.model.init import init_score_head
from puna.model.transformer import Transformer

__all__ = ["ScoreModel"]


class ScoreModel(nn.Module):
    """A language model whose next-token head is replaced by a scalar regression head.

    Source: §3.2.2, "the classification head for next-token prediction is replaced with a regression head".
    The trunk is taken over and loses its output matrix: pass a copy if the language model is still needed.
    """

    def __init__(self, trunk: Transformer, *, seed: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        if hasattr(trunk, "output"):
            del trunk.output
        self.score = nn.Linear(trunk.config.dim, 1, bias=False)
        init_score_head(self.score, seed=seed)
        self.score.to(trunk.norm.weight.device)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        positions: Int[Tensor, "batch seq"] | None = None,
        document_ids: Int[Tensor, "batch seq"] | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch seq"]:
        """A score in logits at every position, in float32; a response's is the one at its last token."""
        hidden = self.trunk.hidden(tokens, positions=positions, document_ids=document_ids, cache=cache)
        return (hidden.float() * self.score.weight.float()).sum(-1)  # not a matmul: autocast would round it
