"""Clauses, cases, mutants, profiles and adapters in words and tables."""

from collections.abc import Callable
from difflib import unified_diff
from importlib.metadata import entry_points

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moespec.fields import NEUTRAL
from moespec_conformance.address import Usage
from moespec_conformance.case_folder import case_from, folder_of
from moespec_conformance.cases import PROFILES, all_cases
from moespec_conformance.edits import Edit, edited, source_of
from moespec_conformance.mutants import MUTANTS
from moespec_conformance.mutants.killers import RECORDED
from moespec_conformance.mutants.mutant import Mutant
from moespec_conformance.oracle import answer
from moespec_conformance.protocol import Case
from moespec_conformance.spec import clauses

Row = tuple[str, ...]


def explained(name: str) -> RenderableType:
    """A clause, a case, also one in a folder, or a mutant."""
    if folder := folder_of(name):
        return case(case_from(folder))
    if name in clauses():
        return clause(name)
    if name in all_cases():
        return case(all_cases()[name])
    if name in MUTANTS:
        return mutant(MUTANTS[name])
    raise Usage(f"no clause, case or mutant {name!r}: see `moespec list clauses`, `list cases` and `list mutants`")


def clause(name: str) -> RenderableType:
    """What it says, who does something else, and which cases ask."""
    found = clauses()[name]
    asked = [c.id for c in all_cases().values() if name in c.clauses]
    body = Text.assemble((f"{name} ({found.mode})\n", "bold"), found.text)
    if found.variants:
        body.append_text(Text.assemble(("\nVariants  ", "bold"), found.variants))
    return body.append_text(Text.assemble((f"\n{len(asked)} cases  ", "bold"), ", ".join(asked)))


def case(found: Case) -> RenderableType:
    """What it asks, with what inputs, and how tightly the answer is known."""
    head = Text.assemble(
        (found.id, "bold"), f"  op {found.op}, {found.kind}, {found.arithmetic}, called {found.manner}"
    )
    doc = f"\n{found.note}" if found.note else ""
    config = ", ".join(f"{key}={value}" for key, value in found.config.items() if NEUTRAL.get(key, key) != value)
    about = Text(f"clauses {', '.join(found.clauses)}; profiles {', '.join(found.profiles)}{doc}\n{config}")
    table = Table("tensor", "shape", "dtype", "smallest", "largest", "largest bound", box=None, pad_edge=False)
    for name, tensor in found.inputs.items():
        row = tensor.astype("float64") if tensor.size else tensor
        table.add_row(name, str(tensor.shape), str(tensor.dtype), *_range(row), "")
    if found.kind not in ("reject", "relation"):
        right = answer(found)
        for name, value in right.values.items():
            bound = f"{right.bounds[name].max(initial=0):.3g}" if name in right.bounds else ""
            table.add_row(f"→ {name}", str(value.shape), "", *_range(value), bound)
    return Group(head, about, table)


def mutant(found: Mutant) -> RenderableType:
    """What is wrong in it, who had it, what shows it, and what it changes in the reference's source."""
    body = Text.assemble((found.slug, "bold"), f"  breaks {found.clause}, {found.direction}\n{found.symptom}\n")
    body.append(f"seen in {found.cite}\nshows with {found.trigger}\n")
    if found.slug in RECORDED:
        body.append(f"killed by {', '.join(RECORDED[found.slug].killers)}\n")
    for module in dict.fromkeys(edit.module for edit in found.edits):
        body.append(f"\nmoespec/{module}.py\n")
        for line in changed(module, found.edits):
            body.append(line + "\n", style="red" if line[0] == "-" else "green")
    return body.append(f"\nmoespec check mutant:{found.slug}", style="cyan")


def changed(module: str, edits: tuple[Edit, ...]) -> list[str]:
    """The lines of a file that edits take away and put in."""
    text = source_of(module)
    mine = tuple(edit for edit in edits if edit.module == module)
    lines = unified_diff(text.splitlines(), edited(text, mine).splitlines(), lineterm="", n=0)
    return [line for line in list(lines)[2:] if line[0] in "+-"]


def _range(values: object) -> tuple[str, str]:
    low, high = getattr(values, "min", None), getattr(values, "max", None)
    if low is None or high is None or not getattr(values, "size", 0):
        return "", ""
    return f"{low():.4g}", f"{high():.4g}"


def listed(what: str) -> RenderableType:
    """One line for each."""
    if what not in LISTS:
        raise Usage(f"no list of {what!r}: {', '.join(LISTS)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in LISTS[what]():
        table.add_row(*row)
    return table


def case_row(found: Case) -> Row:
    """A case in one line."""
    return found.id, found.op, found.kind, found.arithmetic, ", ".join(found.profiles), ", ".join(found.clauses)


def profile_row(name: str) -> Row:
    """A profile in one line."""
    return name, str(sum(name in found.profiles for found in all_cases().values())), PROFILES[name]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "cases": lambda: [case_row(found) for found in all_cases().values()],
    "clauses": lambda: [(c.id, c.mode, c.text.partition(". ")[0][:160]) for c in clauses().values()],
    "mutants": lambda: [(m.slug, m.clause, m.direction, m.symptom) for m in MUTANTS.values()],
    "profiles": lambda: [profile_row(name) for name in PROFILES],
    "adapters": lambda: [(point.name, point.value) for point in entry_points(group="moespec.adapters")],
}
