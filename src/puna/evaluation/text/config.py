"""Settings of the measurements on held-out text; the sizes are ours, since the paper's tasks need a 7B model."""

from pydantic import Field, model_validator

from puna.core.config import Settings

__all__ = ["TextEvaluationConfig", "TextHookConfig"]


class TextEvaluationConfig(Settings):
    """Which stretches of held-out text, and how long."""

    n_tokens: int = Field(default=4096, ge=16)
    """Tokens of each stretch, from a document's start: the longest context compared. Shorter documents are left out."""
    position_edges: tuple[int, ...] = (256, 512, 1024, 2048)
    """Where one group of positions ends and the next begins, for perplexity by position. Our choice."""
    max_documents: int = Field(default=64, ge=1)
    """Stretches per source in perplexity by position. Our choice."""
    n_choices: int = Field(default=4, ge=2)
    """Continuations to choose from, one of them the document's own. Our choice."""
    continuation_tokens: int = Field(default=32, ge=1)
    """Tokens of each continuation. Our choice."""
    max_items: int = Field(default=100, ge=1)
    """Choices per source. Our choice."""
    recall_distances: tuple[int, ...] = (128, 512, 1024, 2048, 3584)
    """Tokens between a passage and its beginning quoted again. Our choice."""
    passage_tokens: int = Field(default=16, ge=2)
    """Length of such a passage. Our choice."""
    cue_tokens: int = Field(default=4, ge=1)
    """Tokens of it that are quoted; the model is to go on with the others. Our choice."""
    n_passages: int = Field(default=100, ge=1)
    """Passages for each distance. Our choice."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Tokens in one forward pass, for memory and speed only."""

    @model_validator(mode="after")
    def _fits(self) -> "TextEvaluationConfig":
        if self.cue_tokens >= self.passage_tokens:
            raise ValueError("cue_tokens must be fewer than passage_tokens")
        longest = max(self.recall_distances, default=0) + 2 * self.passage_tokens + 1
        if longest > self.n_tokens:
            raise ValueError(f"recall_distances need {longest} tokens, more than n_tokens = {self.n_tokens}")
        if list(self.position_edges) != sorted(set(self.position_edges)):
            raise ValueError("position_edges must rise")
        if not all(0 < edge < self.n_tokens for edge in self.position_edges):
            raise ValueError(f"position_edges must lie between 0 and n_tokens = {self.n_tokens}")
        if self.continuation_tokens >= self.n_tokens:
            raise ValueError("continuation_tokens must be fewer than n_tokens")
        return self


class TextHookConfig(Settings):
    """Held-out text measured during a training."""

    every_steps: int = Field(ge=1)
    """Updates between measurements; the last update is always followed by one."""
    text: TextEvaluationConfig = TextEvaluationConfig()
    """What is measured, and on how much text."""
