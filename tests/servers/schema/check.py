"""Checks each line of the standard input against a JSON schema: as it stands, and then with no field that it does not
describe, whatever it allows its readers.

Usage: check.py SCHEMA
Prints the numbers of the lines that are wrong.
"""

import copy
import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1]) as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)


def narrow(node):
    """Forbids what is not described, here and in everything inside."""
    if "properties" in node:
        node.pop("additionalProperties", None)
        node["unevaluatedProperties"] = False
    inner = [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]
    for part in inner:
        if isinstance(part, dict):
            narrow(part)


narrowed = copy.deepcopy(schema)
narrow(narrowed)
kinds = list(schema.get("$defs", {}))
if kinds:
    narrowed["properties"]["event"]["enum"] = kinds

lines = [json.loads(line) for line in sys.stdin]
if not lines:
    sys.exit("there is nothing to check")
wrong = set()
for number, line in enumerate(lines):
    for validator in Draft202012Validator(schema), Draft202012Validator(narrowed):
        for error in validator.iter_errors(line):
            print(f"line {number}: {error.json_path}: {error.message}", file=sys.stderr)
            wrong.add(number)
print(json.dumps(sorted(wrong)))
sys.exit(bool(wrong))
