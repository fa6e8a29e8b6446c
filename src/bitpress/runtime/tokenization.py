"""Tokenization with the ``tokenizers`` package alone, token for token what ``transformers`` does: whatever is saved as
tokenizer.json (WordPiece, byte-level BPE, Unigram), and the older files of BERT and RoBERTa.

Training and inference share this module, so a text has the same tokens in both. Truncation is done here on whole
encodings, without the tokenizer's mutable truncation state: one ``Tokenizer`` may serve many threads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from bitpress.errors import UnsupportedModelError

# Classes whose vocab.txt is BERT's WordPiece; others use the same file name for other algorithms.
WORDPIECE_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
# Classes whose vocab.json and merges.txt are RoBERTa's byte-level BPE.
BYTE_BPE_CLASSES = ("RobertaTokenizer",)
PROBE = ("a", "\ua66e" * 200)  # the second is a word of no vocabulary, and longer than WordPiece looks at
SPECIAL_TOKENS = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}


Words = Sequence[tuple[int, int]]  # [start, end) of each, in characters


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text (or pair) as the encoder reads it: token ids and segment ids of equal length, without padding.

    ``words``, where they were given: of a token that begins one, its number; -1 of every other token.
    """

    ids: list[int]
    type_ids: list[int]
    truncated: bool
    words: list[int] | None = None


class Tokenizer:
    """Tokenizer of one model directory. Thread-safe: nothing in it changes after construction."""

    def __init__(self, backend: Backend, config: dict[str, Any] | None = None) -> None:
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._config = config

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer:
        """Load ``tokenizer.json``, or build a tokenizer from ``tokenizer_config.json`` and its vocabulary: BERT's
        WordPiece of ``vocab.txt``, RoBERTa's byte-level BPE of ``vocab.json`` and ``merges.txt``.

        ``do_lower_case``, ``strip_accents`` and ``tokenize_chinese_chars`` of tokenizer_config.json, and RoBERTa's
        ``add_prefix_space``, win over what tokenizer.json says, as in ``transformers``. Raises UnsupportedModelError
        where there is none of these files, a file is malformed, or the directory's tokenizer is of another kind.
        """
        folder = Path(path)
        config = _read_json(folder / "tokenizer_config.json")
        try:
            if (folder / "tokenizer.json").is_file():
                backend = Backend.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
                _follow_config(backend, config or {})
            elif (folder / "vocab.txt").is_file():
                backend = _from_vocabulary(folder, config or {})
            elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
                backend = _from_merges(folder, config or {})
            elif found := sorted(file.name for file in folder.glob("*.model")):
                raise UnsupportedModelError(
                    f"{folder}: found {found[0]}, a SentencePiece model, without tokenizer.json; load the tokenizer "
                    "with transformers' AutoTokenizer and save it there with save_pretrained, which writes "
                    "tokenizer.json"
                )
            else:
                raise UnsupportedModelError(
                    f"{folder}: no tokenizer found; expected tokenizer.json, vocab.txt of a BERT WordPiece tokenizer, "
                    "or vocab.json and merges.txt of a RoBERTa byte-level BPE tokenizer"
                )
            tokenizer = cls(backend, config)
            # A damaged file may load and fail only when a text needs the damaged part: an unknown word, a pair.
            for pairs in (None, PROBE):
                tokenizer.encode(PROBE, pairs, max_length=512)
        except (UnsupportedModelError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the Rust side raises bare Exception, and its panics are BaseException
            raise UnsupportedModelError(f"{folder}: the tokenizer files cannot be used: {error}") from error
        return tokenizer

    @staticmethod
    def files(path: str | Path) -> dict[str, bytes]:
        """What an artifact carries of the directory's tokenizer: tokenizer.json, and tokenizer_config.json if there."""
        tokenizer = Tokenizer.from_directory(path)
        files = {"tokenizer.json": tokenizer._backend.to_str().encode()}
        if tokenizer._config is not None:
            files["tokenizer_config.json"] = (Path(path) / "tokenizer_config.json").read_bytes()
        return files

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids, added tokens included: the word embedding needs at least as many rows."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def digest(self) -> str:
        """sha256 of everything that decides how a text is tokenized."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def same_tokens(self, other: Tokenizer) -> bool:
        """Whether both give every token the same id."""
        return bool(self._backend.get_vocab() == other._backend.get_vocab())

    def mask_and_special_ids(self) -> tuple[int, list[int]]:
        """The id of [MASK], and those of all special tokens.

        Raises:
            UnsupportedModelError: the vocabulary has no mask.
        """
        mask = self._backend.token_to_id(SPECIAL_TOKENS["mask"])
        if mask is None:
            raise UnsupportedModelError(
                f"the tokenizer has no token {SPECIAL_TOKENS['mask']!r}, so nothing can be hidden"
            )
        found = (self._backend.token_to_id(token) for token in SPECIAL_TOKENS.values())
        return int(mask), sorted(int(token) for token in found if token is not None)

    def words_by_id(self) -> dict[int, str]:
        """Every token of the vocabulary by its id."""
        return {int(token): word for word, token in self._backend.get_vocab().items()}

    def split(self, text: str) -> list[str]:
        """The words and punctuation marks of a text, normalised, before they are cut into pieces."""
        backend = self._backend
        normal = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            return normal.split()
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)]

    def pieces(self, words: Sequence[str]) -> list[list[int]]:
        """Each word's tokens, without special ones."""
        return [encoding.ids for encoding in self._backend.encode_batch(list(words), add_special_tokens=False)]

    def words(self) -> list[str]:
        """The vocabulary, in no particular order."""
        return list(self._backend.get_vocab())

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int = 128,
        words: Sequence[Words] | None = None,
    ) -> list[Encoding]:
        """Encode texts (and their pairs) with special tokens, cut to ``max_length`` tokens, the longer text first.

        ``words``: the places of each text's words, in order and apart, for texts without pairs. The first token that
        shares a character with a word begins it; a word may have none.

        Raises ValueError where the numbers of texts and pairs differ, a text holds lone surrogates, or ``max_length``
        leaves no room beside the special tokens.
        """
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"found {len(texts)} texts and {len(pairs)} pairs; they must be as many")
        special = self._backend.num_special_tokens_to_add(pairs is not None)
        if max_length <= special:
            raise ValueError(f"max_length {max_length} leaves no room for text beside {special} special tokens")
        encodings = self.encode_whole(texts, pairs)
        if words is None:
            return [_cut(encoding, max_length) for encoding in encodings]
        begun = [begun_words(encoding.offsets, places) for encoding, places in zip(encodings, words, strict=True)]
        return [_cut(encoding, max_length, begins) for encoding, begins in zip(encodings, begun, strict=True)]

    def encode_whole(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Any]:
        """Of each text (and its pair) an encoding of the ``tokenizers`` package, special tokens included, not cut.
        Raises ValueError for a lone surrogate."""
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            return list(self._backend.encode_batch(inputs))
        except TypeError:
            _explain_refusal([*texts, *(pairs or ())])
            raise


