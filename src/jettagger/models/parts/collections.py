"""Which collection of particles an architecture looks at, where it looks at one."""

from jettagger.batch import CollectionInput, InputSpec
from jettagger.errors import JettaggerError, unknown_name


def chosen_collection(
    name: str | None, inputs: InputSpec, architecture: str, *, coordinates: bool
) -> CollectionInput:
    """The collection called `name`; without a name the only one, or the only one that has coordinates.

    Raises JettaggerError where there is none, or where coordinates are needed and missing.
    """
    named = {collection.name: collection for collection in inputs.collections}
    if not named:
        raise JettaggerError(
            f"model.architecture: {architecture} needs a collection of particles: "
            "add one under `inputs`, with `from` and `features`"
        )
    if name is not None and name not in named:
        raise unknown_name("collection", name, named, where="model.collection")
    located = [collection for collection in inputs.collections if collection.coordinates]
    candidates = [named[name]] if name is not None else located if len(named) > 1 else [*named.values()]
    if len(candidates) != 1:
        raise JettaggerError(
            f"model.collection: say which collection {architecture} looks at (one of {', '.join(named)})"
        )
    if coordinates and not candidates[0].coordinates:
        raise JettaggerError(
            f"model.architecture: {architecture} needs to know where particles lie: "
            f"add inputs.{candidates[0].name}.coordinates with eta, phi and pt"
        )
    return candidates[0]
