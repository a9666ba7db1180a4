"""``recurra diagnose``: whether gradients survive the way back through time, in a run or in a cell."""

from pathlib import Path
from typing import Annotated, Any

import typer

from recurra.train.strict_json import strict_json


def diagnose(
    run: Annotated[Path | None, typer.Argument(help="A run folder; or --cell.")] = None,
    data: Annotated[
        str | None, typer.Argument(help="A table, a folder or a corpus. Default: that of the training.")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="A cell as it begins: a name, or file.py:Class.")] = None,
    input_size: Annotated[
        int | None, typer.Option("--input-size", "-D", min=1, help="D, with --cell. Default: 32.")
    ] = None,
    hidden_size: Annotated[
        int | None, typer.Option("--hidden-size", "-H", min=1, help="H, with --cell. Default: 64.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option("-T", min=2, help="Frames of random data, with --cell. Default: 100.")
    ] = None,
    chrono: Annotated[bool, typer.Option("--chrono", help="With --cell: begin with chrono initialisation.")] = False,
    text: Annotated[str | None, typer.Option(help="The column of the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the classes.")] = None,
    source: Annotated[str | None, typer.Option(help="The column of what is read, for summaries.")] = None,
    target: Annotated[str | None, typer.Option(help="The column of what is written, for summaries.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where a corpus's files already are.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page (.html), or all numbers (.json).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of directions, and of random data.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Whether gradients vanish, explode or are healthy, layer by layer; how far back inputs count; what to change.

    [bold]Examples[/bold]

    recurra diagnose runs/reviews --out diagnosis.html

    recurra diagnose --cell lstm --hidden-size 128 -T 500

    recurra diagnose --cell cells.py:Light --json
    """
    from recurra.diagnose.diagnosis import KINDS
    from recurra.errors import OptionError
    from recurra.train.files import require_place
    from recurra.train.settings import require_seed

    require_seed(seed)
    if (run is None) == (cell is None):
        raise OptionError(
            "diagnose looks at a run folder, or at a cell", instead="recurra diagnose RUN, or --cell lstm"
        )
    of_cell = {"--input-size": input_size, "--hidden-size": hidden_size, "-T": frames, "--chrono": chrono}
    of_run = {"data": data, "text": text, "label": label, "source": source, "target": target, "data_dir": data_dir}
    foreign = of_cell if cell is None else {f"--{k.replace('_', '-')}": v for k, v in of_run.items()}
    if told := next((name for name, value in foreign.items() if value), None):
        raise OptionError(f"{told} is no option for a {'run' if cell is None else 'cell'}", received=str(foreign[told]))
    if out is not None:
        require_place(out, *KINDS)
    if cell is not None:
        found = _of_cell(cell, (frames or 100, 8, input_size or 32, hidden_size or 64), chrono=chrono, seed=seed)
    else:
        assert run is not None
        from recurra.cli.of_task import DIAGNOSE, call

        found = call(DIAGNOSE, run, {**of_run, "seed": seed})
    if out is not None:
        found.save(out)
    if json:
        print(strict_json(found.as_json()))
        return
    print(found)
    if out is not None:
        print(f"\nwritten to {out}")


def _of_cell(named: str, shape: tuple[int, int, int, int], *, chrono: bool, seed: int) -> Any:
    import torch

    from recurra.cells import chrono as remember
    from recurra.cli.explain import cell_from, code_of
    from recurra.diagnose import diagnose

    T, B, D, H = shape
    torch.manual_seed(seed)
    made = cell_from(named, D, H)
    leaves = [torch.randn(T, B, *(d.size for d in s)) for s in made.input_shapes.values()]
    if chrono:
        remember(made, T)
    with code_of(named):
        return diagnose(made, leaves[0] if made.Input is None else made.Input(*leaves), seed=seed)