def begun_words(offsets: Sequence[tuple[int, int]], words: Words) -> list[int]:
    """Of each token the word that it is the first to share a character with, -1 where there is none.

    Args:
        offsets: [start, end) of each token in the text, in characters; special tokens are empty.
        words: [start, end) of each word; in order, apart.
    """
    begun = []
    word = 0  # the first that no token has begun
    for start, end in offsets:
        while word < len(words) and words[word][1] <= start:
            word += 1
        begins = word < len(words) and start < end and words[word][0] < end
        begun.append(word if begins else -1)
        word += begins
    return begun


def _cut(encoding: Any, max_length: int, words: list[int] | None = None) -> Encoding:
    """Keep all special tokens and the first tokens of each text, as many as "longest_first" leaves it."""
    ids, type_ids = encoding.ids, encoding.type_ids
    if len(ids) <= max_length:
        return Encoding(ids, type_ids, False, words)
    sequences = encoding.sequence_ids  # 0 and 1 for the tokens of text and pair, None for special tokens
    lengths = (sequences.count(0), sequences.count(1))
    room = max_length - sequences.count(None)
    left = dict(enumerate(longest_first(*lengths, room)))
    kept = []
    for position, sequence in enumerate(sequences):
        if sequence is not None:
            left[sequence] -= 1
        if sequence is None or left[sequence] >= 0:
            kept.append(position)
    kept_words = None if words is None else [words[i] for i in kept]
    return Encoding([ids[i] for i in kept], [type_ids[i] for i in kept], True, kept_words)


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that two texts of ``first`` and ``second`` tokens keep in ``room``: only the longer is cut until both are
    equally long; then each gets half, an odd token going to the text that was longer (the second on a tie)."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)


