"""From the figures of a run to verdicts: in what state is each network?

In: the `step` events so far. Out: for each network a state and the figures that say so. The thresholds stand here, each with
its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Any

from electra.events import HISTOGRAM_PREFIX, number
from electra.train.health import POSITION_BINS

# ELECTRA_SPEC section 8
HEALTHY_GAIN = 0.03
HEALTHY_AUC = 0.70
GOOD_AUC = 0.80
COLLAPSED_RMS = 1e-3
# below this share even a perfect discriminator gains little: H(.01) = .056 nats
MIN_REPLACED_SHARE = 0.01
MIN_UNIFORMITY = 0.5
# above this share of found fakes, or below the rest, they teach nothing
MAX_FAKES_FOUND = 0.99
# nats above / below the entropy of single tokens
PLATEAU_MARGIN = 0.1
GENERATOR_MARGIN = 0.5
# a loss that has risen this far above its best
DIVERGED_MLM_NATS = 1.0
DIVERGED_FACTOR = 1.5
# A generator that is trained on likelihood is as unsure as it is wrong: its entropy is near its loss, whatever the text and the
# stage (.92 to 1.04 of it in a small run with a reward beside likelihood). One that only fools the discriminator puts all
# on few tokens and loses many nats with them. Half is far from both; where less than 1 nat is lost, the text is simply known.
COLLAPSED_ENTROPY_SHARE = 0.5
COLLAPSED_ENTROPY_NATS = 1.0
GRADIENT_EXPLOSION = 50.0
# how many step events a verdict looks back on, and the least that a fault needs
RECENT = 5
EVIDENCE = 3


class State(StrEnum):
    """What a verdict says; the first three are no faults."""

    WARMING_UP = "warming up"
    LEARNING = "learning"
    HEALTHY = "healthy"
    NOT_LEARNING = "not learning"
    COLLAPSED = "collapsed"
    GENERATOR_TOO_STRONG = "generator too strong"
    GENERATOR_COLLAPSED = "generator collapsed"
    MASKS_UNEVEN = "masks uneven"
    DIVERGED = "diverged"

    @property
    def is_fault(self) -> bool:
        return self not in (State.WARMING_UP, State.LEARNING, State.HEALTHY)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The state of one network, and the figures that say so."""

    network: str
    state: State
    reason: str


def judge(
    history: Sequence[Mapping[str, Any]],
    networks: Sequence[str],
    *,
    warmup_done: bool,
    unigram_entropy: float | None = None,
) -> list[Verdict]:
    """One verdict for each network from the `step` events so far.

    "discriminator" and "detector" are judged by their gain over the prior, a "generator" that has a `generator_loss` by how
    often it is found out, any other network by the loss that is called after it (`encoder_loss`), else by `mlm_loss`, or by
    `loss` where there is none.
    Only events of the last event's phase count, because the next phase may train other networks. Faults that need no comparison
    with a finished warm-up (non-finite or exploding numbers, uneven masks, nothing to detect, a collapsed generator) are told
    at once.

    Args:
        history: `step` events in order, with `figures`, `grad_norm` by network and `phase`, as emitted or as read from the log;
            the last hundred or so suffice, but the best loss is sought among them.
        networks: names; the one that draws positions (generator, encoder) comes first and gets the verdict on masks.
        warmup_done: verdicts on learning are due.
        unigram_entropy: entropy of single tokens of the corpus in nats: the loss of a model that knows only frequencies.
            Without it a masked language model is never called healthy nor stuck.
    """
    phase = history[-1].get("phase") if history else None
    events = [event for event in history if event.get("phase") == phase]
    verdicts = []
    for network in networks:
        loss = _loss_of(events, network)
        found = _not_finite(events, network, loss)
        if not found and network == "generator":
            found = _low_entropy(events)  # before its loss, which rises with it
        if not found:
            found = _exploded(events, network, loss)
        if not found and network == networks[0]:
            found = _uneven_masks(events)
        if not found and loss == "nce_loss":
            found = _energies(events, warmup_done)
        elif not found and network == "discriminator":
            found = _discriminator(events, warmup_done, unigram_entropy)
        elif not found and network == "detector":
            found = _detector(events, warmup_done)
        elif not found and loss == "generator_loss":
            found = (_latent_generator if _course(events, "fakes_found") else _fooling_generator)(events, warmup_done)
        elif not found and loss != "loss":
            found = _masked_language_model(events, loss, warmup_done, unigram_entropy)
        elif not found:
            found = _supervised(events, warmup_done)
        verdicts.append(Verdict(network=network, state=found[0], reason=found[1]))
    return verdicts


_Found = tuple[State, str]
#: figures that are the loss of one network beside others
_AGAINST_PRIOR = ("rtd_loss", "nce_loss", "detector_loss")


