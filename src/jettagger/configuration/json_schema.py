"""The JSON Schema of the YAML, by which an editor completes and checks it."""

from typing import Any

from jettagger.configuration.config import Config, architectures, model_section


def json_schema() -> dict[str, Any]:
    """Draft 2020-12: the whole config, `model` as one of all architectures; descriptions from the fields."""
    schema = Config.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    members = []
    for name in architectures():
        # Architectures have sections of equal names, such as DropoutRates, that hold different keys.
        section = model_section(name).model_json_schema(
            by_alias=True, ref_template=f"#/$defs/model_{name}.{{model}}"
        )
        definitions |= {f"model_{name}.{inner}": found for inner, found in section.pop("$defs", {}).items()}
        section["required"] = sorted({*section.get("required", []), "architecture"})
        definitions[f"model_{name}"] = section
        members.append({"$ref": f"#/$defs/model_{name}"})
    schema["properties"]["model"] = {
        "oneOf": members,
        "description": Config.model_fields["model"].description,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "jettagger config",
    }
