"""A vesicle's rate graph with a label's compartments added: what a scanner or counter sees instead of the vesicle.

Free label goes its own way from the injection on; label leaves vesicles in blood; in tissue it stays behind when the
vesicle is gone. Every label has the same graph and differs in its parameters, so all labels are solved side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from evbiodist.kinetics.models.graph import ONE, Monomial, ParameterSpec, Port, RateGraph, Seen, Transfer
from evbiodist.study.vocabulary import NOT_ORGANS

#: Nuisance parameters of a label beside those it has per organ.
FRACTION, RELEASE, TRANSFER, CLEARANCE, LOSS = "free_fraction", "release", "transfer", "clearance", "loss"
FREE_V, FREE_OUT, FREE_EL, FREE_KA, SCALE = "free_v", "free_k_out", "free_k_el", "free_ka", "scale"
#: Those it has per organ: reading per label, uptake of free label, and grams of blood in the organ's vessels.
EFFICIENCY, FREE_IN, VESSELS = "efficiency", "free_k_in", "vessel_blood"
_ABOUT = {
    FRACTION: ("1", "share of the injected label that is not on vesicles", "logit"),
    RELEASE: ("1/time", "rate at which label leaves vesicles in blood", "log"),
    TRANSFER: ("1/time", "rate at which label in tissue leaves the vesicle and stays behind", "log"),
    CLEARANCE: ("1/time", "rate at which label left behind leaves the tissue", "log"),
    LOSS: ("1/time", "rate at which the signal itself is lost, physical decay apart", "log"),
    FREE_V: ("dose/value", "volume of distribution of free label's blood", "log"),
    FREE_OUT: ("1/time", "return rate of free label from organs", "log"),
    FREE_EL: ("1/time", "elimination rate of free label from blood", "log"),
    FREE_KA: ("1/time", "absorption rate of free label", "log"),
    SCALE: ("1", "reading per unit of the dose; 1 where readings are % of dose", "log"),
}
_BY_ORGAN = {
    EFFICIENCY: ("1", "reading of {0} per reading of the dose standard"),
    FREE_IN: ("1/time", "uptake rate of free label into {0}"),
    VESSELS: ("dose/value", "blood in the vessels of {0}"),
}


def by_organ(name: str, organ: str) -> str:
    """Return the name of a label's parameter for one organ.

    Examples
    --------
    >>> by_organ(EFFICIENCY, "brain")
    'efficiency_brain'
    """
    return f"{name}_{organ}"


def organs_of(graph: RateGraph) -> tuple[str, ...]:
    """Return the organs that a vesicle's model sees, without excreta.

    Raises
    ------
    ValueError : a model of whose organs blood vessels are a part, so that what vesicles alone are there is not told apart.
    """
    joined = [o for o in graph.seen[1:] if o not in graph.index and o not in NOT_ORGANS]
    if joined:
        raise ValueError(f"model {graph.name} sees {', '.join(joined[:3])} together with their vessels; for several labels "
                         "choose a model whose organs are compartments, such as plasma_with_organs")  # fmt: skip
    return tuple(o for o in graph.organs if o not in NOT_ORGANS)


def labelled(graph: RateGraph) -> RateGraph:
    """Return what a label shows of a vesicle's model.

    Parameters
    ----------
    graph : the vesicle's model; blood is what it sees first.

    Returns
    -------
    RateGraph : the vesicle's compartments (vesicles that carry the label), ``free`` (free label in blood), and per organ
        ``<organ>_left`` (label whose vesicle is gone) and ``<organ>_free``. Amounts and what is lost sum to the dose.

    Raises
    ------
    ValueError : a model with several inputs, or as `organs_of`.

    Examples
    --------
    >>> from evbiodist.kinetics.models.catalogue import build
    >>> labelled(build("plasma_with_organs", ["liver"])).compartments
    ('blood', 'liver', 'free', 'liver_left', 'liver_free')

    Notes
    -----
    What goes wrong with labels: Puzar Dominkus et al. 2018, BBA Biomembr 1860:1350 (free dye); Lazaro-Ibanez et al. 2021,
    ACS Nano 15:3212 (labels compared).
    """
    if len(graph.ports) != 1:
        raise ValueError(f"model {graph.name} has the inputs {', '.join(p.name for p in graph.ports)}; a vesicle's model for "
                         "several labels needs one, the dose")  # fmt: skip
    organs = organs_of(graph)
    compartments = (*graph.compartments, "free", *(f"{o}_left" for o in organs), *(f"{o}_free" for o in organs))
    port, absorbed = _port(graph)
    return RateGraph(
        name=f"{graph.name} seen through a label",
        title=f"{graph.title}; seen through a label",
        source=graph.source,
        compartments=(*compartments, *absorbed),
        parameters=(*graph.parameters, *_parameters(graph, organs, bool(absorbed))),
        transfers=tuple(_parts(graph, organs)) + tuple(Transfer(c, "free", _rate(FREE_KA)) for c in absorbed),
        observations=tuple(_sights(graph, organs)),
        ports=(port,),
    )


def _rate(*names: str) -> Monomial:
    return Monomial(tuple((n, 1) for n in names))


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a.powers)
    for name, power in b.powers:
        powers[name] = powers.get(name, 0) + power
    return Monomial(tuple((n, p) for n, p in powers.items() if p), a.coefficient * b.coefficient)


def _in_organ(graph: RateGraph, organ: str) -> tuple[str, ...]:
    """Return the compartments of an organ without those of blood in its vessels."""
    bare = next(o for o in graph.without_vessels.observations if o.name == organ)
    return tuple(c for c, _ in bare.terms)


def _parts(graph: RateGraph, organs: Sequence[str]) -> Iterator[Transfer]:
    """Return the vesicle's transfers, and where label goes otherwise."""
    organ_of = {c: organ for organ in organs for c in _in_organ(graph, organ)}
    for t in graph.transfers:  # a vesicle that is degraded in tissue leaves its label there
        lost_in = organ_of.get(t.source) if t.target is None else None
        yield replace(t, target=f"{lost_in}_left") if lost_in else t
    blood = [c for c, _ in graph.observations[0].terms]
    for c in blood:
        yield Transfer(c, "free", _rate(RELEASE))
    for c, organ in organ_of.items():
        yield Transfer(c, f"{organ}_left", _rate(TRANSFER))
    for c in (*graph.compartments, *(f"{o}_left" for o in organs)):
        yield Transfer(c, None, _rate(LOSS))
    yield Transfer("free", None, _rate(FREE_EL))
    for organ in organs:
        yield Transfer(f"{organ}_left", "free", _rate(CLEARANCE))
        yield Transfer("free", f"{organ}_free", _rate(by_organ(FREE_IN, organ)))
        yield Transfer(f"{organ}_free", "free", _rate(FREE_OUT))


