"""The dashboard and the alerts against the /metrics of a running server, read from standard input.

Every metric and label that they name is there, every expression parses (promtool says), every metric of the server is
on the dashboard, and each alert says what to do.
"""

import json
import re
import subprocess
import sys
import tempfile

DASHBOARD, ALERTS = "scripts/grafana-dashboard.json", "scripts/prometheus-alerts.yml"
# What Prometheus adds to each series of a scrape, and what a histogram's buckets have.
OF_PROMETHEUS = {"instance", "job", "le"}


def series(text):
    """Names of series with the labels that some of them have; names of families."""
    found, families = {}, set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            families.add(line.split()[2])
            found.setdefault(line.split()[2], set())
        elif line and not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    return found, families


def named(expression):
    """Names of metrics with the labels that select them, and the labels of `by` and `on`."""
    selectors = re.findall(r"\b((?:sluicegate|process)_\w+)(?:\{([^}]*)\})?", expression)
    grouped = re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
    return (
        [(name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))) for name, labels in selectors],
        {label.strip() for labels in grouped for label in labels.split(",")},
    )


def expressions():
    """Each expression with where it stands."""
    dashboard = json.load(open(DASHBOARD))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"], target["legendFormat"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']!r}", annotation["expr"], annotation["titleFormat"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']!r}", re.sub(r"label_values\((.*),.*\)", r"\1", variable["query"]["query"]), ""
    for alert in alerts():
        yield f"alert {alert['alert']}", alert["expr"], ""


def alerts():
    """The rules of the file, which is plain enough to need no YAML library."""
    for rule in re.split(r"^ +- alert: ", open(ALERTS).read(), flags=re.M)[1:]:
        block, line = re.search(r"^ +expr: (?:\|\n((?: {10,}.*\n)+)|(.*))", rule, re.M).groups()
        yield {
            "alert": rule.split("\n", 1)[0],
            "expr": block or line,
            "severity": re.search(r"severity: (\w+)", rule).group(1),
            "annotations": dict(re.findall(r'^ +(summary|action): "(.+)"$', rule, re.M)),
        }


def main():
    found, families = series(sys.stdin.read())
    wrong, on_dashboard, parsed = [], set(), []
    for where, expression, legend in expressions():
        selectors, grouped = named(expression)
        of_expression = set()
        for name, labels in selectors:
            if name not in found:
                wrong.append(f"{where} names {name}, which the server does not have")
                continue
            of_expression |= found[name]
            missing = labels - found[name] - OF_PROMETHEUS
            wrong.extend(f"{where} selects {name} by {label}, which it does not have" for label in sorted(missing))
            if where.startswith("panel"):
                on_dashboard.add(re.sub(r"_(bucket|sum|count)$", "", name))
        used = grouped | set(re.findall(r"{{(\w+)}}", legend))
        missing = used - of_expression - OF_PROMETHEUS
        wrong.extend(f"{where} groups or names by {label}, which no metric of it has" for label in sorted(missing))
        parsed.append(re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m")))
    ours = {family for family in families if family.startswith("sluicegate_")}
    wrong.extend(f"{family} is not on the dashboard" for family in sorted(ours - on_dashboard))
    for alert in alerts():
        if alert["annotations"].keys() != {"summary", "action"} or alert["severity"] not in ("page", "ticket"):
            wrong.append(f"alert {alert['alert']} lacks a summary, an action or a severity")
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as rules:
        json.dump({"groups": [{"name": "dashboard", "rules": [{"record": f"r{number}", "expr": expression}
                                                            for number, expression in enumerate(parsed)]}]}, rules)
        rules.flush()
        checked = subprocess.run(["promtool", "check", "rules", rules.name], capture_output=True, text=True)
        if checked.returncode:
            wrong.append(checked.stderr)
    if not (len(parsed) > 50 and len(ours) > 30):
        wrong.append(f"only {len(parsed)} expressions and {len(ours)} metrics were read")
    if wrong:
        sys.exit("FAILED:\n" + "\n".join(wrong))
    print(f"-- {len(parsed)} expressions name what the server has; its {len(ours)} metrics are on the dashboard")


main()
