"""What stands before the tables of docs/configuration.md."""

INTRO = """\
# Configuration

Every setting of a config. This page is made from the schema: `wind schema --markdown > docs/configuration.md`.

A config is a YAML file that holds only what differs from the defaults. "Absent" means that a setting has no value
unless you give it one; `null` takes a value away. Unknown keys and impossible values are refused before anything runs,
with the key, the value and how to fix it.

```bash
python flows/wind_flow.py --config config mine.yaml run
```

## In an editor
Editors with the YAML language server (VS Code, Vim, Emacs …) complete, describe and check every key. Write the schema
to a file,

```bash
wind schema > wind.schema.json
```

and name it in the first line of a config:

```yaml
# yaml-language-server: $schema=wind.schema.json
```

The schema knows keys, types and ranges. What depends on several keys, such as a micro-batch that is larger than a
batch, is checked when the config is read; what depends on files and models, in `start`. `wind schema --bandit` is that
of the laboratory.

## How YAML is read
As its version 1.2 has it: `010` is ten, `5e-4` a number, `1:30`, `1_000` and `2024-01-01` are text, and keys are always
text. `yes`, `no`, `on` and `off` must be written as `true` and `false`, or in quotes. A key that stands twice in a
section, a tag, and anchors that repeat more than 200,000 characters are refused, as are larger files and more than 50
levels. Merge keys (`<<`) work.

Relative paths are relative to where you type the command.
"""
