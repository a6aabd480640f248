"""The processes that can be simulated: Pythia's settings, the label, and what is matched to the jets."""

from dataclasses import dataclass

LABELS = ("QCD", "Hbb", "Hcc", "Hgg", "H4q", "Hqql", "Zqq", "Wqq", "Tbqq", "Tbl")
"""The ten classes of JetClass (arXiv:2202.03772), each a branch `label_<name>`."""


@dataclass(frozen=True)
class Process:
    """One physics process. Only decays that can give the labelled jet are generated."""

    label: str
    """The class of every jet written, one of `LABELS`."""
    description: str
    """One line for people."""
    settings: tuple[str, ...]
    """Pythia settings, applied before the user's."""
    resonance: int | None
    """PDG code (absolute) of the particle whose decay must lie inside the jet; None: no matching (QCD)."""
    daughters: int
    """How many final quarks its decay has: 2 for W, Z and H, 3 for t -> b q q'."""


# Pair production (tt, WW, ZZ) puts two labelled jets into an event for the price of one underlying event.
PROCESSES = {
    "QCD": Process("QCD", "light and heavy QCD 2 -> 2", ("HardQCD:all = on",), None, 0),
    "Tbqq": Process(
        "Tbqq",
        "t tbar, both W to quarks",
        ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5"),
        6,
        3,
    ),
    "Wqq": Process(
        "Wqq",
        "W+ W-, both to quarks",
        ("WeakDoubleBoson:ffbar2WW = on", "24:onMode = off", "24:onIfAny = 1 2 3 4 5"),
        24,
        2,
    ),
    "Zqq": Process(
        "Zqq",
        "Z Z (no photon), both to quarks",
        (
            "WeakDoubleBoson:ffbar2gmZgmZ = on",
            "WeakZ0:gmZmode = 2",
            "23:onMode = off",
            "23:onIfAny = 1 2 3 4 5",
        ),
        23,
        2,
    ),
    "Hbb": Process(
        "Hbb",
        "H Z, H to b bbar and Z to neutrinos",
        (
            "HiggsSM:ffbar2HZ = on",
            "25:onMode = off",
            "25:onIfMatch = 5 -5",
            "23:onMode = off",
            "23:onIfAny = 12 14 16",
        ),
        25,
        2,
    ),
}
