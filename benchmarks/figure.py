"""One figure beside its bar, as the smaller benchmarks print it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, and the bar that it is held to."""

    told: str
    value: float
    bar: float
    form: str = "{:.2f} times"
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is reached."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        bar = f"bar: {'at most ' if self.at_most else ''}{self.form.format(self.bar)}"
        return f"{self.told}: {self.form.format(self.value)} ({bar}): {'holds' if self.holds else 'missed'}"
