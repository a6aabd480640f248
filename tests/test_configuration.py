"""Every mistake in a YAML ends in one readable message; every shipped YAML loads."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from jettagger import configuration, yaml_source
from jettagger.configuration import Config, differences, digest, dump, json_schema, load, loads
from jettagger.configuration.config import architectures
from jettagger.configuration.overrides import Source
from jettagger.errors import JettaggerError
from jettagger.schema import Section

SHIPPED = Path(__file__).parents[1] / "configs"
CONFIGS = sorted(SHIPPED.rglob("*.yaml"))

VALID = """\
format: 1
data:
  train:
    QCD: data/QCD_*.root
    Top: {files: [data/Top_1.root, data/Top_2.root], weight: gen_weight * 0.83}
  test: {QCD: data/test.root}
  selection: (jet_pt > 500) & (abs(jet_eta) < 2)
classes:
  QCD: label_QCD == 1
  Top: {sample: Top}
inputs:
  particles:
    from: part_*
    length: 64
    features:
      log_pt: log(pt)
      d0: {value: tanh(part_d0val), normalise: none, clip: [-5, 5]}
    coordinates: {eta: part_deta, phi: part_dphi, pt: pt}
  jet:
    features: {log_pt: log(jet_pt)}
define: {pt: "hypot(part_px, part_py)"}
spectators: [jet_pt, jet_eta]
weights:
  event: gen_weight
  training: {balance: classes}
model: {architecture: mlp, widths: [32, 32]}
training:
  epochs: 20
  optimiser: {name: adamw, lr: 4e-3}