def _port(graph: RateGraph) -> tuple[Port, tuple[str, ...]]:
    """Return the input, shared between vesicles and free label, and depots that free label is absorbed from."""
    port = graph.ports[0]
    blood = {c for c, _ in graph.observations[0].terms}
    into: list[tuple[str, Monomial]] = []
    depots: list[str] = []
    for c, factor in port.into:
        into.append((c, _times(factor, _rate(f"1-{FRACTION}"))))
        place = "free" if c in blood else f"{c}_free"
        depots += [place] if c not in blood else []
        into.append((place, _times(factor, _rate(FRACTION))))
    return replace(port, into=tuple(into)), tuple(depots)


def _sights(graph: RateGraph, organs: Sequence[str]) -> Iterator[Seen]:
    """Return what is read of blood and of every organ, with the blood in its vessels."""
    first = graph.observations[0]
    blood = [*first.terms, ("free", Monomial(((FREE_V, -1),)))]
    seen = {o.name: o for o in graph.observations}
    for name in (first.name, *organs):
        reading = _rate(SCALE, by_organ(EFFICIENCY, name))
        if name == first.name:
            terms = blood
        else:
            own = [(c, m) for c, m in seen[name].terms if c in _in_organ(graph, name)]
            vessels = _rate(by_organ(VESSELS, name))
            terms = [*own, (f"{name}_left", ONE), (f"{name}_free", ONE), *((c, _times(m, vessels)) for c, m in blood)]
        yield Seen(name, tuple((c, _times(m, reading)) for c, m in terms))


def _parameters(graph: RateGraph, organs: Sequence[str], absorbed: bool) -> Iterator[ParameterSpec]:
    for name, (dimension, about, scale) in _ABOUT.items():
        if name != FREE_KA or absorbed:
            yield ParameterSpec(name, dimension, about, scale=scale)
    for name, (dimension, about) in _BY_ORGAN.items():
        places = organs if name != EFFICIENCY else (graph.seen[0], *organs)
        for organ in places:
            yield ParameterSpec(by_organ(name, organ), dimension, about.format(organ))
