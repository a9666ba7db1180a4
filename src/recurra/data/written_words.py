"""Texts to words and back: words that can be written out again, with the space around them."""

import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.trainers import BpeTrainer

from recurra.errors import DataError, EmptyDataError, OptionError

SPECIAL = ("[PAD]", "[UNK]", "[BEGIN]", "[END]")
PAD_ID, UNK_ID, BEGIN_ID, END_ID = range(4)
JOINER = "\uffed"  # the side on which a sign stands without a space, as OpenNMT's tokenizer writes it
FORMAT = "recurra words 1"
UNITS = ("word", "subword")
LONGEST_WORD = 100  # letters; a longer one is no word, and takes long to cut
# Written without spaces, so that a run of letters is no word: Han, kana, Thai, Lao, Khmer, Burmese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"


@functools.cache  # at first use: to look through all characters takes longer than an import may
def _token() -> re.Pattern[str]:
    # Vowel signs and accents are no letters to `re`; they go on with a word, as the joiners of Persian and Hindi do.
    every = "".join(mark for mark in map(chr, range(0x300, 0x20000)) if unicodedata.category(mark) in ("Mn", "Mc"))
    marks = re.sub(rf"[{_UNSPACED}]", "", every)
    return re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|[{marks}\u200c\u200d])*|([^\w\s])\1*")


def split_words(text: str) -> list[str]:
    """The words and signs of a text; :func:`join_words` undoes it, but for the kind of white space.

    A word is a run of letters with their marks, digits and underscores; a run of one sign, or one character of a script
    without spaces, is a token that bears a mark on each side where no space stands.

    Example:
        >>> split_words("It's `np.pad`, isn't it?") == "It ￭'￭ s `￭ np ￭.￭ pad ￭` ￭, isn ￭'￭ t it ￭?".replace("￭", JOINER).split()
        True
        >>> join_words(split_words("It's `np.pad`, isn't it?"))
        "It's `np.pad`, isn't it?"
        >>> split_words("हिन्दी में") == "हिन्दी में".split()
        True
    """  # noqa: E501  (the example is one text)
    text = unicodedata.normalize("NFC", text).replace(JOINER, " ")
    found = list(_token().finditer(text))
    tokens = []
    for i, match in enumerate(found):
        token = match.group()
        if not _is_word(token):
            if i and found[i - 1].end() == match.start():
                token = JOINER + token
            if i + 1 < len(found) and match.end() == found[i + 1].start() and _is_word(found[i + 1].group()):
                token += JOINER
        tokens.append(token)
    return tokens


def join_words(tokens: Iterable[str]) -> str:
    """The text of tokens that :func:`split_words` gave, or of others like them."""
    text = " ".join(tokens)
    return text.replace(f" {JOINER}", "").replace(f"{JOINER} ", "").replace(JOINER, "")


def _is_word(token: str) -> bool:
    return (token[0].isalnum() or token[0] == "_") and not re.match(rf"[{_UNSPACED}]", token)


class WrittenWords:
    """A vocabulary shared by sources and targets: padding, the unknown word, a beginning, an end, and words.

    Args:
        words: all of them, the four special ones first. lowercase: whether texts are brought to lower case.
        merges: pairs of pieces that make one (byte-pair encoding), where words are cut into pieces; a piece that
            continues a word bears the mark of a sign that stands without a space.
    """

    def __init__(self, words: Sequence[str], *, lowercase: bool = False, merges: Sequence[tuple[str, str]] = ()):
        self.words, self.lowercase, self.merges = list(words), lowercase, list(merges)
        self.ids = {word: i for i, word in enumerate(self.words)}
        self._pieces = _Pieces(self.ids, self.merges) if merges else None

    def __len__(self) -> int:
        return len(self.words)

    def split(self, text: str, most: int | None = None) -> list[str]:
        """The first `most` words of a text, or pieces of words, as they are written there."""
        words = split_words(text)
        if self._pieces is None:
            return words[:most]
        # A word has at least one piece, so no more than `most` words are cut.
        return [piece for word in words[:most] for piece in self._pieces(self.key(word))][:most]

    def key(self, word: str) -> str:
        """What a word is looked up as."""
        return word.lower() if self.lowercase else word

    def id(self, word: str) -> int:
        """The id of a word as it is written, ``UNK_ID`` where it is not known."""
        found = self.ids.get(self.key(word), UNK_ID)
        return found if found > END_ID else UNK_ID

    def to_str(self) -> str:
        """What ``tokenizer.json`` holds."""
        document = {"format": FORMAT, "lowercase": self.lowercase, "words": self.words, "merges": self.merges}
        return json.dumps(document, ensure_ascii=False)

    @classmethod
    def of_json(cls, document: object) -> "WrittenWords":
        """The vocabulary of a document that :meth:`to_str` wrote.

        Raises:
            DataError: it is none.
        """
        words = document.get("words") if isinstance(document, dict) else None
        if (
            not isinstance(document, dict)
            or document.get("format") != FORMAT
            or type(document.get("lowercase")) is not bool
            or not isinstance(words, list)
            or not all(isinstance(word, str) and word for word in words)
            or tuple(words[: len(SPECIAL)]) != SPECIAL
            or len(set(words)) != len(words)
            or not _are_merges(document.get("merges"), {*words})
        ):
            raise DataError("no vocabulary of words", instead=f"what {FORMAT!r} writes")
        merges = [(a, b) for a, b in document["merges"]]
        return cls(words, lowercase=document["lowercase"], merges=merges)


