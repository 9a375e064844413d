"""Text as it becomes certain: whole characters only, and nothing that may turn out to begin a stop string."""

from collections.abc import Callable, Sequence

__all__ = ["StreamedText"]

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for the first bytes of a character whose others have not come."""


class StreamedText:
    """Text of one response, token by token."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._ids: list[int] = []
        self._window = 0
        """First token that is decoded again: one certain piece before the new ones, for spaces between words."""
        self._n_certain = 0
        """Tokens whose text is in `text`."""
        self._n_told = 0
        self.text = ""
        """All text so far; cut before a stop string once one is complete."""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Take a token; returns the text that has become certain."""
        self._ids.append(token)
        before = self._decode(self._ids[self._window : self._n_certain]) if self._n_certain else ""
        after = self._decode(self._ids[self._window :])
        if after.endswith(UNFINISHED) or len(after) <= len(before):
            return ""
        self._window, self._n_certain = self._n_certain, len(self._ids)
        self._extend(after[len(before) :])
        return self._tell(len(self.text) - self._n_held_back())

    def finish(self) -> str:
        """No token will come: returns the text that was held back."""
        if not self.is_stopped and self._n_certain < len(self._ids):
            before = self._decode(self._ids[self._window : self._n_certain]) if self._n_certain else ""
            self._extend(self._decode(self._ids[self._window :])[len(before) :])
            self._n_certain = len(self._ids)
        return self._tell(len(self.text))

    def _extend(self, more: str) -> None:
        begin = max(0, len(self.text) - max((len(stop) for stop in self._stops), default=1) + 1)
        self.text += more
        found = [place for stop in self._stops if (place := self.text.find(stop, begin)) >= 0]
        if found:
            self.text, self.is_stopped = self.text[: min(found)], True

    def _n_held_back(self) -> int:
        """Characters at the end that begin a stop string."""
        if self.is_stopped:
            return 0
        longest = 0
        for stop in self._stops:
            for n in range(min(len(stop) - 1, len(self.text)), longest, -1):
                if self.text.endswith(stop[:n]):
                    longest = n
                    break
        return longest

    def _tell(self, end: int) -> str:
        told, self._n_told = self.text[self._n_told : end], max(self._n_told, end)
        return told
