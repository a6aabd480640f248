"""The command line: each command parses its arguments, calls one function of the package, and prints.

Whatever the user did wrong ends in one message on standard error and exit status 2.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from jettagger.errors import JettaggerError

app = typer.Typer(
    name="jettagger",
    help="Jet tagging in PyTorch: from ROOT ntuples to calibrated, uncertainty-aware taggers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file, see docs/configuration.md.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the config; repeatable."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="Processes that prepare data [default: one a processor]."
    ),
]

MeanOverFolds = Annotated[
    bool,
    typer.Option(
        "--mean-over-folds",
        help="Score with the networks of all folds, whatever the event number: only for jets that none was trained on.",
    ),
]


def main() -> NoReturn:
    """Entry point of the `jettagger` command."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except JettaggerError as error:
        if debug:
            raise
        if not error.said:
            print(f"jettagger: error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        print("jettagger: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


@app.callback(epilog="--debug, anywhere, shows the traceback of an error.")
def _options() -> None:
    pass


@app.command()
def train(
    config: ConfigFile,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="Run directory [default: runs/<config name>]."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
    member: Annotated[
        int | None, typer.Option("--member", metavar="K", help="Train one member of the ensemble only.")
    ] = None,
    workers: Workers = None,
    fold: Annotated[
        int | None,
        typer.Option(
            "--fold", metavar="F", help="Train only the networks that never see fold F of data.folds."
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="Train nothing: write the tagger of all members and folds that have ended."
        ),
    ] = False,
) -> None:
    """Train a network or an ensemble, and write the tagger.

    SIGTERM and SIGUSR1 end it after the step in progress with exit status 75; the same command then goes on.
    """
    import faulthandler

    from jettagger.training import interruption

    # A file that is cut while it is memory-mapped ends the process with SIGBUS: at least it is said where.
    faulthandler.enable(sys.__stderr__ or sys.stderr)
    with _said_at_the_end(interruption.Interrupted, interruption.STATUS), interruption.heeded():
        from jettagger import configuration
        from jettagger.training import run

        recipe = configuration.recipe(configuration.load(config, set_ or ()))
        output = output or Path("runs") / config.stem
        if merge:
            run.check_merge(resume=resume, overwrite=overwrite, member=member, fold=fold)
            run.merge(recipe, output, say=_say)
            return
        run.train(
            recipe,
            output,
            resume=resume,
            overwrite=overwrite,
            member=member,
            workers=workers,
            fold=fold,
            say=_say,
        )


@app.command("find-lr")
def find_lr(
    config: ConfigFile,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Scan and figure [default: find-lr/<config name>]."
        ),
    ] = None,
    lowest: Annotated[float, typer.Option("--lowest", metavar="LR", help="First rate.")] = 1e-6,
    highest: Annotated[float, typer.Option("--highest", metavar="LR", help="Last rate.")] = 10.0,
    steps: Annotated[int, typer.Option("--steps", metavar="N", help="Steps of the optimiser.")] = 300,
    side_by_side: Annotated[
        int | None,
        typer.Option(
            "--side-by-side",
            metavar="M",
            help="Train M copies in one pass, each at its own rate from first to last.",
        ),
    ] = None,
) -> None:
    """Try learning rates from low to high on a config's network, and suggest one; trains nothing."""
    from jettagger import configuration
    from jettagger.report.rate_run import find_rate
    from jettagger.training.rate_finder import ScanRange

    find_rate(
        configuration.recipe(configuration.load(config, set_ or ())),
        output or Path("find-lr") / config.stem,
        name=config.stem,
        chosen=ScanRange(lowest, highest, steps),
        copies=side_by_side,
        say=_say,
    )


