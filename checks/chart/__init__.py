"""Generates what the Helm chart holds twice: schema, table of values, alerts, dashboards.

`python -m checks.chart` writes (`make chart`); with `--check` it names what is out of date.
"""