def _course(events: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """The values of a figure in order; the log's `NaN` and `Infinity` become floats again."""
    return [float(event["figures"][name]) for event in events if name in event["figures"]]


def _recent(values: Sequence[float]) -> float:
    """Median of the last few; nan for none."""
    finite = [value for value in values[-RECENT:] if math.isfinite(value)]
    return median(finite) if finite else math.nan


def _best(values: Sequence[float]) -> float:
    """The least median over RECENT neighbours: the best level that was held, not the luckiest batch."""
    return min(_recent(values[start : start + RECENT]) for start in range(max(1, len(values) - RECENT + 1)))


def _loss_of(events: Sequence[Mapping[str, Any]], network: str) -> str:
    """The figure that a network is judged by; only a generator that plays against the discriminator has `generator_loss`."""
    if network == "discriminator":
        return "nce_loss" if _course(events, "nce_loss") else "rtd_loss"
    return next((name for name in (f"{network}_loss", "mlm_loss") if _course(events, name)), "loss")


def _norms(events: Sequence[Mapping[str, Any]], network: str) -> list[float]:
    return [float(event["grad_norm"][network]) for event in events if network in event.get("grad_norm", {})]


def _not_finite(events: Sequence[Mapping[str, Any]], network: str, loss: str) -> _Found | None:
    for name, values in ((loss, _course(events, loss)), ("gradient norm", _norms(events, network))):
        if values and not math.isfinite(values[-1]):
            return State.DIVERGED, f"{name} is {values[-1]}"
    return None


def _low_entropy(events: Sequence[Mapping[str, Any]]) -> _Found | None:
    """The generator is far surer than it is right: it says few tokens, whatever stood there."""
    course = _course(events, "generator_entropy")
    if len(course) < EVIDENCE:
        return None
    entropy, loss, share = _recent(course), _recent(_course(events, "mlm_loss")), _recent(_course(events, "mlm_accuracy"))
    if entropy > COLLAPSED_ENTROPY_SHARE * loss or loss - entropy < COLLAPSED_ENTROPY_NATS:
        return None
    told = f"its entropy is {entropy:.2f} nats where its loss is {loss:.2f} (accuracy {share:.1%})"
    return State.GENERATOR_COLLAPSED, f"it is sure of few tokens, and wrong: {told}"


def _exploded(events: Sequence[Mapping[str, Any]], network: str, loss: str) -> _Found | None:
    """A loss far above its best, or a gradient norm far above its usual size."""
    losses, norms = _course(events, loss), _norms(events, network)
    if len(losses) >= RECENT + EVIDENCE and loss != "generator_loss":  # who plays against another may lose ground
        now, best = _recent(losses), _best(losses)
        limit = best * DIVERGED_FACTOR if loss in (*_AGAINST_PRIOR, "loss") else best + DIVERGED_MLM_NATS
        # a falling share of replaced tokens lowers the loss by itself, so a risen one counts only below the prior
        below_prior = loss not in _AGAINST_PRIOR or _recent(_course(events, "prior_gain")) <= 0
        if now > limit and below_prior and (loss != "loss" or now > losses[0]):
            return State.DIVERGED, f"{loss} {number(now)} has risen from its best, {number(best)}"
    if len(norms) >= 2 * RECENT + EVIDENCE:
        now, usual = _recent(norms), median(norms[:-RECENT])
        if now > GRADIENT_EXPLOSION * usual:
            return State.DIVERGED, f"gradient norm {number(now)}, before {number(usual)}"
    return None


def _uneven_masks(events: Sequence[Mapping[str, Any]]) -> _Found | None:
    """Some part of the row is drawn less than half as often as it should be, over at least EVIDENCE events."""
    shares = {}
    for index in range(POSITION_BINS):
        bars = _course(events, f"{HISTOGRAM_PREFIX}{index:02}")[-4 * RECENT :]
        if len(bars) >= EVIDENCE:
            shares[index] = sum(bars) / len(bars)
    low = {index: share for index, share in shares.items() if share < MIN_UNIFORMITY}
    if not low:
        return None
    least = min(low, key=lambda index: low[index])
    part = f"{least / POSITION_BINS:.0%} to {(least + 1) / POSITION_BINS:.0%}"
    told = f"{len(low)} of {POSITION_BINS} parts of the row are drawn less than half as often as they should be"
    return State.MASKS_UNEVEN, f"{told}, least at {part} of the row ({low[least]:.2f} of its share)"


def _discriminator(events: Sequence[Mapping[str, Any]], warmup_done: bool, unigram_entropy: float | None) -> _Found:
    """Judged by its gain over the prior, once the generator is worth being judged against."""
    names = ("prior_gain", "auc", "replaced_share", "token_rms")
    gain, auc, share, rms = (_recent(_course(events, name)) for name in names)
    if len(events) < EVIDENCE:
        return State.WARMING_UP, "too few figures yet"
    if share < MIN_REPLACED_SHARE:
        return State.GENERATOR_TOO_STRONG, f"only {share:.2%} of the tokens are replaced: there is nothing to detect"
    told = f"prior gain {gain:.3f}, AUC {auc:.3f}"
    if not warmup_done:
        return State.WARMING_UP, told
    if rms <= COLLAPSED_RMS:
        return State.COLLAPSED, f"all tokens of a row look the same: token RMS {number(rms)}"
    if gain <= 0:
        return State.COLLAPSED, f"knows no more than the share of replaced tokens: {told}"
    if gain < HEALTHY_GAIN or auc < HEALTHY_AUC:
        return State.LEARNING, f"{told}; healthy from {HEALTHY_GAIN} and {HEALTHY_AUC:.2f}"
    generator_loss = _recent(_course(events, "mlm_loss"))
    if unigram_entropy is not None and generator_loss >= unigram_entropy:
        return (
            State.LEARNING,
            f"{told}, but against a generator that does not even know token frequencies (loss {generator_loss:.2f})",
        )
    return State.HEALTHY, told + (", good" if auc >= GOOD_AUC else "")


def _energies(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """By the gain over the prior: 0 is what energies earn that say what the noise model says, below it they have yet to get
    there, and against a noise model that knows the text there is no more to be had: none of it is a collapse."""
    gain, auc, rms = (_recent(_course(events, name)) for name in ("prior_gain", "auc", "token_rms"))
    told = f"prior gain {gain:.3f}, AUC {auc:.3f}"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    if rms <= COLLAPSED_RMS:
        return State.COLLAPSED, f"all tokens of a row look the same: token RMS {number(rms)}"
    if gain >= HEALTHY_GAIN and auc >= HEALTHY_AUC:
        return State.HEALTHY, told
    return State.LEARNING, f"{told}: no more yet than the noise model says" if gain <= 0 else told


def _detector(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """Of whole texts, real or fake: as the discriminator by its gain over the prior, in nats per text."""
    gain, auc = (_recent(_course(events, name)) for name in ("prior_gain", "auc"))
    told = f"prior gain {gain:.3f}, AUC {auc:.3f}"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    if gain <= 0:
        return State.NOT_LEARNING, f"knows no more than the share of fake texts: {told}"
    return (State.HEALTHY if gain >= HEALTHY_GAIN and auc >= HEALTHY_AUC else State.LEARNING), told


def _masked_language_model(
    events: Sequence[Mapping[str, Any]], name: str, warmup_done: bool, unigram_entropy: float | None
) -> _Found:
    """A generator or encoder is judged by what it knows beyond the frequencies of tokens."""
    loss, share = (_recent(_course(events, figure)) for figure in (name, name.replace("_loss", "_accuracy")))
    told = f"loss {loss:.2f}, accuracy {share:.1%}"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    if unigram_entropy is None:
        return State.LEARNING, told
    told += f", token frequencies alone {unigram_entropy:.2f}"
    if loss > unigram_entropy - PLATEAU_MARGIN:
        return State.NOT_LEARNING, told
    return (State.HEALTHY if loss < unigram_entropy - GENERATOR_MARGIN else State.LEARNING), told


def _supervised(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """A fine-tuned network: its loss has to fall."""
    losses = _course(events, "loss")
    if len(losses) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, f"loss {number(losses[-1])}" if losses else "too few figures yet"
    now = _recent(losses)
    told = f"loss {number(now)}, at the start {number(losses[0])}"
    return (State.HEALTHY if now < losses[0] else State.NOT_LEARNING), told


def _latent_generator(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """While all fakes are found, or none, they teach the discriminator nothing."""
    found = _recent(_course(events, "fakes_found"))
    told = f"{found:.1%} of the fakes are found, {_recent(_course(events, 'texts_kept')):.1%} of the texts pass"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    return (State.HEALTHY if 1 - MAX_FAKES_FOUND <= found <= MAX_FAKES_FOUND else State.LEARNING), told


def _fooling_generator(events: Sequence[Mapping[str, Any]], warmup_done: bool) -> _Found:
    """Trained on the discriminator's loss alone, so its own likelihood says nothing; found out always, it earns nothing."""
    reward = _recent(_course(events, "reward"))
    told = f"reward {reward:.3f} nats, entropy {_recent(_course(events, 'generator_entropy')):.2f}"
    if len(events) < EVIDENCE or not warmup_done:
        return State.WARMING_UP, told
    return (State.HEALTHY if math.exp(-reward) <= MAX_FAKES_FOUND else State.LEARNING), told