class _Pieces:
    """Words cut by byte-pair encoding, through the `tokenizers` library; signs, and words of unknown letters, whole."""

    def __init__(self, ids: dict[str, int], merges: list[tuple[str, str]]):
        self.model = BPE(ids, merges, unk_token=SPECIAL[UNK_ID], continuing_subword_prefix=JOINER)
        self.known: dict[str, list[str]] = {}

    def __call__(self, word: str) -> list[str]:
        if not _is_word(word) or len(word) > LONGEST_WORD:
            return [word]
        if word not in self.known:
            pieces = [token.value for token in self.model.tokenize(word)]
            self.known[word] = [word] if SPECIAL[UNK_ID] in pieces else pieces
        return self.known[word]


def _are_merges(merges: object, words: set[str]) -> bool:
    """Whether each of them is two pieces that there are, and what they make is one."""
    return isinstance(merges, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(piece, str) and piece in words for piece in pair)
        and pair[0] + pair[1].removeprefix(JOINER) in words
        for pair in merges
    )


def learn_words(
    sources: Iterable[Sequence[str]],
    targets: Iterable[Sequence[str]],
    vocab_size: int,
    *,
    min_count: int = 2,
    lowercase: bool = False,
    unit: str = "word",
) -> WrittenWords:
    """The most frequent words of both sides, each side weighing the same however long its texts are.

    Args:
        sources, targets: words of texts, as :func:`split_words` gives them.
        vocab_size: V, at most so many, the four special ones among them.
        min_count: a word that comes less often, in both sides together, is unknown: a network learns to copy it.
        unit: ``"word"``, or ``"subword"``: words cut into pieces by byte-pair encoding (Sennrich et al., 2016).

    Raises:
        OptionError: `vocab_size` leaves no room for a word. EmptyDataError: no word comes so often.

    Example:
        >>> learn_words([["a", "b", "a"]], [["b"], ["c"]], vocab_size=6).words[4:]
        ['b', 'a']
    """
    if vocab_size <= len(SPECIAL):
        raise OptionError(
            f"vocab_size must be above {len(SPECIAL)}", received=str(vocab_size), instead="room for a word"
        )
    fold = str.lower if lowercase else str
    counts = [Counter(fold(word) for words in side for word in words) for side in (sources, targets)]
    totals = [max(1, side.total()) for side in counts]
    both = counts[0] + counts[1]
    weight = {
        word: sum(side[word] / total for side, total in zip(counts, totals, strict=True))
        for word, count in both.items()
        if count >= min_count and word not in SPECIAL
    }
    if not weight:
        raise EmptyDataError(
            f"no word comes {min_count} times, so there is no vocabulary",
            received=f"{len(both)} words",
            instead="more texts, or min_count=1",
        )
    if unit == "subword":
        return _learn_pieces(both, vocab_size, min_count, lowercase)
    chosen = sorted(weight, key=lambda word: (-weight[word], word))[: vocab_size - len(SPECIAL)]
    return WrittenWords([*SPECIAL, *chosen], lowercase=lowercase)


def _learn_pieces(counts: Counter[str], vocab_size: int, min_count: int, lowercase: bool) -> WrittenWords:
    signs = sorted(word for word, count in counts.items() if count >= min_count and not _is_word(word))
    room = vocab_size - len(SPECIAL) - len(signs)
    letters = {letter for word in counts if _is_word(word) for letter in word}
    if room < 2 * len(letters):  # each is a piece at a word's beginning, and another one within
        raise OptionError(
            "vocab_size leaves no room for pieces of words",
            received=str(vocab_size),
            instead=f"at least {vocab_size - room + 2 * len(letters)}: letters and signs take as many",
        )
    learner = Tokenizer(BPE(continuing_subword_prefix=JOINER))
    learner.pre_tokenizer = WhitespaceSplit()
    trainer = BpeTrainer(
        vocab_size=room,
        min_frequency=min_count,
        continuing_subword_prefix=JOINER,
        # Letters within words would be numbered in the order of a random hash, and ties go by the number.
        special_tokens=[JOINER + letter for letter in sorted(letters)],
        show_progress=False,
    )
    words = sorted(word for word in counts if _is_word(word) and len(word) <= LONGEST_WORD)
    learner.train_from_iterator((" ".join([word] * counts[word]) for word in words), trainer)
    model = json.loads(learner.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    merges = [(pair[0], pair[1]) for pair in model["merges"]]
    known = [piece for piece in pieces if piece not in {*signs, *SPECIAL}]
    return WrittenWords([*SPECIAL, *signs, *known], lowercase=lowercase, merges=merges)
