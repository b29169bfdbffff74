"""Grafana dashboards as code: `make dashboards` writes `provisioning/dashboards/blocker/*.json`. Nothing else uses it.

- `thresholds`: the figures from which on something is wrong, as in the alert rules
- `queries`: selectors, variables and the arithmetic of hits
- `panels`: the kinds of panels, on Grafana's own types
- `operations`, `hits`, `lists`: a dashboard each
- `write`: the program
"""