def _explain_refusal(texts: Sequence[object]) -> None:
    """Raise the reason why the tokenizer refused one of ``texts``."""
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"expected text (str), found {type(text).__name__}: {text!r:.60}") from None
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"the text holds a lone surrogate at character {error.start}: {text!r:.60}") from None


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no such file."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModelError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UnsupportedModelError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _is_wordpiece_class(config: dict[str, Any]) -> bool:
    name = str(config.get("tokenizer_class") or "BertTokenizer")
    return name.removesuffix("Fast") in WORDPIECE_CLASSES


def _is_byte_bpe_class(config: dict[str, Any]) -> bool:
    return str(config.get("tokenizer_class")).removesuffix("Fast") in BYTE_BPE_CLASSES


def _follow_config(backend: Backend, config: dict[str, Any]) -> None:
    """Give the BERT normalizer, or RoBERTa's way to split, of a tokenizer.json the flags of tokenizer_config.json."""
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) and _is_byte_bpe_class(config):
        backend.pre_tokenizer.add_prefix_space = bool(config.get("add_prefix_space", False))
    if isinstance(backend.normalizer, normalizers.BertNormalizer) and _is_wordpiece_class(config):
        for option, attribute in (
            ("do_lower_case", "lowercase"),
            ("strip_accents", "strip_accents"),
            ("tokenize_chinese_chars", "handle_chinese_chars"),
        ):
            if option in config:
                setattr(backend.normalizer, attribute, config[option])


def _from_vocabulary(folder: Path, config: dict[str, Any]) -> Backend:
    """BERT's tokenizer (Devlin et al. 2019) from its vocabulary: clean, split at spaces and punctuation, WordPiece."""
    if not _is_wordpiece_class(config):
        raise UnsupportedModelError(
            f"{folder}: found vocab.txt of a {config['tokenizer_class']}; allowed: {', '.join(WORDPIECE_CLASSES)}, "
            "or any tokenizer saved as tokenizer.json (transformers: tokenizer.save_pretrained)"
        )
    vocabulary = models.WordPiece.read_file(str(folder / "vocab.txt"))
    special = _special_tokens(folder, config, SPECIAL_TOKENS)
    for key in ("unk", "cls", "sep"):
        if special[key] not in vocabulary:
            raise UnsupportedModelError(f"{folder / 'vocab.txt'}: lacks the {key} token {special[key]!r}")
    backend = Backend(models.WordPiece(vocabulary, unk_token=special["unk"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    # Inside a text, too, these strings are the special tokens (a transformers behaviour that models rely on).
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special.values()])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']}:0 $A:0 {special['sep']}:0",
        pair=f"{special['cls']}:0 $A:0 {special['sep']}:0 $B:1 {special['sep']}:1",
        special_tokens=[(special[key], vocabulary[special[key]]) for key in ("cls", "sep")],
    )
    return backend


def _from_merges(folder: Path, config: dict[str, Any]) -> Backend:
    """RoBERTa's tokenizer (Liu et al. 2019, GPT-2's): byte-level BPE; a text stands between <s> and </s>, and two more
    of the latter separate a pair, whose token types are all 0."""
    if config.get("tokenizer_class") is not None and not _is_byte_bpe_class(config):
        raise UnsupportedModelError(
            f"{folder}: found vocab.json and merges.txt of a {config['tokenizer_class']}; allowed: "
            f"{', '.join(BYTE_BPE_CLASSES)}, or any tokenizer saved as tokenizer.json (transformers: "
            "tokenizer.save_pretrained)"
        )
    vocabulary, merges = models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    special = _special_tokens(folder, config, ROBERTA_TOKENS)
    for key in ("unk", "cls", "sep"):
        if special[key] not in vocabulary:
            raise UnsupportedModelError(f"{folder / 'vocab.json'}: lacks the {key} token {special[key]!r}")
    spaced, trimmed = bool(config.get("add_prefix_space", False)), bool(config.get("trim_offsets", True))
    backend = Backend(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special.values()])
    sep, cls = ((special[key], vocabulary[special[key]]) for key in ("sep", "cls"))
    backend.post_processor = processors.RobertaProcessing(sep, cls, trimmed, spaced)
    return backend


def _special_tokens(folder: Path, config: dict[str, Any], defaults: dict[str, str]) -> dict[str, str]:
    """The special tokens by what they are for; those that neither file names are the ``defaults``."""
    named = {**(_read_json(folder / "special_tokens_map.json") or {}), **config}
    return {key: _content(named.get(f"{key}_token")) or token for key, token in defaults.items()}


def _content(token: Any) -> str | None:
    """A special token stands in the configuration as a string or as an object with its content."""
    return token.get("content") if isinstance(token, dict) else token