@app.command()
def spread(
    config: ConfigFile,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Runs and table [default: spread/<config name>]."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier one stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Train ensembles that differ in one source each, and print what each contributes to their spread."""
    from jettagger import configuration
    from jettagger.training.spread import measure_spread

    recipe = configuration.recipe(configuration.load(config, set_ or ()))
    folder = output or Path("spread") / config.stem
    measure_spread(recipe, folder, resume=resume, overwrite=overwrite, say=_say)


@app.command()
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN_OR_BUNDLE...", help="Runs or bundles to compare.")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", metavar="[SAMPLE=]FILES", help="Test files in place of data.test; repeatable."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Report [default: <first run>/report]."),
    ] = None,
    mc_dropout: Annotated[
        int | None,
        typer.Option(
            "--mc-dropout", metavar="T", min=0, help="Passes of MC dropout [default: the config's]."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="NAME", help="What the others are compared with [default: the first]."
        ),
    ] = None,
    predictions: Annotated[
        str, typer.Option("--predictions", metavar="CONTAINER", help="root, h5 or parquet.")
    ] = "root",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    mean_over_folds: MeanOverFolds = False,
) -> None:
    """Score test jets, and write report.html, report.json, figures and predictions."""
    from jettagger.report.run import evaluate_runs

    page = evaluate_runs(
        runs,
        output or runs[0] / "report",
        data=data or (),
        mc_dropout=mc_dropout,
        reference=reference,
        container=predictions,
        device=device,
        mean_over_folds=mean_over_folds,
        say=_say,
    )
    _say(f"report: {page}")


@app.command()
def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle, or run directory with one.")],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES...", help="Files, globs or URLs: ROOT, HDF5, NumPy, parquet."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="scores.root, scores.h5 or scores.parquet.")
    ],
    mc_dropout: Annotated[
        int, typer.Option("--mc-dropout", metavar="T", min=0, help="Passes of MC dropout.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N.")] = "cpu",
    mean_over_folds: MeanOverFolds = False,
) -> None:
    """Write one row for each jet of some files, in order: scores, spreads, spectators."""
    from jettagger.evaluation.scoring import score_files

    jets = score_files(
        bundle, files, output, mc_dropout=mc_dropout, device=device, mean_over_folds=mean_over_folds
    )
    _say(f"{jets} jets scored: {output}")


@app.command()
def prepare(
    config: ConfigFile,
    set_: Overrides = None,
    workers: Workers = None,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask", metavar="ADDRESS", help="Workers of a Dask cluster, by its scheduler's address."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all checksums; what is damaged is prepared again.")
    ] = False,
) -> None:
    """Fill the prepared dataset (train does it when needed)."""
    from jettagger import configuration
    from jettagger.training.sides import prepare_all

    recipe = configuration.recipe(configuration.load(config, set_ or ()))
    sides = prepare_all(recipe.data, recipe.baselines, _say, workers=workers, dask=dask, verify=verify)
    for directory in dict.fromkeys([sides.train.directory, sides.validation.directory]):
        _say(f"prepared: {directory}")


@app.command()
def inspect(
    config: ConfigFile,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Report [default: inspect/<config name>]."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="NAME=FILES", help="Sample to compare, such as data; no labels; repeatable."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="SAMPLE", help="Training sample to compare with [default: all of them]."
        ),
    ] = None,
    jets: Annotated[
        int,
        typer.Option("--jets", metavar="N", min=1, help="Most jets of a sample for figures and comparisons."),
    ] = 100_000,
) -> None:
    """Look at all files of a config for whatever is wrong, and draw its inputs; trains nothing."""
    from jettagger import configuration
    from jettagger.report.inspection_run import inspect_config

    recipe = configuration.recipe(configuration.load(config, set_ or ()))
    status = inspect_config(
        recipe.data,
        recipe.baselines,
        output or Path("inspect") / config.stem,
        name=config.stem,
        against=against or (),
        reference=reference,
        jets=jets,
        say=_say,
    )
    if status:
        raise typer.Exit(status)


