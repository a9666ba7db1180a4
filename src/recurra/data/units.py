"""What a language model reads and writes: words, characters or subwords; texts to ids and back.

Words lose what is unknown, and how many blanks stood between two; the others lose nothing that they know.
"""

import functools
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeGuard

import numpy as np

from recurra.errors import DataError, EmptyDataError, OptionError

LINE_END, UNKNOWN = "<eos>", "<unk>"  # as the Penn Treebank of language models writes them
AT_ONCE = 4096  # lines; an Encoding takes some hundred bytes a token, so few of them are alive at a time

Ids = np.ndarray[Any, np.dtype[np.int64]]


class Units(ABC):
    """A vocabulary, numbered from 0.

    Attributes:
        name: ``"word"``, ``"char"`` or ``"subword"``.
        tokens: by their ids.
        begin: the id of the line end, which stands before the first token of a text.
        unknown: the id of what the vocabulary lacks; None: it lacks nothing.
        needs: tokens without which there is no such vocabulary. least: the smallest one that learns anything.
        strict: whether a prompt must not hold what the vocabulary lacks.
    """

    name: ClassVar[str]
    needs: ClassVar[set[str]]
    least: ClassVar[int] = 3
    strict: ClassVar[bool] = False
    begin: int
    unknown: int | None

    def __init__(self, tokens: Sequence[str]):
        self.tokens = list(tokens)
        self.index = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    @abstractmethod
    def learn(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """The vocabulary of training texts, at most so many tokens, the most frequent ones."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """The ids of a text, ``(T,)``."""

    @abstractmethod
    def writer(self, before: str = "") -> Callable[[int], str]:
        """A function from each id of a text, in order, to the piece of text it adds behind `before`."""

    def document(self) -> dict[str, Any]:
        """What :func:`units_of` makes these units of, as JSON holds it."""
        return {"unit": self.name, "tokens": self.tokens}

    def to_str(self) -> str:
        """The document as JSON."""
        return json.dumps(self.document(), ensure_ascii=False, indent=0) + "\n"

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The units of a document."""
        return cls(document["tokens"])


class Words(Units):
    """What stands between white space, and line ends.

    Example:
        >>> words = Words.learn(["the cat\\nthe dog\\n"], 10)
        >>> words.tokens
        ['<eos>', '<unk>', 'the', 'cat', 'dog']
        >>> words.encode("the fox\\n").tolist()
        [2, 1, 0]
    """

    name, needs = "word", {LINE_END, UNKNOWN}

    def __init__(self, tokens: Sequence[str]):
        super().__init__(tokens)
        self.begin, self.unknown = self.index[LINE_END], self.index[UNKNOWN]

    @classmethod
    def learn(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """The most frequent words; of equally frequent ones, those first in the alphabet."""
        return cls(_most_frequent(map(_words, texts), [LINE_END, UNKNOWN], vocab_size))

    def encode(self, text: str) -> Ids:
        """The ids of a text, ``(T,)``."""
        find, unknown = self.index.get, self.unknown
        return np.array([find(word, unknown) for word in _words(text)], dtype=np.int64)

    def writer(self, before: str = "") -> Callable[[int], str]:
        """Words with a space before each that does not begin a line."""
        fresh = not before or before[-1].isspace()

        def write(token: int) -> str:
            nonlocal fresh
            space, fresh = "" if fresh else " ", token == self.begin
            return "\n" if fresh else space + self.tokens[token]

        return write


class Characters(Units):
    """Characters.

    Example:
        >>> Characters.learn(["abba\\n"], 10).tokens
        ['\\n', '<unk>', 'a', 'b']
    """

    name, needs = "char", {"\n", UNKNOWN}
    strict = True

    def __init__(self, tokens: Sequence[str]):
        super().__init__(tokens)
        self.begin, self.unknown = self.index["\n"], self.index[UNKNOWN]

    @classmethod
    def learn(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """The most frequent characters."""
        return cls(_most_frequent(texts, ["\n", UNKNOWN], vocab_size))

    def encode(self, text: str) -> Ids:
        """The ids of a text, ``(T,)``."""
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        return self._by_code[np.minimum(codes, len(self._by_code) - 1)]  # type: ignore[no-any-return]

    @functools.cached_property
    def _by_code(self) -> Ids:
        codes = {ord(token): i for token, i in self.index.items() if len(token) == 1}
        ids = np.full(max(codes) + 2, self.unknown, dtype=np.int64)  # the last one: of all characters beyond
        ids[[*codes]] = [*codes.values()]
        return ids

    def writer(self, before: str = "") -> Callable[[int], str]:  # noqa: ARG002  (one signature for all)
        """The characters themselves."""
        return self.tokens.__getitem__


class Subwords(Units):
    """Pieces of words, merged from bytes (Sennrich et al., 2016), by the `tokenizers` library: nothing is unknown.

    Example:
        >>> subwords = Subwords.learn(["low lower lowest\\n" * 9], 260)
        >>> ids, write = subwords.encode("lower, naïve\\n"), subwords.writer()
        >>> len(ids), "".join(write(i) for i in ids.tolist())
        (12, 'lower, naïve\\n')
    """

    name, needs = "subword", {"Ċ"}
    least = 257  # the 256 bytes, and one more

    def __init__(self, tokens: Sequence[str], merges: Sequence[tuple[str, str]]):
        from tokenizers import Tokenizer
        from tokenizers.decoders import ByteLevel as Bytes
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel

        super().__init__(tokens)
        self.merges = [(a, b) for a, b in merges]
        self.tokenizer = Tokenizer(BPE(self.index, self.merges))
        self.tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
        self.tokenizer.decoder = Bytes()
        self.begin, self.unknown = self.index["Ċ"], None  # the line end, as byte-level vocabularies spell it

    @classmethod
    def learn(cls, texts: Iterable[str], vocab_size: int) -> Self:
        """All 256 bytes, and what is merged most often."""
        from tokenizers import Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel
        from tokenizers.trainers import BpeTrainer

        if vocab_size < cls.least:
            raise OptionError(
                f"vocab_size must be at least {cls.least} for subwords: the 256 bytes, and one more",
                received=str(vocab_size),
            )
        learner = Tokenizer(BPE())
        learner.pre_tokenizer = ByteLevel(add_prefix_space=False)
        alphabet = ByteLevel.alphabet()
        trainer = BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
        learner.train_from_iterator((line for text in texts for line in text.splitlines(keepends=True)), trainer)
        model = json.loads(learner.to_str())["model"]
        return cls(sorted(model["vocab"], key=model["vocab"].__getitem__), model["merges"])

    def encode(self, text: str) -> Ids:
        """The ids of a text, ``(T,)``; no subword spans two lines, so that a text is the sum of its lines."""
        lines = text.splitlines(keepends=True)
        parts = [lines[i : i + AT_ONCE] for i in range(0, len(lines), AT_ONCE)]
        found = [i for part in parts for encoding in self.tokenizer.encode_batch_fast(part) for i in encoding.ids]
        return np.array(found, dtype=np.int64)

    def writer(self, before: str = "") -> Callable[[int], str]:  # noqa: ARG002  (one signature for all)
        """Text as soon as its bytes make characters; until then nothing."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream()
        return lambda token: stream.step(self.tokenizer, token) or ""

    def document(self) -> dict[str, Any]:
        """Tokens and merges."""
        return {**super().document(), "merges": [list(pair) for pair in self.merges]}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The units of a document."""
        return cls(document["tokens"], document["merges"])


UNITS: dict[str, type[Units]] = {kind.name: kind for kind in (Words, Characters, Subwords)}


def units_of(document: Mapping[str, Any]) -> Units:
    """The units that :meth:`Units.document` describes, which may be a stranger's.

    Raises:
        DataError: it describes none.

    Example:
        >>> units_of({"unit": "char", "tokens": ["\\n", "<unk>", "a"]}).encode("ab").tolist()
        [2, 1]
    """
    unit, tokens, merges = document.get("unit"), document.get("tokens"), document.get("merges", [])
    if not isinstance(unit, str) or unit not in UNITS:
        raise DataError("a vocabulary of no known unit", received=repr(unit)[:100], instead=", ".join(UNITS))
    known = {*tokens} if _are_texts(tokens) else set()
    if document.keys() - {"unit", "tokens", "merges"} or not known or len(known) != len(tokens or ()):
        raise DataError("a vocabulary must be a list of different tokens")
    missing = UNITS[unit].needs - known
    if missing:
        raise DataError("a vocabulary lacks what it needs", received=", ".join(map(repr, sorted(missing))))
    if not isinstance(merges, list) or not all(
        _are_texts(pair) and len(pair) == 2 and {*pair, "".join(pair)} <= known for pair in merges
    ):
        raise DataError("a vocabulary of subwords must be merged from its own tokens")
    return UNITS[unit].of({"tokens": tokens, "merges": merges})


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    # JSON can write half of a character, which is no text
    return isinstance(values, list) and all(
        isinstance(v, str) and v and not any("\ud800" <= c <= "\udfff" for c in v) for v in values
    )


def _words(text: str) -> Sequence[str]:
    return text.replace("\n", f" {LINE_END} ").split()


def _most_frequent(texts: Iterable[Iterable[str]], first: list[str], vocab_size: int) -> list[str]:
    if vocab_size <= len(first):
        raise OptionError(f"vocab_size must be at least {len(first) + 1}", received=str(vocab_size))
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(tokens)
    ordered = sorted(counts.keys() - {*first}, key=lambda token: (-counts[token], token))
    if not ordered:
        raise EmptyDataError("the text holds nothing to make a vocabulary of")
    return [*first, *ordered][:vocab_size]
