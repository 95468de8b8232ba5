"""The lines that `make bench` prints, all of one form: name, value, rival's value, ratio.

A benchmark is a module of this package with ``def run() -> Iterator[str]``, which yields such lines as it measures
them; ``bench/__main__.py`` lists the modules. A ratio above 1 is in our favour.
"""

HEAD = f"{'what':<34}{'ours':>12} {'unit':<18}{'rival':>12}  {'ratio':>6}  rival's name"
"The line above the others."


def line(name: str, value: float, unit: str, rival_name: str, rival_value: float, ratio: float | None = None) -> str:
    """One line of a report. ``unit`` holds for both values; ``ratio`` None: value / rival_value, more is better."""
    if ratio is None:
        ratio = value / rival_value
    return f"{name:<34}{figure(value):>12} {unit:<18}{figure(rival_value):>12}  {ratio:>6.2f}  {rival_name}"


def alone(name: str, value: float, unit: str) -> str:
    """One line of a report about something that no rival does."""
    return f"{name:<34}{figure(value):>12} {unit}"


def figure(value: float) -> str:
    """Three digits that mean something, thousands apart: ``12 300``, ``4.56``."""
    if abs(value) < 100:
        return f"{value:.3g}"
    digits = len(str(int(abs(value))))
    return f"{round(value, 3 - digits):,.0f}".replace(",", " ")
