"""junit.xml, which every CI system reads: a testcase for each case."""

import json
from xml.etree import ElementTree as ET

from moespec_conformance.protocol import BAD, Result
from moespec_conformance.report.jsonl import Log
from moespec_conformance.report.tally import suspected
from moespec_conformance.report.words import again, clean, reason
from moespec_conformance.spec import clauses

ELEMENT = {"fail": "failure", "error": "error", "timeout": "error"}
SKIPPED = ("not_supported", "xfail", "waived")  # neither passed nor failed


def junit(log: Log) -> str:
    """The whole file. With --strict, a known failure that is gone is a failure, and so is a line that excuses none."""
    cases = [testcase(result, log) for result in log.results]
    cases += [outdated(line) for line in log.footer["stale"] if log.footer["strict"]]
    found = {tag: str(sum(case.find(tag) is not None for case in cases)) for tag in ("failure", "error", "skipped")}
    sums = {"tests": str(len(cases)), "failures": found["failure"], "errors": found["error"]}
    sums |= {"time": f"{sum(result.seconds for result in log.results):.3f}"}
    root = ET.Element("testsuites", {"name": "moespec", **sums})
    name = clean(f"moespec {log.header['adapter']}")
    about = {"name": name, "skipped": found["skipped"], "timestamp": str(log.header.get("started", ""))}
    suite = ET.SubElement(root, "testsuite", {**about, **sums})
    properties = ET.SubElement(suite, "properties")
    for key, value in log.header.items():
        text = value if isinstance(value, str) else json.dumps(value)
        ET.SubElement(properties, "property", {"name": key, "value": clean(text)})
    suite.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def testcase(result: Result, log: Log) -> ET.Element:
    """One case: passed, unless something in it says otherwise."""
    made = ET.Element("testcase", {"classname": result.op, "name": result.case, "time": f"{result.seconds:.4f}"})
    message = clean(reason(result))
    if result.status in BAD:
        child = ET.SubElement(made, ELEMENT[result.status], {"type": result.kind, "message": message})
        child.text = clean(told(result, log))
    elif result.status in SKIPPED:
        ET.SubElement(made, "skipped", {"type": result.status, "message": message})
    elif result.status == "xpass" and log.footer["strict"]:
        ET.SubElement(made, "failure", {"type": "xpass", "message": message})
    elif result.message:
        ET.SubElement(made, "system-out").text = clean(result.message)
    return made


def outdated(line: str) -> ET.Element:
    """A line of the known failures that excuses nothing."""
    made = ET.Element("testcase", {"classname": "expected-failures", "name": clean(line), "time": "0"})
    ET.SubElement(made, "failure", {"type": "stale", "message": "it excuses no failure"})
    return made


def told(result: Result, log: Log) -> str:
    """All that one needs to act on a failure."""
    lines = [f"{name}: {clauses()[name].text}" for name in suspected(result)]
    lines += [f"first wrong stage: {result.stage} ({result.kind})"] if result.stage else []
    lines += [f"looks like: {found['mutant']} ({found['match']})" for found in result.suspects]
    return "\n".join([*lines, result.message.strip(), again(log, result)])
