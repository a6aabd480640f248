"""Every expression of a config, with its key and what it has to give."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from jettagger.data.input_schema import FeatureSection, JetSection
from jettagger.data.schema import ClassSection, DataConfig
from jettagger.data.values import condition, number, one_hot
from jettagger.errors import JettaggerError
from jettagger.expressions import Expression, Jagged, Namespace, parse, required_branches
from jettagger.expressions.tree import Apply, Node

Gives = Literal["condition", "one_hot", "number", "particles", "particle_condition"]


class Term(NamedTuple):
    """An expression of the config."""

    key: str
    """Where it stands, such as inputs.jet.features.mass."""
    expression: Expression
    gives: Gives
    """What it has to give: one condition or number a jet, or values for particles."""

    def check(self, namespace: Namespace, jets: int) -> None:
        """Computes it for some jets. Raises JettaggerError where it gives something else."""
        if self.gives == "condition":
            condition(namespace, self.expression, self.key, jets)
        elif self.gives == "one_hot":
            one_hot(namespace, self.expression, self.key, jets)
        elif self.gives == "number":
            number(namespace, self.expression, self.key, jets)
        else:
            self._check_particles(namespace)

    def _check_particles(self, namespace: Namespace) -> None:
        value = namespace.evaluate(self.expression, where=self.key)
        values = value.values if isinstance(value, Jagged) else value
        if self.gives == "particle_condition" and values.dtype != bool:
            raise JettaggerError(
                f"{self.key}: a condition is expected, this has values of type {values.dtype}"
            )


def definitions(config: DataConfig) -> dict[str, Expression]:
    """The expressions of `define`."""
    return {name: parse(text, where=f"define.{name}") for name, text in config.define.items()}


def branches_of(config: DataConfig, terms: Iterable[Term]) -> frozenset[str]:
    """The branches that terms use, themselves or through definitions, by the names that expressions use."""
    return required_branches([term.expression for term in terms], definitions(config))


def selection_terms(config: DataConfig) -> list[Term]:
    """The conjuncts of `data.selection`, each a cut: `a & b & c` and `a and b and c` are three."""
    if config.data.selection is None:
        return []
    whole = parse(config.data.selection, where="data.selection")
    texts = [_text(whole.text, node) for node in _conjuncts(whole.tree)]
    return [Term("data.selection", parse(text, where="data.selection"), "condition") for text in texts]


def class_names(config: DataConfig) -> tuple[str, ...]:
    """The classes; where there are only targets, all jets are one group, `jets`."""
    return tuple(config.classes) or ("jets",)


def class_terms(config: DataConfig) -> dict[str, Term | str]:
    """For each class its condition, or the name of its sample."""
    terms: dict[str, Term | str] = {}
    for name, given in config.classes.items():
        key = f"classes.{name}"
        if not isinstance(given, ClassSection):
            terms[name] = Term(key, parse(given, where=key), "condition")
        elif given.one_hot is not None:
            terms[name] = Term(key, parse(given.one_hot, where=key), "one_hot")
        else:
            terms[name] = str(given.sample)
    return terms


def input_terms(config: DataConfig) -> list[Term]:
    """Selection, inputs and spectators: what a prediction needs, and no labels."""
    terms = selection_terms(config)
    for name, section in config.inputs.items():
        key = f"inputs.{name}"
        is_jet = isinstance(section, JetSection)
        for feature, given in section.features.items():
            text = given.value if isinstance(given, FeatureSection) else given
            place = f"{key}.features.{feature}"
            terms.append(Term(place, parse(text, where=place), "number" if is_jet else "particles"))
        if isinstance(section, JetSection):
            continue
        if section.select is not None:
            place = f"{key}.select"
            terms.append(Term(place, parse(section.select, where=place), "particle_condition"))
        if section.sort_by is not None:
            terms.append(Term(f"{key}.sort_by", parse(section.sort_by, where=f"{key}.sort_by"), "particles"))
        for axis, text in section.coordinates.model_dump().items() if section.coordinates else ():
            place = f"{key}.coordinates.{axis}"
            terms.append(Term(place, parse(text, where=place), "particles"))
    return terms + [
        Term("spectators", parse(name, where="spectators"), "number") for name in config.spectators
    ]


def label_terms(config: DataConfig, sample_weight: str | int | float) -> list[Term]:
    """Classes, targets and event weights, the weights last."""
    terms = [term for term in class_terms(config).values() if isinstance(term, Term)]
    for name, section in config.targets.items():
        key = f"targets.{name}.value"
        terms.append(Term(key, parse(section.value, where=key), "number"))
    terms.append(Term("weights.event", parse(config.weights.event, where="weights.event"), "number"))
    return [*terms, Term("data: weight", parse(sample_weight, where="data: weight"), "number")]


def _conjuncts(node: Node) -> list[Node]:
    if isinstance(node, Apply) and node.function in ("&", "and"):
        return [inner for argument in node.arguments for inner in _conjuncts(argument)]
    return [node]


def _text(text: str, node: Node) -> str:
    return text[node.span[0] : node.span[1]]
