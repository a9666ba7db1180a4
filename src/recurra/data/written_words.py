"""Texts to words and back: words that can be written out again, with the space around them."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from recurra.errors import DataError, EmptyDataError, OptionError

SPECIAL = ("[PAD]", "[UNK]", "[BEGIN]", "[END]")
PAD_ID, UNK_ID, BEGIN_ID, END_ID = range(4)
JOINER = "\uffed"  # the side on which a sign stands without a space, as OpenNMT's tokenizer writes it
FORMAT = "recurra words 1"
# Written without spaces, so that a run of letters is no word: Han, kana, Thai, Lao, Khmer, Burmese.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|([^\w\s])\1*")


def split_words(text: str) -> list[str]:
    """The words and signs of a text; :func:`join_words` undoes it, but for the kind of white space.

    A word is a run of letters, digits and underscores; a run of one sign, or one character of a script without spaces,
    is a token that bears a mark on each side where no space stands.

    Example:
        >>> split_words("It's `np.pad`, isn't it?") == "It ￭'￭ s `￭ np ￭.￭ pad ￭` ￭, isn ￭'￭ t it ￭?".replace("￭", JOINER).split()
        True
        >>> join_words(split_words("It's `np.pad`, isn't it?"))
        "It's `np.pad`, isn't it?"
    """  # noqa: E501  (the example is one text)
    text = unicodedata.normalize("NFC", text).replace(JOINER, " ")
    found = list(_TOKEN.finditer(text))
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
    """

    def __init__(self, words: Sequence[str], *, lowercase: bool = False):
        self.words, self.lowercase = list(words), lowercase
        self.ids = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def split(self, text: str, most: int | None = None) -> list[str]:
        """The first `most` words of a text, as they are written there."""
        return split_words(text)[:most]

    def key(self, word: str) -> str:
        """What a word is looked up as."""
        return word.lower() if self.lowercase else word

    def id(self, word: str) -> int:
        """The id of a word as it is written, ``UNK_ID`` where it is not known."""
        found = self.ids.get(self.key(word), UNK_ID)
        return found if found > END_ID else UNK_ID

    def to_json(self) -> str:
        """What ``tokenizer.json`` holds."""
        return json.dumps({"format": FORMAT, "lowercase": self.lowercase, "words": self.words}, ensure_ascii=False)

    @classmethod
    def of_json(cls, document: object) -> "WrittenWords":
        """The vocabulary of a document that :meth:`to_json` wrote.

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
        ):
            raise DataError("no vocabulary of words", instead=f"what {FORMAT!r} writes")
        return cls(words, lowercase=document["lowercase"])


def learn_words(
    sources: Iterable[Sequence[str]],
    targets: Iterable[Sequence[str]],
    vocab_size: int,
    *,
    min_count: int = 2,
    lowercase: bool = False,
) -> WrittenWords:
    """The most frequent words of both sides, each side weighing the same however long its texts are.

    Args:
        sources, targets: words of texts, as :func:`split_words` gives them.
        vocab_size: V, at most so many, the four special ones among them.
        min_count: a word that comes less often, in both sides together, is unknown: a network learns to copy it.

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
    chosen = sorted(weight, key=lambda word: (-weight[word], word))[: vocab_size - len(SPECIAL)]
    return WrittenWords([*SPECIAL, *chosen], lowercase=lowercase)
