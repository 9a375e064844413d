"""The tokenizer of a model folder (§2.2): text to ids and back; no text ever becomes a control token."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from puna.core.errors import CheckpointError, DataError
from puna.tokenizer.backend import check_ids
from puna.tokenizer.chat_format import Llama2Chat
from puna.tokenizer.dialog_tokens import ChatFormat
from puna.tokenizer.hugging_face import check_conversion
from puna.tokenizer.imported.chat_template import ChatTemplate
from puna.tokenizer.imported.guard import GuardedTokenizer
from puna.tokenizer.imported.json_backend import JsonBackend, n_ids
from puna.tokenizer.imported.special_tokens import SideFiles, read_side_files, special_tokens
from puna.tokenizer.imported.template_chat import TemplateChat
from puna.tokenizer.jinja_template import chat_template, is_llama2_template
from puna.tokenizer.sentencepiece_backend import SentencePieceBackend
from puna.tokenizer.tokenizer_files import MODEL_FILE, TOKENIZER_JSON, write_imported, write_sentencepiece

__all__ = ["Tokenizer"]


class Tokenizer:
    """Encodes and decodes text, and renders dialogs by `chat`; made by `Tokenizer.load`.

    `decode(encode(text)) == text` holds for every Unicode string but for what a vocabulary itself folds:

    - SentencePiece with Llama 2's settings (byte fallback, no normalization): U+2581, its sign for a space, comes back
      as a space. Nothing else is lost; without byte fallback, characters without a piece are.
    - a tokenizer.json of byte-level BPE: nothing is lost. One converted from SentencePiece: as above, and each byte
      of a character that has no piece comes back as part of it.
    - one with a normalizer of its own (lower case, NFKC): what that changes.
    """

    def __init__(self, backend: SentencePieceBackend | JsonBackend, files: SideFiles, *, name: str) -> None:
        """Take a backend and what the files beside it say; the name is for error messages."""
        self._backend = backend
        self._files = files
        self._name = name
        self._specials = special_tokens(files, backend, defaults=_defaults(backend))
        self._controls = self._control_pieces()
        backend.refuse_typed(self._controls)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Read a tokenizer.model or a tokenizer.json, or the one in a folder, with the config files beside it.

        Where a folder has both, tokenizer.model is read, unless tokenizer.json has more tokens, as when a chat model
        added some.

        Raises:
            DataError: there is no such file.
            CheckpointError: it is damaged, or not one.
        """
        file = _tokenizer_file(path)
        content = file.read_bytes()
        backend: SentencePieceBackend | JsonBackend
        if file.suffix == ".json":
            backend = JsonBackend(content, name=str(file))
        else:
            backend = SentencePieceBackend(content, name=str(file))
        return cls(backend, read_side_files(file.parent), name=str(file))

    @property
    def vocab_size(self) -> int:
        """Number of ids, control and byte pieces included."""
        return self._backend.vocab_size

    @property
    def bos_id(self) -> int:
        """Id of <s>, or what begins a text instead.

        Raises:
            CheckpointError: this tokenizer has none.
        """
        return self._role(self._specials.bos_id, "bos_token")

    @property
    def eos_id(self) -> int:
        """Id of </s>, or what ends a text instead.

        Raises:
            CheckpointError: this tokenizer has none.
        """
        return self._role(self._specials.eos_id, "eos_token")

    @property
    def unk_id(self) -> int:
        """Id of <unk>; byte fallback leaves it unused.

        Raises:
            CheckpointError: this tokenizer has none.
        """
        return self._role(self._specials.unk_id, "unk_token")

    @property
    def has_bos(self) -> bool:
        """Whether there is a token that begins a text."""
        return self._specials.bos_id is not None

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer: the eos id, others that generation_config.json lists, the template's own."""
        return self.chat.stop_ids

    @cached_property
    def chat(self) -> ChatFormat:
        """How this tokenizer writes dialogs: by the model's own template, else Llama 2's format."""
        source = self._files.chat_template
        if source is None or is_llama2_template(source):
            return Llama2Chat(self, stop_ids=self._specials.stop_ids)
        variables = {f"{role}_token": piece for role, piece in self._role_pieces().items()}
        template = ChatTemplate(source, name=self._name, variables=variables)
        guarded = GuardedTokenizer(self._backend.fast.to_str(), self._controls)
        return TemplateChat(template, guarded, stop_ids=self._specials.stop_ids)

    def encode(self, text: str, *, bos: bool = False, eos: bool = False) -> list[int]:
        """Token ids of the text; "<s>" typed in it is encoded letter by letter like any other text.

        Args:
            bos: Begin with the bos id, where the tokenizer has one.
            eos: End with the eos id.
        Raises:
            DataError: the text holds half of a surrogate pair, which no UTF-8 file can.
        """
        opening = [self.bos_id] if bos and self.has_bos else []
        closing = [self.eos_id] if eos else []
        return [*opening, *self._backend.encode(text), *closing]

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Token ids of each text, without <s> and </s>, on all cores.

        Raises:
            DataError: as `encode`.
        """
        return self._backend.encode_batch(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; control tokens vanish, and bytes that are no UTF-8 become U+FFFD.

        Raises:
            ShapeError: an id lies outside the vocabulary.
        """
        check_ids(ids, self.vocab_size)
        return self._backend.decode(list(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of each id as the vocabulary has it: in SentencePiece a space is U+2581, a byte <0x0A>.

        Raises:
            ShapeError: an id lies outside the vocabulary.
        """
        check_ids(ids, self.vocab_size)
        return [self._backend.piece(token_id) for token_id in ids]

    def check_can_be_saved(self) -> None:
        """Find out before hours of training what `save` would say after them.

        Raises:
            CheckpointError: as `save`.
        """
        if isinstance(self._backend, SentencePieceBackend):
            check_conversion(self._backend.processor, self._backend.fast, name=self._name)

    def save(self, folder: Path, *, max_seq_len: int) -> None:
        """Write tokenizer.model, what other software reads (tokenizer.json, its configs), and the chat template.

        A tokenizer that came as a tokenizer.json alone has no tokenizer.model to write.

        Args:
            max_seq_len: The model's context in tokens, recorded for that software.
        Raises:
            CheckpointError: the SentencePiece model cannot be converted, so that tokenizer.json would not equal it,
                as where text is normalized, and for unigram models.
        """
        self.check_can_be_saved()
        folder.mkdir(parents=True, exist_ok=True)
        template = self._files.chat_template or chat_template(self._controls)
        config = {
            **{f"{role}_token": piece for role, piece in self._role_pieces().items() if piece},
            "model_max_length": max_seq_len,
            "chat_template": template,
        }
        if isinstance(self._backend, JsonBackend):
            write_imported(self._backend.content, self._files, config, folder)
        else:
            write_sentencepiece(self._backend, config, folder)

    def _role(self, token_id: int | None, role: str) -> int:
        if token_id is None:
            raise CheckpointError(
                where=self._name,
                expected=f"a tokenizer with a {role}",
                got="one without",
                fix=f"Name its {role} in tokenizer_config.json beside it.",
            )
        return token_id

    def _role_pieces(self) -> dict[str, str]:
        """The piece of each role; empty where there is none."""
        specials = self._specials
        ids = {"bos": specials.bos_id, "eos": specials.eos_id, "unk": specials.unk_id}
        return {role: "" if i is None else self._backend.piece(i) for role, i in ids.items()}

    def _control_pieces(self) -> list[str]:
        """Pieces that no text may become: special ones, those with a role, and markup the template writes."""
        specials = self._specials
        ids = [specials.bos_id, specials.eos_id, specials.unk_id, *specials.stop_ids]
        with_role = [self._backend.piece(token_id) for token_id in ids if token_id is not None]
        template = self._files.chat_template or ""
        written = [
            piece
            for piece in self._backend.added_pieces
            if piece in template
            and re.search(r"[^\w\s]", piece)  # no letters or spaces that it holds by chance
        ]
        return list(dict.fromkeys([*with_role, *self._backend.special_pieces, *written]))


def _tokenizer_file(path: Path) -> Path:
    """The file itself, or the better of the two that a folder may hold."""
    if not path.is_dir():
        found = [path] if path.is_file() else []
    else:
        found = [path / name for name in (MODEL_FILE, TOKENIZER_JSON) if (path / name).is_file()]
    if not found:
        raise DataError(
            where=str(path),
            expected=f"a folder with {MODEL_FILE} or {TOKENIZER_JSON}, or such a file",
            got="no such file",
            fix="Check the path, or train a tokenizer first.",
        )
    if len(found) == 1:
        return found[0]
    model, as_json = found
    n_pieces = SentencePieceBackend(model.read_bytes(), name=str(model)).vocab_size
    return as_json if (n_ids(as_json.read_bytes()) or 0) > n_pieces else model


def _defaults(backend: SentencePieceBackend | JsonBackend) -> dict[str, int]:
    if isinstance(backend, JsonBackend):
        return {}
    processor = backend.processor
    return {"bos": processor.bos_id(), "eos": processor.eos_id(), "unk": processor.unk_id()}