@app.command()
def summary(
    config: ConfigFile,
    set_: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show layers, parameters, receptive field and operations of a config's network."""
    from jettagger import configuration

    typer.echo(configuration.summary(configuration.load(config, set_ or ()), as_json=json))


@app.command()
def simulate(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="QCD, Tbqq, Wqq, Zqq or Hbb.")],
    jets: Annotated[int, typer.Option("--jets", metavar="N", help="Jets to write.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="ROOT file.")],
    seed: Annotated[int, typer.Option("--seed", help="Samples of different seeds are independent.")] = 0,
    workers: Annotated[int, typer.Option("--workers", help="Processes; they change no jet.")] = 1,
    pt: Annotated[tuple[float, float], typer.Option("--pt", help="Range of the jet pT, GeV.")] = (
        500.0,
        1000.0,
    ),
    radius: Annotated[float, typer.Option("--radius", help="Of the anti-kT jets.")] = 0.8,
    eta_max: Annotated[float, typer.Option("--eta-max", help="Largest |eta| of a jet.")] = 2.0,
    beam_energy: Annotated[
        float, typer.Option("--beam-energy", help="Centre-of-mass energy, GeV.")
    ] = 13000.0,
    mpi: Annotated[bool, typer.Option("--mpi/--no-mpi", help="Multiparton interactions.")] = True,
    pythia: Annotated[
        list[str] | None,
        typer.Option("--pythia", metavar="'KEY = VALUE'", help="Pythia setting; repeatable."),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="NAME=FACTOR", help="Factor on a detector parameter; repeatable."),
    ] = None,
    rntuple: Annotated[bool, typer.Option("--rntuple", help="Write an RNTuple, not a TTree.")] = False,
) -> None:
    """Make jets with Pythia 8, FastJet and a parametrised detector."""
    from jettagger.simulation import SimulationOptions, scales_from, simulate

    options = SimulationOptions(
        process=process,
        jets=jets,
        seed=seed,
        workers=workers,
        pt=pt,
        radius=radius,
        eta_max=eta_max,
        beam_energy=beam_energy,
        mpi=mpi,
        pythia=tuple(pythia or ()),
        scale=scales_from(scale or ()),
        container="rntuple" if rntuple else "ttree",
    )
    _say(simulate(options, output))


@app.command()
def submit(
    config: ConfigFile,
    set_: Overrides = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="NAME", help="slurm or htcondor [default: the one that is here]."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="Run directory [default: runs/<config name>]."),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Train the points of the config's section 'sweep'.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts; write and submit nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Submit beside jobs of this run that are alive.")
    ] = False,
) -> None:
    """Train on a batch system: jobs that prepare, train, merge and evaluate."""
    from jettagger import configuration
    from jettagger.cluster import submission

    submission.submit(
        configuration.resolver(config, set_ or ()),
        output or Path("runs") / config.stem,
        scheduler=submission.scheduler_named(scheduler),
        sweep=sweep,
        dry_run=dry_run,
        again=again,
        say=_say,
    )


@app.command()
def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, or that of a sweep.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how far a run is: its members, folds and points, their epochs, figures and jobs."""
    from jettagger.cluster import status

    found = status.status_of(run)
    typer.echo(status.as_json(found) if json else status.as_text(found))


@app.command()
def sweep(
    config: ConfigFile,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RUN", help="Its folder [default: runs/<config name>-sweep]."),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Train nothing; show the table.")] = False,
) -> None:
    """Train the points of the config's section 'sweep' one after the other, and compare them."""
    from jettagger import configuration
    from jettagger.cluster.sweep_run import run_sweep

    ended = run_sweep(
        configuration.resolver(config, set_ or ()),
        output or Path("runs") / f"{config.stem}-sweep",
        table_only=table,
        say=_say,
    )
    if ended:
        raise typer.Exit(ended)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    import json

    from jettagger import configuration

    typer.echo(json.dumps(configuration.json_schema(), indent=2))


@contextmanager
def _said_at_the_end(kind: type[BaseException], status: int) -> Iterator[None]:
    """Prints an exception of this kind, and ends the command with the status."""
    try:
        yield
    except kind as error:
        print(f"jettagger: {error} (exit status {status})", file=sys.stderr)
        raise SystemExit(status) from None


def _say(line: Any) -> None:
    typer.echo(line)
    sys.stdout.flush()