ensemble: {members: 2}
"""


def mistakes(*changes: tuple[str, str], overrides: tuple[str, ...] = ()) -> list[str]:
    """The lines of the message for the valid YAML with parts replaced."""
    text = VALID
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with pytest.raises(JettaggerError) as caught:
        loads(text, name="a.yaml", overrides=overrides)
    return str(caught.value).splitlines()


TRAINING_KEYS = ", ".join(configuration.config.TrainingSection.model_fields)
TOP_LEVEL_KEYS = ", ".join(Config.model_fields)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format: 1", "format: 2", "a.yaml:1: format: 2 is a whole number; 1 is expected"),
        ("format: 1\n", "", "a.yaml: format: missing: version of this format"),
        (
            "spectators:",
            "spectator:",
            f"a.yaml:22: spectator: unknown key (did you mean 'spectators'? allowed: {TOP_LEVEL_KEYS})",
        ),
        (
            "epochs:",
            "epohs:",
            f"a.yaml:28: training.epohs: unknown key (did you mean 'epochs'? allowed: {TRAINING_KEYS})",
        ),
        (
            "epochs: 20",
            "lr: 0.1",
            f"a.yaml:28: training.lr: unknown key (did you mean 'training.optimiser.lr'? "
            f"allowed: {TRAINING_KEYS})",
        ),
        (
            "value: tanh",
            "valeu: tanh",
            "a.yaml:17: inputs.particles.features.d0.valeu: unknown key (did you mean 'value'? "
            "allowed: value, normalise, clip, missing, sentinels)",
        ),
        (
            "epochs: 20",
            "epochs: ten",
            "a.yaml:28: training.epochs: 'ten' is a text; a whole number ≥ 1 is expected",
        ),
        (
            "epochs: 20",
            "epochs: 5.0",
            "a.yaml:28: training.epochs: 5.0 is a number with decimals; a whole number ≥ 1 is expected "
            "(write 5)",
        ),
        (
            "epochs: 20",
            "epochs: -3",
            "a.yaml:28: training.epochs: -3 is out of range; a whole number ≥ 1 is expected",
        ),
        (
            "epochs: 20",
            "epochs: true",
            "a.yaml:28: training.epochs: true is a truth value; a whole number ≥ 1 is expected",
        ),
        (
            "epochs: 20",
            "epochs:",
            "a.yaml:28: training.epochs: nothing is given; a whole number ≥ 1 is expected",
        ),
        (
            "lr: 4e-3",
            "lr: fast",
            "a.yaml:29: training.optimiser.lr: 'fast' is a text; a number > 0 is expected",
        ),
        (
            "lr: 4e-3",
            "lr: .nan",
            "a.yaml:29: training.optimiser.lr: nan is out of range; a number > 0 is expected",
        ),
        (
            "length: 64",
            "length: [64]",
            "a.yaml:14: inputs.particles.length: [64] is a list; a whole number > 0 is expected",
        ),
        (
            "data/QCD_*.root",
            "17",
            "a.yaml:4: data.train.QCD: 17 is a whole number; a path or glob, a list of them "
            "or a map {files, weight} is expected",
        ),
        (
            "[data/Top_1.root, data/Top_2.root]",
            "[data/Top_1.root, 2]",
            "a.yaml:5: data.train.Top.files.1: 2 is a whole number; text is expected",
        ),
        (
            "normalise: none",
            "normalise: nome",
            "a.yaml:17: inputs.particles.features.d0.normalise: 'nome' is not known (did you mean 'none'? "
            "allowed: auto, none or a map {shift, scale})",
        ),
        (
            "clip: [-5, 5]",
            "clip: [5]",
            "a.yaml:17: inputs.particles.features.d0.clip: 1 given, at least 2 expected",
        ),
        (
            "clip: [-5, 5]",
            "clip: [5, -5]",
            "a.yaml:17: inputs.particles.features.d0.clip: clip takes [lower, upper] with lower < upper, "
            "not [5.0, -5.0]",
        ),
        (
            "architecture: mlp",
            "architecture: mpl",
            f"a.yaml:26: model: unknown architecture 'mpl': did you mean 'mlp'? "
            f"(allowed: {', '.join(architectures())})",
        ),
        (
            "architecture: mlp, ",
            "",
            f"a.yaml:26: model: 'architecture' is missing (allowed: {', '.join(architectures())})",
        ),
        (
            "{architecture: mlp, widths: [32, 32]}",
            "mlp",
            "a.yaml:26: model: a map with the key 'architecture' is expected (write {architecture: mlp})",
        ),
        (
            "  QCD: label_QCD == 1\n",
            "",
            "a.yaml:8: classes: 1 given, at least 2 expected",
        ),
        (
            "QCD: label_QCD == 1",
            "Q-C-D: label_QCD == 1",
            "a.yaml:9: classes.Q-C-D: 'Q-C-D' is not a name: letters, digits and _ only, not a digit first",
        ),
        (
            "QCD: label_QCD == 1",
            "std: label_QCD == 1",
            "a.yaml:9: classes.std: the name is taken: entry, expected_entropy, file, jet_index, "
            "mutual_information, passes_selection, std, total_entropy stand beside the scores",
        ),
        (
            "sample: Top",
            "sample: Tpo",
            "a.yaml:10: classes.Top.sample: sample 'Tpo' is not in data.train: did you mean 'Top'? "
            "(allowed: QCD, Top)",
        ),
        (
            "sample: Top",
            "",
            "a.yaml:10: classes.Top: a condition, {sample: name} or {one_hot: branch} is expected",
        ),
        (
            "QCD: label_QCD == 1",
            "QCD: {sample: Top}",
            "a.yaml:8: classes: sample 'Top' stands for several classes (QCD, Top); a jet is in exactly one",
        ),
        (
            "    from: part_*\n",
            "",
            "a.yaml:12: inputs.particles.from: missing: glob of the branches that hold the collection, "
            "such as part_*",
        ),
        (
            "  jet:\n",
            "  jet:\n    from: part_*\n",
            "a.yaml:19: inputs.jet: 'jet' is for variables of the whole jet, without 'from'; a collection "
            "takes another name, such as 'particles'",
        ),
        (
            "  jet:\n    features: {log_pt: log(jet_pt)}\n",
            "",
            "a.yaml:24: model.architecture: mlp needs jet-level variables: add inputs.jet.features",
        ),
        (
            "define: {pt:",
            "define: {a: b + 1, b: 2 * c, c: a, pt:",
            "a.yaml:21: define.a: needs itself: a → b → c → a",
        ),
        (
            "[jet_pt, jet_eta]",
            "[jet_pt, jet_pt]",
            "a.yaml:22: spectators.1: 'jet_pt' stands twice",
        ),
        (
            "[jet_pt, jet_eta]",
            "[jet_pt, Top]",
            "a.yaml:22: spectators.1: 'Top' is a class, and both are columns of the predictions: "
            "define another name",
        ),
        (
            "[jet_pt, jet_eta]",
            "[jet_pt, std_Top]",
            "a.yaml:22: spectators.1: 'std_Top' is an output, and both are columns of the predictions: "
            "define another name",
        ),
        (
            "format: 1",
            "format: 1\ntargets: {mass: {value: gen_mass, los: mse}}",
            "a.yaml:2: targets.mass.los: unknown key (did you mean 'loss'? allowed: value, loss, weight)",
        ),
        (
            "widths: [32, 32]",
            "widths: [1000000000000, 1000000000000]",
            "a.yaml:26: model: so large a network cannot be built",
        ),
        (
            "ensemble: {members: 2}",
            "evaluation: {signal: Tpo}",
            "a.yaml:30: evaluation.signal: unknown class 'Tpo': did you mean 'Top'? (allowed: QCD, Top)",
        ),
        (
            "ensemble: {members: 2}",
            "baselines: {cut: {signal: Tpo, discriminant: jet_pt}}",
            "a.yaml:30: baselines.cut.signal: 'Tpo' is not in classes (allowed: QCD, Top)",
        ),
    ],
)
def test_a_mistake_is_one_readable_line(old: str, new: str, message: str) -> None:
    assert mistakes((old, new)) == [message]


def test_an_expression_shows_where_it_is_wrong() -> None:
    assert mistakes(("log(jet_pt)", "log(jet_pt")) == [
        "a.yaml:20: inputs.jet.features.log_pt: this cannot be read as an expression ('(' was never closed)",
        "        log(jet_pt",
        "           ^",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        *(
            ("epochs: 20", new, f"28:3: 'key: value' is expected, with a colon and a space\n    {new}")
            for new in ("epochs 20", "epochs:20")
        ),
        (
            "label_QCD == 1\n  Top: {sample: Top}",
            "label_QCD == 1\n  Top {sample Top}",
            "10:3: 'key: value' is expected, with a colon and a space\n    Top {sample Top}",
        ),
        ("  epochs: 20", "\tepochs: 20", "28:1: a tab: YAML is indented with spaces only\n    →epochs: 20"),
        (
            "  epochs: 20",
            "   epochs: 20",
            "29:3: the indentation does not fit the lines above (all keys of one map begin in the same "
            "column)\n    optimiser: {name: adamw, lr: 4e-3}",
        ),
        (
            "event: gen_weight",
            "event: a: b",
            "24:11: ': ' is not expected here: is the line indented too far, or the line above not "
            "complete? Text that holds ': ' needs quotes\n    event: a: b",
        ),
        ("from: part_*", "from: *_part", "13:11: text that begins with '*' needs quotes\n    from: *_part"),
        (
            '"hypot(part_px, part_py)"}',
            '"hypot(part_px, part_py)}',
            '21:14: the quote that begins here is never closed\n    define: {pt: "hypot(part_px, part_py)}',
        ),
        ("jet_eta]", "jet_eta", "23:8: ',' or ']' is expected\n    weights:"),
        ("epochs: 20", "epochs: @x", "28:11: text that begins with '@' needs quotes\n    epochs: @x"),
        (
            "epochs: 20",
            "epochs: 20\n  epochs: 30",
            "29:3: training.epochs: the key stands twice (first on line 28)",
        ),
        (
            "epochs: 20",
            "epochs: !!python/object:os.system {}",
            "28:11: the tag '!!python/object:os.system' is not known here: text that begins with '!' "
            "needs quotes",
        ),
        (
            "epochs: 20",
            "? {a: 1}\n  : 2",
            "28:5: a key must be a plain word; braces and brackets in a text need quotes",
        ),
        ("epochs: 20", "epochs: 2\x00", "28: the character U+0000 cannot stand in YAML"),
        ("epochs: 20", f"epochs: {2**63}", f"28:11: '{2**63}' cannot be read as a whole number of 64 bits"),
        ("epochs: 20", "epochs: !!int x", "28:11: 'x' cannot be read as a whole number of 64 bits"),
        ("epochs: 20", "epochs: &x [*x]", "28:11: an alias (*) that contains itself"),
        (
            "ensemble:",
            "---\nensemble:",
            "30:1: a second document ('---') begins here; one file holds one config\n    ---",
        ),
    ],
)
def test_bad_yaml_names_line_and_column(old: str, new: str, message: str) -> None:
    assert "\n".join(mistakes((old, new))) == f"a.yaml:{message}"


def test_everything_is_reported_at_once_in_the_order_of_the_file() -> None:
    lines = mistakes(
        ("ensemble: {members: 2}", "ensemble: {members: two}"),
        ("epochs:", "epohs:"),
        ("sample: Top", "sample: Tpo"),
        ("[jet_pt, jet_eta]", "[jet_pt, jet_pt]"),
        ("log(jet_pt)", "lgo(jet_pt)"),
        ("format: 1", "format: 1\ntargets: {mass: {value: gen_mass, loss: mes}}"),
    )
    assert lines[0] == "a.yaml: 6 problems"
    starts = [
        "a.yaml:2: targets.mass.loss: unknown loss 'mes': did you mean 'mse'?",
        "a.yaml:11: classes.Top.sample: sample 'Tpo'",
        "a.yaml:21: inputs.jet.features.log_pt: unknown function 'lgo'",
        "a.yaml:23: spectators.1: 'jet_pt' stands twice",
        "a.yaml:29: training.epohs: unknown key",
        "a.yaml:31: ensemble.members: 'two' is a text",
    ]
    reported = [line for line in lines[1:] if not line.startswith(" ")]
    assert [line[: len(start)] for line, start in zip(reported, starts, strict=True)] == starts


def test_a_mistake_is_not_reported_twice_by_what_follows_from_it() -> None:
    # The sample 'Top' is wrong, not missing; the class that uses it is not to blame.
    assert len(mistakes(("files: [data/Top_1.root, data/Top_2.root]", "files: {}"))) == 1
    # One of two classes is wrong; that there is only one valid class is no second mistake.
    assert len(mistakes(("QCD: label_QCD == 1", "QCD: [1]"))) == 1
    # A missing key beside one of nearly the same name has been misspelt.
    assert len(mistakes(("from: part_*", "form: part_*"))) == 1


def test_where_every_class_is_a_sample_every_sample_has_a_class() -> None:
    changes = ("QCD: label_QCD == 1", "QCD: {sample: QCD}"), ("{QCD: data/test.root}", "{W: data/W.root}")
    assert mistakes(*changes) == ["a.yaml:6: data.test.W: no class takes this sample (classes take QCD, Top)"]


def test_numbers_and_words_are_what_they_look_like() -> None:
    config = loads(
        VALID.replace("QCD: label_QCD", "no: label_QCD").replace("{QCD: data/test", "{on: data/test")
    )
    assert config.training.optimiser.lr == 4e-3
    assert list(config.classes) == ["no", "Top"]
    assert list(config.data.test) == ["on"]
    assert loads(VALID.replace("4e-3", "1e3")).training.optimiser.lr == 1000.0
    assert loads(VALID.replace("clip: [-5, 5]", "missing: 1")).model_dump()["inputs"]["particles"][
        "features"
    ]["d0"]["missing"] == pytest.approx(1.0)


def test_overrides_are_put_over_the_file() -> None:
    config = loads(
        VALID,
        overrides=[
            "training.epochs=3",
            "model={dropout: 0.25}",
            "training.early_stopping.patience=2",
            "data.train.Top.files.1=x.root",
            "weights.event=gen_weight == 1",
            "training.schedule=cosine",
        ],
    )
    assert config.training.epochs == 3
    assert config.model.model_dump()["dropout"] == 0.25
    assert config.model.model_dump()["widths"] == [32, 32]
    assert config.training.early_stopping is not None
    assert config.training.early_stopping.patience == 2
    assert config.data.train["Top"].files == ["data/Top_1.root", "x.root"]
    assert config.weights.event == "gen_weight == 1"
    assert config.training.schedule.name == "cosine"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.epohs=3",
            r"--set training\.epohs=3: training\.epohs: unknown key \(did you mean 'epochs'\?",
        ),
        (
            "training.epochs=ten",
            "--set training.epochs=ten: training.epochs: 'ten' is a text; a whole number",
        ),
        ("training={epochs: 0}", r"--set training=\{epochs: 0\}: training\.epochs: 0 is out of range"),
        ("nothing.at.all=1", "--set nothing.at.all=1: nothing: unknown key"),
        ("training.epochs", "--set training.epochs: key=value is expected, such as training.epochs=3"),
        ("=3", "--set =3: key=value is expected"),
        ("data.selection.x=3", "--set data.selection.x=3: data.selection is .* and has no keys"),
        ("data.train.Top.files.7=x", "'7' is not a position in the list .0 to 1."),
        ("spectators=[a", "^--set spectators=.a: ',' or ']' is expected$"),
        ("targets={mass: {value: gen_mass, weight: 0}}", "targets.mass.weight: 0 is out of range"),
    ],
)
def test_a_bad_override_names_itself(override: str, message: str) -> None:
    with pytest.raises(JettaggerError, match=message):
        loads(VALID, overrides=[override])


def test_overrides_come_after_the_lines_of_the_file() -> None:
    lines = mistakes(("epochs:", "epohs:"), overrides=("model.dropout=7", "data.tree=[1]"))
    assert [line.partition(": ")[0] for line in lines] == [
        "a.yaml",
        "a.yaml:28",
        "--set model.dropout=7",
        "--set data.tree=[1]",
    ]


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "particle.yaml").write_text(VALID, encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes(b"format: 1\n# \xe9\n")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + VALID.encode())
    for name, message in {
        "partcle.yaml": r"partcle\.yaml: no such file: did you mean '.*/particle\.yaml'\?",
        "xyz.yml": r"xyz\.yml: no such file \(YAML files in .*: bom\.yaml, empty\.yaml",
        "nowhere/a.yaml": r"nowhere/a\.yaml: no such file \(there is no folder .*nowhere\)",
        "empty.yaml": r"empty\.yaml: is empty; a map of keys and values is expected",
        "list.yaml": r"list\.yaml:1: the top level is a list; a map is expected",
        "latin.yaml": r"latin\.yaml:2: is not UTF-8 text",
        ".": "is a folder; a YAML file is expected",
    }.items():
        with pytest.raises(JettaggerError, match=message):
            load(tmp_path / name)
    assert load(tmp_path / "bom.yaml") == load(tmp_path / "particle.yaml")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_says_how_to_run_it(path: Path) -> None:
    config = load(path)
    assert loads(dump(config)) == config
    assert path.read_text(encoding="utf-8").startswith("# jettagger ")


def test_a_dump_says_everything_and_loads_back() -> None:
    config = loads(VALID)
    text = dump(config)
    assert loads(text) == config
    assert text.startswith("format: 1\n")
    assert "from: part_*" in text
    assert dump(loads(text)) == text
    # Other readers of YAML understand it likewise.
    odd = loads(VALID.replace("label_QCD == 1", "'1e3'").replace("tree", "'no'"))
    assert yaml.safe_load(dump(odd)) == odd.model_dump(mode="json", by_alias=True)


def test_the_digest_keeps_what_matters() -> None:
    config = loads(VALID)
    assert digest(config) == digest(loads(dump(config))) == digest(loads("# a comment\n" + VALID))
    assert len(digest(config)) == 64
    assert digest(config) != digest(loads(VALID, overrides=["training.epochs=3"]))
    turned = loads(
        VALID.replace(
            "  QCD: label_QCD == 1\n  Top: {sample: Top}", "  Top: {sample: Top}\n  QCD: label_QCD == 1"
        )
    )
    assert digest(config.classes) != digest(turned.classes)
    assert digest([config.inputs, {"a": 1}]) == digest([config.inputs, {"a": 1}])


def test_differences_name_the_key_and_both_values() -> None:
    first = loads(VALID).model_dump(by_alias=True)
    second = loads(VALID, overrides=["training.epochs=3", "define.x=1"]).model_dump(by_alias=True)
    assert differences(first, second) == [
        "define.x: absent before, 1 now",
        "training.epochs: 20 before, 3 now",
    ]
    assert differences(first, first) == []
    orders = {"classes": {"a": 1, "b": 2}}, {"classes": {"b": 2, "a": 1}}
    assert differences(*orders, names=("in the checkpoint", "in the config")) == [
        "classes: in the order a, b in the checkpoint, b, a in the config"
    ]


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in part.values()))
    return set().union(*(_references(value) for value in part)) if isinstance(part, list) else set()


def test_the_json_schema_is_whole() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["additionalProperties"] is False
    assert {"format", "data", "inputs", "model"} == set(schema["required"])
    assert _references(schema) <= {f"#/$defs/{name}" for name in schema["$defs"]}
    assert [member["$ref"] for member in schema["properties"]["model"]["oneOf"]] == [
        f"#/$defs/model_{name}" for name in architectures()
    ]
    assert "from" in schema["$defs"]["CollectionSection"]["properties"]
    assert schema["$defs"]["TrainingSection"]["properties"]["epochs"]["description"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_json_schema_accepts_every_shipped_config(path: Path) -> None:
    validator = Draft202012Validator(json_schema())
    assert [error.message for error in validator.iter_errors(yaml_source.read(path).content)] == []


def test_the_json_schema_refuses_unknown_keys_and_values() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for override in (
        "training.optimizer=adam",
        "training.precision=fp16",
        "model.depth=3",
        "ensemble.vary=[init]",
    ):
        content = Source(yaml_source.read(SHIPPED / "mlp.yaml"), [override]).content
        assert list(validator.iter_errors(content)), override


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rate=0.1",
            "training.learning_rate: unknown key (did you mean 'training.optimiser.lr'?",
        ),
        (
            "training.optimiser={learning_rate: 0.1}",
            "training.optimiser.learning_rate: unknown key (did you mean 'lr'?",
        ),
        ("training.optimiser={lookahead: {k: 5}}", "lookahead.k: unknown key (allowed: steps, share)"),
        ("training.members=5", "training.members: unknown key (did you mean 'ensemble.members'?"),
        ("training.gradient_accumulation=4", "unknown key (did you mean 'accumulate'?"),
        ("training.loss=bce", "training.loss: unknown loss 'bce': did you mean 'binary_cross_entropy'?"),
        ("training.precision=fp16", "training.precision: 'fp16' is not known (did you mean 'float16'?"),
        ("training.device=gpu", "training.device: unknown device 'gpu': did you mean 'cuda'?"),
        (
            "training.lr_scaling=sqrt",
            "training.lr_scaling: unknown scaling 'sqrt': did you mean 'square_root'?",
        ),
        (
            "training.swa=true",
            "training.swa: true is a truth value; a map {start, every} or null is expected "
            "(write {} for its defaults)",
        ),
        (
            "sweep=true",
            "sweep: true is a truth value; a map {grid, random, seeds, metric} or null is expected",
        ),
        (
            "ensemble.vary=split",
            "ensemble.vary: 'split' is a text; a list, each one of initialisation, batches, split, sample is "
            "expected (write [split])",
        ),
        (
            "ensemble.vary=seed",
            "ensemble.vary: 'seed' is a text; a list, each one of initialisation, batches, split, sample is expected",
        ),
        ("cluster.setup=module load cuda", "each one line of text is expected (write [module load cuda])"),
        (
            "training.accumulate=512",
            "training: accumulate cuts a batch into 512 parts, and batch_size is 256: a part holds at least one jet",
        ),
    ],
)
def test_a_likely_mistake_says_what_was_meant(override: str, message: str) -> None:
    with pytest.raises(JettaggerError, match=re.escape(message)) as caught:
        load(SHIPPED / "mlp.yaml", [override])
    assert ("(write" in str(caught.value)) == ("(write" in message)


def _sections(base: type[Section]) -> set[type[Section]]:
    return {base}.union(*(_sections(section) for section in base.__subclasses__()))


def test_every_field_of_every_section_is_described() -> None:
    json_schema()
    missing = [
        f"{section.__qualname__}.{name}"
        for section in _sections(Section)
        if section.__module__.startswith("jettagger.")
        for name, info in section.model_fields.items()
        if not info.description
    ]
    assert missing == []


def test_the_page_about_the_configuration_is_current() -> None:
    script = Path(__file__).parents[1] / "scripts" / "document_configuration.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_reading_the_config_classes_does_not_import_torch() -> None:
    code = "import sys, jettagger.configuration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PIECES = [
    *VALID.splitlines(),
    "",
    "  ",
    "\t",
    "- a",
    "a: b: c",
    "? x",
    "&a",
    "*a",
    "<<: {a: 1}",
    "!t",
    "null",
    "[",
    "{}",
    "'",
    "x: 1e999",
    "0: 1",
    "\x85",
    "\ufeff",
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_text_ends_in_a_traceback(data: st.DataObject) -> None:
    lines = VALID.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["delete", "repeat", "replace", "character", "indent"])):
            case "delete":
                del lines[place]
            case "repeat":
                lines.insert(data.draw(st.integers(0, len(lines))), lines[place])
            case "replace":
                lines[place] = data.draw(st.sampled_from(PIECES))
            case "character":
                column = data.draw(st.integers(0, len(lines[place])))
                new = data.draw(st.text(max_size=2))
                lines[place] = lines[place][:column] + new + lines[place][column + 1 :]
            case "indent":
                lines[place] = data.draw(st.sampled_from(["", " ", "   "])) + lines[place].lstrip()
        lines = lines or [""]
    _loads_or_explains("\n".join(lines))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [(*path, key) for key, _ in entries] + [p for k, v in entries for p in _places(v, (*path, k))]


PLACES = _places(yaml.safe_load(VALID))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
@example(("format",), float("nan"))
@example(("model", "widths", 1), 360177625)
@example(("classes", "QCD"), {"sample": {"sample": {}}})
def test_no_value_ends_in_a_traceback(place: tuple[Any, ...], value: Any) -> None:
    content = yaml.safe_load(VALID)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    _loads_or_explains(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


JARGON = re.compile(
    r"Input should|Value error|https?://|type=|input_value|\bvalid dictionary\b|pydantic", re.IGNORECASE
)


def _loads_or_explains(text: str) -> None:
    try:
        config = loads(text, name="a.yaml")
    except JettaggerError as error:
        message = str(error)
    else:
        assert loads(dump(config)) == config
        return
    assert message.startswith("a.yaml:")
    assert not JARGON.search(message)
