"""Downloading by `pooch`: checked, shown, and whole or not at all."""

from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from recurra.errors import ChecksumError, MissingDataError


class Published(NamedTuple):
    """A file as its publisher gives it out.

    Attributes:
        url: where it is. md5: its sum, as hexadecimal digits. name: the file's name, in a folder of one's own too.
    """

    url: str
    md5: str
    name: str


def require_sum(path: Path, published: Published) -> None:
    """Check a file's sum.

    Raises:
        ChecksumError: it is another file, or cut off.
    """
    found = pooch.file_hash(str(path), alg="md5")
    if found != published.md5:
        raise _wrong_sum(str(path), found, published)


def download(published: Published, folder: Path) -> Path:
    """Download a file into a folder, unless it is there already and has the right sum.

    Raises:
        MissingDataError: the server cannot be reached, does not have it, or broke off.
        ChecksumError: what came is another file; it is not kept.
    """
    with _Bar(published.name) as bar:
        fetcher = pooch.HTTPDownloader(progressbar=bar, timeout=30)
        try:
            found = pooch.retrieve(
                published.url, f"md5:{published.md5}", fname=published.name, path=folder, downloader=fetcher
            )
        except requests.RequestException as error:
            raise MissingDataError(
                f"{published.name} could not be downloaded",
                received=f"{type(error).__name__}: {error}",
                instead=f"download {published.url} yourself, and name its folder: --data-dir FOLDER, or $RECURRA_DATA",
            ) from error
        except ValueError as error:
            # What pooch raises where the sum is wrong; it also says what the sum was.
            raise _wrong_sum(published.url, str(error), published) from error
    return Path(found)


def _wrong_sum(what: str, found: str, published: Published) -> ChecksumError:
    return ChecksumError(
        f"{what} is not the file that was published, or cut off",
        received=found,
        instead=f"the file of {published.url}, md5 {published.md5}",
    )


class _Bar:
    """A bar on stderr with the four parts that pooch asks of one."""

    def __init__(self, name: str):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.bar = Progress(TextColumn(name), *columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(name, total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    @property
    def total(self) -> float | None:
        """Bytes in all."""
        return self.bar.tasks[0].total

    @total.setter
    def total(self, value: float) -> None:
        self.bar.update(self.task, total=value)

    def update(self, size: int) -> None:
        """So many bytes more have come."""
        self.bar.advance(self.task, size)

    def reset(self) -> None:
        """Begin again: pooch does so before it fills the bar at the end."""
        self.bar.update(self.task, completed=0)

    def close(self) -> None:
        """Called at the end; the bar is taken away on leaving the `with`."""
