"""A SentencePiece tokenizer as the tokenizers package has it, for tokenizer.json.

The pieces and score-ordered merges are converted as they are; a Prepend and a Replace normalizer stand for
SentencePiece's dummy prefix and its escaped spaces. One thing differs by that software's design: a "<s>", "</s>" or
"<unk>" typed in a plain text becomes the control token there, unless the caller says `split_special_tokens=True`.
"""

from collections.abc import Iterator

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Regex, decoders, models, normalizers, processors
from tokenizers import Tokenizer as FastTokenizer

from puna.core.errors import CheckpointError
from puna.tokenizer.word_cache import SPACE

__all__ = ["check_conversion", "fast_tokenizer"]

PROBE_PIECES = 500
MAX_SHOWN_CHARS = 40


def check_conversion(processor: SentencePieceProcessor, fast: FastTokenizer, *, name: str) -> None:
    """Compare the two on texts that use every piece.

    Raises:
        CheckpointError: the conversion gives other ids than the SentencePiece model itself.
    """
    for probe in _probes(processor):
        if fast.encode(probe, add_special_tokens=False).ids != processor.encode(probe):
            raise CheckpointError(
                where=name,
                expected="a SentencePiece BPE model with byte fallback and without normalization",
                got=f"{_kind(processor)} that encodes differently as a tokenizer.json, {_short(probe)} for one",
                fix="No exact tokenizer.json can be written, so no model can be saved with it. Give a folder with "
                "its makers' tokenizer.json and no tokenizer.model, or train a tokenizer with this program.",
            )


def fast_tokenizer(processor: SentencePieceProcessor) -> FastTokenizer:
    """The `tokenizers` BPE with the same ids; encoding puts <s> first unless told otherwise."""
    pieces = [processor.id_to_piece(token_id) for token_id in range(processor.vocab_size())]
    bos_id, eos_id, unk_id = processor.bos_id(), processor.eos_id(), processor.unk_id()
    fast = FastTokenizer(
        models.BPE(
            vocab={piece: token_id for token_id, piece in enumerate(pieces)},
            merges=list(_merges(processor)),
            unk_token=pieces[unk_id],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    controls = [pieces[token_id] for token_id in sorted({unk_id, bos_id, eos_id} - {-1})]
    fast.add_special_tokens([AddedToken(control, normalized=False, special=True) for control in controls])
    removes_spaces = not processor.normalize("a ").endswith((" ", SPACE))
    steps: list[normalizers.Normalizer] = []
    if removes_spaces:
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    join = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if pieces[processor.encode("a")[0]].startswith(SPACE):
        steps.append(normalizers.Prepend(SPACE))
        fast.decoder = decoders.Sequence([*join, decoders.Strip(content=" ", left=1, right=0)])
    else:
        fast.decoder = decoders.Sequence(join)
    steps.append(normalizers.Replace(" ", SPACE))
    if removes_spaces:  # at the end those too that were typed as U+2581
        steps.append(normalizers.Replace(Regex(rf"{SPACE}+\z"), ""))
    fast.normalizer = normalizers.Sequence(steps)
    if bos_id >= 0:
        bos = pieces[bos_id]
        fast.post_processor = processors.TemplateProcessing(
            single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, bos_id)]
        )
    return fast


def _kind(processor: SentencePieceProcessor) -> str:
    if not all(processor.get_score(i).is_integer() for i in _normal_ids(processor)):  # a BPE score is a rank
        return "a unigram model"
    return (
        "a BPE model that changes letters" if not processor.normalize("\ufb01").endswith("\ufb01") else "one"
    )


def _short(probe: str) -> str:
    return repr(probe if len(probe) <= MAX_SHOWN_CHARS else probe[:MAX_SHOWN_CHARS] + "...")


def _normal_ids(processor: SentencePieceProcessor) -> Iterator[int]:
    for token_id in range(processor.vocab_size()):
        if not (
            processor.is_control(token_id) or processor.is_byte(token_id) or processor.is_unknown(token_id)
        ):
            yield token_id


def _merges(processor: SentencePieceProcessor) -> Iterator[tuple[str, str]]:
    """Every split of a piece into two pieces, best score first: SentencePiece joins any two that make a piece."""
    scores = {
        processor.id_to_piece(token_id): processor.get_score(token_id) for token_id in _normal_ids(processor)
    }
    for piece in sorted(scores, key=lambda piece: -scores[piece]):
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(left, right) for left, right in splits if left in scores and right in scores]
        yield from sorted(known, key=lambda pair: (-scores[pair[0]], -scores[pair[1]]))


def _probes(processor: SentencePieceProcessor) -> Iterator[str]:
    """Texts that use every piece, spaces at any place, bytes, and letters that normalization would change."""
    yield from ("", " ", "  two  spaces  ", "\n\t\0\r", "<0x0A>", "\U0010fffd", "A\ufb01e\u0301")
    pieces = [processor.id_to_piece(token_id).replace(SPACE, " ") for token_id in _normal_ids(processor)]
    for start in range(0, len(pieces), PROBE_PIECES):
        yield "".join(pieces[start : start + PROBE_PIECES])
